"""Time of the kernels of passes whose operators are fused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple

from graphflops.analysis.call_time import CallTime, Roofline
from graphflops.analysis.fusion import FusedKernel, fuse
from graphflops.core.call_sequence import Block, CallSequence, Relocation, Repeat, replace_prefix
from graphflops.core.ir import OpRecord, TensorMeta

_Times = defaultdict[tuple[str, str], CallTime]


def storages_of(tensors: Iterable[TensorMeta]) -> frozenset[str]:
    """Return the names of the storages of tensors."""
    return frozenset(tensor.storage or tensor.name for tensor in tensors)


def storages_read(records: Iterable[OpRecord]) -> frozenset[str]:
    """Return the storages that a pass reads and does not make. Repeated layers are not expanded."""

    @cache
    def of_block(block: Block[OpRecord]) -> frozenset[str]:
        return of_items(block.items)

    def of_items(items: Iterable[OpRecord | Repeat[OpRecord]]) -> frozenset[str]:
        read: set[str] = set()
        made: set[str] = set()
        for item in items:
            if isinstance(item, Repeat):
                read.update(map(item.relocation.map_name, of_block(item.block)))
            else:
                # A view or a shape is not read: what computes with the view is.
                if item.cost is None or item.cost.bytes_read:
                    read |= storages_of(tensor for _, tensor in item.call.tensors())
                made |= {tensor.name for tensor in item.call.outputs if not tensor.storage}
        return frozenset(read - made)

    return of_items(CallSequence.of(records).items)


def times_of_kernels(
    records: Iterable[OpRecord], roofline: Roofline, kept: frozenset[str]
) -> dict[tuple[str, str], CallTime]:
    """Return the time of the kernels of a pass, by module path and operator.

    A kernel counts for its contraction or reduction, or else its last operator. Of a layer that
    repeats many times in a row some instances are looked at: all between them are like one.

    Args:
        records: Records of the pass.
        roofline: Roofline.
        kept: Names of storages that are read after the pass.
    """
    looked_at = list(_looked_at(CallSequence.of(records).items))
    instances = {id(record): instance for record, instance in looked_at}
    times: _Times = defaultdict(CallTime)
    for kernel in fuse((record for record, _ in looked_at), kept):
        call, time = kernel.main.call, _time(kernel, roofline)
        instance = instances[id(kernel.main)]
        if instance is None:
            times[call.module_path, call.op] += time
            continue
        for path in instance.paths_like(call.module_path):
            times[path, call.op] += time
    return dict(times)


def _time(kernel: FusedKernel, roofline: Roofline) -> CallTime:
    return roofline.time_of_kernel(kernel.records, kernel.on_chip)


class _Instance(NamedTuple):
    """Instance of a repeated layer, and those that are like it.

    Attributes:
        relocation: Mapping to the instance.
        like: Mappings to the instances whose kernels are as those of this one.
    """

    relocation: Relocation
    like: tuple[Relocation, ...]

    def paths_like(self, path: str) -> Iterator[str]:
        """Yield a path of this instance in all that are like it."""
        for other in self.like:
            yield replace_prefix(path, self.relocation.to_path, other.to_path)


_FIRST, _LAST = 3, 2
"""Instances at the ends of a row of repeats that are looked at.

Kernels reach into the next layer, but not beyond: the second is like all that have neighbours on
both sides, the third is its neighbour, and so is the last but one of the last.
"""


def _looked_at(
    items: Sequence[OpRecord | Repeat[OpRecord]],
) -> Iterator[tuple[OpRecord, _Instance | None]]:
    """Yield records with the instance of a layer that they are of, if not all are looked at."""
    for block, group in groupby(
        items, lambda item: item.block if isinstance(item, Repeat) else None
    ):
        row = list(group)
        repeats = [item for item in row if isinstance(item, Repeat)]
        if block is None or len(repeats) <= _FIRST + _LAST:
            for item in row:
                expanded = item.expand() if isinstance(item, Repeat) else (item,)
                yield from ((record, None) for record in expanded)
            continue
        inner = tuple(repeat.relocation for repeat in repeats[1:-1])
        for number in (0, 1, 2, -2, -1):
            relocation = repeats[number].relocation
            like = {0: (relocation,), 1: inner, -1: (relocation,)}.get(number, ())
            instance = _Instance(relocation, like)
            yield from ((record, instance) for record in repeats[number].expand())


def kept_by_pass(
    passes: Mapping[str, Sequence[OpRecord]], outputs: Iterable[TensorMeta]
) -> dict[str, frozenset[str]]:
    """Return the storages that each pass has to leave in memory: outputs, and what others read."""
    read = {name: storages_read(records) for name, records in passes.items()}
    results = storages_of(outputs)
    return {
        name: results.union(*(found for other, found in read.items() if other != name))
        for name in passes
    }
