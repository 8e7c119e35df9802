"""Differences between two conventions: the same calls, priced twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpRecord
from graphflops.pricing.formula import formula
from graphflops.pricing.registry import Registry

_QUOTED = 200  # characters of a formula that a reason quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Calls of one operator that two conventions price differently, for one reason.

    Attributes:
        path: The module that made them; empty where rows are not by module, or for the root.
        op: The operator.
        calls: Number of calls.
        ours: Their cost in the report's convention; zero if it has no price.
        theirs: Their cost in the other one.
        reason: The rule of each.
    """

    path: str
    op: str
    calls: int
    ours: OpCost
    theirs: OpCost
    reason: str

    @property
    def flops(self) -> Dim:
        """FLOPs that the other convention counts more; negative where it counts fewer."""
        return self.theirs.flops - self.ours.flops


def differences(
    records: Sequence[OpRecord],
    registry: Registry,
    others: Sequence[OpRecord],
    other_registry: Registry,
    names: tuple[str, str],
) -> Iterator[Difference]:
    """Yield a difference for each call that two registries price differently.

    Args:
        records: The calls, priced by ``registry``.
        registry: Handlers of the first convention.
        others: The same calls, priced by ``other_registry``.
        other_registry: Handlers of the second convention.
        names: Names of the two conventions.
    """
    for ours, theirs in zip(records, others, strict=True):
        if _work(ours) != _work(theirs):
            rules = _rule(ours, registry, names[0]), _rule(theirs, other_registry, names[1])
            yield Difference(
                path=ours.call.module_path,
                op=ours.call.op,
                calls=1,
                ours=ours.cost or OpCost(),
                theirs=theirs.cost or OpCost(),
                reason=" ".join(rules),
            )


def merge(rows: Iterable[Difference], place: Callable[[Difference], str]) -> tuple[Difference, ...]:
    """Merge rows of one place, operator and reason; sort by the size of the difference.

    Args:
        rows: Differences.
        place: Function from a row to the place that it is shown at.
    """
    merged: dict[tuple[str, str, str], Difference] = {}
    for row in rows:
        key = (place(row), row.op, row.reason)
        before = merged.get(key)
        merged[key] = Difference(
            path=key[0],
            op=row.op,
            calls=row.calls + (before.calls if before else 0),
            ours=row.ours + (before.ours if before else OpCost()),
            theirs=row.theirs + (before.theirs if before else OpCost()),
            reason=row.reason,
        )
    result = tuple(merged.values())
    if all(isinstance(row.flops, int) for row in result):
        return tuple(sorted(result, key=lambda row: -abs(int(row.flops))))
    return result


def _work(record: OpRecord) -> tuple[Dim, Dim]:
    # Bytes move alike in every convention; an unsupported call adds nothing to a total.
    return (0, 0) if record.cost is None else (record.cost.flops, record.cost.macs)


def _rule(record: OpRecord, registry: Registry, name: str) -> str:
    if record.cost is None:
        return f"{name}: no price."
    words = " ".join(formula(record, registry)).removeprefix("none: ")
    return f"{name}: {shorten(words.rstrip('.') + '.', _QUOTED, placeholder=' ...')}"
