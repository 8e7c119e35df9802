"""Labels of modules in a stack: their name and class."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from graphflops.core.ir import Module


class ModuleLabels:
    """Labels of modules by path.

    Args:
        modules: The modules of a model.

    Example:
        >>> labels = ModuleLabels([Module("layers.0", "Block")])
        >>> labels.of("layers.0")
        ('layers', '0: Block')
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        self._classes = {module.path: module.module_class for module in modules}
        self.of = cache(self._of)

    def _of(self, path: str) -> tuple[str, ...]:
        """Return the labels of a module and those around it, from the outside in."""
        if not path:
            return ()
        parent, _, name = path.rpartition(".")
        module_class = self._classes.get(path)
        return (*self.of(parent), f"{name}: {module_class}" if module_class else name)
