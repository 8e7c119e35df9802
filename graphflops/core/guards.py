"""Numbers in place of symbolic sizes, all through a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import sympy

from graphflops.core.arguments import whole
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import OpRecord
from graphflops.core.substitution import Substitution
from graphflops.errors import ModelSpecError

if TYPE_CHECKING:
    from graphflops.reports.report import Report


def bound(report: Report, values: Mapping[str, int]) -> Report:
    """A report with numbers put in for some of its symbols.

    Raises:
        ModelSpecError: There is no such symbol, or its graph does not hold for these sizes.
    """
    known = report.symbols
    for name in values:
        if name not in known:
            have = f"They are in {', '.join(known)}." if known else "They are numbers already."
            if any(name == size.name for size in report.capture.data_sizes):
                have = (
                    f"It is a size that follows from data: count again with assume={{{name!r}: N}}."
                )
            raise ModelSpecError(f"the costs of {report.model} have no symbol {name!r}. {have}")
    values = {name: whole(name, value) for name, value in values.items()}
    refuse_sizes(report, values)
    put = Substitution(values)
    records = CallSequence.of(report.records).map_items(
        lambda record: (_bound_record(record, put),)
    )
    inputs = tuple((name, put.tensor(meta)) for name, meta in report.capture.inputs)
    return replace(
        report,
        records=records,
        capture=replace(report.capture, inputs=inputs),
    )


def refuse_sizes(report: Report, values: Mapping[str, int]) -> None:
    """Check that the graph of a report holds for some sizes.

    Raises:
        ModelSpecError: It does not.
    """
    for assumption in report.capture.assumptions:
        if holds(assumption, values) is False:
            sizes = ", ".join(f"{name} = {value}" for name, value in values.items())
            msg = (
                f"this graph of {report.model} holds where {assumption}, so not for {sizes}. "
                "Count again with inputs of about that size."
            )
            raise ModelSpecError(msg)


def holds(condition: sympy.Basic, values: Mapping[str, int]) -> bool | None:
    """Whether a condition on sizes is true of these; ``None`` if that is open still."""
    put = {s: sympy.Integer(values[s.name]) for s in condition.free_symbols if s.name in values}
    result = condition.xreplace(put)
    return bool(result) if result in (sympy.true, sympy.false) else None


def holds_throughout(
    condition: sympy.Basic, values: Mapping[str, int], name: str, first: int, last: int
) -> bool:
    """Whether a condition is true for every whole number from ``first`` to ``last``.

    Args:
        condition: A condition on sizes.
        values: The other sizes.
        name: The one that varies.
        first: Its first value.
        last: Its last value.
    """
    ends = all(holds(condition, {**values, name: value}) for value in (first, last))
    if not ends or _is_linear(condition, name):
        # Between two ends that meet a linear inequality, everything does.
        return ends
    return all(holds(condition, {**values, name: value}) for value in range(first, last))


def _is_linear(condition: sympy.Basic, name: str) -> bool:
    if not isinstance(
        condition,
        sympy.StrictLessThan | sympy.LessThan | sympy.GreaterThan | sympy.StrictGreaterThan,
    ):
        return False
    difference = condition.lhs - condition.rhs
    symbol = next((s for s in condition.free_symbols if s.name == name), None)
    if symbol is None:
        return True
    return bool(difference.is_polynomial(symbol)) and sympy.degree(difference, symbol) == 1


def _bound_record(record: OpRecord, put: Substitution) -> OpRecord:
    cost = None if record.cost is None else record.cost.map(put.value)
    parts = tuple(_bound_record(part, put) for part in record.parts)
    return replace(record, call=put.call(record.call), cost=cost, parts=parts)
