"""From torch's values to ours: tensors to shapes, symbols to sympy, the rest to plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeGuard

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphflops.capture.fake.nested import is_jagged, parts_of
from graphflops.capture.fake.quantized import packed_weight
from graphflops.capture.fake.sparse import storage_of
from graphflops.capture.fake.symbolic_shapes import SymbolicShapes
from graphflops.core.cost import Dim, as_dim
from graphflops.core.ir import TensorMeta, Tensors, Value


def dim(size: int | torch.SymInt) -> Dim:
    """A size as a plain ``int`` or as its sympy expression, in the names of our symbols.

    Only the expression is read: comparing a ``SymInt`` would add a guard and specialize the
    whole program.
    """
    if not isinstance(size, torch.SymInt):
        return int(size)
    expr, env = size.node.expr, size.node.shape_env
    named = isinstance(env, SymbolicShapes)
    return as_dim(expr.xreplace(env.symbols.readable) if named else expr)


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """``torch.bfloat16`` as ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


def tensor_meta(tensor: torch.Tensor, name: str = "") -> TensorMeta:
    """Shape, dtype and strides of a tensor, whatever kind it is."""
    # Sparse and nested tensors have no strides.
    strided = tensor.layout is torch.strided and not tensor.is_nested
    if not strided and is_jagged(tensor):
        return tensor_meta(parts_of(tensor)["values"], name)
    return TensorMeta(
        shape=tuple(map(dim, tensor.shape)),
        dtype=dtype_name(tensor.dtype),
        strides=tuple(map(dim, tensor.stride())) if strided else None,
        name=name,
        sparse=None if strided else storage_of(tensor),
    )


def argument(
    value: Any, describe: Callable[[torch.Tensor], TensorMeta] = tensor_meta
) -> Tensors | Value:
    """An argument of a call: tensors as metadata, symbols as expressions, the rest as data.

    Args:
        value: A node of a graph or a value.
        describe: What to make of a tensor; that of a node goes by the node's name.
    """
    if isinstance(value, fx.Node):
        held = value.meta.get("val")
        return tensor_meta(held, value.name) if isinstance(held, torch.Tensor) else argument(held)
    if isinstance(value, torch.Tensor):
        return describe(value)
    if isinstance(value, list | tuple):
        return tuple(argument(item, describe) for item in value)
    if isinstance(value, torch.ScriptObject) and (weight := packed_weight(value)) is not None:
        return tensor_meta(weight, f"packed {id(value)}")
    return _plain(value)


def bound_arguments(
    op: torch._ops.OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    describe: Callable[[torch.Tensor], TensorMeta] = tensor_meta,
) -> tuple[dict[str, Tensors], dict[str, Value]]:
    """Tensor arguments and all others of a call, by schema name, defaults included."""
    inputs: dict[str, Tensors] = {}
    attrs: dict[str, Value] = {}
    for position, (name, default) in enumerate(schema_of(op)):
        if position < len(args):
            value = argument(args[position], describe)
        elif name in kwargs:
            value = argument(kwargs[name], describe)
        else:
            value = default
        if isinstance(value, TensorMeta) and _reads_values(op):
            given = args[position] if position < len(args) else kwargs[name]
            value = _with_values(value, name, given)
        if holds_tensor(value):
            inputs[name] = value
        else:
            attrs[name] = value
    return inputs, attrs


_MASKS = {"attn_mask", "attn_bias", "bias"}
_STARTS = {"cum_seq_q", "cum_seq_k", "cu_seq_q", "cu_seq_k", "cu_seqlens_q", "cu_seqlens_k"}


@cache
def _reads_values(op: torch._ops.OpOverload) -> bool:
    """Whether what an operator has to do follows from values: masks, and where sequences begin."""
    return "attention" in op._opname or "_attn" in op._opname


def _with_values(meta: TensorMeta, name: str, given: Any) -> TensorMeta:
    """An argument of attention, with what is known of its values."""
    tensor = given.meta.get("val") if isinstance(given, fx.Node) else given
    # A mode of ours has them; a real tensor is a constant of a graph.
    values = getattr(getattr(tensor, "fake_mode", None), "value_tracker", None)
    if values is None:
        return meta
    if name in _MASKS:
        return replace(meta, masked_elements=values.masked_elements(tensor))
    return replace(meta, known_values=values.sequence_starts(tensor)) if name in _STARTS else meta


def masked_output(meta: TensorMeta, result: torch.Tensor) -> TensorMeta:
    """The result of an operator that may mask scores, with how many of them it has hidden."""
    values = getattr(getattr(result, "fake_mode", None), "value_tracker", None)
    if values is None or not result.is_floating_point() or values.elements.get(result) is None:
        return meta
    return replace(meta, masked_elements=values.masked_elements(result) or None)


def _plain(value: Any) -> Value:
    if isinstance(value, torch.SymInt):
        return dim(value)
    if isinstance(value, torch.SymFloat | torch.SymBool):
        return value.node.expr
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    # Devices, layouts and memory formats are of no consequence for a price: their names do.
    simple = value is None or isinstance(value, bool | int | float | complex | str)
    return value if simple else str(value)


def holds_tensor(value: object) -> TypeGuard[Tensors]:
    """Whether a converted argument is a tensor or a list with one."""
    return isinstance(value, TensorMeta) or (
        isinstance(value, tuple) and any(isinstance(item, TensorMeta) for item in value)
    )


def output_metas(value: Any, name: str) -> tuple[TensorMeta, ...]:
    """The tensors a node returns, in order; what is no tensor is left out."""
    if isinstance(value, torch.Tensor):
        return (tensor_meta(value, name),)
    # The name that a getitem on the result will carry is not known here.
    leaves = pytree.tree_leaves(value)  # an operator may return lists among others
    return tuple(tensor_meta(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))


@cache
def schema_of(op: torch._ops.OpOverload) -> tuple[tuple[str, Value], ...]:
    """Argument names of an operator in order, each with its default as plain data."""
    return tuple(
        (arg.name, argument(arg.default_value) if arg.has_default_value() else None)
        for arg in op._schema.arguments
    )


@cache
def written_arguments(op: torch._ops.OpOverload) -> tuple[str, ...]:
    """Names of the arguments the operator writes to."""
    return tuple(
        arg.name
        for arg in op._schema.arguments
        if arg.alias_info is not None and arg.alias_info.is_write
    )
