"""Memory that a pass takes: its peak, what is alive then, and how much is after every call.

Memory is what tensors occupy: bytes of storages that are alive, as the model's own Python code and
autograd keep them. The allocator's rounding, its reserve and the context of a device come on top:
``Memory.with_allocator`` adds them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from graphflops.analysis.allocator_memory import (
    Allocator,
    AllocatorMemory,
    RequestTrace,
    requests_of,
    under_allocator,
)
from graphflops.analysis.optimizer_memory import (
    Implementation,
    OptimizerMemory,
    optimizer_memory,
)
from graphflops.analysis.optimizers import OptimizerStep
from graphflops.core.ir import OpCall, Phase
from graphflops.core.storage_events import BEFORE, Allocation, StorageEvents, StorageKind
from graphflops.errors import CaptureError, UnboundSymbolError


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


_NO_EVENTS = (
    "when memory is freed is seen where the model runs as Python: it is not known of a graph that "
    "was exported or read from a file, nor of a part of a training step. Count the nn.Module, and "
    "ask the report of the whole step."
)
_NO_OPTIMIZER = OptimizerMemory(name="", state=0)
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
        operator: Operator that allocated it; empty for what was there before.
        module_path: Path of the module that called the operator.
        source_line: ``file:line`` of the call, if known.
    """

    nbytes: int
    category: Category
    name: str
    dtype: str
    operator: str = ""
    module_path: str = ""
    source_line: str = ""


class TimelinePoint(NamedTuple):
    """Memory while a call runs.

    Attributes:
        call: Index of the call; -1 before the first one.
        peak: Most bytes that are occupied while it runs.
        after: Bytes that are occupied when the next one begins.
    """

    call: int
    peak: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory that a pass takes.

    Attributes:
        peak: Most bytes that are occupied at once.
        device: Device whose memory it is; on others only little lies.
        at_peak: What is occupied at the peak, the largest first.
        timeline: Memory over the calls, in order.
        call: Index of the call at which the peak is first reached; -1 before the first one, and
            the number of calls for the step of an optimizer.
        requests: Requests of memory, as an allocator gets them.
    """

    peak: int
    device: str
    at_peak: tuple[LiveTensor, ...]
    timeline: tuple[TimelinePoint, ...]
    call: int
    requests: RequestTrace = field(repr=False, compare=False)

    def with_allocator(self, allocator: Allocator = "cuda", *, context: int = 0) -> AllocatorMemory:
        """Return what the process takes of the device, where an allocator hands out the memory.

        The allocator rounds requests up, and keeps what is freed for later ones: it reserves
        more than is alive. A training step is repeated until it reserves no more.

        Args:
            allocator: ``"cuda"``, PyTorch's caching allocator under its default settings.
            context: Bytes that the process takes beside the allocator: the context of the device,
                with the kernels that were loaded, and workspaces of libraries. It depends on the
                device and the versions; a process on a GPU takes 0.3 to 0.6 GB before the first
                tensor.

        Raises:
            ModelSpecError: There is no such allocator.

        Example:
            >>> import torch, graphflops as gf
            >>> memory = gf.count(torch.nn.Linear(100, 100), (torch.empty(1, 100),)).memory
            >>> cuda = memory.with_allocator("cuda", context=500_000_000)
            >>> memory.peak, cuda.allocated, cuda.reserved, cuda.peak
            (41200, 41984, 2097152, 502097152)
        """
        return under_allocator(self.requests, allocator, context=context)

    def by_category(self) -> dict[str, int]:
        """Return the bytes at the peak by category."""
        sums = dict.fromkeys((category.value for category in Category), 0)
        for tensor in self.at_peak:
            sums[tensor.category.value] += tensor.nbytes
        return sums

    def by_module(self) -> dict[str, int]:
        """Return the bytes at the peak by the module that a tensor is of, or was made in."""
        return self._sum_by("module_path")

    def by_operator(self) -> dict[str, int]:
        """Return the bytes of results at the peak by the operator that made them."""
        sums = self._sum_by("operator")
        sums.pop("", None)
        return sums

    def _sum_by(self, attribute: str) -> dict[str, int]:
        sums: defaultdict[str, int] = defaultdict(int)
        for tensor in self.at_peak:
            sums[getattr(tensor, attribute)] += tensor.nbytes
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def parameters(self) -> int:
        """Bytes of the parameters."""
        return self._category(Category.PARAMETERS)

    @property
    def buffers(self) -> int:
        """Bytes of the buffers, and of other tensors that modules hold."""
        return self._category(Category.BUFFERS)

    @property
    def inputs(self) -> int:
        """Bytes of the inputs."""
        return self._category(Category.INPUTS)

    @property
    def gradients(self) -> int:
        """Bytes of the gradients of parameters at the peak."""
        return self._category(Category.GRADIENTS)

    @property
    def optimizer(self) -> int:
        """Bytes of the optimizer's state at the peak."""
        return self._category(Category.OPTIMIZER)

    @property
    def kv_cache(self) -> int:
        """Bytes of the KV cache at the peak."""
        return self._category(Category.KV_CACHE)

    @property
    def activations(self) -> int:
        """Bytes of the activations at the peak."""
        return self._category(Category.ACTIVATIONS)

    @property
    def temporaries(self) -> int:
        """Bytes of temporaries at the peak."""
        return self._category(Category.TEMPORARIES)

    def _category(self, category: Category) -> int:
        return sum(tensor.nbytes for tensor in self.at_peak if tensor.category is category)


def memory_of(
    events: StorageEvents | None,
    calls: Sequence[OpCall],
    *,
    caches: Iterable[str] = (),
    optimizer: OptimizerStep | None = None,
    implementation: Implementation | None = None,
) -> Memory:
    """Return the memory that a pass takes.

    Args:
        events: Its storage events, if they are known.
        calls: Its calls, by index.
        caches: Names of inputs that hold the state of earlier tokens.
        optimizer: Step that follows, of an optimizer whose state is there from the start.
        implementation: Implementation of that step; by default that of ``torch.optim``.

    Raises:
        CaptureError: Its storage events are not known.
        UnboundSymbolError: A size is symbolic.
    """
    if events is None:
        raise CaptureError(_NO_EVENTS)
    sizes = _sizes(events)
    device = main_device(events)
    after = _NO_OPTIMIZER
    if optimizer is not None:
        after = optimizer_memory(optimizer, device, implementation)
    level = state = after.state
    peak, peak_event, points = state, -1, {BEFORE: TimelinePoint(BEFORE, state, state)}
    alive: dict[int, int] = {}
    released: dict[int, int] = {}
    for position, (call, storage, allocation) in enumerate(events):
        if allocation is None:
            level -= alive.pop(storage)
            released[storage] = call
        else:
            is_here = events.allocations[allocation].device == device
            alive[storage] = sizes[allocation] if is_here else 0
            level += alive[storage]
        if level > peak:
            peak, peak_event = level, position
        before = points.get(call)
        points[call] = TimelinePoint(call, max(level, before.peak if before else level), level)
    labels = _Labels(events, calls, frozenset(caches), released)
    in_step = level + after.temporaries > peak
    if in_step:
        peak, peak_event = level + after.temporaries, len(labels.events)
    at_peak = [
        *labels.alive_at(peak_event, device),
        _of_optimizer(after, after.state, Category.OPTIMIZER),
        _of_optimizer(after, after.temporaries * in_step, Category.TEMPORARIES),
    ]
    at_peak = [tensor for tensor in at_peak if tensor.nbytes]
    at_peak.sort(key=lambda tensor: -tensor.nbytes)
    return Memory(
        peak=peak,
        device=device,
        at_peak=tuple(at_peak),
        timeline=tuple(points.values()),
        call=labels.call_at(peak_event),
        requests=RequestTrace(
            requests=requests_of(events, sizes, device),
            state=after.state_sizes,
            temporaries=after.temporary_sizes,
            trains=bool(events.gradients),
        ),
    )


def _of_optimizer(optimizer: OptimizerMemory, nbytes: int, category: Category) -> LiveTensor:
    return LiveTensor(nbytes=nbytes, category=category, name=optimizer.name, dtype="")


def _sizes(events: StorageEvents) -> dict[int, int]:
    """Return the bytes of each allocation.

    Raises:
        UnboundSymbolError: One is symbolic.
    """
    sizes: dict[int, int] = {}
    for number, allocation in events.allocations.items():
        if not isinstance(allocation.nbytes, int):
            names = ", ".join(sorted(map(str, allocation.nbytes.free_symbols)))
            msg = f"memory is counted in numbers, and {names} are symbols: bind them by subs()."
            raise UnboundSymbolError(msg)
        sizes[number] = allocation.nbytes
    return sizes


def main_device(events: StorageEvents) -> str:
    """Return the device on which most storages are allocated."""
    counts = Counter(allocation.device for allocation in events.allocations.values())
    return counts.most_common(1)[0][0] if counts else "cpu"


class _Labels:
    """Labels of the storages that are alive at a point: their purpose and origin."""

    def __init__(
        self,
        events: StorageEvents,
        calls: Sequence[OpCall],
        caches: frozenset[str],
        released: Mapping[int, int],
    ) -> None:
        self.events = list(events)
        self._allocations, self._gradients = events.allocations, events.gradients
        self._cached = events.caches
        self._calls, self._caches, self._released = calls, caches, released
        backward = (call.index for call in calls if call.phase is not Phase.FORWARD)
        self._first_backward = next(backward, None)

    def call_at(self, position: int) -> int:
        """Return the index of the call at an event; the number of calls after the last one."""
        if position < 0:
            return BEFORE
        return self.events[position].call if position < len(self.events) else len(self._calls)

    def alive_at(self, position: int, device: str) -> Iterable[LiveTensor]:
        """Return what is alive after an event."""
        alive: dict[int, tuple[int, Allocation]] = {}
        for call, storage, allocation in self.events[: position + 1]:
            if allocation is None:
                del alive[storage]
            else:
                alive[storage] = call, self._allocations[allocation]
        return (
            self._tensor(storage, call, allocation)
            for storage, (call, allocation) in alive.items()
            if allocation.device == device
        )

    def _tensor(self, storage: int, index: int, allocation: Allocation) -> LiveTensor:
        call = self._calls[index] if 0 <= index < len(self._calls) else None
        name = self._gradients.get(storage) or allocation.name or (call.name if call else "")
        own = allocation.kind is not StorageKind.RESULT
        is_gradient = storage in self._gradients
        path = name.rpartition(".")[0] if own or is_gradient else call.module_path if call else ""
        return LiveTensor(
            nbytes=int(allocation.nbytes),
            category=self._category(storage, call, index, allocation),
            name=name,
            dtype=allocation.dtype,
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
        if self._first_backward is None:
            # What comes and goes within a call is its scratch memory.
            is_kept = released is None or released > index
        elif index < self._first_backward:
            is_kept = released is None or released >= self._first_backward
        else:
            is_kept = call is not None and call.phase is Phase.RECOMPUTE
        return Category.ACTIVATIONS if is_kept else Category.TEMPORARIES
