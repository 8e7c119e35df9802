"""The autograd engine while it runs."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch._C import _current_autograd_node as current_node
from torch._C import _current_graph_task_id as current_graph_task_id
from torch.autograd.graph import _engine_run_backward as run_backward_engine

next_sequence_number: Any = torch._C._autograd._get_sequence_nr
top_saved_tensors_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks


def saved_tensors(node: Any) -> list[torch.Tensor]:
    """Return the tensors that a node has saved for its backward pass, without hooks on them."""
    node_type: Any = type(node)
    values = [getattr(node, name) for name in _raw_saved_names(node_type)]
    flat = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    return [item.data for item in flat if item.unpack_hook is None]


@cache
def _raw_saved_names(node_type: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(node_type) if name.startswith("_raw_saved_"))


def count_references(tensor: torch.Tensor) -> tuple[int, int]:
    """Return how often C++ refers to a tensor, and to its storage."""
    key = tensor.untyped_storage()._cdata
    return tensor._use_count(), torch._C._storage_Use_Count(key)  # type: ignore[attr-defined]  # torch's gap


__all__ = [
    "count_references",
    "current_graph_task_id",
    "current_node",
    "next_sequence_number",
    "run_backward_engine",
    "saved_tensors",
    "top_saved_tensors_hooks",
]

PIECES = {
    "current_node": "Return the node of the backward graph that runs now, or ``None``.",
    "current_graph_task_id": "Return the number of the backward pass that runs now; -1 "
    "outside of one.",
    "next_sequence_number": "Return the sequence number that the next node of the graph gets.",
    "top_saved_tensors_hooks": "Return the innermost hooks for saved tensors, or ``None``.",
    "saved_tensors": "Return the tensors that a node has saved for its backward pass.",
    "count_references": "Return how often C++ refers to a tensor, and to its storage.",
    "run_backward_engine": "Run the engine: the function in whose frame backward "
    "operators are called.",
}
"""What each name is, as the test of it says when torch has changed it."""
