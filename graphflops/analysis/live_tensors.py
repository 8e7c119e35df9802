"""Tensors that are alive at a point of a pass: what each is for, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from graphflops.analysis.event_arrays import EventArrays
from graphflops.core.call_lookup import CallLookup, first_index
from graphflops.core.ir import OpCall, OpRecord, Phase
from graphflops.core.storage_events import Allocation, StorageEvents, StorageKind


class Category(Enum):
    """Category of memory, by what it is for.

    An *activation* is a result that a later call needs: in a training step, one that autograd
    saves for the backward pass. All other results are *temporaries*.
    """

    PARAMETERS = "parameters"
    BUFFERS = "buffers"
    INPUTS = "inputs"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    KV_CACHE = "kv_cache"
    ACTIVATIONS = "activations"
    TEMPORARIES = "temporaries"


_KINDS = {
    StorageKind.PARAMETER: Category.PARAMETERS,
    StorageKind.BUFFER: Category.BUFFERS,
    StorageKind.INPUT: Category.INPUTS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTensor:
    """Memory that is occupied at the peak.

    Attributes:
        nbytes: Bytes of the storage.
        category: What it is for.
        name: Name of the parameter, buffer, input or gradient, or of the result.
        dtype: Dtype of the first tensor in it.
        device: Device where it is.
        operator: Operator that allocated it; empty for what was there before.
        module_path: Path of the module that called the operator.
        source_line: ``file:line`` of the call, if known.
    """

    nbytes: int
    category: Category
    name: str
    dtype: str
    device: str
    operator: str = ""
    module_path: str = ""
    source_line: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PassCalls:
    """Calls of a pass, of which few are looked up.

    Attributes:
        forward: Records of the forward pass.
        later: Records of the backward pass and of what is recomputed.
    """

    forward: Sequence[OpRecord]
    later: tuple[Sequence[OpRecord], ...] = ()

    def __len__(self) -> int:
        return sum(map(len, (self.forward, *self.later)))

    @property
    def first_later(self) -> int | None:
        """Index of the first call after the forward pass; ``None`` if there is none."""
        first = map(first_index, self.later)
        return min((index for index in first if index is not None), default=None)

    def find(self, indices: Iterable[int]) -> dict[int, OpCall]:
        """Return the calls with some indices; those of no call are ignored."""
        wanted = list(indices)
        parts = (CallLookup(part).find(wanted) for part in (self.forward, *self.later))
        return {index: record.call for part in parts for index, record in part.items()}


def live_tensors(
    events: StorageEvents,
    arrays: EventArrays,
    position: int,
    calls: PassCalls,
    caches: Iterable[str] = (),
) -> Iterable[LiveTensor]:
    """Return the tensors that are alive after an event.

    Args:
        events: Storage events, with sizes that are numbers.
        arrays: The same as arrays.
        position: Number of the event.
        calls: The calls of the pass.
        caches: Names of inputs that hold the state of earlier tokens.
    """
    past = arrays.storages[: position + 1]
    freed = past[arrays.is_release[: position + 1]]
    made = np.flatnonzero(~arrays.is_release[: position + 1])
    alive = made[~np.isin(past[made], freed)]
    found = calls.find(set(arrays.calls[alive].tolist()))
    labels = _Labels(events, arrays, found, calls.first_later, frozenset(caches))
    return (
        labels.tensor(storage, call, events.allocations[allocation])
        for storage, call, allocation in zip(
            past[alive].tolist(),
            arrays.calls[alive].tolist(),
            arrays.allocations[alive].tolist(),
            strict=True,
        )
    )


class _Labels:
    """Labels of storages: their purpose and origin."""

    def __init__(
        self,
        events: StorageEvents,
        arrays: EventArrays,
        calls: Mapping[int, OpCall],
        first_later: int | None,
        caches: frozenset[str],
    ) -> None:
        self._gradients, self._cached = events.gradients, events.caches
        self._calls, self._caches = calls, caches
        freed = arrays.is_release
        released = zip(arrays.storages[freed].tolist(), arrays.calls[freed].tolist(), strict=True)
        self._released = dict(released)
        self._first_later = first_later

    def tensor(self, storage: int, index: int, allocation: Allocation) -> LiveTensor:
        """Return the tensor of a storage that was allocated by a call."""
        call = self._calls.get(index)
        name = self._gradients.get(storage) or allocation.name or (call.name if call else "")
        own = allocation.kind is not StorageKind.RESULT
        is_gradient = storage in self._gradients
        path = name.rpartition(".")[0] if own or is_gradient else call.module_path if call else ""
        return LiveTensor(
            nbytes=int(allocation.nbytes),
            category=self._category(storage, call, index, allocation),
            name=name,
            dtype=allocation.dtype,
            device=allocation.device,
            operator=call.op if call and not own else "",
            module_path=path,
            source_line=call.source_line if call and not own else "",
        )

    def _category(
        self, storage: int, call: OpCall | None, index: int, allocation: Allocation
    ) -> Category:
        if storage in self._gradients:
            return Category.GRADIENTS
        is_input = allocation.kind is StorageKind.INPUT
        if storage in self._cached or (is_input and allocation.name in self._caches):
            return Category.KV_CACHE
        if (category := _KINDS.get(allocation.kind)) is not None:
            return category
        released = self._released.get(storage)
        if self._first_later is None:
            # What comes and goes within a call is its scratch memory.
            is_kept = released is None or released > index
        elif index < self._first_later:
            is_kept = released is None or released >= self._first_later
        else:
            is_kept = call is not None and call.phase is Phase.RECOMPUTE
        return Category.ACTIVATIONS if is_kept else Category.TEMPORARIES
