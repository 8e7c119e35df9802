"""Symbolic sizes: named symbols for axes of the inputs, in the fake mode of a capture.

``torch.export`` makes such symbols itself, names them ``s77`` and refuses a graph that is valid
for only part of a range. Here the inputs are symbolic before the model runs: the names are the
user's, and the guards of the graph can be read as its assumptions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch import nn
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import (
    DimConstraints,
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
)

from graphflops.capture.source_lines import is_model_file, short_path
from graphflops.capture.torch_internals.symbolic import (
    DerivedDim,
    DimHint,
    DimHintType,
    ShapeEnvWithoutFrames,
    StaticDim,
    check_dynamic_shapes,
    constant_source,
    functions,
    tree_map_with_path,
)
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.cost import Dim as Number
from graphflops.core.cost import as_dim
from graphflops.errors import CaptureError, ModelSpecError
from graphflops.runtime.interruption import raise_interruption

Size = int | torch.SymInt
_LARGEST = 2**31 - 1
"""Largest size: ``x[:]`` is all of ``x`` if torch knows that its size, a product of two at most, is
below 2**63."""


class FixedSizeError(CaptureError):
    """A size that is to stay symbolic has one value only."""


class SymbolicShapes(ShapeEnvWithoutFrames):
    """Shape environment with named symbols, without guard checks at the end of a trace.

    Attributes:
        symbols: Named symbols.
        new_symbols: Data-dependent symbols that operators have made and nobody has resolved yet.
        resolve: Function that returns the value of a data-dependent expression that Python reads,
            or an error; None leaves torch's own error.
    """

    def __init__(self) -> None:
        super().__init__(tracked_fakes=[])
        self.symbols = Symbols(self)
        self.new_symbols: list[sympy.Symbol] = []
        self.resolve: Callable[[sympy.Basic], sympy.Basic | Exception | None] = lambda _: None
        self._refusals: list[Exception] = []

    def swallowed_refusals(self) -> list[str]:
        """Return lines of the model that caught the error of an unknown value."""
        lines = []
        for error in self._refusals:
            trace = error.__traceback__  # from the frame that caught it to the one that raised it
            if trace is not None and is_model_file(trace.tb_frame.f_code.co_filename):
                lines.append(f"{short_path(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        return list(dict.fromkeys(lines))

    def evaluate_expr(self, orig_expr: sympy.Basic, *args: Any, **kwargs: Any) -> sympy.Basic:
        """Return the value of a size or a condition.

        Raises:
            FixedSizeError: The condition fixes a size that is to stay symbolic.
        """
        try:
            value = super().evaluate_expr(orig_expr, *args, **kwargs)
        except GuardOnDataDependentSymNode as error:
            value = self.resolve(orig_expr) or error
            if not isinstance(value, Exception):
                return value
            self._refusals.append(value)
            raise value from error
        self.symbols.refuse_fixed()
        return value

    def create_unbacked_symint(self, *args: Any, **kwargs: Any) -> torch.SymInt:
        """Make a data-dependent integer."""
        size = super().create_unbacked_symint(*args, **kwargs)
        self.new_symbols += size.node.expr.free_symbols
        return size

    def create_unbacked_symbool(self) -> torch.SymBool:
        """Make a data-dependent truth value."""
        truth = super().create_unbacked_symbool()
        self.new_symbols += truth.node.expr.free_symbols
        return truth

    def produce_guards(self, *_: Any, **__: Any) -> list[str]:
        """Return no guards: the assumptions of a graph are reported, not solved for its inputs."""
        self.dim_constraints = DimConstraints({}, {}, set(), {})
        return []


class Symbols:
    """Named sizes in a shape environment.

    Attributes:
        shape_env: Shape environment.
        readable: Readable symbol for each symbol of the environment.
        declared: Ranges that the user has given for the sizes.
    """

    def __init__(self, shape_env: ShapeEnv) -> None:
        self.shape_env: Any = shape_env
        self._sizes: dict[str, torch.SymInt] = {}
        self._must_stay_symbolic: set[sympy.Symbol] = set()
        self._assumed: tuple[sympy.Basic, ...] = ()
        self._conditions: dict[sympy.Basic, sympy.Basic] = {}
        self.declared: list[sympy.Basic] = []
        self.readable: dict[sympy.Symbol, sympy.Symbol] = {}

    def size(
        self,
        name: str,
        sample: int,
        lower: int | None = None,
        upper: int | None = None,
        *,
        may_be_fixed: bool = False,
    ) -> Size:
        """Return the symbolic size of a name, shared by all axes of that name.

        Args:
            name: Name in costs.
            sample: Hint: branches on the size are taken as for this value.
            lower: Smallest value.
            upper: Largest value.
            may_be_fixed: True if the model may fix the size to ``sample`` without an error.

        Raises:
            ModelSpecError: ``sample`` is 0 or 1, which graphs are specialized for, or the name has
                another size already.
        """
        if name in self._sizes:
            hint = self._sizes[name].node.hint
            if hint != sample:
                msg = (
                    f"the symbolic size {name} is {hint} in one input and {sample} in another. "
                    "Give the two axes names of their own, or equal sizes."
                )
                raise ModelSpecError(msg)
            return self._sizes[name]
        if sample < 2:  # noqa: PLR2004 - torch treats sizes 0 and 1 as constants
            msg = (
                f"the symbolic size {name} is {sample} in the inputs, and a graph for {sample} is "
                "special: axes of 1 broadcast. Give inputs with at least 2 there."
            )
            raise ModelSpecError(msg)
        source = constant_source(name)
        symbol = self.shape_env.create_symbol(sample, source, DimDynamic.DYNAMIC)
        largest = upper if isinstance(upper, int) else _LARGEST
        self.shape_env.constrain_symbol_range(symbol, max(lower or 2, 2), largest)
        self._sizes[name] = self.shape_env.create_symintnode(symbol, hint=sample, source=source)
        readable = self.readable[symbol] = sympy.Symbol(name, positive=True, integer=True)
        # The user's range of the size is a condition of the costs too.
        self.declared += [readable >= lower] if lower is not None and lower > 2 else []  # noqa: PLR2004 - likewise
        self.declared += [readable <= upper] if isinstance(upper, int) else []
        if not may_be_fixed:
            self._must_stay_symbolic.add(symbol)
        return self._sizes[name]

    def expression(self, value: Number) -> Size:
        """Return the symbolic size of an expression in readable symbols."""
        if isinstance(value, int):
            return value
        symbols = {readable: symbol for symbol, readable in self.readable.items()}
        hints = {name: self._sizes[str(name)].node.hint for name in value.free_symbols}
        hint = int(value.xreplace({name: sympy.Integer(n) for name, n in hints.items()}))
        size: torch.SymInt = self.shape_env.create_symintnode(value.xreplace(symbols), hint=hint)
        return size

    def assume(self, conditions: tuple[sympy.Basic, ...]) -> None:
        """Set conditions that are assumed already, in readable symbols."""
        self._assumed = conditions

    def finalize(self) -> dict[str, Number]:
        """Return the sizes that were fixed, by readable name: numbers or expressions of others."""
        env = self.shape_env
        return {
            self.readable[symbol].name: as_dim(env.replace(symbol).xreplace(self.readable))
            for symbol in env.replacements
            if symbol in self.readable
        }

    def assumptions(self) -> tuple[sympy.Basic, ...]:
        """Return the assumptions of the graph about the sizes, in readable symbols."""
        conditions = [*self._assumed, *self.declared]
        for guard in self.shape_env.guards:
            if guard.expr not in self._conditions:
                self._conditions[guard.expr] = _condition(guard.expr.xreplace(self.readable))
            expr = self._conditions[guard.expr]
            if expr != sympy.true and expr.free_symbols <= set(self.readable.values()):
                conditions.append(expr)
        return tuple(dict.fromkeys(conditions))

    def refuse_fixed(self) -> None:
        """Check that the symbolic sizes have stayed symbolic.

        Raises:
            FixedSizeError: The model takes only one value of a size.
        """
        for symbol in self._must_stay_symbolic:
            value = self.shape_env.replacements.get(symbol, symbol)
            if not value.free_symbols:
                msg = (
                    f"the model works for {self.readable[symbol]} = {value} only: its code or "
                    "another input fixes that size. Leave it out of the symbolic ones."
                )
                raise FixedSizeError(msg)


def _condition(expr: sympy.Basic) -> sympy.Basic:
    """Return a guard as it is reported."""
    # sympy's own Min and Max simplify: 128 n is less than 512 n.
    if expr.has(functions.Min, functions.Max):
        expr = expr.replace(functions.Min, sympy.Min).replace(functions.Max, sympy.Max)
    return expr.canonical if isinstance(expr, sympy.core.relational.Relational) else expr


Specs = dict[int, tuple[Any, ...]]
"""Spec and label of each axis of an input, by the identity of the tensor."""


def axis_specs(model: nn.Module, inputs: tuple[Any, Any], dynamic_shapes: Any) -> Specs:
    """Match ``dynamic_shapes`` with the input tensors.

    Args:
        model: The module whose forward takes the inputs.
        inputs: Positional and keyword inputs.
        dynamic_shapes: Specs as ``torch.export.export`` takes them; a string is the ``Dim`` of that
            name, and inputs without symbolic axes may be left out.

    Raises:
        ModelSpecError: ``dynamic_shapes`` does not match the inputs.
    """
    if dynamic_shapes is None:
        return {}
    specs: Specs = {}

    def add(path: Any, leaf: Any, spec: Any) -> None:
        if isinstance(leaf, torch.Tensor) and spec is not None:
            by_axis = dict(spec.items() if isinstance(spec, Mapping) else enumerate(spec))
            if invalid := [axis for axis in by_axis if axis not in range(leaf.dim())]:
                name = pytree.keystr(path)
                raise ValueError(f"{name} has {leaf.dim()} axes, and none is {invalid[0]!r}")
            label = re.sub(r"\W+", "_", pytree.keystr(path)).strip("_")
            specs[id(leaf)] = tuple(
                (by_axis.get(axis), f"{label}_{axis}") for axis in range(leaf.dim())
            )

    try:
        args, kwargs = inputs
        shapes = pytree.tree_map_only(str, Dim, dynamic_shapes)
        tree: Any = inspect.signature(model.forward).bind_partial(*args).arguments | kwargs
        if isinstance(shapes, Mapping):
            static = {name: pytree.tree_map(lambda _: None, tree[name]) for name in tree}
            shapes = static | {name: spec for name, spec in shapes.items() if spec is not None}
        check_dynamic_shapes(tree, shapes)
        tree = tree if isinstance(shapes, Mapping) else type(shapes)(tree.values())
        tree_map_with_path(add, tree, shapes, tree_name="inputs")
    except Exception as error:
        raise_interruption(error)
        message = str(error).partition("For more information")[0]
        reason = " ".join(message.split()).rstrip(".")
        msg = f"dynamic_shapes does not match the inputs: {reason}. Write it as torch.export does."
        raise ModelSpecError(msg) from error
    return specs


def symbolic_shape(
    symbols: Symbols, tensor: torch.Tensor, spec: tuple[Any, ...]
) -> tuple[Size, ...]:
    """Return the shape of an input, with symbols for the axes that its spec makes symbolic."""
    return tuple(
        _size(symbols, axis_spec, sample, label)
        for (axis_spec, label), sample in zip(spec, tensor.shape, strict=True)
    )


def _size(symbols: Symbols, axis_spec: Any, sample: int, label: str) -> Size:
    if isinstance(axis_spec, DerivedDim):
        # Derived sizes are linear in their root, such as 2 * half + 1.
        offset, slope = axis_spec.fn(0), axis_spec.fn(1) - axis_spec.fn(0)
        size: Size = axis_spec.fn(_size(symbols, axis_spec.root, (sample - offset) // slope, label))
        return size
    if isinstance(axis_spec, Dim) and not isinstance(axis_spec, StaticDim):
        return symbols.size(axis_spec.__name__, sample, axis_spec.min, axis_spec.max)
    if isinstance(axis_spec, DimHint) and axis_spec.type is not DimHintType.STATIC:
        automatic = axis_spec.type is DimHintType.AUTO
        if automatic and sample < 2:  # noqa: PLR2004 - torch treats sizes 0 and 1 as constants
            return sample
        return symbols.size(label, sample, axis_spec.min, axis_spec.max, may_be_fixed=automatic)
    return sample
