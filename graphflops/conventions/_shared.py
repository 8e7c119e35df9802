"""Functions shared by the conventions of other packages."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from functools import cache

from graphflops.conventions.exact import exact
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, TensorMeta, Tensors
from graphflops.pricing.memory_traffic import copy_unless_view
from graphflops.pricing.price import cost_of
from graphflops.pricing.registry import MANY, Registration


def exact_cost(call: OpCall) -> OpCost:
    """Return the ``exact`` cost of one run of a call; only bytes if ``exact`` has no handler."""
    entry = exact().lookup(call)
    return OpCost().with_bytes(*copy_unless_view(call)) if entry is None else cost_of(call, entry)


def as_dense(call: OpCall) -> OpCall:
    """Return a call with sparse tensors replaced by dense ones of the same shape."""
    if all(tensor.sparse is None for _, tensor in call.tensors()):
        return call
    return replace(call, inputs={name: _dense(value) for name, value in call.inputs.items()})


def _dense(value: Tensors) -> Tensors:
    if isinstance(value, TensorMeta):
        return replace(value, sparse=None)
    return tuple([tensor and replace(tensor, sparse=None) for tensor in value])


def exact_traffic(call: OpCall) -> tuple[Dim, Dim]:
    """Return the bytes of ``exact``: traffic does not depend on how FLOPs are counted."""
    cost = exact_cost(call)
    return cost.bytes_read, cost.bytes_written


_DECOMPOSED = {
    *("convolution", "_softmax", "_log_softmax", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "cudnn_batch_norm"),
    *("_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "miopen_batch_norm"),
    *("_batch_norm_with_update", "_batch_norm_no_update", "_thnn_fused_lstm_cell"),
}
PRODUCTS = {"mm", "addmm", "bmm"}
"""Matrix products: functions of torch, and decompositions of ``linear`` and ``matmul``."""


def entry_if_decomposed(
    call: OpCall, convention: str, further_ops: Container[str] = ()
) -> Registration | None:
    """Return an entry without a price if a call is part of a decomposed torch function.

    Args:
        call: Call.
        convention: Name of a convention that prices calls of torch's functions.
        further_ops: Further operators that it prices differently from the functions that decompose
            into them.
    """
    name = call.op.removeprefix("aten::")
    if name not in _DECOMPOSED and name not in further_ops:
        return None
    if call.torch_function.rpartition(".")[2] == name:
        return None  # a call of the torch function of that name
    reason = (
        f"The graph is decomposed, and the {convention} convention reads the calls of torch's "
        "functions. Count the module, or the program before run_decompositions."
    )
    return Registration(op=call.op, handler=None, traffic=None, reason=reason, origin=__file__)


@cache
def ignored_entry(op: str, reason: str) -> Registration:
    """Return the entry of an operator that a convention ignores: no FLOPs, ``exact`` bytes."""
    return Registration(
        op=op,
        handler=None,
        traffic=exact_traffic,
        reason=reason,
        origin=__file__,
        sparse=MANY,
    )
