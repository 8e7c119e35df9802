"""Pytree registration of transformers' cache classes."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphflops.capture.torch_internals.trees import pytree
from graphflops.runtime.patches import Patches


def register_caches(model: nn.Module) -> None:
    """Register the cache classes of a transformers model with ``pytree``, which flattens them.

    For other models transformers is not imported: it may be installed but broken.
    """
    if any(base.__module__ == "transformers.modeling_utils" for base in type(model).__mro__):
        from transformers.exporters import exporter_dynamo  # only for models of transformers

        exporter_dynamo.register_cache_pytrees_for_model(model)


class RegisteredClasses:
    """Patch that deregisters, after a count, the cache classes registered during it."""

    def __init__(self) -> None:
        self._registered: set[Any] | None = None

    def install(self, _: Patches) -> None:
        """Record the registered classes."""
        if self._registered is None:
            self._registered = set(pytree.SUPPORTED_NODES)

    def remove(self) -> None:
        """Deregister cache classes that were registered since."""
        if self._registered is not None:
            for cls in set(pytree.SUPPORTED_NODES) - self._registered:
                if cls.__name__.endswith("Cache"):
                    pytree._deregister_pytree_node(cls)
        self._registered = None
