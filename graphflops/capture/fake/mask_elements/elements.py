"""Symbolic elements of fake tensors, as expressions of their indices."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import sympy
import torch
from sympy.core.function import AppliedUndef

from graphflops.capture.fake.mask_elements.counting import HiddenCount, count_hidden
from graphflops.capture.fake.mask_elements.expressions import (
    Unknown,
    constant,
    index,
    next_table_id,
    table,
    unknown,
)
from graphflops.capture.fake.mask_elements.ranges import decide_conditions
from graphflops.capture.fake.mask_elements.rules import RULES, Rule
from graphflops.capture.fake.metadata import dim, schema_of, written_tensors
from graphflops.capture.fake.tensor_map import TensorMap
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree
from graphflops.capture.unfused_attention import MASKING
from graphflops.runtime.interruption import raise_interruption

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_MAX_NODES = 400
"""Maximum number of nodes of an expression that is tracked."""
_MAX_UNKNOWNS = 6
"""Maximum number of unknowns in an expression that is tracked: in more it is no mask, but the state
of a scan over time steps."""
_MAX_CASES = 32
"""Maximum number of cases of an expression that is tracked: each has a condition of its own."""
_CONNECTIVES = {"aten::bitwise_and", "aten::bitwise_or", "aten::logical_and", "aten::logical_or"}
_ONES = {"aten::ones", "aten::ones_like", "aten::new_ones"}
"""Operators that make masks which hide nothing, often as floats."""
_HIDING_FRACTION = 0.5
"""Fraction of the lowest number of a dtype below which an addend hides a score."""


class SymbolicElements:
    """Elements of fake tensors that follow from positions and known values.

    Args:
        value: Function that returns the value of a tensor, if it is known.
        max_numel: Largest ``numel`` of a tensor whose value is computed.
    """

    def __init__(
        self, value: Callable[[torch.Tensor], torch.Tensor | None], max_numel: int
    ) -> None:
        self._value, self._max_numel = value, max_numel
        self._elements: TensorMap[sympy.Basic] = TensorMap()
        self._tables: dict[int, torch.Tensor] = {}
        self._value_elements: TensorMap[Any] = TensorMap()

    def get(self, tensor: torch.Tensor) -> sympy.Basic | None:
        """Return the element of a tensor that has no value, if it is known."""
        return self._elements.get(tensor)

    def __bool__(self) -> bool:
        """Return True if the element of any tensor is known."""
        return bool(self._elements)

    @property
    def maps(self) -> tuple[TensorMap[Any], ...]:
        """Maps of the tensors whose element is known."""
        return (self._elements,)

    def follows_from_positions(self, tensor: torch.Tensor) -> bool:
        """Return True if the elements of a tensor follow from their indices and sizes alone."""
        element = self.get(tensor)
        return element is not None and not element.has(Unknown, AppliedUndef)

    def assign(self, tensor: torch.Tensor, element: sympy.Basic | None) -> None:
        """Assign an element to a tensor, or remove it."""
        if element is not None:
            self._elements[tensor] = element
        else:
            self._elements.discard(tensor)

    def assign_ones(self, fake: torch.Tensor, tensor: torch.Tensor) -> None:
        """Assign ones to a fake tensor, if all elements of the real one are."""
        with no_modes():
            if not tensor.is_floating_point() and bool((tensor == 1).all()):
                self.assign(fake, constant(True if tensor.dtype == torch.bool else 1))

    def invalidate(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Remove the tensors that share a storage with the arguments an operator writes to."""
        if not self._elements:
            return
        written = {
            tensor.untyped_storage()._cdata for tensor in written_tensors(func, args, kwargs)
        }
        for tensor in self._elements:
            if tensor.untyped_storage()._cdata in written:
                self._elements.discard(tensor)

    def propagate(
        self, func: Any, out: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> sympy.Basic | None:
        """Return the element of the result of an operator, if it is known."""
        rule = RULES.get(func)
        if rule is None or not isinstance(out, torch.Tensor):
            return None
        # Function modes would intercept each access to an attribute of a tensor.
        with DisableTorchFunction():
            return self._propagate(rule, func, out, (args, kwargs))

    def _propagate(
        self, rule: Rule, func: Any, out: torch.Tensor, arguments: tuple[Any, Mapping[str, Any]]
    ) -> sympy.Basic | None:
        args, kwargs = arguments
        if not self._is_relevant(func, out, args):
            return None
        converted: dict[str, Any] = {}
        for name, argument in _arguments(func, args, kwargs):
            try:
                converted[name] = self._convert(argument)
            except _UnsupportedArgumentError:
                return None
        element = None
        with _suppress_sympy_errors():
            # A rule may return a number.
            element = sympy.sympify(rule(**self._rule_arguments(rule, converted, out, args)))
        if element is None or not _is_small(element):
            return None
        shape = [*map(dim, reversed(out.shape))]
        singletons = {index(axis): sympy.Integer(0) for axis, n in enumerate(shape) if n == 1}
        element = element.xreplace(singletons)
        return element if shape else decide_conditions(element, ())

    def count_hidden(self, tensor: torch.Tensor) -> HiddenCount | None:
        """Return the number of elements of a mask that hide a score, or None if it is unknown."""
        with DisableTorchFunction():
            return self._count_hidden(tensor)

    def _count_hidden(self, tensor: torch.Tensor) -> HiddenCount | None:
        element = self.get(tensor)
        if element is None and (value := self._value(tensor)) is not None:
            element = self._element_of_value(value)
        if element is None:
            return None
        lowest = 0.0 if tensor.dtype == torch.bool else _lowest(tensor.dtype)
        count = None
        with _suppress_sympy_errors():
            count = count_hidden(element, tuple(map(dim, tensor.shape)), lowest, self._tables)
        return count  # noqa: RET504 - the block may end early

    def _is_relevant(self, func: Any, out: torch.Tensor, args: Any) -> bool:
        """Return True if a result may follow from positions; most results are activations."""
        name, is_float = func._schema.name, out.is_floating_point()
        # Masked scores, and masks with an unknown part.
        may_mask = name in (MASKING if is_float else _CONNECTIVES)
        is_activation = is_float and name not in _ONES
        if is_activation and not may_mask and not self._elements:
            return False
        tensors = list(_tensors_in(args))
        if self._elements and any(tensor in self._elements for tensor in tensors):
            return True
        if may_mask and any(map(self._is_mask, tensors)):
            return True
        if is_activation:
            return False
        is_open = out._has_symbolic_sizes_strides or out.numel() > self._max_numel
        if not (is_open or any(isinstance(leaf, _SYMBOLIC) for leaf in pytree.tree_leaves(args))):
            return False
        return not tensors or any(self._value(tensor) is not None for tensor in tensors)

    def _is_mask(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor may be an attention mask, of known values that hide a score."""
        if tensor.dim() < 2 or not (tensor.dtype == torch.bool or tensor.is_floating_point()):  # noqa: PLR2004 - queries and keys
            return False
        value = self._value(tensor)
        if value is None or value.dtype == torch.bool:
            return value is not None
        with no_modes():
            return bool((value <= _lowest(value.dtype)).any())

    def _rule_arguments(
        self, rule: Rule, converted: Mapping[str, Any], out: torch.Tensor, args: Any
    ) -> dict[str, Any]:
        """Return the arguments of a rule, by parameter name."""
        tensors = list(_tensors_in(args))
        metadata: dict[str, Any] = {
            "out": lambda: [*map(dim, out.shape)],
            "sizes": lambda: [*map(dim, tensors[0].shape)],
            "all_sizes": lambda: [[*map(dim, tensor.shape)] for tensor in tensors],
            "dtype_out": lambda: out.dtype,
            "dtype_in": lambda: tensors[0].dtype,
        }
        arguments: dict[str, Any] = {}
        for name in _parameters(rule):
            schema_name = name.removesuffix("_")
            if name in metadata:
                arguments[name] = metadata[name]()
            elif schema_name in converted:
                arguments[name] = converted[schema_name]
        return arguments

    def _convert(self, value: Any) -> Any:
        """Return an argument in the form that rules take.

        Raises:
            _UnsupportedArgumentError: The argument has no such form.
        """
        if isinstance(value, torch.Tensor):
            return self._element(value)
        if isinstance(value, torch.SymInt):
            return dim(value)
        if isinstance(value, list | tuple):
            return [self._convert(item) for item in value]
        if isinstance(value, bool | float):
            return constant(value)
        if isinstance(value, _SYMBOLIC):
            raise _UnsupportedArgumentError
        return value

    def _element(self, tensor: torch.Tensor) -> sympy.Basic:
        element = self.get(tensor)
        if element is None and (value := self._value(tensor)) is not None:
            element = self._element_of_value(value)
        if element is not None:
            return element
        if tensor.dtype == torch.bool:
            return unknown(truth=True, bound=1)
        if not tensor.is_floating_point():
            raise _UnsupportedArgumentError
        # Learned values and those computed from data are far from an addend that hides a score.
        return unknown(truth=False, bound=-_lowest(tensor.dtype) / 2)

    def _element_of_value(self, value: torch.Tensor) -> sympy.Basic | None:
        """Return the element of a tensor whose values are known."""
        # An inference tensor has no version counter.
        version = None if value.is_inference() else value._version
        cached = self._value_elements.get(value)
        if cached is None or version is None or cached[1] != version:
            with no_modes():
                cached = self._value_elements[value] = (self._fit(value), version)
        return cached[0]

    def _fit(self, value: torch.Tensor) -> sympy.Basic | None:
        pairs = zip(value.shape, value.stride(), strict=True)
        varying = [i for i, (size, stride) in enumerate(pairs) if size != 1 and stride != 0]
        if not value.numel():
            return sympy.Integer(0)
        compact = value[tuple(slice(None) if i in varying else 0 for i in range(value.dim()))]
        first = compact.reshape(-1)[0]
        if bool((compact == first).all()):
            return constant(first.item())
        axes = tuple(value.dim() - 1 - i for i in varying)
        if len(axes) == 1 and not value.is_floating_point() and value.dtype != torch.bool:
            step = int(compact[1] - compact[0])
            if bool((compact.diff() == step).all()):
                return int(first) + step * index(axes[0])
        table_id = next_table_id()
        self._tables[table_id] = compact.clone()
        element = table(table_id, axes)
        return sympy.Ne(element, 0) if value.dtype == torch.bool else element


class _UnsupportedArgumentError(Exception):
    """An argument of an operator has no form that rules take."""


@contextlib.contextmanager
def _suppress_sympy_errors() -> Iterator[None]:
    """Suppress errors: an expression that sympy cannot compute is unknown."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - sympy has many ways to give up
        raise_interruption(error)


def _lowest(dtype: torch.dtype) -> float:
    """Return the addend below which a score is hidden."""
    if not dtype.is_floating_point:
        return 0.0
    return float(torch.finfo(dtype).min) * _HIDING_FRACTION


def _is_small(element: sympy.Basic) -> bool:
    """Return True for an expression that is small enough to be tracked."""
    return (
        _num_nodes(element) <= _MAX_NODES
        and _num_cases(element) <= _MAX_CASES
        and len(element.atoms(Unknown)) <= _MAX_UNKNOWNS
    )


def _num_nodes(element: sympy.Basic) -> int:
    """Return the number of nodes of an expression, counted up to the maximum."""
    num_nodes, pending = 0, [element]
    while pending and num_nodes <= _MAX_NODES:
        pending.extend(pending.pop().args)
        num_nodes += 1
    return num_nodes


def _num_cases(element: sympy.Basic) -> int:
    """Return the number of cases of an expression, if all of its piecewise parts are combined."""
    return math.prod(len(piecewise.args) for piecewise in element.atoms(sympy.Piecewise))


@cache
def _parameters(rule: Rule) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def _arguments(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of an operator by schema name, with defaults."""
    for position, (name, default) in enumerate(schema_of(func)):
        yield name, args[position] if position < len(args) else kwargs.get(name, default)


def _tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors_in(item)
