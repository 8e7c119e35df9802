"""Files of what was measured on GPUs, counted and predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
COUNTS = RESULTS / "counts.jsonl"
PREDICTIONS = RESULTS / "predictions.jsonl"
CARDS = {"h100": "h100-sxm", "h200": "h200"}
"""Cards by the names of their files, and the names of their devices."""
Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """Return the lines of a file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def measured(card: str) -> list[Record]:
    """Return the rows that were measured on a card."""
    return read(RESULTS / f"{card}.jsonl")
