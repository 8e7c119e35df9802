"""Caches of transformers, in which tensors are to be found."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphflops.capture.torch_internals.trees import pytree
from graphflops.runtime.patches import Patches


def register_caches(model: nn.Module) -> None:
    """Let tensors be found in the caches that a transformers model takes and returns.

    A model that is none of transformers' asks it for nothing: it may be installed and not work.
    """
    if any(base.__module__ == "transformers.modeling_utils" for base in type(model).__mro__):
        from transformers.exporters import exporter_dynamo  # only if transformers is in use

        exporter_dynamo.register_cache_pytrees_for_model(model)


class RegisteredClasses:
    """Classes that counts let ``pytree`` look into: afterwards they are leaves again."""

    def __init__(self) -> None:
        self._before: set[Any] | None = None

    def install(self, _: Patches) -> None:
        """Note which there are."""
        if self._before is None:
            self._before = set(pytree.SUPPORTED_NODES)

    def remove(self) -> None:
        """Forget those that have come since, if they are caches."""
        if self._before is not None:
            for kind in set(pytree.SUPPORTED_NODES) - self._before:
                if kind.__name__.endswith("Cache"):
                    pytree._deregister_pytree_node(kind)
        self._before = None
