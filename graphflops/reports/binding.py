"""Reports with numbers bound to their symbolic sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from graphflops.core.arguments import whole_number
from graphflops.core.call_sequence import CallSequence
from graphflops.core.guards import check_assumptions
from graphflops.core.substitution import Substitution
from graphflops.errors import ModelSpecError

if TYPE_CHECKING:
    from graphflops.reports.report import Report


def bind(report: Report, sizes: Mapping[str, int]) -> Report:
    """Return a report with numbers in place of some of its symbols.

    Raises:
        ModelSpecError: The report has no such symbol, or its graph is not valid for these sizes.
    """
    symbols = report.symbols
    for name in sizes:
        if name not in symbols:
            hint = f"They are in {', '.join(symbols)}." if symbols else "They are numbers already."
            if any(name == size.name for size in report.capture.data_sizes):
                hint = (
                    f"It is a size that follows from data: count again with assume={{{name!r}: N}}."
                )
            raise ModelSpecError(f"the costs of {report.model} have no symbol {name!r}. {hint}")
    sizes = {name: whole_number(name, size) for name, size in sizes.items()}
    check_assumptions(report.capture.assumptions, sizes, report.model)
    substitution = Substitution(sizes)
    records = CallSequence.of(report.records).map_items(
        lambda record: (substitution.record(record),)
    )
    inputs = tuple((name, substitution.tensor(meta)) for name, meta in report.capture.inputs)
    return replace(report, records=records, capture=replace(report.capture, inputs=inputs))
