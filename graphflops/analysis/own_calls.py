"""Calls that modules make themselves, by module.

A repeated layer is read once: its instances share keys and templates, and a call of theirs is
built only if it is asked for. Reports of deep models differ in few calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from graphflops.core.call_sequence import Block, CallSequence, Relocation, Repeat
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpCall, OpRecord, TensorMeta, Tensors


class Fingerprints:
    """Numbers for equal things: equal numbers are equal things, in all trees built with them."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable) -> int:
        """Return the number of a thing, 1 or more."""
        return self._numbers.setdefault(key, len(self._numbers) + 1)


class PassCall(NamedTuple):
    """Call of a pass.

    Attributes:
        pass_name: Name of the pass.
        template: Record of the call, or of the call in another instance of its layer.
        relocations: Mappings from that instance, each with the shift of the index, in order.
    """

    pass_name: str
    template: OpRecord
    relocations: tuple[tuple[Relocation, int], ...]

    @property
    def op(self) -> str:
        """Operator."""
        return self.template.call.op

    @property
    def cost(self) -> OpCost | None:
        """Cost of one run; ``None`` if it has no price."""
        return self.template.cost

    @property
    def module_path(self) -> str:
        """Path of the module that makes the call."""
        path = self.template.call.module_path
        for relocation, _ in self.relocations:
            path = relocation.map_path(path)
        return path

    def record(self) -> OpRecord:
        """Return the record."""
        record = self.template
        for relocation, shift in self.relocations:
            record = relocation.apply(record, shift)
        return record


class CallRun(NamedTuple):
    """Consecutive calls of a module in one pass, all from one instance of a layer.

    Attributes:
        pass_name: Name of the pass.
        keys: A number for each call: equal numbers are equal calls.
        templates: Their records, or those of another instance.
        relocations: Mappings from that instance, each with the shift of the index, in order.
    """

    pass_name: str
    keys: tuple[int, ...]
    templates: tuple[OpRecord, ...]
    relocations: tuple[tuple[Relocation, int], ...] = ()

    def relocate(self, relocation: Relocation, shift: int) -> CallRun:
        """Return the calls of another instance."""
        return self._replace(relocations=(*self.relocations, (relocation, shift)))


class OwnCalls(NamedTuple):
    """Calls that a module makes itself, in order.

    Attributes:
        keys: A number for each call: equal numbers are equal calls.
        runs: The calls.
    """

    keys: tuple[int, ...] = ()
    runs: tuple[CallRun, ...] = ()

    def calls(self) -> list[PassCall]:
        """Return the calls one by one."""
        return [
            PassCall(run.pass_name, template, run.relocations)
            for run in self.runs
            for template in run.templates
        ]


def own_calls(
    passes: Mapping[str, Sequence[OpRecord]], fingerprints: Fingerprints
) -> dict[str, OwnCalls]:
    """Return the calls that each module makes itself, by path.

    Args:
        passes: Records by the name of their pass.
        fingerprints: Numbers of calls, shared by the reports that are compared.
    """
    runs: defaultdict[str, list[CallRun]] = defaultdict(list)
    for name, records in passes.items():
        for path, own in _runs_by_path(name, records, fingerprints).items():
            runs[path] += own
    return {
        path: OwnCalls(tuple(key for run in own for key in run.keys), tuple(own))
        for path, own in runs.items()
    }


def _runs_by_path(
    pass_name: str, records: Sequence[OpRecord], fingerprints: Fingerprints
) -> dict[str, list[CallRun]]:
    key_of = _key_function(pass_name, fingerprints)

    @cache
    def group_block(block: Block[OpRecord]) -> dict[str, list[CallRun]]:
        return group(block.items)

    def group(items: Iterable[OpRecord | Repeat[OpRecord]]) -> dict[str, list[CallRun]]:
        runs: defaultdict[str, list[CallRun]] = defaultdict(list)
        single: defaultdict[str, list[OpRecord]] = defaultdict(list)

        def close(path: str) -> None:
            if templates := single.pop(path, None):
                keys = tuple(map(key_of, templates))
                runs[path].append(CallRun(pass_name, keys, tuple(templates)))

        for item in items:
            if not isinstance(item, Repeat):
                single[item.call.module_path].append(item)
                continue
            shift = item.start - item.block.start
            for template_path, own in group_block(item.block).items():
                path = item.relocation.map_path(template_path)
                close(path)
                runs[path] += [run.relocate(item.relocation, shift) for run in own]
        for path in list(single):
            close(path)
        return runs

    return group(CallSequence.of(records).items)


def _key_function(pass_name: str, fingerprints: Fingerprints) -> Callable[[OpRecord], int]:
    """Return the function from records of a pass to numbers of their calls."""
    # Instances of a layer that are no repeats in the sequence share a template too.
    by_template: dict[int, int] = {}

    def key_of(record: OpRecord) -> int:
        index = record.call.template_index
        key = by_template.get(index)
        if key is None:
            key = fingerprints.number((pass_name, *_signature(record.call)))
            by_template[index] = key
        return key

    return key_of


def _signature(call: OpCall) -> Iterator[Hashable]:
    """Yield what makes two calls equal: operator, shapes, dtypes and attributes."""
    yield from (call.op, call.overload, call.trip_count)
    yield tuple((name, _shapes(value)) for name, value in call.inputs.items())
    yield tuple(call.attrs.items())
    yield tuple(map(_shape, call.outputs))


def _shapes(value: Tensors) -> Hashable:
    if isinstance(value, TensorMeta):
        return _shape(value)
    return tuple(None if meta is None else _shape(meta) for meta in value)


def _shape(meta: TensorMeta) -> Hashable:
    return meta.shape, meta.dtype
