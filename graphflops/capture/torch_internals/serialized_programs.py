"""Exported programs: their saved form, and the order of their inputs."""

from __future__ import annotations

from torch._export.serde import schema, serialize
from torch.export._tree_utils import reorder_kwargs

__all__ = [
    "reorder_kwargs",
    "schema",
    "serialize",
]

PIECES = {
    "schema": "Module of the dataclasses of a saved program.",
    "serialize": "Module that reads and writes saved programs.",
    "reorder_kwargs": "Return keyword inputs in the order of a program's input spec.",
}
"""What each name is, as the test of it says when torch has changed it."""
