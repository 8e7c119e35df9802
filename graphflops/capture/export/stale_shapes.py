"""Stale metadata in graphs: that of nodes which a pass has given other arguments.

The nodes of a graph have the metadata of their outputs. A node whose arguments have other shapes
than when it was traced has the old one still, and so have all that follow. The graph is right
throughout if the metadata of each node follows from its operator and the metadata of its
arguments; each distinct call runs once, without data, to tell.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import fx, nn

from graphflops.capture.diagnose import first_line
from graphflops.capture.fake.metadata import dtype_name
from graphflops.capture.torch_internals.dispatch import (
    disable_current_modes,
    is_any_autocast_enabled,
)
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.capture.torch_internals.trees import pytree
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET


def stale_nodes(graph: fx.Graph, *, with_dtypes: bool = True) -> list[str]:
    """Return a description of each node of a graph whose metadata is stale.

    Nodes that call no operator are not checked, nor those whose sizes only data can give.
    Symbolic sizes are checked at the sizes of the trace; no guard is added.

    Args:
        graph: The graph of a module, without its subgraphs.
        with_dtypes: True if dtypes must follow too; under autocast they do not.
    """
    metadata = _Metadata(with_dtypes=with_dtypes and not is_any_autocast_enabled())
    with QUIET.holding(), torch.no_grad():
        problems = ((node, metadata.problem(node)) for node in graph.nodes)
        return [f"{node.name!r} {problem}" for node, problem in problems if problem]


def difference(value: Any, other: Any) -> str:
    """Return how the shapes of a value and of what it should be differ; empty if they agree."""
    try:
        return _difference(_describe(value), _describe(other), with_dtype=False)
    except _UnknownError:
        return ""


class _Tensor(NamedTuple):
    """Metadata of a tensor, its sizes at their hints."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)}{list(self.shape)}"


_Run: TypeAlias = Callable[[OpOverload, Any, Any], Any]


class _UnknownError(Exception):
    """Metadata that is not recorded, or that only data can give."""


class _Metadata:
    """Metadata of the nodes of a graph, as they have it and as it follows from their arguments."""

    def __init__(self, *, with_dtypes: bool) -> None:
        self._with_dtypes = with_dtypes
        self._values: dict[fx.Node, Any] = {}
        self._changed: dict[Any, fx.Node] = {}
        self._fresh: set[Hashable] = set()

    def problem(self, node: fx.Node) -> str:
        """Return why the metadata of a node is stale; empty if it is not, or it cannot be told."""
        if node.op not in {"call_function", "get_attr"} or "val" not in node.meta:
            return ""
        try:
            value = self._value(node)
            call = self._call(node), value
            if call in self._fresh:
                return ""
            # Meta kernels are ten times quicker than fake tensors, and seldom give other shapes.
            for run in (_run_on_meta, _run_on_fakes):
                result = self._follow(node, run)
                results = (_main_result(node.target, item) for item in (value, result))
                if not (problem := _difference(*results, with_dtype=self._with_dtypes)):
                    self._fresh.add(call)
                    break
        except _UnknownError:
            return ""
        finally:
            if _changes_shape(node.target):
                self._changed[node.args[0]] = node
        return problem

    def _call(self, node: fx.Node) -> Hashable:
        """Return a key of the call of a node: equal ones give results of equal metadata."""
        target = node.target
        if node.op == "get_attr":
            return node
        if target is not operator.getitem and not _has_rule(target):
            raise _UnknownError
        return target, self._key(node.args), self._key(tuple(node.kwargs.items()))

    def _follow(self, node: fx.Node, run: _Run) -> Any:
        """Return the metadata that follows from the arguments of a node, or an error."""
        target: Any = node.target
        if node.op == "get_attr":
            return _describe(operator.attrgetter(str(target))(node.graph.owning_module))
        if target is operator.getitem:
            items, index = self._value(node.args[0]), node.args[1]
            return items[index] if _is_sequence(items) and isinstance(index, int) else None
        try:
            return _describe(run(target, *fx.map_arg((node.args, node.kwargs), self._value)))
        except (_UnknownError, NotImplementedError) as error:
            raise _UnknownError from error
        except Exception as error:
            raise_interruption(error)
            if target.namespace not in {"aten", "prims"}:
                raise _UnknownError from error
            return error

    def _value(self, node: Any) -> Any:
        """Return the metadata that a node has."""
        if self._changed:  # in place, by a later node
            node = self._changed.get(node, node)
        if node not in self._values:
            if "val" not in node.meta:
                raise _UnknownError
            self._values[node] = _describe(node.meta["val"])
        return self._values[node]

    def _key(self, argument: Any) -> Hashable:
        if isinstance(argument, fx.Node):
            return self._value(argument)  # type: ignore[no-any-return]  # all are hashable
        if type(argument) in _ATOMS:
            return type(argument), argument  # 1, 1.0 and True are equal
        if isinstance(argument, tuple | list):
            return tuple(map(self._key, argument))
        return type(argument), _describe(argument)


@cache
def _has_rule(target: object) -> bool:
    """Return True for an operator whose arguments, without their data, give the result's shape."""
    return isinstance(target, OpOverload) and not _NEEDS_DATA & set(target.tags)


@cache
def _changes_shape(target: object) -> bool:
    return isinstance(target, OpOverload) and torch.Tag.inplace_view in target.tags


def _run_on_meta(target: OpOverload, args: Any, kwargs: Any) -> Any:
    leaves = pytree.tree_leaves((args, kwargs), is_leaf=_is_tensor)
    if any(isinstance(leaf, torch.device) for leaf in leaves) or not any(map(_is_tensor, leaves)):
        return _run_on_fakes(target, args, kwargs)  # it may make a tensor with data
    with no_modes():
        args, kwargs = pytree.tree_map(_on_meta, (args, kwargs), is_leaf=_is_tensor)
        return target(*args, **kwargs)


def _run_on_fakes(target: OpOverload, args: Any, kwargs: Any) -> Any:
    leaves = filter(_is_tensor, pytree.tree_leaves((args, kwargs), is_leaf=_is_tensor))
    devices = (leaf.device for leaf in leaves if leaf.device.type != "meta")
    device = next(devices, torch.device("meta"))

    def fake(value: Any) -> Any:
        if _is_tensor(value) and value.device.type == "meta":
            value = value._replace(device=device)  # a pass may tell shapes by meta tensors
        return _empty(value)

    with disable_current_modes(), FakeTensorMode():
        args, kwargs = pytree.tree_map(fake, (args, kwargs), is_leaf=_is_tensor)
        return target(*args, **kwargs)


def _is_tensor(value: object) -> bool:
    return isinstance(value, _Tensor)


def _on_meta(value: Any) -> Any:
    return _empty(value._replace(device=torch.device("meta"))) if _is_tensor(value) else value


def _empty(value: Any) -> Any:
    if not isinstance(value, _Tensor):
        return value
    shape, strides, dtype, device = value
    return torch.empty_strided(shape, strides, dtype=dtype, device=device)


def _describe(value: Any) -> Any:
    """Return a value in terms that can be compared, symbolic sizes at their hints.

    Raises:
        _UnknownError: It has a size that only data can give, or is of another kind.
    """
    if type(value) in _PLAIN and value.layout is torch.strided and not value.is_nested:
        shape, strides = value.shape, value.stride()
        if value._has_symbolic_sizes_strides:
            shape, strides = map(_hint, shape), map(_hint, strides)
        return _Tensor(tuple(shape), tuple(strides), value.dtype, value.device)
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return _hint(value)
    if type(value) in _ATOMS:
        return value
    if isinstance(value, tuple | list):
        return tuple(map(_describe, value))
    raise _UnknownError


_PLAIN = {FakeTensor, torch.Tensor, nn.Parameter}
_ATOMS = {
    *(bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
}
_NEEDS_DATA = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


def _hint(size: Any) -> Any:
    if not isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool):
        return size
    if size.node.has_hint():
        return size.node.hint
    raise _UnknownError


def _difference(value: Any, result: Any, *, with_dtype: bool) -> str:
    """Return how the metadata of a node and that of a result differ; empty if they agree."""
    if isinstance(result, Exception):
        return f"does not run on its arguments ({first_line(result)})"
    for actual, expected in zip(_leaves(value), _leaves(result), strict=False):
        if _is_tensor(actual) and _is_tensor(expected):
            is_cast = with_dtype and actual.dtype != expected.dtype
            if is_cast or actual.shape != expected.shape:
                return f"has {actual} and should have {expected}"
    return ""


def _main_result(target: Any, value: Any) -> Any:
    """Return the first of several results: kernels differ in the others, such as workspaces."""
    is_one = not isinstance(target, OpOverload) or len(target._schema.returns) == 1
    if is_one or not _is_sequence(value):
        return value
    return next(filter(_is_tensor, value), None)


def _is_sequence(value: object) -> bool:
    return isinstance(value, tuple) and not isinstance(value, _Tensor)


def _leaves(value: Any) -> Iterator[Any]:
    if _is_sequence(value):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
