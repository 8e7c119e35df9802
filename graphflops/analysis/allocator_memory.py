"""Memory that a process takes on a GPU: what the allocator reserves for a pass, and the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from graphflops.analysis.caching_allocator import Block, CachingAllocator
from graphflops.analysis.optimizer_memory import OptimizerMemory
from graphflops.core.arguments import check_choice
from graphflops.core.storage_events import StorageEvent, StorageEvents, StorageKind

Allocator: TypeAlias = Literal["cuda"]
"""Allocator whose reserve is asked for: ``"cuda"`` is PyTorch's caching allocator."""
STEPS = 3
"""Steps after which a training step reserves no more: the first makes the optimizer's state."""


class Request(NamedTuple):
    """Request of a block, or its return.

    Attributes:
        call: Index of the call that runs or runs next.
        storage: Number of the storage.
        nbytes: Bytes that are requested; ``None`` if the block is returned.
        kind: What the storage holds.
    """

    call: int
    storage: int
    nbytes: int | None
    kind: StorageKind = StorageKind.RESULT


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTrace:
    """Requests of a pass, in order.

    Attributes:
        requests: Those of one pass; weights and inputs come first.
        state: Bytes of each tensor that an optimizer keeps.
        temporaries: Bytes of the blocks that a step of it takes beside that.
        trains: True for a training step, which is repeated.
    """

    requests: Sequence[Request]
    state: Sequence[int] = ()
    temporaries: Sequence[int] = ()
    trains: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorMemory:
    """Memory under an allocator.

    Attributes:
        reserved: Most bytes that the allocator holds of the device, as
            ``torch.cuda.max_memory_reserved`` has them.
        allocated: Most bytes of blocks in use, as ``torch.cuda.max_memory_allocated`` has them:
            the live tensors, each rounded up.
        context: Bytes of the process outside of the allocator, as they were given.
    """

    reserved: int
    allocated: int
    context: int = 0

    @property
    def peak(self) -> int:
        """Bytes that the process takes of the device: the reserve and the context."""
        return self.reserved + self.context

    @property
    def fragmentation(self) -> float:
        """Share of the reserve that is not in use when most is."""
        return 1 - self.allocated / self.reserved if self.reserved else 0.0


def trace_requests(events: StorageEvents, device: str, optimizer: OptimizerMemory) -> RequestTrace:
    """Return the requests that a pass makes.

    Args:
        events: Its storage events, of which all sizes are numbers.
        device: The device; storages on others request nothing.
        optimizer: Memory of the step of an optimizer that follows.
    """

    def request(event: StorageEvent) -> Request:
        call, storage, number = event
        if number is None:
            return Request(call, storage, None)
        allocation = events.allocations[number]
        nbytes = int(allocation.nbytes) if allocation.device == device else 0
        return Request(call, storage, nbytes, allocation.kind)

    return RequestTrace(
        requests=tuple(map(request, events)),
        state=optimizer.state_sizes,
        temporaries=optimizer.temporary_sizes,
        trains=bool(events.gradients),
    )


def under_allocator(
    trace: RequestTrace, allocator: Allocator = "cuda", *, context: int = 0
) -> AllocatorMemory:
    """Return the memory of a pass under an allocator, from an empty reserve.

    A training step is repeated until its reserve is that of every later step: gradients and
    results are freed between two steps.

    Args:
        trace: Its requests.
        allocator: The allocator.
        context: Bytes that the process takes beside it.

    Raises:
        ModelSpecError: There is no such allocator.
    """
    check_choice("allocator", allocator, get_args(Allocator))
    cache = CachingAllocator()
    fixed = {
        storage: cache.allocate(nbytes)
        for _, storage, nbytes, kind in trace.requests
        if nbytes and kind in _FIXED
    }
    for step in range(STEPS if trace.trains else 1):
        held = _run(trace, cache, fixed)
        if step == 0:
            for nbytes in trace.state:
                cache.allocate(nbytes)
        for block in [cache.allocate(nbytes) for nbytes in trace.temporaries]:
            cache.free(block)
        for block in held.values():
            cache.free(block)
    return AllocatorMemory(
        reserved=cache.peak_reserved, allocated=cache.peak_allocated, context=context
    )


_FIXED = (StorageKind.PARAMETER, StorageKind.BUFFER)


def _run(
    trace: RequestTrace, cache: CachingAllocator, fixed: Mapping[int, Block]
) -> dict[int, Block]:
    """Run a pass, and return the blocks that are left by the number of their storage."""
    held: dict[int, Block] = {}
    for _, storage, nbytes, _ in trace.requests:
        if storage in fixed:
            continue
        if nbytes:
            held[storage] = cache.allocate(nbytes)
        elif nbytes is None and storage in held:
            cache.free(held.pop(storage))
    return held
