"""Prices of single nodes and calls, for schedulers and counters that ask operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import optimization_hint

from graphflops.capture.counting_thread import in_counting_thread
from graphflops.capture.export.control_flow import calls_of_graph
from graphflops.capture.fake.metadata import (
    bind_arguments,
    output_metas,
    tensor_meta,
    written_arguments,
)
from graphflops.capture.record.fused_kernels import split_fused
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.capture.torch_internals.operators import OpOverloadPacket, resolve_packet
from graphflops.capture.torch_internals.trees import pytree
from graphflops.conventions.exact import exact
from graphflops.core.ir import OpCall, OpRecord
from graphflops.pricing.price import price, price_all

_UNKNOWN_SIZE = 4096
"""Size that stands for one that torch has no hint of, as in its own estimators."""


@in_counting_thread
def price_node(node: fx.Node) -> tuple[OpRecord, ...]:
    """Return the records of the calls that a node makes, symbolic sizes at torch's hints.

    None for a node that calls no operator, or has no ``meta["val"]``.
    """
    if node.op != "call_function" or "val" not in node.meta:
        return ()
    graph, copies = fx.Graph(), {}
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            copies[source] = graph.node_copy(source)
        else:
            copies[source] = graph.placeholder(source.name)
    copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[node])
    values = {source: source.meta.get("val") for source in copies}
    for source, value in _concrete(values).items():
        copies[source].meta = {**source.meta, "val": value}
    module = fx.GraphModule(node.graph.owning_module or nn.Module(), graph)
    found = calls_of_graph(module, _no_path)
    return tuple(price_all(found.calls, exact(), found.fallback))


def flops_of_call(
    packet: OpOverloadPacket, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> int:
    """Return the FLOPs of a call of a packet; 0 if the overload that it selects has no price."""
    args, kwargs, result = _concrete((args, dict(kwargs), result))
    op = getattr(packet, resolve_packet(packet._qualified_op_name, *args, **kwargs))
    inputs, attrs = bind_arguments(op, args, kwargs, tensor_meta)
    call = OpCall(
        op=op._schema.name,
        overload=op._overloadname,
        inputs=inputs,
        attrs=attrs,
        outputs=output_metas(result, ""),
        writes=written_arguments(op),
    )
    costs = (price(part, exact()).cost for part in split_fused(call))
    return sum(int(cost.flops) for cost in costs if cost is not None)


def _no_path(_: fx.Node) -> None:
    return None


def _concrete(values: Any) -> Any:
    """Return values with hints in place of symbolic sizes; all tensors are fake if one has some."""
    leaves = pytree.tree_leaves(values)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if any(tensor._has_symbolic_sizes_strides for tensor in tensors):
        values = pytree.tree_map_only(torch.Tensor, _concretizer(FakeTensorMode()), values)
    return pytree.tree_map_only(torch.SymInt, _hint, values)


def _concretizer(mode: FakeTensorMode) -> Callable[[torch.Tensor], torch.Tensor]:
    def concrete(tensor: torch.Tensor) -> torch.Tensor:
        shape, strides = map(_hint, tensor.shape), map(_hint, tensor.stride())
        with mode:
            return torch.empty_strided(
                tuple(shape), tuple(strides), dtype=tensor.dtype, device=tensor.device
            )

    return concrete


def _hint(size: int | torch.SymInt) -> int:
    return optimization_hint(size, fallback=_UNKNOWN_SIZE)
