"""Difference between two reports: totals, modules, operators and calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
from graphflops.analysis.module_matching import Calls, Fingerprints, Matching, MatchNode, match
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpCall, OpRecord, TensorMeta, Tensors
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
        # Thousands of calls have few costs: equal ones are multiplied, not added.
        kinds = Counter((record.call.op, record.cost) for record in part.records)
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


_PricedCall: TypeAlias = tuple[str, OpRecord]


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
        {name: lru_cache(maxsize=None)(part.total_of) for name, part in side.passes.items()}
        for side in (before, after)
    ]
    rows = [
        _call_change(old, new, totals_of)
        for one, other in matching.calls
        for old, new in _unequal(one, other)
    ]
    return tuple(_module_changes(matching, rows)), tuple(rows)


def _tree(side: Side, fingerprints: Fingerprints) -> MatchNode[_PricedCall]:
    keys: defaultdict[str, list[int]] = defaultdict(list)
    calls: defaultdict[str, list[_PricedCall]] = defaultdict(list)
    for name, part in side.passes.items():
        # Equal calls of repeated layers have one key.
        by_template: dict[int, int] = {}
        for record in part.records:
            call = record.call
            key = None if call.same_as is None else by_template.get(call.same_as)
            if key is None:
                key = fingerprints.number((name, *_signature(call)))
                by_template[call.index] = key
            keys[call.module_path].append(key)
            calls[call.module_path].append((name, record))
    own = {path: Calls(tuple(keys[path]), tuple(calls[path])) for path in keys}
    return fingerprints.tree(side.root, own)


def _signature(call: OpCall) -> tuple[Hashable, ...]:
    """Return what makes two calls equal: operator, shapes, dtypes and attributes."""
    inputs = tuple((name, _shapes(value)) for name, value in call.inputs.items())
    outputs = tuple(map(_shape, call.outputs))
    attributes = tuple(call.attrs.items())
    return call.op, call.overload, inputs, attributes, outputs, call.trip_count


def _shapes(value: Tensors) -> Hashable:
    if isinstance(value, TensorMeta):
        return _shape(value)
    return tuple(None if meta is None else _shape(meta) for meta in value)


def _shape(meta: TensorMeta) -> Hashable:
    return meta.shape, meta.dtype


def _unequal(
    before: Calls[_PricedCall], after: Calls[_PricedCall]
) -> Iterator[tuple[_PricedCall | None, _PricedCall | None]]:
    """Yield the calls of a module that differ, in pairs where one took the place of the other."""
    pairs = align(before.keys, after.keys)
    for i, j in pairs:
        one, other = before.calls[i][1].cost, after.calls[j][1].cost
        if (one is None) != (other is None) or not (
            one is None or other is None or is_same_cost(one, other)
        ):
            yield before.calls[i], after.calls[j]
    for left, right in gaps(pairs, (len(before.keys), len(after.keys))):
        removed, added = [before.calls[i] for i in left], [after.calls[j] for j in right]
        replaced = align(*([(n, r.call.op) for n, r in calls] for calls in (removed, added)))
        yield from ((removed[i], added[j]) for i, j in replaced)
        for olds, news in gaps(replaced, (len(removed), len(added))):
            yield from ((removed[i], None) for i in olds)
            yield from ((None, added[j]) for j in news)


def _call_change(
    old: _PricedCall | None,
    new: _PricedCall | None,
    totals_of: Sequence[Mapping[str, Callable[[OpCost], OpCost]]],
) -> CallChange:
    costs = [
        OpCost() if call is None or (cost := call[1].cost) is None else total_of[call[0]](cost)
        for call, total_of in zip((old, new), totals_of, strict=True)
    ]
    named = new or old
    assert named is not None  # noqa: S101 - one of the two is there
    return CallChange(
        kind="added" if old is None else "removed" if new is None else "changed",
        pass_name=named[0],
        before=old and old[1],
        after=new and new[1],
        before_cost=costs[0],
        after_cost=costs[1],
    )


def _module_changes(
    matching: Matching[_PricedCall], calls: Sequence[CallChange]
) -> Iterator[ModuleChange]:
    changed_before = {row.before.call.module_path for row in calls if row.before is not None}
    changed_after = {row.after.call.module_path for row in calls if row.after is not None}
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
