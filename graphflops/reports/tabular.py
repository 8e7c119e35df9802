"""Reports that are tables: as text, Markdown and JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from graphflops.render import data


class TabularReport(ABC):
    """Report that can be printed as tables, and written as Markdown and JSON."""

    @abstractmethod
    def _tables(self, depth: int | None, tablefmt: str, width: int | None) -> str:
        """Return the tables, modules down to ``depth``."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""

    def table(self, depth: int | None = 1, width: int | None = None) -> str:
        """Return the report as plain-text tables.

        Args:
            depth: Levels of modules below the root.
            width: Columns to fit the tables into; by default they are as wide as they are.
        """
        return self._tables(depth, "simple", width)

    def to_markdown(self, depth: int | None = 1) -> str:
        """Return the same as Markdown tables."""
        return self._tables(depth, "github", None)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return data.json_text(self.to_dict())

    def __repr__(self) -> str:
        return self.table()
