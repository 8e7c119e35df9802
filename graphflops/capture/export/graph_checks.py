"""Checks of graphs that a pass may have broken: what they call must be there and take it."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import fx

from graphflops.capture.named_modules import modules_in
from graphflops.capture.torch_internals.operators import (
    OpOverload,
    OpOverloadPacket,
    allows_numbers,
)
from graphflops.errors import ModelSpecError


def refuse_broken_graph(module: fx.GraphModule) -> None:
    """Refuse a graph that cannot run, whatever its inputs are.

    Raises:
        ModelSpecError: A module contains itself, a node takes a module, parameter or buffer that
            is missing, or what it calls takes other arguments.
    """
    modules_in(module)
    for part in module.modules():
        if not isinstance(part, fx.GraphModule):
            continue
        for node in part.graph.nodes:
            if node.op in {"call_module", "get_attr"}:
                _refuse_missing_target(part, node)
            if problem := _problem(part, node):
                msg = (
                    f"node {node.name!r} of the graph calls {problem}: {node.format_node()}. "
                    "Correct it in the pass that wrote it."
                )
                raise ModelSpecError(msg)


def _refuse_missing_target(module: fx.GraphModule, node: fx.Node) -> None:
    try:
        operator.attrgetter(str(node.target))(module)
    except AttributeError as error:
        msg = (
            f"node {node.name!r} of the graph takes {node.target!r}, which the GraphModule "
            "does not have. Add it under that name, or erase the node; graph.lint() checks "
            "a graph after a pass."
        )
        raise ModelSpecError(msg) from error


def _problem(module: fx.GraphModule, node: fx.Node) -> str:
    """Return what is wrong with the call of a node; empty if nothing is."""
    target, count, keywords = node.target, len(node.args), tuple(node.kwargs)
    if isinstance(target, OpOverload):
        return _mismatch(target, count, keywords) or _not_a_tensor(target, node)
    if isinstance(target, OpOverloadPacket):
        overloads = (getattr(target, name) for name in target.overloads())  # type: ignore[no-untyped-call]  # torch's gap
        problems = [_mismatch(overload, count, keywords) for overload in overloads]
        return problems[0] if all(problems) else ""
    if node.op == "call_function" and not callable(target):
        return f"{target!r}, which is no function"
    if node.op == "call_module":
        called = module.get_submodule(str(target))
        signature = _placeholders(called) if isinstance(called, fx.GraphModule) else None
        return "" if signature is None else _difference(str(target), *signature, count, keywords)
    return ""


def _placeholders(module: fx.GraphModule) -> tuple[list[str], list[str]] | None:
    """Return the inputs of a graph, and those that it must get; ``None`` if it flattens them."""
    nodes = module.graph.find_nodes(op="placeholder")
    names = [str(node.target) for node in nodes]
    if hasattr(module.graph._codegen, "pytree_info") or any(name[0] == "*" for name in names):
        return None
    return names, [name for name, node in zip(names, nodes, strict=True) if not node.args]


@cache
def _mismatch(op: OpOverload, count: int, keywords: tuple[str, ...]) -> str:
    """Return how a number of arguments and some keywords differ from a schema, if they do."""
    arguments = op._schema.arguments
    positional = [arg.name for arg in arguments if not arg.kwarg_only]
    by_keyword = [arg.name for arg in arguments if arg.kwarg_only]
    required = [arg.name for arg in arguments if not arg.has_default_value()]
    return _difference(str(op), positional, required, count, keywords, by_keyword)


def _difference(  # noqa: PLR0913, PLR0917 - the two sides of a call
    name: str,
    positional: list[str],
    required: list[str],
    count: int,
    keywords: tuple[str, ...],
    by_keyword: Sequence[str] = (),
) -> str:
    """Return how the arguments of a call differ from those that are taken, if they do."""
    if count > len(positional):
        return f"{name} with {count} positional arguments, and it takes {len(positional)}"
    for keyword in keywords:
        if keyword in positional[:count]:
            return f"{name} with two values of {keyword!r}"
        if keyword not in {*positional, *by_keyword}:
            return f"{name} with {keyword!r}, which it does not take"
    given = {*positional[:count], *keywords}
    missing = [argument for argument in required if argument not in given]
    return f"{name} without {missing[0]!r}" if missing else ""


def _not_a_tensor(op: OpOverload, node: fx.Node) -> str:
    """Return which argument is no tensor although the schema has one, if there is one."""
    for position, name in _tensor_arguments(op):
        value = node.args[position] if position < len(node.args) else node.kwargs.get(name)
        value = value.meta.get("val", value) if isinstance(value, fx.Node) else value
        if value is None:
            continue  # torch takes it for a tensor that is not there, whatever the schema says
        if not isinstance(value, fx.Node | torch.Tensor) and not (
            _takes_numbers(op) and isinstance(value, int | float | complex | _SYMBOLIC)
        ):
            kind = type(value).__name__
            return f"{op} with a value of type {kind} as {name!r}, which must be a tensor"
    return ""


@cache
def _takes_numbers(op: OpOverload) -> bool:
    """Return True if a number may stand for a tensor: in torch, or in a graph of Inductor."""
    return allows_numbers(op._opname) or torch.Tag.pointwise in op.tags


_SYMBOLIC = torch.SymInt | torch.SymFloat | torch.SymBool


@cache
def _tensor_arguments(op: OpOverload) -> tuple[tuple[int, str], ...]:
    """Return the positions and names of the arguments that must be tensors."""
    return tuple(_tensors(op))


def _tensors(op: OpOverload) -> Iterator[tuple[int, str]]:
    for position, arg in enumerate(op._schema.arguments):
        if isinstance(arg.real_type, torch.TensorType) and not arg.has_default_value():
            yield (len(op._schema.arguments) if arg.kwarg_only else position), arg.name
