"""Difference between two reports: totals, modules, operators and calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from graphflops.analysis.alignment import align, gaps
from graphflops.analysis.changes import (
    CallChange,
    FigureChange,
    Kind,
    ModuleChange,
    OperatorChange,
    is_same_cost,
    subtract,
)
from graphflops.analysis.module_matching import Matching, MatchNode, match, match_tree
from graphflops.analysis.own_calls import Fingerprints, OwnCalls, PassCall, own_calls
from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpRecord
from graphflops.core.module_tree import ModuleNode


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecords:
    """Calls of a pass.

    Attributes:
        records: Calls of one run, with their costs.
        times: Number of runs.
        total_of: Function from a cost in one run to the cost in all runs.
        in_total: False if the totals of the report leave the pass out, as recomputation.
    """

    records: Sequence[OpRecord]
    times: int
    total_of: Callable[[OpCost], OpCost]
    in_total: bool = True


Passes: TypeAlias = Mapping[str, PassRecords]


def operator_changes(before: Passes, after: Passes) -> tuple[OperatorChange, ...]:
    """Return the operators whose number of calls or cost differs, the largest first."""
    sums = _by_operator(before), _by_operator(after)
    nothing = (0, OpCost())
    rows = []
    for op in dict.fromkeys((*sums[0], *sums[1])):
        (calls_before, one), (calls_after, other) = (s.get(op, nothing) for s in sums)
        if calls_before == calls_after and is_same_cost(one, other):
            continue
        kind: Kind = "changed"
        if not (op in sums[0] and op in sums[1]):
            kind = "removed" if op in sums[0] else "added"
        calls = FigureChange(before=calls_before, after=calls_after)
        rows.append(OperatorChange(kind=kind, op=op, calls=calls, before=one, after=other))
    differences = [subtract(row.after.flops, row.before.flops) for row in rows]
    if all(isinstance(difference, int) for difference in differences):
        rows.sort(key=lambda row: -abs(int(row.after.flops - row.before.flops)))
    return tuple(rows)


def _by_operator(passes: Passes) -> dict[str, tuple[int, OpCost]]:
    """Return calls and cost of each operator over the passes that the totals count."""
    sums: dict[str, tuple[int, OpCost]] = {}
    for part in passes.values():
        if not part.in_total:
            continue
        kinds = _operators_and_costs(part.records)
        costs: defaultdict[str, OpCost] = defaultdict(OpCost)
        calls: Counter[str] = Counter()
        for (op, cost), number in kinds.items():
            calls[op] += number
            costs[op] += OpCost() if cost is None else cost * number
        for op, number in calls.items():
            before = sums.get(op, (0, OpCost()))
            total = part.total_of(costs[op])
            sums[op] = before[0] + number * part.times, before[1] + total
    return sums


def _operators_and_costs(records: Sequence[OpRecord]) -> Counter[tuple[str, OpCost | None]]:
    """Return the number of calls by operator and cost: thousands of calls have few costs."""

    @cache
    def tally_block(block: Block[OpRecord]) -> Counter[tuple[str, OpCost | None]]:
        return tally(block.items)

    def tally(items: Iterable[OpRecord | Repeat[OpRecord]]) -> Counter[tuple[str, OpCost | None]]:
        kinds: Counter[tuple[str, OpCost | None]] = Counter()
        for item in items:
            if isinstance(item, Repeat):
                kinds.update(tally_block(item.block))
            else:
                kinds[item.call.op, item.cost] += 1
        return kinds

    return tally(CallSequence.of(records).items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two reports, as they are compared.

    Attributes:
        root: Module tree with the cost of each module.
        passes: Calls by the name of their pass.
    """

    root: ModuleNode
    passes: Passes


def changes(before: Side, after: Side) -> tuple[tuple[ModuleChange, ...], tuple[CallChange, ...]]:
    """Match the modules and calls of two reports; return those that differ.

    Calls are matched within matched modules by their order, operator, shapes and attributes.
    """
    fingerprints = Fingerprints()
    trees = [_tree(side, fingerprints) for side in (before, after)]
    matching = match(*trees)
    totals_of = [
        {name: cache(part.total_of) for name, part in side.passes.items()}
        for side in (before, after)
    ]
    rows = [
        _call_change(old, new, totals_of)
        for one, other in matching.calls
        for old, new in _unequal(one, other)
    ]
    return tuple(_module_changes(matching, rows)), tuple(rows)


def _tree(side: Side, fingerprints: Fingerprints) -> MatchNode:
    records = {name: part.records for name, part in side.passes.items()}
    return match_tree(side.root, own_calls(records, fingerprints), fingerprints)


def _unequal(
    before: OwnCalls, after: OwnCalls
) -> Iterator[tuple[PassCall | None, PassCall | None]]:
    """Yield the calls of a module that differ, in pairs where one took the place of the other."""
    old, new = before.calls(), after.calls()
    pairs = align(before.keys, after.keys)
    yield from ((old[i], new[j]) for i, j in pairs if not _costs_same(old[i].cost, new[j].cost))
    for left, right in gaps(pairs, (len(old), len(new))):
        removed, added = [old[i] for i in left], [new[j] for j in right]
        replaced = align(
            *([(call.pass_name, call.op) for call in calls] for calls in (removed, added))
        )
        yield from ((removed[i], added[j]) for i, j in replaced)
        for olds, news in gaps(replaced, (len(removed), len(added))):
            yield from ((removed[i], None) for i in olds)
            yield from ((None, added[j]) for j in news)


def _costs_same(before: OpCost | None, after: OpCost | None) -> bool:
    if before is None or after is None:
        return before is after
    return is_same_cost(before, after)


def _call_change(
    old: PassCall | None,
    new: PassCall | None,
    totals_of: Sequence[Mapping[str, Callable[[OpCost], OpCost]]],
) -> CallChange:
    before_cost, after_cost = (
        OpCost() if call is None or call.cost is None else total_of[call.pass_name](call.cost)
        for call, total_of in zip((old, new), totals_of, strict=True)
    )
    return CallChange(
        kind="added" if old is None else "removed" if new is None else "changed",
        calls=(old, new),
        before_cost=before_cost,
        after_cost=after_cost,
    )


def _module_changes(matching: Matching, calls: Sequence[CallChange]) -> Iterator[ModuleChange]:
    changed_before, changed_after = (
        {call.module_path for row in calls if (call := row.calls[i]) is not None} for i in (0, 1)
    )
    pairs = [(one and one.module, other and other.module) for one, other in matching.modules]
    paths = {(one and one.path, other and other.path) for one, other in pairs}
    for one, other in pairs:
        if one is None or other is None:
            row = _one_sided(one, other)
            parent = [path and path.rpartition(".")[0] for path in (row.before_path, row.path)]
            # What was added or removed with a module is part of it.
            if tuple(parent) not in paths:
                yield row
            continue
        is_changed = (
            one.path in changed_before
            or other.path in changed_after
            or one.params_total != other.params_total
            or not is_same_cost(one.total, other.total)
        )
        parents = one.path.rpartition(".")[0], other.path.rpartition(".")[0]
        is_renamed = one.path != other.path and not (one.name == other.name and parents in paths)
        if is_changed or is_renamed:
            yield ModuleChange(
                kind="changed" if is_changed else "renamed",
                before_path=one.path,
                path=other.path,
                module_class=other.module_class,
                before=one.total,
                after=other.total,
                params=FigureChange(before=one.params_total, after=other.params_total),
            )


def _one_sided(before: ModuleNode | None, after: ModuleNode | None) -> ModuleChange:
    node = before or after
    assert node is not None  # noqa: S101 - one of the two is there
    return ModuleChange(
        kind="added" if before is None else "removed",
        before_path=before and before.path,
        path=after and after.path,
        module_class=node.module_class,
        before=OpCost() if before is None else before.total,
        after=OpCost() if after is None else after.total,
        params=FigureChange(
            before=0 if before is None else before.params_total,
            after=0 if after is None else after.params_total,
        ),
    )
