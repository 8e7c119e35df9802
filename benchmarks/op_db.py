"""Every operator sample of PyTorch's own tests, priced and held against the prims oracle.

``python -m benchmarks.op_db`` writes ``benchmarks/results/op_db.json``, from which
``python -m benchmarks.operators`` makes the operator reference.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from graphflops.render.data import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "op_db.json"
SAMPLES = 10

# The oracle and the samples belong to the tests.
sys.path.insert(0, str(ROOT / "tests"))

from op_db import DIFFERENT, NOT_TRACEABLE, OPINFOS, check, dtype_of  # noqa: E402 - found above


def main() -> None:
    """Sweep, and write what became of each OpInfo."""
    warnings.filterwarnings("ignore")
    rows = []
    for number, name in enumerate(OPINFOS, start=1):
        print(f"\r{number}/{len(OPINFOS)} {name:<60}", end="", file=sys.stderr)
        rows.append({"name": name, **_row(name)})
    print(file=sys.stderr)
    found = {"environment": environment(), "samples": SAMPLES, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _row(name: str) -> dict[str, Any]:
    if dtype_of(OPINFOS[name]) is None:
        return {"outcome": "no float sample"}
    if name in NOT_TRACEABLE:
        return {"outcome": "not traceable", "reason": NOT_TRACEABLE[name]}
    outcome = check(OPINFOS[name], SAMPLES)
    row: dict[str, Any] = {"samples": outcome.samples, "operators": sorted(outcome.equal)}
    if outcome.failed or outcome.unknown:
        return {**row, "outcome": "failed", "reason": str(outcome.failed or outcome.unknown)}
    if outcome.different:
        reason = DIFFERENT.get(name, outcome.different[0])
        return {**row, "outcome": "different", "reason": reason}
    if outcome.stopped:
        return {**row, "outcome": "no reference", "reason": ", ".join(sorted(outcome.stopped))}
    return {**row, "outcome": "equal" if outcome.samples else "no sample"}


if __name__ == "__main__":
    main()
