"""Memory of single operators on a GPU: ``python -m benchmarks.gpu.operators --output DIR``.

A training step of operators that torch decomposes in Python above autograd, on parameters that are
images or rows. ``DIR/operators.json`` has the bytes requested of the allocator at the peak;
``--predict`` sets them, as committed, beside a count on the meta device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

RESULTS = Path(__file__).parents[1] / "results" / "gpu" / "operators.json"
IMAGES, ROWS = (8, 16, 64, 64), (4096, 1024)
Function = Callable[[torch.Tensor], torch.Tensor]


def _resized(mode: str) -> Function:
    return lambda images: functional.interpolate(images, scale_factor=2, mode=mode)


CASES: dict[str, tuple[tuple[int, ...], Function]] = {
    **{
        f"interpolate, {mode}": (IMAGES, _resized(mode))
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
    },
    "hardshrink": (ROWS, functional.hardshrink),
    "softshrink": (ROWS, functional.softshrink),
}


class Step(nn.Module):
    """An operator on a parameter, between two multiplications.

    Args:
        shape: Shape of the parameter.
        function: The operator.
    """

    def __init__(self, shape: tuple[int, ...], function: Function) -> None:
        super().__init__()
        self.values, self.function = nn.Parameter(torch.empty(shape)), function

    def forward(self, scale: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        result = self.function(self.values * scale) * scale
        return result.sum()


def measure(shape: tuple[int, ...], function: Function) -> int:
    """Return the bytes requested of the allocator at the peak of a step."""
    with torch.device("cuda"):
        step, scale = Step(shape, function), torch.ones(())
    step(scale).backward()
    step.values.grad = None
    torch.cuda.synchronize()
    torch.cuda.memory.reset_peak_memory_stats()
    step(scale).backward()
    peak: int = torch.cuda.memory_stats()["requested_bytes.all.peak"]
    return peak


def predict(shape: tuple[int, ...], function: Function) -> int:
    """Return the peak of a count of the same step on the meta device."""
    import graphflops as gf

    with torch.device("meta"):
        step, scale = Step(shape, function), torch.ones(())
    peak: Any = gf.count_training(step, (scale,)).memory.peak
    return int(peak)


def main() -> None:
    """Measure on a GPU, or set what was measured beside counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, metavar="DIR", help="measure, and write here")
    parser.add_argument("--predict", action="store_true", help="print measured and counted")
    options = parser.parse_args()
    if options.output:
        rows = {name: measure(*case) for name, case in CASES.items()}
        found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "peaks": rows}
        (options.output / RESULTS.name).write_text(json.dumps(found, indent=1) + "\n")
    if options.predict:
        peaks = json.loads(RESULTS.read_text("utf-8"))["peaks"]
        for name, case in CASES.items():
            print(f"{name}: {peaks[name]:,} requested, {predict(*case):,} counted")


if __name__ == "__main__":
    main()
