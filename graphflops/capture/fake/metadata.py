"""Conversion of torch values: tensors to metadata, symbols to sympy, all others to plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeGuard

import torch
from torch import fx

from graphflops.capture.fake.leaves import is_real, tensors_in
from graphflops.capture.fake.nested_tensors import components, is_jagged
from graphflops.capture.fake.quantization import packed_weight
from graphflops.capture.fake.sparse_tensors import sparse_storage
from graphflops.capture.fake.symbolic_shapes import SymbolicShapes
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.cost import Dim, as_dim
from graphflops.core.ir import TensorMeta, Tensors, Value
from graphflops.errors import CaptureError


def dim(size: int | torch.SymInt) -> Dim:
    """Return a size as a plain ``int`` or as its sympy expression in readable symbols.

    Only the expression is read: comparing a ``SymInt`` would add a guard and specialize the
    whole program.

    Raises:
        CaptureError: It is a difference of data-dependent sizes of one name.
    """
    if not isinstance(size, torch.SymInt):
        return int(size)
    expr, shape_env = size.node.expr, size.node.shape_env
    if not isinstance(shape_env, SymbolicShapes):
        return as_dim(expr)
    readable = shape_env.symbols.readable
    named = expr.xreplace(readable)
    if lost := {readable.get(s, s) for s in expr.free_symbols} - named.free_symbols:
        msg = (
            f"a size is the difference of numbers that only data can give, and one line reads "
            f"several of them: {', '.join(map(str, lost))}. Give values to the inputs from which "
            "they follow, or read them on lines of their own."
        )
        raise CaptureError(msg)
    return as_dim(named)


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype: ``"bfloat16"`` for ``torch.bfloat16``."""
    return str(dtype).removeprefix("torch.")


def tensor_meta(tensor: torch.Tensor, name: str = "", storage: str = "") -> TensorMeta:
    """Return the shape, dtype and strides of a tensor of any layout."""
    # Sparse and nested tensors have no strides.
    is_strided = tensor.layout is torch.strided and not tensor.is_nested
    if not is_strided and is_jagged(tensor):
        return tensor_meta(components(tensor)["values"], name, storage)
    convert = dim if tensor._has_symbolic_sizes_strides else int
    return TensorMeta(
        shape=tuple(map(convert, tensor.shape)),
        dtype=dtype_name(tensor.dtype),
        strides=tuple(map(convert, tensor.stride())) if is_strided else None,
        name=name,
        sparse=None if is_strided else sparse_storage(tensor),
        storage=storage,
    )


_PLAIN = {type(None), bool, int, float, complex, str}
_DESCRIBED = (torch.Tensor, fx.Node)


def convert_argument(
    value: Any, describe: Callable[[Any], Tensors | Value] = tensor_meta
) -> Tensors | Value:
    """Return an argument of a call: metadata for tensors, expressions for symbols, plain data.

    Args:
        value: A node of a graph or a value.
        describe: Function that returns the metadata of a tensor, or the value of a node.
    """
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]  # its type is tested
    if isinstance(value, _DESCRIBED):
        return describe(value)
    if isinstance(value, list | tuple):
        return tuple(convert_argument(item, describe) for item in value)
    if isinstance(value, torch.ScriptObject) and (weight := packed_weight(value)) is not None:
        return tensor_meta(weight, f"packed {id(value)}")
    return _plain(value)


def bind_arguments(
    op: OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    describe: Callable[[Any], Tensors | Value],
) -> tuple[dict[str, Tensors], dict[str, Value]]:
    """Return the tensor arguments and the others of a call, by schema name, with defaults."""
    inputs: dict[str, Tensors] = {}
    attrs: dict[str, Value] = {}
    count, with_values = len(args), reads_known_values(op)
    for position, (name, default) in enumerate(schema_of(op)):
        if position >= count and name not in kwargs:
            attrs[name] = default
            continue
        argument = args[position] if position < count else kwargs[name]
        value = convert_argument(argument, describe)
        if with_values and isinstance(value, TensorMeta):
            value = _with_values(value, name, argument)
        if holds_tensor(value):
            inputs[name] = value
        else:
            attrs[name] = value
    return inputs, attrs


_MASKS = {"attn_mask", "attn_bias", "bias"}
_SEQUENCE_OFFSETS = {
    "cum_seq_q",
    "cum_seq_k",
    "cu_seq_q",
    "cu_seq_k",
    "cu_seqlens_q",
    "cu_seqlens_k",
}


VALUED_ARGUMENTS = _MASKS | _SEQUENCE_OFFSETS
"""Names of the arguments of attention whose values decide its work."""


@cache
def reads_known_values(op: OpOverload) -> bool:
    """Return True if the work of an operator depends on values: masks or sequence offsets."""
    return "attention" in op._opname or "_attn" in op._opname


def _with_values(meta: TensorMeta, name: str, value: Any) -> TensorMeta:
    """Return the metadata of an argument of attention, with its known values."""
    tensor = value.meta.get("val") if isinstance(value, fx.Node) else value
    masks = _masks_of(tensor)
    if masks is None:
        return meta
    if name in _MASKS:
        return replace(meta, masked_elements=masks.masked_elements(tensor))
    if name in _SEQUENCE_OFFSETS:
        return replace(meta, known_values=masks.sequence_starts(tensor))
    return meta


def _masks_of(tensor: Any) -> Any:
    """Return what knows the masks among fake tensors: a capture, or a graph made from one."""
    # Only modes of ours do; a real tensor is a constant of a graph.
    mode = getattr(tensor, "fake_mode", None)
    return getattr(mode, "value_tracker", None) or getattr(mode, "recorded_masks", None)


def known_value(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a copy of the value of a tensor, if it is known; a real one is its own."""
    tracker = getattr(getattr(tensor, "fake_mode", None), "value_tracker", None)
    if tracker is None:
        return tensor if is_real(tensor) else None
    value = tracker.value(tensor)
    with no_modes():
        return None if value is None else value.clone()


def masked_output(meta: TensorMeta, result: torch.Tensor) -> TensorMeta:
    """Return the metadata of a result that may be masked scores, with the number of masked ones."""
    masks = _masks_of(result)
    if masks is None or not result.is_floating_point() or masks.elements.get(result) is None:
        return meta
    return replace(meta, masked_elements=masks.masked_elements(result) or None)


def _plain(value: Any) -> Value:
    if isinstance(value, torch.SymInt):
        return dim(value)
    if isinstance(value, torch.SymFloat | torch.SymBool):
        return value.node.expr
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    # Devices, layouts and memory formats do not affect a price: their names suffice.
    return value if isinstance(value, int | float | complex | str) else str(value)


def holds_tensor(value: object) -> TypeGuard[Tensors]:
    """Return True for a converted argument that is a tensor or a list with one."""
    return type(value) is TensorMeta or (
        isinstance(value, tuple) and any(type(item) is TensorMeta for item in value)
    )


def output_metas(value: Any, name: str) -> tuple[TensorMeta, ...]:
    """Return the tensors that a node returns, in order, without other values."""
    if isinstance(value, torch.Tensor):
        return (tensor_meta(value, name),)
    # The name of the getitem node on the result is not known here.
    leaves = pytree.tree_leaves(value)  # an operator may return lists among others
    return tuple(tensor_meta(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))


@cache
def schema_of(op: OpOverload) -> tuple[tuple[str, Value], ...]:
    """Return the argument names of an operator in order, with their defaults as plain data."""
    return tuple(
        (arg.name, convert_argument(arg.default_value) if arg.has_default_value() else None)
        for arg in op._schema.arguments
    )


@cache
def written_arguments(op: OpOverload) -> tuple[str, ...]:
    """Return the names of the arguments that an operator writes to."""
    return tuple(
        arg.name
        for arg in op._schema.arguments
        if arg.alias_info is not None and arg.alias_info.is_write
    )


def written_tensors(op: OpOverload, args: Any, kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return the tensors that a call of an operator writes to."""
    names = written_arguments(op)
    return tensors_in(
        [
            args[position] if position < len(args) else kwargs.get(name)
            for position, (name, _) in enumerate(schema_of(op))
            if name in names
        ]
    )
