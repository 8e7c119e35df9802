"""Exported programs in their saved form; the import of this module imports Dynamo."""

from __future__ import annotations

from torch._export.serde import schema, serialize

__all__ = [
    "schema",
    "serialize",
]

PIECES = {
    "schema": "Module of the dataclasses of a saved program.",
    "serialize": "Module that reads and writes saved programs.",
}
"""What each name is, as the test of it says when torch has changed it."""
