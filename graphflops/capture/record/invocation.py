"""What a node of a graph calls: often an operator in the hands of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import fx
from torch._higher_order_ops.auto_functionalize import (
    NotView,
    get_mutable_args,
    read_view_information_from_args,
)
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from graphflops.runtime.interruption import raise_interruption


class Invocation(NamedTuple):
    """An operator with its arguments and its result.

    Tensors are nodes in what is read off a graph, and fake where an operator has run.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any


_Unwrap: TypeAlias = Callable[[Invocation], Invocation | None]


def is_operator(target: object) -> bool:
    """Whether a function is an operator of ATen or a library, or stands for one."""
    return isinstance(target, torch._ops.OperatorBase | OpOverloadPacket) or _is_edge(target)


def invocation_at(node: fx.Node) -> Invocation:
    """Return what a node calls in the end, and what that returns.

    Of an operator that runs another it is the other; of a packet the overload that its
    arguments choose; of an operator of an Edge dialect the one of ATen.
    """
    ran = Invocation(node.target, node.args, node.kwargs, node.meta.get("val"))
    while (inner := _inner(ran)) is not None:
        ran = inner
    return ran


def values(arguments: Any) -> Any:
    """Arguments with what nodes stand for in their place."""
    return fx.map_arg(arguments, lambda node: node.meta.get("val"))


def _inner(ran: Invocation) -> Invocation | None:
    if isinstance(ran.target, HigherOrderOperator):
        unwrap = _WRAPPERS.get(ran.target._name)
        return None if unwrap is None else unwrap(ran)
    if isinstance(ran.target, OpOverloadPacket):
        return _overload(ran)
    return ran._replace(target=ran.target._op) if _is_edge(ran.target) else None


def _is_edge(target: object) -> bool:
    # The dialects of ExecuTorch keep an operator of ATen under its name; torch's own keep C++.
    return isinstance(getattr(target, "_op", None), OpOverload)


def _overload(ran: Invocation) -> Invocation | None:
    """Return what is called by the name of several overloads: arguments choose one of them."""
    packet, args, kwargs = ran.target, values(ran.args), values(ran.kwargs)
    try:
        name = torch._C._jit_resolve_packet(packet._qualified_op_name, *args, **kwargs)
    except Exception as error:  # noqa: BLE001 - then it stays what it is, and has no price
        raise_interruption(error)
        return None
    return ran._replace(target=getattr(packet, name))


def _passing(at: int, *, skipped: int = 0, first_result: int | None = None) -> _Unwrap:
    """The operator among the arguments of another, which hands it those that follow.

    Args:
        at: Where it stands.
        skipped: Arguments after it that are not its own.
        first_result: Where its own results begin, if others are returned with them.
    """

    def unwrap(ran: Invocation) -> Invocation:
        op, result = ran.args[at], ran.result
        if first_result is not None:
            result = _own_results(op, result, first_result)
        return Invocation(op, ran.args[at + 1 + skipped :], ran.kwargs, result)

    return unwrap


def _functionalized(ran: Invocation) -> Invocation:
    """Return an operator that writes to its arguments, which are given by name."""
    (op,) = ran.args
    return ran._replace(target=op, args=(), result=_own_results(op, ran.result, 0))


def _functionalized_views(ran: Invocation) -> Invocation | None:
    """Return likewise one whose arguments are given as views of tensors."""
    (op,) = ran.args
    if not isinstance(op, OpOverload):
        return None  # a higher-order operator: what it runs is a graph
    named = dict(ran.kwargs)
    bases = named.pop("_all_bases")
    views = read_view_information_from_args(*get_mutable_args(op), named, bases)
    named |= {name: _viewed(view, bases) for name, view in views.items()}
    return Invocation(op, (), named, _own_results(op, ran.result, 0))


def _viewed(view: Any, bases: list[fx.Node]) -> Any:
    if isinstance(view, list):
        return [_viewed(each, bases) for each in view]
    if view is None or isinstance(view, NotView):
        return None if view is None else bases[view.base_index]
    sizes = {name: values(size) for name, size in vars(view).items()}
    return type(view)(**sizes).regenerate_view(values(bases))


def _own_results(op: Any, results: Any, first: int) -> Any:
    """Return what an operator returns, of what is returned for it."""
    if results is None or not isinstance(op, OpOverload):
        return results
    count = len(op._schema.returns)
    own = results[first : first + count]
    return own if count > 1 else own[0] if count else None


_WRAPPERS: dict[str, _Unwrap] = {
    "auto_functionalized": _functionalized,
    "auto_functionalized_v2": _functionalized_views,
    "out_dtype": _passing(0, skipped=1),
    "with_effects": _passing(1, first_result=1),
    "run_and_save_rng_state": _passing(0, first_result=1),
    "run_with_rng_state": _passing(1),
    "graphsafe_run_with_rng_state": _passing(0),
}
"""Operators that run one that is among their arguments, by name."""
