"""Nested tensors: what torch does beside the operators that it calls on their rows."""

from __future__ import annotations

from graphflops.pricing.memory_traffic import read_all_write_all
from graphflops.pricing.registry import free

free(
    *("aten::_jagged_to_padded_dense_forward", "aten::_padded_dense_to_jagged_forward"),
    reason="copy: rows of sequences with or without padding",
    traffic=read_all_write_all,
)
