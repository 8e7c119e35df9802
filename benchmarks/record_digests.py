"""Digests of counts, and models whose counts changed: ``python -m benchmarks.record_digests OLD``.

A change that is to make counts faster leaves every record as it was, and every allocation. The
zoo keeps a digest of both for each model: run it before and after, then compare the two files.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from benchmarks.results import rows_of

if TYPE_CHECKING:
    from graphflops.reports.report import Report

RESULTS = Path(__file__).parent / "results" / "zoo.jsonl"
_SHOWN = ("outcome", "calls", "flops", "digests")


def digests(reports: Iterable[Report]) -> dict[str, str]:
    """Digests of the records of some reports, and of the memory that they allocate.

    Equal in two processes if both have the same hash seed: models iterate over sets.
    """
    records, allocations = hashlib.sha256(), hashlib.sha256()
    for report in reports:
        for record in report.records:
            records.update(repr(record).encode())
        storages = report.capture.storages  # None where nothing is known of the memory
        for item in sorted(map(repr, storages.allocations.items())) if storages else ():
            allocations.update(item.encode())
    return {"records": records.hexdigest()[:16], "allocations": allocations.hexdigest()[:16]}


def main() -> None:
    """Print the models whose counts differ between two files of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path, help="results of `python -m benchmarks.zoo` before")
    parser.add_argument("new", type=Path, nargs="?", default=RESULTS, help="after")
    options = parser.parse_args()
    old, new = (
        {row["name"]: row for row in rows_of(path)[1]} for path in (options.old, options.new)
    )
    both = [name for name in old if name in new]
    changed = {name: found for name in both if (found := _changes(old[name], new[name]))}
    print(tabulate([(n, *row) for n, row in changed.items()], ["model", *_SHOWN]))
    print(f"{len(both)} in both, {len(both) - len(changed)} of them equal")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs in two rows of a model; nothing if all is equal."""
    pairs = [(old.get(key), new.get(key)) for key in _SHOWN]
    if all(before == after for before, after in pairs):
        return []
    return ["" if before == after else f"{before} -> {after}" for before, after in pairs]


if __name__ == "__main__":
    main()
