"""Bytes that a pass moves, by what they are: weights, activations, KV cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from graphflops.analysis.fused_time import storages_of, storages_read
from graphflops.analysis.fusible_operators import distinct_inputs
from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.cost import Dim
from graphflops.core.ir import Capture, OpRecord, TensorMeta
from graphflops.core.sums import sum_by_key

WEIGHTS, INPUTS, KV_CACHE = "weights", "inputs", "kv_cache"
SAVED, ACTIVATIONS, GRADIENTS = "saved_activations", "activations", "gradients"
_BACKWARD = "backward"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """Storages of a pass by role."""

    made: str
    inputs: frozenset[str]
    caches: frozenset[str]
    saved: frozenset[str]
    own: frozenset[str]
    foreign: frozenset[str]

    def of(self, tensor: TensorMeta) -> str:
        storage = tensor.storage or tensor.name
        for storages, role in (
            (self.caches, KV_CACHE),
            (self.inputs, INPUTS),
            (self.saved, SAVED),
            (self.own, self.made),
            (self.foreign, ACTIVATIONS),
        ):
            if storage in storages:
                return role
        return WEIGHTS


def bytes_by_role(
    passes: Mapping[str, Sequence[OpRecord]], capture: Capture
) -> dict[str, dict[str, Dim]]:
    """Return the bytes that each pass reads and writes, each operator on its own, by role.

    Roles are ``weights`` (parameters and buffers), ``inputs``, ``kv_cache``,
    ``saved_activations`` (made in one pass and read in another), ``activations`` and
    ``gradients`` (what a backward pass makes). A call that reads a part of a tensor, a lookup,
    reads it from its first one.

    Args:
        passes: Records of the passes of one capture, by name.
        capture: The capture.
    """
    made = {name: _made(records) for name, records in passes.items()}
    read = {name: storages_read(records) for name, records in passes.items()}
    found = {}
    for name, records in passes.items():
        others = [other for other in passes if other != name]
        foreign = frozenset[str]().union(*(made[other] for other in others))
        read_by_others = frozenset[str]().union(*(read[other] for other in others))
        roles = _Roles(
            made=GRADIENTS if name == _BACKWARD else ACTIVATIONS,
            inputs=frozenset(name for name, _ in capture.inputs) - capture.caches,
            caches=_caches(records, capture),
            saved=(made[name] & read_by_others) | (foreign & read[name]),
            own=made[name],
            foreign=foreign,
        )
        found[name] = sum_by_key(records, partial(_terms, roles=roles))
    return found


def _terms(record: OpRecord, roles: _Roles) -> Iterable[tuple[str, Dim]]:
    """Return the bytes of a call by role; those of a repeated layer are as its first instance's."""
    sums: defaultdict[str, Dim] = defaultdict(int)
    call, cost = record.call, record.cost
    if cost is None or not (cost.bytes_read or cost.bytes_written):
        return ()
    tensors = list(distinct_inputs(call).values())
    read = sum((tensor.nbytes for tensor in tensors[1:]), start=0)
    for tensor in tensors[1:]:
        sums[roles.of(tensor)] += tensor.nbytes
    sums[roles.of(tensors[0]) if tensors else roles.made] += cost.bytes_read - read
    if call.outputs:
        first, *others = call.outputs
        written = sum((tensor.nbytes for tensor in others), start=0)
        for tensor in others:
            sums[roles.of(tensor)] += tensor.nbytes
        sums[roles.of(first)] += cost.bytes_written - written
    else:
        sums[roles.made] += cost.bytes_written
    return sums.items()


def _made(records: Iterable[OpRecord]) -> frozenset[str]:
    """Return the storages that a pass makes; layers that repeat are expanded by name alone."""

    @cache
    def of_block(block: Block[OpRecord]) -> frozenset[str]:
        return of_items(block.items)

    def of_items(items: Iterable[OpRecord | Repeat[OpRecord]]) -> frozenset[str]:
        made: set[str] = set()
        for item in items:
            if isinstance(item, Repeat):
                made.update(map(item.relocation.map_name, of_block(item.block)))
            else:
                made |= {tensor.name for tensor in item.call.outputs if not tensor.storage}
        return frozenset(made)

    return of_items(CallSequence.of(records).items)


def _caches(records: Iterable[OpRecord], capture: Capture) -> frozenset[str]:
    """Return the storages of caches as they come in, and of those that a step returns longer."""
    returned = storages_of(capture.outputs)
    longer: set[str] = set()
    for record in CallSequence.of(records).distinct():
        if storages_of(tensor for _, tensor in record.call.tensors()) & capture.caches:
            longer |= storages_of(record.call.outputs) & returned
    return capture.caches | longer
