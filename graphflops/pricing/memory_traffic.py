"""Rules for memory traffic: bytes that a call reads and writes.

Each operator is taken on its own, as if every input were read from memory and every output
written to it: the unfused bound. A rule is a function of the call; an operator is registered
with exactly one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall, TensorMeta

TrafficRule: TypeAlias = Callable[[OpCall], tuple[Dim, Dim]]
"""Function from a call to ``(bytes read, bytes written)``."""


def _distinct_bytes(tensors: list[TensorMeta]) -> Dim:
    # x * x reads x once: equal names are one tensor.
    unique = {tensor.name or id(tensor): tensor for tensor in tensors}
    return sum((tensor.nbytes for tensor in unique.values()), start=0)


def _written(call: OpCall) -> Dim:
    if call.outputs:
        return sum((tensor.nbytes for tensor in call.outputs), start=0)
    # An in-place operator on a list returns nothing.
    return sum((t.nbytes for name, t in call.tensors() if name in call.writes), start=0)


def read_all_write_all(call: OpCall) -> tuple[Dim, Dim]:
    """Default: every input is read once, every output written once; ``out=`` is not read."""
    return _distinct_bytes([t for name, t in call.tensors() if name != "out"]), _written(call)


def no_traffic(call: OpCall) -> tuple[Dim, Dim]:  # noqa: ARG001 - a rule takes the call
    """Views and metadata: no element moves."""
    return 0, 0


def copy_unless_view(call: OpCall) -> tuple[Dim, Dim]:
    """Operators that return a view where they can and copy where they must."""
    return (0, 0) if call.is_view else read_all_write_all(call)


def read_all_write_all_in_training(call: OpCall) -> tuple[Dim, Dim]:
    """Dropout: in evaluation it returns its input unchanged."""
    return read_all_write_all(call) if call.attrs.get("train") else (0, 0)


def gather_elements(call: OpCall) -> tuple[Dim, Dim]:
    """Lookups: indices are read, and as many elements of the first tensor as the output has."""
    _, *indices = [tensor for _, tensor in call.tensors()]
    return _distinct_bytes(indices) + _written(call), _written(call)


def write_only(call: OpCall) -> tuple[Dim, Dim]:
    """Fills, ranges and random numbers: outputs are written; a tensor for the shape is not read."""
    return 0, _written(call)


def overwrite_target(call: OpCall) -> tuple[Dim, Dim]:
    """Copies into a target: the source is read, the target written but not read."""
    source = [tensor for name, tensor in call.tensors() if name != "self"]
    return _distinct_bytes(source), _written(call)


def scatter_elements(call: OpCall) -> tuple[Dim, Dim]:
    """Scatters: in place, index and source are read, and the source's bytes written.

    The functional form copies the whole target as well.
    """
    if not call.writes:
        return read_all_write_all(call)
    target, *rest = [tensor for _, tensor in call.tensors()]
    source = next((t for t in reversed(rest) if t.dtype == target.dtype), target)
    return _distinct_bytes(rest), source.nbytes
