"""Model names of the package's own: ``graphflops count example:scan``.

A resolver is two functions. The model is built on the meta device: a count wants no weights.
"""

from collections.abc import Mapping

import torch

from graphflops.errors import ModelSpecError
from graphflops.models import Options, Workload
from graphflops_example.operators import selective_scan

WIDTHS = {"scan": 16, "scan-wide": 64}


class Scan(torch.nn.Module):
    """A selective scan between two projections."""

    def __init__(self, width: int, state: int = 4) -> None:
        super().__init__()
        self.into = torch.nn.Linear(width, 2 * (width + state))
        self.out = torch.nn.Linear(width, width)
        self.A = torch.nn.Parameter(torch.empty(width, state))
        self.sizes = [width, width, state, state]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scan along the second axis of (batch, length, width)."""
        u, delta, B, C = self.into(x).mT.split(self.sizes, dim=1)
        y: torch.Tensor = self.out(selective_scan(u, delta, self.A, B, C).mT)
        return y


def resolve(name: str, options: Options) -> Workload:
    """Build the model that stands after ``example:``, and an input of the sizes asked for."""
    options.forbid("an example model", "image_size", "audio_seconds", "dtype", "overrides")
    if name not in WIDTHS:
        known = ", ".join(f"example:{known}" for known in WIDTHS)
        raise ModelSpecError(f"the example package has no model {name!r}. Known: {known}.")
    width = WIDTHS[name]
    with torch.device("meta"):
        x = torch.empty(options.batch_size or 1, options.seq_len or 128, width)
        return Workload(model=Scan(width), args=(x,))


def known() -> Mapping[str, str]:
    """The names, each with a word on what it is."""
    return {name: f"{width} channels" for name, width in WIDTHS.items()}
