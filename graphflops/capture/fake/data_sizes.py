"""Data-dependent sizes: each has a name and is set to a number, since a count has no data."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from graphflops.capture.fake.distinct_values import DistinctValues
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import dim
from graphflops.capture.fake.symbolic_shapes import Size
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.symbolic import assume_condition
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.cost import Dim
from graphflops.core.ir import DataSize

_ValueLookup: TypeAlias = Callable[[torch.Tensor], torch.Tensor | None]
_NO_BOUND = sys.maxsize - 1
"""Upper bound that torch has for a size without one."""

_INT = "int"
"""Operator that reads an integer in Python."""
PLACEHOLDER_INT, ALTERNATIVE_INT = 2, 3
"""Assumed value of an integer that decides nothing, and another value to check that it does not."""


class UndecidedSizeError(Exception):
    """A size follows from the choices of a router, which may be assumed to be balanced."""


class UnknownValueError(GuardOnDataDependentSymNode):
    """A branch depends on a number that only data can give."""


class DataSizes:
    """Data-dependent sizes of a run.

    Sizes from the same operator, line of code and upper bound share one name: those of the
    instances of a layer, and of a recomputed checkpoint.

    Attributes:
        by_name: Sizes so far, by name.
        has_routing: True if a router has made one-hot rows of unknown choices.
        defers_routing: True if sizes after such a choice raise, to be decided by another strategy.
    """

    def __init__(
        self,
        mode: FakeTensorMode,
        value: _ValueLookup,
        distinct: DistinctValues,
    ) -> None:
        """Start without sizes.

        Args:
            mode: Mode of the fake tensors.
            value: Function that returns the value of a tensor, if it is known.
            distinct: Bounds on the number of distinct values in a tensor.
        """
        self.by_name: dict[str, DataSize] = {}
        self._assume: Mapping[str, int] = {}
        self._placeholder = PLACEHOLDER_INT
        self.has_routing = self._is_preparing = False
        self.defers_routing = True
        self._value, self._distinct = value, distinct
        self._mode, self._shape_env = mode, cast("Any", mode.shape_env)
        self._names: dict[tuple[str, str, Dim | None], str] = {}
        self._open_symbols: dict[sympy.Symbol, sympy.Symbol] = {}
        self._values_of_symbols: dict[sympy.Symbol, sympy.Integer] = {}

    def configure(self, assume: Mapping[str, int], placeholder: int) -> None:
        """Set the sizes that the user gives, and the value of an integer that decides nothing."""
        self._assume, self._placeholder = assume, placeholder

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Mark a pass that is not captured: caches do not depend on the choices of routers."""
        self._is_preparing = True
        try:
            yield
        finally:
            self._is_preparing = False

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return the result of an operator by a rule of ours, or None if it has none.

        A result with a symbol takes torch twenty times as long.
        """
        rule = _rule_of(func)
        if rule is None or rule.result is None:
            return None
        first = args[0]
        memo = rule.memo if isinstance(first, FakeTensor) else ""
        size: Size | None = getattr(first, memo, None)
        if size is None and operator_name(func) == "aten::nonzero":
            size = self._distinct.true_count(first)
        if size is None and rule.exact is not None:
            size = rule.exact(self._value, *args)
        if size is None:
            largest = rule.largest(*args, **kwargs)
            size = cast("Size", self._decide(operator_name(func), largest)[1])
        if memo:
            setattr(first, memo, size)
        with self._mode:
            return rule.result(size, *args)

    def finalize(
        self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any, num_symbols: int
    ) -> Any:
        """Return the result of an operator with numbers for the symbols that it has made.

        Args:
            func: Operator.
            args: Positional arguments.
            kwargs: Keyword arguments.
            out: Result.
            num_symbols: Number of new symbols before the call, which are an enclosing operator's.
        """
        symbols = self._shape_env.new_symbols[num_symbols:]
        del self._shape_env.new_symbols[num_symbols:]
        tensors = tensors_in(out)
        for symbol in symbols:
            if any(symbol in _symbols(tensor.shape) for tensor in tensors):
                self._resolve_symbol(symbol, func, self._upper_bound(symbol, func, args, kwargs))
            elif symbol in _symbols([out]):
                self._resolve_symbol(symbol, func, None)
        if isinstance(out, torch.SymInt | torch.SymBool):
            expr = out.node.expr.xreplace(self._values_of_symbols)
            return out if expr.free_symbols else out.node.pytype(expr)
        return pytree.tree_map_only(
            torch.Tensor, lambda tensor: self._with_known_sizes(func, tensor), out
        )

    def assume_int(self) -> int:
        """Return a value for a data-dependent integer that Python reads.

        A value that the user has not given is marked as a placeholder: the capture has yet to check
        that it decides nothing.
        """
        name, value = self._decide(_INT, None)
        if value is not None:
            return int(value)
        if name in self.by_name:
            self.by_name[name] = replace(
                self.by_name[name], value=self._placeholder, is_placeholder=True
            )
        return self._placeholder

    def refusal(self, condition: sympy.Basic) -> Exception | None:
        """Return an error that names the sizes in a condition, if it depends on nothing else."""
        if not condition.free_symbols <= self._open_symbols.keys():
            return None
        readable = condition.xreplace(self._open_symbols)
        sizes = [self.by_name[name] for name in sorted(map(str, readable.free_symbols))]
        origins = ", ".join(f"{size.name} ({size.origin})" for size in sizes)
        msg = (
            f"{readable} decides what runs, and only data can give {origins}. Say what it is: "
            f'assume={{"{sizes[0].name}": 1}}, or --assume {sizes[0].name}=1'
        )
        return UnknownValueError(condition, msg)

    def bounds(self) -> dict[str, int]:
        """Return the upper bounds of open sizes, by name: a check of the model may bound one."""
        bounds = [
            (size.name, upper_bound(self._shape_env, symbol))
            for symbol, size in self._open_symbols.items()
        ]
        return {name: bound for name, bound in bounds if bound is not None}

    def _resolve_symbol(self, symbol: sympy.Symbol, func: Any, largest: Size | None) -> None:
        """Resolve a symbol to a number, an expression of other symbols, or a named symbol."""
        name, value = self._decide(operator_name(func), largest)
        if value is None:
            open_size = self._open_symbols[symbol] = sympy.Symbol(name, integer=True)
            self._shape_env.symbols.readable[symbol] = open_size
            return
        if isinstance(value, int):
            self._values_of_symbols[symbol] = sympy.Integer(value)
        else:
            assume_condition(self._shape_env.create_symintnode(symbol, hint=None) == value)  # type: ignore[no-untyped-call]  # torch's gap
        if symbol in self._shape_env.pending_fresh_unbacked_symbols:
            # Export would look for the symbol in the graph, where it is not any more.
            self._shape_env.pending_fresh_unbacked_symbols.remove(symbol)

    def _decide(self, operator: str, largest: Size | None) -> tuple[str, Size | None]:
        """Return the name of a size and its value, if it has one.

        Raises:
            UndecidedSizeError: The size is left to another strategy.
        """
        upper = None if largest is None else dim(largest)
        source = current_source_line()
        name = self._names.setdefault((operator, source, upper), f"u{len(self._names)}")
        value = self._assume.get(name, largest)
        if name not in self._assume and self.has_routing:
            if self._is_preparing and (value is not None or operator == _INT):
                return name, value
            if self.defers_routing and not self._is_preparing:
                msg = f"{operator} gives a size that follows from a router's choice"
                raise UndecidedSizeError(msg)
        value_dim = None if value is None else dim(value)
        size = self.by_name.get(name) or DataSize(
            name=name, operator=operator, source=source, largest=upper, value=value_dim
        )
        self.by_name[name] = replace(size, count=size.count + 1)
        return name, value

    def _upper_bound(
        self, symbol: sympy.Symbol, func: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> Size | None:
        """Return the upper bound of a size in a result, if there is one."""
        rule = _rule_of(func)
        if rule is not None:
            largest = rule.largest(*args, **kwargs)
            bound = self._distinct.bound(args[0]) if operator_name(func) == "aten::unique" else None
            is_tighter = bound is not None and isinstance(largest, int) and bound < largest
            return bound if is_tighter else largest
        return upper_bound(self._shape_env, symbol)

    def _with_known_sizes(self, func: Any, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor with plain numbers for its known sizes."""
        shape = [self._to_int(size) for size in tensor.shape]
        if all(type(a) is type(b) for a, b in zip(tensor.shape, shape, strict=True)):
            return tensor
        stride = [self._to_int(size) for size in tensor.stride()]
        if func.is_view:
            return tensor.as_strided(shape, stride, tensor.storage_offset())
        return tensor.new_empty_strided(shape, stride)

    def _to_int(self, size: Size) -> Size:
        if not isinstance(size, torch.SymInt):
            return size
        expr = size.node.expr.xreplace(self._values_of_symbols)
        return int(expr) if expr.is_Integer else size


def upper_bound(shape_env: Any, symbol: sympy.Symbol) -> int | None:
    """Return the upper bound of a symbol in a shape environment, if it has one."""
    upper = shape_env.var_to_range[symbol].upper
    return int(upper) if upper < _NO_BOUND else None


def _symbols(values: Any) -> set[sympy.Basic]:
    """Return the symbols in some sizes."""
    symbolic = torch.SymInt | torch.SymBool
    symbols = (value.node.expr.free_symbols for value in values if isinstance(value, symbolic))
    return set().union(*symbols)


class _Rule(NamedTuple):
    """Rule for the single data-dependent size of an operator's result.

    Attributes:
        largest: Function that returns the upper bound of the size, from the arguments.
        result: Function that returns the result, from the size and the arguments.
        exact: Function that returns the size if known values decide it, from a value lookup and the
            arguments.
        memo: Attribute of the first argument where torch caches the size for the next call.
    """

    largest: Callable[..., Size]
    result: Callable[..., Any] | None = None
    exact: Callable[..., int | None] | None = None
    memo: str = ""


def _numel(x: torch.Tensor, *_: Any, **__: Any) -> Size:
    return x.numel()


def _broadcast_numel(x: torch.Tensor, mask: torch.Tensor) -> Size:
    return math.prod(torch.broadcast_shapes(x.shape, mask.shape))  # type: ignore[no-untyped-call]  # torch's gap


def _num_boxes(boxes: torch.Tensor, *_: Any) -> Size:
    return boxes.shape[0]


def _index_rows(size: Size, x: torch.Tensor, *_: Any) -> torch.Tensor:
    shape, stride = (size, x.dim()), (1, size)
    return torch.empty_strided(shape, stride, dtype=torch.int64, device=x.device)


def _selected_elements(size: Size, x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(size, dtype=x.dtype, device=x.device)


def _kept_boxes(size: Size, boxes: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(size, dtype=torch.int64, device=boxes.device)


def _max_target_length(_: torch.Tensor, targets: torch.Tensor, *__: Any) -> Size:
    # The targets have a row for each sequence, or all sequences in one row.
    return targets.shape[-1]


def _known_target_length(
    value_of: _ValueLookup, _: Any, __: Any, ___: Any, lengths: Any, *____: Any
) -> int | None:
    if isinstance(lengths, torch.Tensor):
        value = value_of(lengths)
        with no_modes():
            return None if value is None else int(value.max())
    longest: int = max(lengths)
    return longest


def _ctc_loss(size: Size, log_probs: torch.Tensor, *__: Any) -> tuple[torch.Tensor, torch.Tensor]:
    steps, batch, _ = log_probs.shape
    return log_probs.new_empty(batch), log_probs.new_empty((batch, steps, 2 * size + 1))


_PUBLIC_NAMES = {"aten::_local_scalar_dense": "aten::item", "aten::_unique2": "aten::unique"}
_RULES = {
    "aten::nonzero": _Rule(_numel, _index_rows, memo="nonzero_memo"),
    "aten::masked_select": _Rule(_broadcast_numel, _selected_elements),
    "aten::_unique2": _Rule(_numel),
    "aten::_ctc_loss": _Rule(_max_target_length, _ctc_loss, _known_target_length),
    "torchvision::nms": _Rule(_num_boxes, _kept_boxes),
}


def operator_name(func: Any) -> str:
    """Return the name of an operator as users call it in Python."""
    name: str = func._schema.name
    return _PUBLIC_NAMES.get(name, name)


@cache
def _rule_of(func: Any) -> _Rule | None:
    return _RULES.get(func._schema.name)
