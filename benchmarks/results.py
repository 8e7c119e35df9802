"""What a run leaves behind: one row per counter and model, and where it was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.models import Placement
from benchmarks.peers import FLOPS_PER_MAC, PEERS


@dataclass(frozen=True, kw_only=True)
class Row:
    """One counter on one model; figures are ``None`` where it failed or does not report them.

    Attributes:
        peer: Key of the counter.
        model: Key of the model.
        placement: Where it succeeded, if it did.
        flops: What it calls FLOPs.
        macs: What it calls MACs.
        attention_macs: Those of the MACs that are fused attention; graphflops only.
        seconds: Median time of a count.
        graphflops_seconds: The same for graphflops, in the same process, taking turns.
        rounds: How many turns there were.
        built_mib: Peak memory of a process that built the model and nothing else.
        peak_mib: Peak memory of that process once it had counted, once.
        failures: Why it failed, by placement.
    """

    peer: str
    model: str
    placement: Placement | None = None
    flops: int | None = None
    macs: int | None = None
    attention_macs: int | None = None
    seconds: float | None = None
    graphflops_seconds: float | None = None
    rounds: int | None = None
    built_mib: float | None = None
    peak_mib: float | None = None
    failures: dict[str, str]

    @property
    def ratio(self) -> float | None:
        """Its time over that of graphflops."""
        if self.seconds is None or self.graphflops_seconds is None:
            return None
        return self.seconds / self.graphflops_seconds

    @property
    def contraction_flops(self) -> int | None:
        """Its number in one unit for all: two FLOPs per multiply-accumulate."""
        if self.macs is not None:
            return FLOPS_PER_MAC * self.macs
        if self.flops is not None:
            return self.flops * FLOPS_PER_MAC // PEERS[self.peer].flops_per_mac
        return None


@dataclass(frozen=True)
class Results:
    """A whole run."""

    environment: dict[str, Any]
    rows: list[Row]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what :meth:`save` wrote."""
        data = json.loads(path.read_text())
        return cls(data["environment"], [Row(**row) for row in data["rows"]])


_MEASURED = {peer.package for peer in PEERS.values()} | {"transformers", "numpy"}


def environment(packages: Iterable[str] = _MEASURED) -> dict[str, Any]:
    """Where, when and with which packages, without names or paths of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "packages": {package: version(package) for package in sorted(packages)},
    }


def rows_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The environment and the rows of a sweep, by name."""
    where, *rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return where, sorted(rows, key=lambda row: str(row["name"]))


def fill(page: Path, mark: str, text: str) -> None:
    """Put text between the marks ``<!-- mark -->`` and ``<!-- /mark -->`` of a page."""
    before, opening, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    _, closing, after = rest.partition(f"<!-- /{mark} -->")
    page.write_text(f"{before}{opening}\n\n{text}\n\n{closing}{after}", encoding="utf-8")
