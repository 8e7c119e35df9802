"""What the elements of fake tensors are, as expressions of their indices."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from graphflops.capture.fake.mask_elements.counting import Mask, count_hidden
from graphflops.capture.fake.mask_elements.expressions import (
    constant,
    index,
    next_table,
    table,
    unknown,
)
from graphflops.capture.fake.mask_elements.rules import RULES, Rule
from graphflops.capture.fake.metadata import dim, schema_of, written_arguments
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.unfused_attention import MASKING
from graphflops.runtime.interruption import raise_interruption

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_MOST = 400
"""Parts of an expression beyond which it is not followed."""
_CONNECTIVES = {"aten::bitwise_and", "aten::bitwise_or", "aten::logical_and", "aten::logical_or"}
HIDES = 0.5
"""Share of the lowest number of a dtype below which an addend hides a score."""


class Elements:
    """The elements of fake tensors, where they follow from positions and from known values.

    Args:
        value: The value of a tensor, if it is known.
        largest: Elements of the largest tensor whose value is computed.
    """

    def __init__(self, value: Callable[[torch.Tensor], torch.Tensor | None], largest: int) -> None:
        self._value, self._largest = value, largest
        self._elements: Any = WeakIdKeyDictionary()
        self._tables: dict[int, torch.Tensor] = {}
        self._of_values: Any = WeakIdKeyDictionary()

    def get(self, tensor: torch.Tensor) -> sympy.Basic | None:
        """The element of a tensor that has no value."""
        return self._elements.get(tensor) if self._elements else None

    def assign(self, tensor: torch.Tensor, element: sympy.Basic | None) -> None:
        """Note what the element of a tensor is."""
        if element is not None:
            self._elements[tensor] = element
        elif self._elements:
            self._elements.pop(tensor, None)

    def assign_ones(self, fake: torch.Tensor, tensor: torch.Tensor) -> None:
        """Note that all elements of a tensor are one, if they are in another."""
        with no_modes():
            if not tensor.is_floating_point() and bool((tensor == 1).all()):
                self.assign(fake, constant(True if tensor.dtype == torch.bool else 1))

    def forget(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Forget what shares memory with the arguments that an operator writes to."""
        if not self._elements:
            return
        names = written_arguments(func)
        written = {
            tensor.untyped_storage()._cdata
            for name, argument in _named(func, args, kwargs)
            if name in names
            for tensor in _tensors(argument)
        }
        for tensor in list(self._elements):
            if tensor.untyped_storage()._cdata in written:
                del self._elements[tensor]

    def follow(
        self, func: Any, out: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> sympy.Basic | None:
        """The element of the result of an operator, if it follows from what is known."""
        rule = RULES.get(func)
        if rule is None or not isinstance(out, torch.Tensor):
            return None
        # Whoever watches functions would watch each attribute of a tensor.
        with torch._C.DisableTorchFunction():
            return self._follow(rule, func, out, (args, kwargs))

    def _follow(
        self, rule: Rule, func: Any, out: torch.Tensor, given: tuple[Any, Mapping[str, Any]]
    ) -> sympy.Basic | None:
        args, kwargs = given
        if not self._matters(func, out, args):
            return None
        found: dict[str, Any] = {}
        for name, argument in _named(func, args, kwargs):
            try:
                found[name] = self._argument(argument)
            except _NotFollowedError:
                return None
        element = None
        with _as_far_as_known():
            element = rule(**self._asked(rule, found, out, args))
        if element is None or _size(element) > _MOST:
            return None
        shape = [*map(dim, reversed(out.shape))]
        single = {index(axis): sympy.Integer(0) for axis, n in enumerate(shape) if n == 1}
        return sympy.sympify(element).xreplace(single)

    def hidden(self, tensor: torch.Tensor) -> Mask | None:
        """How many elements of a mask let nothing through; ``None`` if nothing is known of it."""
        with torch._C.DisableTorchFunction():
            return self._hidden(tensor)

    def _hidden(self, tensor: torch.Tensor) -> Mask | None:
        element = self.get(tensor)
        if element is None and (value := self._value(tensor)) is not None:
            element = self._of_value(value)
        if element is None:
            return None
        lowest = 0.0 if tensor.dtype == torch.bool else _lowest(tensor.dtype)
        mask = None
        with _as_far_as_known():
            mask = count_hidden(element, tuple(map(dim, tensor.shape)), lowest, self._tables)
        return mask  # noqa: RET504 - the block ends where something is not known

    def _matters(self, func: Any, out: torch.Tensor, args: Any) -> bool:
        """Whether a result may be made of positions: most are activations."""
        tensors = list(_tensors(args))
        if self._elements and any(tensor in self._elements for tensor in tensors):
            return True
        # Scores that are masked, and masks of which a part is not known.
        names = MASKING if out.is_floating_point() else _CONNECTIVES
        if func._schema.name in names and any(map(self._is_mask, tensors)):
            return True
        if out.is_floating_point():
            return False
        is_open = out._has_symbolic_sizes_strides or out.numel() > self._largest
        if not (is_open or any(isinstance(leaf, _SYMBOLIC) for leaf in pytree.tree_leaves(args))):
            return False
        return not tensors or any(self._value(tensor) is not None for tensor in tensors)

    def _is_mask(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor may be a mask of scores whose values are known."""
        if tensor.dim() < 2 or not (tensor.dtype == torch.bool or tensor.is_floating_point()):  # noqa: PLR2004 - queries and keys
            return False
        return self._value(tensor) is not None

    def _asked(
        self, rule: Rule, found: Mapping[str, Any], out: torch.Tensor, args: Any
    ) -> dict[str, Any]:
        """What a rule asks for, by name."""
        given = list(_tensors(args))
        beside: dict[str, Any] = {
            "out": lambda: [*map(dim, out.shape)],
            "sizes": lambda: [*map(dim, given[0].shape)],
            "all_sizes": lambda: [[*map(dim, tensor.shape)] for tensor in given],
            "dtype_out": lambda: out.dtype,
            "dtype_in": lambda: given[0].dtype,
        }
        asked: dict[str, Any] = {}
        for name in _parameters(rule):
            schema_name = name.removesuffix("_")
            if name in beside:
                asked[name] = beside[name]()
            elif schema_name in found:
                asked[name] = found[schema_name]
        return asked

    def _argument(self, value: Any) -> Any:
        """An argument as rules take it.

        Raises:
            _NotFollowedError: Nothing is known of it.
        """
        if isinstance(value, torch.Tensor):
            return self._element(value)
        if isinstance(value, torch.SymInt):
            return dim(value)
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        if isinstance(value, bool | float):
            return constant(value)
        if isinstance(value, _SYMBOLIC):
            raise _NotFollowedError
        return value

    def _element(self, tensor: torch.Tensor) -> sympy.Basic:
        element = self.get(tensor)
        if element is None and (value := self._value(tensor)) is not None:
            element = self._of_value(value)
        if element is not None:
            return element
        if tensor.dtype == torch.bool:
            return unknown(truth=True, bound=1)
        if not tensor.is_floating_point():
            raise _NotFollowedError
        # What is learned or computed from data is far from what hides a score.
        return unknown(truth=False, bound=-_lowest(tensor.dtype) / 2)

    def _of_value(self, value: torch.Tensor) -> sympy.Basic | None:
        """An element of a tensor whose values are known."""
        # One made in inference mode does not tell whether it has changed.
        version = None if value.is_inference() else value._version
        known = self._of_values.get(value)
        if known is None or version is None or known[1] != version:
            with no_modes():
                known = self._of_values[value] = (self._read(value), version)
        return known[0]

    def _read(self, value: torch.Tensor) -> sympy.Basic | None:
        pairs = zip(value.shape, value.stride(), strict=True)
        varies = [at for at, (size, stride) in enumerate(pairs) if size != 1 and stride != 0]
        if not value.numel():
            return sympy.Integer(0)
        compact = value[tuple(slice(None) if at in varies else 0 for at in range(value.dim()))]
        first = compact.reshape(-1)[0]
        if bool((compact == first).all()):
            return constant(first.item())
        axes = tuple(value.dim() - 1 - at for at in varies)
        if len(axes) == 1 and not value.is_floating_point() and value.dtype != torch.bool:
            step = int(compact[1] - compact[0])
            if bool((compact.diff() == step).all()):
                return int(first) + step * index(axes[0])
        number = next_table()
        self._tables[number] = compact.clone()
        element = table(number, axes)
        return sympy.Ne(element, 0) if value.dtype == torch.bool else element


class _NotFollowedError(Exception):
    """An argument of which nothing is known."""


@contextlib.contextmanager
def _as_far_as_known() -> Iterator[None]:
    """Let nothing fail: what cannot be computed with expressions is not known."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - sympy has many ways to give up
        raise_interruption(error)


def _lowest(dtype: torch.dtype) -> float:
    """A score with less than this added is hidden."""
    if not dtype.is_floating_point:
        return 0.0
    return float(torch.finfo(dtype).min) * HIDES


def _size(element: sympy.Basic) -> int:
    """Parts of an expression, as far as they matter."""
    size, waiting = 0, [element]
    while waiting and size <= _MOST:
        waiting.extend(waiting.pop().args)
        size += 1
    return size


@cache
def _parameters(rule: Rule) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def _named(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Arguments of an operator by schema name, defaults included."""
    for position, (name, default) in enumerate(schema_of(func)):
        given = args[position] if position < len(args) else kwargs.get(name, default)
        yield name, given


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)
