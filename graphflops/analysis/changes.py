"""Changes between two reports: of a figure, a pass, a module, an operator or a call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import sympy

from graphflops.analysis.own_calls import PassCall
from graphflops.core.cost import Dim, OpCost, as_dim
from graphflops.core.ir import OpCall, OpRecord

Kind: TypeAlias = Literal["added", "removed", "changed", "renamed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureChange:
    """A figure of two reports.

    Attributes:
        before: Its value in the first.
        after: Its value in the second.

    Example:
        >>> change = FigureChange(before=200, after=201)
        >>> change.difference, change.percent
        (1, 0.5)
    """

    before: Dim
    after: Dim

    @property
    def difference(self) -> Dim:
        """Increase; negative where the figure fell."""
        return subtract(self.after, self.before)

    @property
    def percent(self) -> float | None:
        """Increase in percent of the first value; ``None`` if that is symbolic or 0."""
        if not (isinstance(self.before, int) and isinstance(self.after, int)) or not self.before:
            return None
        return 100 * (self.after - self.before) / self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class PassChange:
    """A pass of two reports, such as the backward pass of a training step.

    Attributes:
        name: Its name.
        before: Its cost in the first report, in all runs.
        after: Its cost in the second.
    """

    name: str
    before: OpCost
    after: OpCost


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChange:
    """A module that differs, with its submodules.

    Attributes:
        kind: ``"changed"`` if its cost, its parameters or its own calls differ.
        before_path: Path in the first model; ``None`` if it was added.
        path: Path in the second model; ``None`` if it was removed.
        module_class: Class name, in the second model if it is there.
        before: Cost in the first report, in all runs.
        after: Cost in the second.
        params: Number of parameters in both.
    """

    kind: Kind
    before_path: str | None
    path: str | None
    module_class: str
    before: OpCost
    after: OpCost
    params: FigureChange


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorChange:
    """An operator whose calls or cost differ.

    Attributes:
        kind: Added, removed or changed.
        op: The operator.
        calls: Number of its calls in both, in all runs.
        before: Cost of all calls in the first report.
        after: Cost of all calls in the second.
    """

    kind: Kind
    op: str
    calls: FigureChange
    before: OpCost
    after: OpCost


@dataclass(frozen=True, slots=True, kw_only=True)
class CallChange:
    """A call that was added, removed or changed.

    Attributes:
        kind: ``"changed"`` if a call of the same operator took its place.
        calls: The call before and after; ``None`` where it is not there.
        before_cost: Cost in the first report, in all runs; zero if it has none.
        after_cost: Cost in the second.
    """

    kind: Kind
    calls: tuple[PassCall | None, PassCall | None]
    before_cost: OpCost
    after_cost: OpCost

    @property
    def before(self) -> OpRecord | None:
        """Record in the first report; ``None`` if the call was added."""
        before = self.calls[0]
        return None if before is None else before.record()

    @property
    def after(self) -> OpRecord | None:
        """Record in the second report; ``None`` if the call was removed."""
        after = self.calls[1]
        return None if after is None else after.record()

    @property
    def call(self) -> OpCall:
        """The call, in the second report if it is there."""
        return self._shown.record().call

    @property
    def pass_name(self) -> str:
        """Pass that makes the call, e.g. ``"forward"``."""
        return self._shown.pass_name

    @property
    def _shown(self) -> PassCall:
        shown = self.calls[1] or self.calls[0]
        assert shown is not None  # noqa: S101 - one of the two is there
        return shown


def subtract(after: Dim, before: Dim) -> Dim:
    """Return a difference, expanded if it is an expression."""
    if isinstance(after, int) and isinstance(before, int):
        return after - before
    return as_dim(sympy.expand(after - before))


@lru_cache(maxsize=4096)
def is_same(before: Dim, after: Dim) -> bool:
    """Return True if two figures are equal for all values of their symbols.

    Example:
        >>> B = sympy.Symbol("B", integer=True)
        >>> is_same(B * (B + 1), B**2 + B), is_same(B, B + 1)
        (True, False)
    """
    if before == after:
        return True
    difference = subtract(after, before)
    if isinstance(difference, int) or difference.is_polynomial(*difference.free_symbols):
        return difference == 0
    return difference.equals(0) is True


def is_same_cost(before: OpCost, after: OpCost) -> bool:
    """Return True if two costs are equal in every figure, for all values of their symbols."""
    if before == after:
        return True
    pairs = zip(before.items(), after.items(), strict=True)
    return all(is_same(one, other) for (_, one), (_, other) in pairs)
