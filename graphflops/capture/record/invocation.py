"""Invocations: the operator that a node of a graph calls, unwrapped from other operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from torch import fx

from graphflops.capture.torch_internals.operators import (
    HigherOrderOperator,
    NotView,
    OperatorBase,
    OpOverload,
    OpOverloadPacket,
    get_mutable_args,
    read_view_information_from_args,
    resolve_packet,
)
from graphflops.runtime.interruption import raise_interruption


class Invocation(NamedTuple):
    """Operator with its arguments and its result.

    Tensors are nodes if it was read off a graph, and fake tensors if the operator has run.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any


_Unwrap: TypeAlias = Callable[[Invocation], Invocation | None]


def is_operator(target: object) -> bool:
    """Return True for an operator of ATen or a library, and for an Edge operator."""
    return isinstance(target, OperatorBase | OpOverloadPacket) or _is_edge(target)


def invocation_at(node: fx.Node) -> Invocation:
    """Return the innermost operator that a node calls, and its result.

    For an operator that runs another it is the other one, for a packet the overload that the
    arguments select, for an operator of an Edge dialect the ATen operator.
    """
    invocation = Invocation(node.target, node.args, node.kwargs, node.meta.get("val"))
    while (inner := _unwrap(invocation)) is not None:
        invocation = inner
    return invocation


def node_values(arguments: Any) -> Any:
    """Return arguments with nodes replaced by their values."""
    return fx.map_arg(arguments, lambda node: node.meta.get("val"))


def _unwrap(invocation: Invocation) -> Invocation | None:
    if isinstance(invocation.target, OpOverload):
        return None
    if isinstance(invocation.target, HigherOrderOperator):
        unwrap = _WRAPPERS.get(invocation.target._name)
        return None if unwrap is None else unwrap(invocation)
    if isinstance(invocation.target, OpOverloadPacket):
        return _overload(invocation)
    return (
        invocation._replace(target=invocation.target._op) if _is_edge(invocation.target) else None
    )


def _is_edge(target: object) -> bool:
    # ``_op`` of an ExecuTorch dialect is an ATen overload; that of torch's own classes is C++.
    return isinstance(getattr(target, "_op", None), OpOverload)


def _overload(invocation: Invocation) -> Invocation | None:
    """Return the invocation of the overload of a packet that the arguments select."""
    packet, args, kwargs = (
        invocation.target,
        node_values(invocation.args),
        node_values(invocation.kwargs),
    )
    try:
        name = resolve_packet(packet._qualified_op_name, *args, **kwargs)
    except Exception as error:  # noqa: BLE001 - then it stays a packet, and has no price
        raise_interruption(error)
        return None
    return invocation._replace(target=getattr(packet, name))


def _unwrap_argument(
    position: int, *, skipped: int = 0, first_result: int | None = None
) -> _Unwrap:
    """Return an unwrapper of operators that take an operator and its arguments.

    Args:
        position: Index of the operator among the arguments.
        skipped: Number of arguments after it that are not its own.
        first_result: Index of its first result, if others are returned before.
    """

    def unwrap(invocation: Invocation) -> Invocation:
        op, result = invocation.args[position], invocation.result
        if first_result is not None:
            result = _operator_results(op, result, first_result)
        return Invocation(op, invocation.args[position + 1 + skipped :], invocation.kwargs, result)

    return unwrap


def _unwrap_functionalized(invocation: Invocation) -> Invocation:
    """Unwrap an operator that writes to its arguments, which are keywords."""
    (op,) = invocation.args
    return invocation._replace(
        target=op, args=(), result=_operator_results(op, invocation.result, 0)
    )


def _unwrap_functionalized_views(invocation: Invocation) -> Invocation | None:
    """Unwrap an operator that writes to its arguments, which are described as views of bases."""
    (op,) = invocation.args
    if not isinstance(op, OpOverload):
        return None  # a higher-order operator, which runs a graph
    kwargs = dict(invocation.kwargs)
    bases = kwargs.pop("_all_bases")
    views = read_view_information_from_args(*get_mutable_args(op), kwargs, bases)
    kwargs |= {name: _regenerate_view(view, bases) for name, view in views.items()}
    return Invocation(op, (), kwargs, _operator_results(op, invocation.result, 0))


def _regenerate_view(view: Any, bases: list[fx.Node]) -> Any:
    if isinstance(view, list):
        return [_regenerate_view(item, bases) for item in view]
    if view is None or isinstance(view, NotView):
        return None if view is None else bases[view.base_index]
    sizes = {name: node_values(size) for name, size in vars(view).items()}
    return type(view)(**sizes).regenerate_view(node_values(bases))


def _operator_results(op: Any, results: Any, first: int) -> Any:
    """Return the results of an operator, without others returned by its wrapper."""
    if results is None or not isinstance(op, OpOverload):
        return results
    count = len(op._schema.returns)
    op_results = results[first : first + count]
    return op_results if count > 1 else op_results[0] if count else None


_WRAPPERS: dict[str, _Unwrap] = {
    "auto_functionalized": _unwrap_functionalized,
    "auto_functionalized_v2": _unwrap_functionalized_views,
    "out_dtype": _unwrap_argument(0, skipped=1),
    "with_effects": _unwrap_argument(1, first_result=1),
    "run_and_save_rng_state": _unwrap_argument(0, first_result=1),
    "run_with_rng_state": _unwrap_argument(1),
    "graphsafe_run_with_rng_state": _unwrap_argument(0),
}
"""Unwrappers of operators that run an operator among their arguments, by name."""
