"""Symbolic sizes: axes of the inputs that stay letters, made in the fake mode of a capture.

``torch.export`` makes such symbols itself, names them ``s77`` and refuses a graph that holds
for most of a range only. Here the inputs are symbolic before the model runs: names are the
user's, and what a graph takes for granted about them is there to be read.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch import nn
from torch._dynamo.source import ConstantSource
from torch.export import Dim
from torch.export.dynamic_shapes import (
    _check_dynamic_shapes,
    _DerivedDim,
    _DimHint,
    _DimHintType,
    _StaticDim,
    _tree_map_with_path,
)
from torch.fx.experimental.symbolic_shapes import (
    DimConstraints,
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
)
from torch.utils import _pytree as pytree
from torch.utils._sympy import functions as torch_functions
from torch.utils._sympy.numbers import int_oo

from graphflops.capture.source_lines import is_models, short_path
from graphflops.core.cost import Dim as Number
from graphflops.core.cost import as_dim
from graphflops.errors import CaptureError, ModelSpecError
from graphflops.runtime.interruption import raise_interruption

Size = int | torch.SymInt


class SymbolicShapes(ShapeEnv):
    """A shape environment with named symbols, which asks no questions when a trace is done.

    Attributes:
        symbols: The named ones.
        fresh: Symbols that operators have made of data since they were looked at.
        answer: Gives a number that follows from data where Python asks for one, or an error.
    """

    def __init__(self) -> None:
        super().__init__(tracked_fakes=[])
        self.symbols = Symbols(self)
        self.fresh: list[sympy.Symbol] = []
        self.answer: Callable[[sympy.Basic], sympy.Basic | Exception | None] = lambda _: None
        self._refusals: list[Exception] = []

    def caught_by_the_model(self) -> list[str]:
        """Return lines of the model that caught the refusal of a value that nobody knows."""
        found = []
        for error in self._refusals:
            trace = error.__traceback__  # from whoever caught it to where it was raised
            if trace is not None and is_models(trace.tb_frame.f_code.co_filename):
                found.append(f"{short_path(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        return list(dict.fromkeys(found))

    def evaluate_expr(self, orig_expr: sympy.Basic, *args: Any, **kwargs: Any) -> sympy.Basic:
        """Say what a size or a condition is."""
        try:
            return super().evaluate_expr(orig_expr, *args, **kwargs)
        except GuardOnDataDependentSymNode as error:
            answer = self.answer(orig_expr) or error
            if not isinstance(answer, Exception):
                return answer
            self._refusals.append(answer)
            raise answer from error

    def create_unbacked_symint(self, *args: Any, **kwargs: Any) -> torch.SymInt:
        """Make a number that follows from data."""
        size = super().create_unbacked_symint(*args, **kwargs)
        self.fresh += size.node.expr.free_symbols
        return size

    def create_unbacked_symbool(self) -> torch.SymBool:
        """Make a truth value that follows from data."""
        truth = super().create_unbacked_symbool()
        self.fresh += truth.node.expr.free_symbols
        return truth

    def produce_guards(self, *_: Any, **__: Any) -> list[str]:
        """None: what a graph assumes is not solved for inputs it accepts, it is stated."""
        self.dim_constraints = DimConstraints({}, {}, set(), {})
        return []


class Symbols:
    """Named sizes in a shape environment.

    Attributes:
        shapes: The environment.
        readable: Our symbol for each of the environment's.
        declared: The ranges that the user has given for them.
    """

    def __init__(self, shape_env: ShapeEnv) -> None:
        self.shapes: Any = shape_env
        self._sizes: dict[str, torch.SymInt] = {}
        self._firm: set[sympy.Symbol] = set()
        self._given: tuple[sympy.Basic, ...] = ()
        self.declared: list[sympy.Basic] = []
        self.readable: dict[sympy.Symbol, sympy.Symbol] = {}

    def size(
        self,
        name: str,
        sample: int,
        least: int | None = None,
        most: int | None = None,
        *,
        may_be_fixed: bool = False,
    ) -> Size:
        """The symbolic size of a name: one for all axes that share it.

        Args:
            name: What it is called in costs.
            sample: A size it has; a branch on it goes the way it goes for this one.
            least: No smaller size is asked about.
            most: No larger one is.
            may_be_fixed: Whether it is no fault if the model takes no other size.

        Raises:
            ModelSpecError: ``sample`` is 0 or 1, which every graph is special for, or the name
                stands for another size already.
        """
        if name in self._sizes:
            known = self._sizes[name].node.hint
            if known != sample:
                msg = (
                    f"the symbolic size {name} is {known} in one input and {sample} in another. "
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
        source = ConstantSource(name)
        symbol = self.shapes.create_symbol(sample, source, DimDynamic.DYNAMIC)
        self.shapes.constrain_symbol_range(symbol, max(least or 2, 2), most or int_oo)
        self._sizes[name] = self.shapes.create_symintnode(symbol, hint=sample, source=source)
        readable = self.readable[symbol] = sympy.Symbol(name, positive=True, integer=True)
        # What the user said of the size holds of the costs too.
        self.declared += [readable >= least] if least is not None and least > 2 else []  # noqa: PLR2004 - likewise
        self.declared += [readable <= most] if isinstance(most, int) else []
        if not may_be_fixed:
            self._firm.add(symbol)
        return self._sizes[name]

    def expression(self, value: Number) -> Size:
        """A size that is computed from named ones, given in readable names."""
        if isinstance(value, int):
            return value
        ours = {name: symbol for symbol, name in self.readable.items()}
        samples = {name: self._sizes[str(name)].node.hint for name in value.free_symbols}
        hint = int(value.xreplace({name: sympy.Integer(n) for name, n in samples.items()}))
        size: torch.SymInt = self.shapes.create_symintnode(value.xreplace(ours), hint=hint)
        return size

    def assume(self, conditions: tuple[sympy.Basic, ...]) -> None:
        """Add what is taken for granted already, in readable names."""
        self._given = conditions

    def finalize(self) -> dict[str, Number]:
        """What sizes have turned out to be, by readable name: numbers, or what others are."""
        return {
            self.readable[symbol].name: as_dim(self.shapes.replace(symbol).xreplace(self.readable))
            for symbol in self.shapes.replacements
            if symbol in self.readable
        }

    def assumptions(self) -> tuple[sympy.Basic, ...]:
        """What the graph takes for granted about the sizes, in readable names."""
        found = [*self._given, *self.declared]
        for guard in self.shapes.guards:
            expr = guard.expr.xreplace(self.readable)
            # sympy's own Min and Max see that 128 n is less than 512 n.
            expr = expr.replace(torch_functions.Min, sympy.Min)
            expr = expr.replace(torch_functions.Max, sympy.Max)
            expr = expr.canonical if isinstance(expr, sympy.core.relational.Relational) else expr
            if expr != sympy.true and expr.free_symbols <= set(self.readable.values()):
                found.append(expr)
        return tuple(dict.fromkeys(found))

    def refuse_fixed(self) -> None:
        """Check that what was to be symbolic has stayed so.

        Raises:
            CaptureError: The model takes only one size there.
        """
        for symbol in self._firm:
            value = self.shapes.replacements.get(symbol, symbol)
            if not value.free_symbols:
                msg = (
                    f"the model works for {self.readable[symbol]} = {value} only: its code or "
                    "another input fixes that size. Leave it out of the symbolic ones."
                )
                raise CaptureError(msg)


Specs = dict[int, tuple[Any, ...]]
"""What each axis of an input is to be, by the identity of the tensor."""


def axis_specs(model: nn.Module, inputs: tuple[Any, Any], dynamic_shapes: Any) -> Specs:
    """Match ``dynamic_shapes`` with the input tensors.

    Args:
        model: The module whose forward takes the inputs.
        inputs: Positional and keyword inputs.
        dynamic_shapes: As ``torch.export.export`` takes it; a string is the ``Dim`` of that
            name, and inputs without symbolic axes may be left out.

    Raises:
        ModelSpecError: It does not match the inputs.
    """
    if dynamic_shapes is None:
        return {}
    specs: Specs = {}

    def note(path: Any, leaf: Any, spec: Any) -> None:
        if isinstance(leaf, torch.Tensor) and spec is not None:
            given = dict(spec.items() if isinstance(spec, Mapping) else enumerate(spec))
            if absent := [axis for axis in given if axis not in range(leaf.dim())]:
                name = pytree.keystr(path)
                raise ValueError(f"{name} has {leaf.dim()} axes, and none is {absent[0]!r}")
            label = re.sub(r"\W+", "_", pytree.keystr(path)).strip("_")
            specs[id(leaf)] = tuple(
                (given.get(axis), f"{label}_{axis}") for axis in range(leaf.dim())
            )

    try:
        args, kwargs = inputs
        shapes = pytree.tree_map_only(str, Dim, dynamic_shapes)
        tree: Any = inspect.signature(model.forward).bind_partial(*args).arguments | kwargs
        if isinstance(shapes, Mapping):
            left_out = {name: pytree.tree_map(lambda _: None, tree[name]) for name in tree}
            shapes = left_out | {name: spec for name, spec in shapes.items() if spec is not None}
        _check_dynamic_shapes(tree, shapes)
        tree = tree if isinstance(shapes, Mapping) else type(shapes)(tree.values())
        _tree_map_with_path(note, tree, shapes, tree_name="inputs")
    except Exception as error:
        raise_interruption(error)
        said = str(error).partition("For more information")[0]
        reason = " ".join(said.split()).rstrip(".")
        msg = f"dynamic_shapes does not match the inputs: {reason}. Write it as torch.export does."
        raise ModelSpecError(msg) from error
    return specs


def symbolic_shape(
    symbols: Symbols, tensor: torch.Tensor, spec: tuple[Any, ...]
) -> tuple[Size, ...]:
    """The shape of an input, with symbols where its spec wants them."""
    return tuple(
        _size(symbols, wanted, sample, label)
        for (wanted, label), sample in zip(spec, tensor.shape, strict=True)
    )


def _size(symbols: Symbols, wanted: Any, sample: int, label: str) -> Size:
    if isinstance(wanted, _DerivedDim):
        # Derived sizes are linear in their root: 2 * half + 1.
        offset, slope = wanted.fn(0), wanted.fn(1) - wanted.fn(0)
        size: Size = wanted.fn(_size(symbols, wanted.root, (sample - offset) // slope, label))
        return size
    if isinstance(wanted, Dim) and not isinstance(wanted, _StaticDim):
        return symbols.size(wanted.__name__, sample, wanted.min, wanted.max)
    if isinstance(wanted, _DimHint) and wanted.type is not _DimHintType.STATIC:
        automatic = wanted.type is _DimHintType.AUTO
        if automatic and sample < 2:  # noqa: PLR2004 - torch treats sizes 0 and 1 as constants
            return sample
        return symbols.size(label, sample, wanted.min, wanted.max, may_be_fixed=automatic)
    return sample
