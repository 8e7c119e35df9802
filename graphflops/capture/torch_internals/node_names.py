"""Names of nodes, as FX graphs number them."""

from __future__ import annotations

from torch.fx.graph import _Namespace as Namespace

__all__ = ["Namespace"]

PIECES = {
    "Namespace": "Class of the names in a graph: legal identifiers, each numbered if it is in use.",
}
"""What each name is, as the test of it says when torch has changed it."""


class NodeNames:
    """Unique names of nodes: those that the nodes of an FX graph keep."""

    def __init__(self) -> None:
        self._namespace = Namespace()

    def unique(self, candidate: str) -> str:
        """Return a legal name, numbered if it is in use.

        Example:
            >>> names = NodeNames()
            >>> names.unique("linear"), names.unique("linear"), names.unique("sum")
            ('linear', 'linear_1', 'sum_1')
        """
        return self._namespace.create_name(candidate, None)
