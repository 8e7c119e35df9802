"""Sizes that follow from data, which a count does not have: named, and set to a number."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import dim
from graphflops.capture.fake.symbolic_shapes import Size
from graphflops.capture.source_lines import line_running
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.core.cost import Dim
from graphflops.core.ir import DataSize

_Value: TypeAlias = Callable[[torch.Tensor], torch.Tensor | None]
_NO_BOUND = sys.maxsize - 1
"""What torch has for the largest value of a size where it knows none."""


SUPPOSED, OTHERWISE = 2, 3
"""What a whole number is taken to be that decides nothing, and what it could be as well."""


class UndecidedSizeError(Exception):
    """A size follows from a router's choice, which can be supposed to be even."""


class UnknownValueError(GuardOnDataDependentSymNode):
    """A branch follows from a number that only data can give."""


class DataSizes:
    """Sizes that follow from data in a run.

    Sizes that one operator makes at one line of code, and that are at most the same, go by one
    name: those of the instances of a layer, and of a checkpoint that is run again.

    Attributes:
        found: The sizes so far, by name.
        is_routed: Whether a router has made one-hot rows of choices that nobody knows.
        waits: Whether sizes that come after such a choice are left to be decided otherwise.
    """

    def __init__(
        self,
        mode: FakeTensorMode,
        value: _Value,
        distinct: Callable[[torch.Tensor], int | None],
    ) -> None:
        """Find none yet.

        Args:
            mode: The mode of the fake tensors.
            value: Gives what is known of a tensor's value.
            distinct: Bounds how many distinct values a tensor has, if it can.
        """
        self.found: dict[str, DataSize] = {}
        self._assumed: Mapping[str, int] = {}
        self._supposed = SUPPOSED
        self.is_routed = False
        self.waits = True
        self._value, self._distinct = value, distinct
        self._mode, self._shapes = mode, cast("Any", mode.shape_env)
        self._names: dict[tuple[str, str, Dim | None], str] = {}
        self._open: dict[sympy.Symbol, sympy.Symbol] = {}
        self._numbers: dict[sympy.Symbol, sympy.Integer] = {}

    def begin(self, assumed: Mapping[str, int], supposed: int) -> None:
        """Go by what a user says, and by a number where any would do."""
        self._assumed, self._supposed = assumed, supposed

    def made(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return the result of an operator that is known but for a size; ``None`` of others.

        That is quick: a result with a symbol takes torch twenty times as long.
        """
        rule = _rule_of(func)
        if rule is None or rule.result is None:
            return None
        source = args[0]
        memo = rule.memo if isinstance(source, FakeTensor) else ""
        size: Size | None = getattr(source, memo, None)
        if size is None and rule.known is not None:
            size = rule.known(self._value, *args)
        if size is None:
            largest = rule.largest(*args, **kwargs)
            size = cast("Size", self._decided(name_of(func), largest)[1])
        if memo:
            setattr(source, memo, size)
        with self._mode:
            return rule.result(size, *args)

    def finalize(
        self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any, known: int
    ) -> Any:
        """Return the result of an operator with numbers for the symbols that it has made.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            out: What it has returned.
            known: How many symbols there were before: those around it are another operator's.
        """
        fresh = self._shapes.fresh[known:]
        del self._shapes.fresh[known:]
        tensors = tensors_in(out)
        for symbol in fresh:
            if any(symbol in _symbols(tensor.shape) for tensor in tensors):
                self._settle(symbol, func, self._largest(symbol, func, args, kwargs))
            elif symbol in _symbols([out]):
                self._settle(symbol, func, None)
        if isinstance(out, torch.SymInt | torch.SymBool):
            expr = out.node.expr.xreplace(self._numbers)
            return out if expr.free_symbols else out.node.pytype(expr)
        return pytree.tree_map_only(torch.Tensor, lambda tensor: self._plain(func, tensor), out)

    def whole_number(self) -> int:
        """Return a number where Python asks for one that follows from data.

        If it is not the user's, it is marked: that it decides nothing remains to be seen.
        """
        name, value = self._decided("int", None)
        if value is not None:
            return int(value)
        self.found[name] = replace(self.found[name], value=self._supposed, is_placeholder=True)
        return self._supposed

    def refusal(self, condition: sympy.Basic) -> Exception | None:
        """Return an error that says which sizes decide a condition, if sizes alone do."""
        if not condition.free_symbols <= self._open.keys():
            return None
        readable = condition.xreplace(self._open)
        sizes = [self.found[name] for name in sorted(map(str, readable.free_symbols))]
        origins = ", ".join(f"{size.name} ({size.origin})" for size in sizes)
        msg = (
            f"{readable} decides what runs, and only data can give {origins}. Say what it is: "
            f'assume={{"{sizes[0].name}": 1}}, or --assume {sizes[0].name}=1'
        )
        return UnknownValueError(condition, msg)

    def bounds(self) -> dict[str, int]:
        """Return the largest values of sizes that are open, by name: a check may bound one."""
        uppers = [(size.name, upper_bound(self._shapes, of)) for of, size in self._open.items()]
        return {name: upper for name, upper in uppers if upper is not None}

    def _settle(self, symbol: sympy.Symbol, func: Any, largest: Size | None) -> None:
        """Say what a symbol is from now on: a number, other symbols, or one with a name."""
        name, value = self._decided(name_of(func), largest)
        if value is None:
            open_size = self._open[symbol] = sympy.Symbol(name, integer=True)
            self._shapes.symbols.readable[symbol] = open_size
            return
        if isinstance(value, int):
            self._numbers[symbol] = sympy.Integer(value)
        else:
            torch._check(self._shapes.create_symintnode(symbol, hint=None) == value)  # type: ignore[no-untyped-call]  # torch's gap
        if symbol in self._shapes.pending_fresh_unbacked_symbols:
            # It is no symbol of a graph any more, for which an export would look.
            self._shapes.pending_fresh_unbacked_symbols.remove(symbol)

    def _decided(self, operator: str, largest: Size | None) -> tuple[str, Size | None]:
        """Return the name of a size and what it is, if that is known.

        Raises:
            UndecidedSizeError: It is left to be decided otherwise.
        """
        most = None if largest is None else dim(largest)
        source = line_running()
        name = self._names.setdefault((operator, source, most), f"u{len(self._names)}")
        value = self._assumed.get(name, largest)
        if value is None:
            decided = None
        elif name not in self._assumed and self.is_routed and self.waits:
            raise UndecidedSizeError(f"{operator} gives a size that follows from a router's choice")
        else:
            decided = dim(value)
        size = self.found.get(name) or DataSize(
            name=name, operator=operator, source=source, largest=most, value=decided
        )
        self.found[name] = replace(size, count=size.count + 1)
        return name, value

    def _largest(
        self, symbol: sympy.Symbol, func: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> Size | None:
        """Return the largest value of a size in a result, if there is one."""
        rule = _rule_of(func)
        if rule is not None:
            largest = rule.largest(*args, **kwargs)
            bound = self._distinct(args[0]) if name_of(func) == "aten::unique" else None
            fewer = bound is not None and isinstance(largest, int) and bound < largest
            return bound if fewer else largest
        return upper_bound(self._shapes, symbol)

    def _plain(self, func: Any, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor whose sizes are plain numbers where they are known."""
        shape = [self._number(size) for size in tensor.shape]
        if all(type(a) is type(b) for a, b in zip(tensor.shape, shape, strict=True)):
            return tensor
        stride = [self._number(size) for size in tensor.stride()]
        if func.is_view:
            return tensor.as_strided(shape, stride, tensor.storage_offset())
        return tensor.new_empty_strided(shape, stride)

    def _number(self, size: Size) -> Size:
        if not isinstance(size, torch.SymInt):
            return size
        expr = size.node.expr.xreplace(self._numbers)
        return int(expr) if expr.is_Integer else size


def upper_bound(shapes: Any, symbol: sympy.Symbol) -> int | None:
    """Return the largest value of a symbol in a shape environment, if it knows one."""
    upper = shapes.var_to_range[symbol].upper
    return int(upper) if upper < _NO_BOUND else None


def _symbols(values: Any) -> set[sympy.Basic]:
    """Return the symbols in some sizes."""
    symbolic = torch.SymInt | torch.SymBool
    found = (value.node.expr.free_symbols for value in values if isinstance(value, symbolic))
    return set().union(*found)


class _Rule(NamedTuple):
    """What is known of the one size of an operator's result that follows from data.

    Attributes:
        largest: Its largest value, from the operator's arguments.
        result: The result, from the size and the arguments.
        known: The size, from the values of tensors and the arguments, where those decide it.
        memo: Where torch keeps the size for the next call with the same first argument.
    """

    largest: Callable[..., Size]
    result: Callable[..., Any] | None = None
    known: Callable[..., int | None] | None = None
    memo: str = ""


def _numel(x: torch.Tensor, *_: Any, **__: Any) -> Size:
    return x.numel()


def _numel_of_both(x: torch.Tensor, mask: torch.Tensor) -> Size:
    return math.prod(torch.broadcast_shapes(x.shape, mask.shape))  # type: ignore[no-untyped-call]  # torch's gap


def _boxes(boxes: torch.Tensor, *_: Any) -> Size:
    return boxes.shape[0]


def _indices(size: Size, x: torch.Tensor, *_: Any) -> torch.Tensor:
    shape, stride = (size, x.dim()), (1, size)
    return torch.empty_strided(shape, stride, dtype=torch.int64, device=x.device)


def _elements(size: Size, x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(size, dtype=x.dtype, device=x.device)


def _kept(size: Size, boxes: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(size, dtype=torch.int64, device=boxes.device)


def _labels(_: torch.Tensor, targets: torch.Tensor, *__: Any) -> Size:
    # One row for each sequence, or all in one.
    return targets.shape[-1]


def _longest(value: _Value, _: Any, __: Any, ___: Any, lengths: Any, *____: Any) -> int | None:
    if isinstance(lengths, torch.Tensor):
        known = value(lengths)
        with no_modes():
            return None if known is None else int(known.max())
    longest: int = max(lengths)
    return longest


def _ctc_loss(size: Size, log_probs: torch.Tensor, *__: Any) -> tuple[torch.Tensor, torch.Tensor]:
    steps, batch, _ = log_probs.shape
    return log_probs.new_empty(batch), log_probs.new_empty((batch, steps, 2 * size + 1))


_CALLED = {"aten::_local_scalar_dense": "aten::item", "aten::_unique2": "aten::unique"}
_RULES = {
    "aten::nonzero": _Rule(_numel, _indices, memo="nonzero_memo"),
    "aten::masked_select": _Rule(_numel_of_both, _elements),
    "aten::_unique2": _Rule(_numel),
    "aten::_ctc_loss": _Rule(_labels, _ctc_loss, _longest),
    "torchvision::nms": _Rule(_boxes, _kept),
}


def name_of(func: Any) -> str:
    """Return the name of an operator by which it is called in Python."""
    name: str = func._schema.name
    return _CALLED.get(name, name)


@cache
def _rule_of(func: Any) -> _Rule | None:
    return _RULES.get(func._schema.name)
