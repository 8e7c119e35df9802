"""Caches of transformers, in which tensors are to be found."""

from __future__ import annotations

from torch import nn


def register_caches(model: nn.Module) -> None:
    """Let tensors be found in the caches that a transformers model takes and returns.

    A model that is none of transformers' asks it for nothing: it may be installed and not work.
    """
    if any(base.__module__ == "transformers.modeling_utils" for base in type(model).__mro__):
        from transformers.exporters import exporter_dynamo  # only if transformers is in use

        exporter_dynamo.register_cache_pytrees_for_model(model)
