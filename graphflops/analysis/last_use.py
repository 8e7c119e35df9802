"""Peak memory if every tensor were freed right after the last call that reads it.

Eager PyTorch keeps a tensor as long as a variable refers to it. What no schedule of the same calls
in the same order can go below is what they still have to read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush

from graphflops.analysis.optimizer_memory import OptimizerMemory
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.core.storage_events import Allocation, StorageEvents, StorageKind


def last_use_peak(
    storages: StorageEvents,
    calls: Sequence[OpCall],
    outputs: Iterable[TensorMeta],
    device: str,
    after: OptimizerMemory,
) -> int:
    """Return the peak in bytes if results were freed right after their last use.

    A view counts as a use of the whole storage. Parameters, buffers, inputs, gradients, caches
    and what the model returns stay as long as they do in eager PyTorch; so does a result that is
    none of the tensors of a call, such as one that a composite operator saves for autograd.

    Args:
        storages: When each storage is allocated and freed, with sizes that are numbers.
        calls: The calls of the pass, by index.
        outputs: Tensors that the model returns.
        device: Device whose memory is counted.
        after: Memory of the step of an optimizer that follows.
    """
    last_uses = _last_uses(storages, calls, outputs)
    level = peak = after.state
    alive: dict[int, int] = {}
    uses: list[tuple[int, int]] = []  # a heap of last uses and storages
    for call, storage, number in storages:
        level -= sum(alive.pop(freed, 0) for freed in _used_before(call, uses))
        if number is None:
            level -= alive.pop(storage, 0)
            continue
        allocation = storages.allocations[number]
        alive[storage] = int(allocation.nbytes) if allocation.device == device else 0
        level += alive[storage]
        peak = max(peak, level)
        if storage in last_uses:
            heappush(uses, (last_uses[storage], storage))
    level -= sum(alive.pop(freed, 0) for freed in _used_before(len(calls), uses))
    return max(peak, level + after.temporaries)


def _used_before(call: int, uses: list[tuple[int, int]]) -> Iterator[int]:
    """Take the storages off a heap whose last use is before a call."""
    while uses and uses[0][0] < call:
        yield heappop(uses)[1]


def _last_uses(
    storages: StorageEvents, calls: Sequence[OpCall], outputs: Iterable[TensorMeta]
) -> dict[int, int]:
    """Return the index of the last call that uses a result, by the number of its storage."""
    roots = _Roots(calls)
    kept = {roots.of(tensor) for tensor in outputs}
    used: dict[str, int] = {}
    for call in calls:
        for _, tensor in call.tensors():
            used[roots.of(tensor)] = call.index
    found = {}
    for call, results in _results(storages, calls):
        for storage, name in results.items():
            is_kept = name in kept or storage in storages.gradients or storage in storages.caches
            if not is_kept:
                found[storage] = max(used.get(name, call.index), call.index)
    return found


class _Roots:
    """Names of the tensors whose memory others lie in."""

    def __init__(self, calls: Iterable[OpCall]) -> None:
        self._roots: dict[str, str] = {}
        for call in calls:
            for out in call.outputs:
                self._roots.setdefault(out.name, self.of(out))

    def of(self, tensor: TensorMeta) -> str:
        """Return the name of the tensor in whose memory a tensor lies."""
        # What the call that returned a tensor says of its memory holds: of a repeated layer,
        # later calls see only a copy of its results.
        if tensor.name in self._roots:
            return self._roots[tensor.name]
        name = tensor.storage or tensor.name
        return self._roots.get(name, name)


def _results(
    storages: StorageEvents, calls: Sequence[OpCall]
) -> Iterator[tuple[OpCall, Mapping[int, str]]]:
    """Yield calls with the storages that they allocate for results, and the names of these."""
    made: defaultdict[int, dict[int, Allocation]] = defaultdict(dict)
    for index, storage, number in storages:
        if number is None:
            made[index].pop(storage, None)  # scratch memory of the call
        elif storages.allocations[number].kind is StorageKind.RESULT:
            made[index][storage] = storages.allocations[number]
    for call in calls:
        free = made[call.index]
        found: dict[int, str] = {}
        for out in call.outputs:
            if out.storage:
                continue
            for storage, allocation in free.items():
                is_fitting = (allocation.dtype, allocation.nbytes) == (out.dtype, out.nbytes)
                if is_fitting and storage not in found:
                    found[storage] = out.name
                    break
        yield call, found
