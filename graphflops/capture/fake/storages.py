"""Storages of fake tensors: when operators allocate them, and when eager PyTorch would free them.

The model runs as Python, so that a storage lives as long as something of the model refers to it:
a variable, a module, autograd. A weak reference to the storage's Python object, which torch keeps
as long as the storage itself, notices when it is freed. This holds only as long as nothing of a
count refers to the tensors of the model: records of them are weak, and recorded layers keep copies
without memory of the model's.

What is seen is what the CPU's operators do under fake tensors, those of a model on meta with the
attention kernels of a GPU, with two differences from a run on a device. Sums of gradients are new
tensors, as they are for every subclass of tensors, where autograd adds to a plain tensor in place
if nothing else refers to it. Dropout is one operator with a mask of booleans, as on a GPU; on the
CPU it is composed of others, with a mask of numbers. Memory within a kernel is not seen, nor are
sparse and nested tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple
from weakref import ref

import torch

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import dim, dtype_name
from graphflops.capture.fake.shape_rules import is_composite
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.functorch_levels import functorch
from graphflops.capture.torch_internals.operators import OpOverload, has_kernel_for_key
from graphflops.core.storage_events import (
    BEFORE,
    GPU,
    Allocation,
    EventBlock,
    EventItem,
    EventRepeat,
    StorageEvent,
    StorageEvents,
    StorageKind,
)

_UNCOUNTED = -1
_ELSEWHERE = -2


class StorageRecord(ref[Any]):
    """Weak reference to a storage, or to a tensor without one.

    Attributes:
        key: Address of the storage, unique while it is alive.
        name: Name of the first tensor in it on the tape; empty until there is one.
        number: Number of its allocation; negative if none was seen, or another stands for it.
    """

    __slots__ = ("key", "name", "number")
    key: int
    name: str
    number: int
    # A reference compares by its storage, which a record outlives.
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class EventMark(NamedTuple):
    """Position among events.

    Attributes:
        first_call: Number of calls before.
        first_item: Number of items before.
        first_storage: Number of storages before.
    """

    first_call: int
    first_item: int
    first_storage: int


class CallEvents(NamedTuple):
    """Events of a call that all calls on arguments of the same metadata have.

    Attributes:
        releases: For each event, the number of the storage among those of the call, and whether it
            is freed.
        allocations: Size, dtype and device of each storage.
        results: For each tensor of the result, the number of its storage; None for one that was
            there before.
    """

    releases: tuple[tuple[int, bool], ...]
    allocations: tuple[tuple[int, torch.dtype, torch.device], ...]
    results: tuple[int | None, ...]


class StorageTracker:
    """Records of the storages that are alive, and events of all that were.

    Attributes:
        position: Number of calls on the tape so far.
        items: Events so far, and repeats of layers.
        count: Number of storages so far, those of repeats included.
    """

    def __init__(self) -> None:
        self.position = 0
        self.items: list[EventItem] = []
        self.count = 0
        self._is_in_operator = False
        self._allocations: dict[int, Any] = {}
        self._records: dict[int, StorageRecord] = {}
        self._expected: dict[int, tuple[EventRepeat | None, int, int]] = {}

    def of(self, tensor: torch.Tensor) -> StorageRecord:
        """Return the record of the storage of a tensor."""
        owner = storage_of(tensor)
        key = id(owner) if owner is tensor else owner._cdata
        record = self._records.get(key)
        return self._record(key, owner) if record is None else record

    def watch(self, dispatch: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs an operator, and records what it allocates.

        The operators within another one make no memory of their own: those that a shape rule
        calls are not run by the operator. Those that a composite operator consists of are.
        """

        def run(
            func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if self._is_in_operator or not _may_allocate(func):
                return dispatch(func, types, args, kwargs)
            self._is_in_operator = True
            try:
                results = dispatch(func, types, args, kwargs)
            finally:
                self._is_in_operator = False
            self.allocate(results, may_resize=func._schema.is_mutable)
            return results

        return run

    def restart(self) -> None:
        """Forget all events: a tape begins, and what is there by now is registered next."""
        self.items.clear()
        self._allocations.clear()
        self._expected.clear()
        self.position = self.count = 0
        for record in self._records.values():
            record.number, record.name = _UNCOUNTED, ""

    def register(self, tensor: torch.Tensor, kind: StorageKind, name: str) -> None:
        """Record a storage that is there before the first call."""
        if tensor.layout is torch.strided and not tensor.is_nested:
            record = self.of(tensor)
            if record.number == _UNCOUNTED:
                self._count(record, tensor, kind, name)

    def allocate(self, results: Any, *, may_resize: bool = False) -> None:
        """Record the storages that an operator has allocated for its results.

        Args:
            results: The results.
            may_resize: True if it may have resized the storage of an argument.
        """
        for tensor in (results,) if type(results) is FakeTensor else tensors_in(results):
            if type(tensor) is not FakeTensor or tensor.layout is not torch.strided:
                continue
            record = self.of(tensor)
            if record.number == _UNCOUNTED:
                self._count(record, tensor)
            elif may_resize and record.number in self._allocations:
                self._resize(record, tensor)

    def results_alive(self) -> set[int]:
        """Return the addresses of the storages of results that are alive."""
        return {
            record.key
            for record in self._records.values()
            if record.number == _ELSEWHERE or self._is_result(record.number)
        }

    def _is_result(self, number: int) -> bool:
        # The allocations of repeats are those of their blocks.
        allocation = self._allocations.get(number)
        is_result = allocation is None or allocation[3] is StorageKind.RESULT
        return number >= 0 and is_result

    def mark(self) -> EventMark:
        """Return the position at which a block of events begins."""
        return EventMark(self.position, len(self.items), self.count)

    def cut(self, mark: EventMark) -> EventBlock:
        """Take the events since a mark off, and return them."""
        block = self.block_since(mark)
        del self.items[mark.first_item :]
        return block

    def block_since(self, mark: EventMark) -> EventBlock:
        """Return the events since a mark."""
        first_call, first_item, first_storage = mark
        items = tuple(self.items[first_item:])
        return EventBlock(first_call, first_storage, self.count - first_storage, items)

    def call_events(self, mark: EventMark, out: Any) -> CallEvents | None:
        """Return the events of a call that has run, or None if not every such call has them.

        Args:
            mark: Position at which the call began.
            out: Its result.
        """
        first, results = mark.first_storage, tensors_in(out)
        events = self.items[mark.first_item :]
        if not events:
            return CallEvents((), (), (None,) * len(results))
        releases: list[tuple[int, bool]] = []
        for event in events:
            if type(event) is not StorageEvent or event.storage < first:
                return None
            releases.append((event.storage - first, event.is_release))
        allocations = [self._allocations[n][:3] for n in range(first, self.count)]
        if any(type(nbytes) is not int for nbytes, *_ in allocations):
            return None
        numbers = [self.of(tensor).number for tensor in results]
        new = tuple(number - first if number >= first else None for number in numbers)
        return CallEvents(tuple(releases), tuple(allocations), new)

    def repeat_call(self, events: CallEvents, out: Any) -> None:
        """Record the events of a call with the same events as one before."""
        first, call = self.count, self.position
        for nbytes, dtype, device in events.allocations:
            allocation = nbytes, dtype, device, StorageKind.RESULT, ""
            self._allocations[self.count] = allocation
            self.count += 1
        for number, is_release in events.releases:
            storage = first + number
            self.items.append(StorageEvent(call, storage, None if is_release else storage))
        for tensor, result in zip(tensors_in(out), events.results, strict=True):
            if result is not None:
                self.of(tensor).number = first + result
            else:
                self.allocate(tensor)  # a constant of the code is seen first when it is used

    def repeat(self, block: EventBlock, *, is_traced: bool = False) -> EventRepeat:
        """Record the events of a block, whose calls begin here.

        Args:
            block: The block.
            is_traced: True for the traced instance itself, whose events were cut out.
        """
        start = (self.position, self.count)
        if is_traced:
            start = (block.first_call, block.first_storage)
        repeat = EventRepeat(block, *start)
        self.items.append(repeat)
        if not is_traced:
            self.count += block.storages
        return repeat

    def expect_release(self, number: int, repeat: EventRepeat, template: int) -> None:
        """Date a release back to where the traced instance has it, if it follows a repeat directly.

        The Python code that runs a traced instance lets go of a tensor in its midst; that of a
        repeat does so at its end.

        Args:
            number: Number of the storage.
            repeat: The repeat, recorded last.
            template: Number of the storage whose place it takes in the block.
        """
        if template in repeat.block.releases:
            self._expected[number] = repeat, template, self.count

    def identify(self, tensor: torch.Tensor, number: int | None) -> None:
        """Let the storage of a new tensor be one of a repeated block, or none of its own."""
        self.of(tensor).number = _ELSEWHERE if number is None else number

    def stand_in(self, tensor: torch.Tensor, name: str) -> int:
        """Number the storage of a tensor that stands in for another, without an allocation."""
        record = self.of(tensor)
        record.name, record.number = name, self.count
        self.count += 1
        return record.number

    def events(
        self,
        gradients: Mapping[str, torch.Tensor] | None = None,
        caches: Iterable[torch.Tensor] = (),
        *,
        on_gpu: bool = False,
    ) -> StorageEvents:
        """Return the events so far.

        Args:
            gradients: Gradients by the names of the parameters.
            caches: Tensors of KV caches.
            on_gpu: True if the CPU, where the fake tensors are, stands for a GPU.
        """
        names: dict[str, str] = {"cpu": GPU, "meta": GPU} if on_gpu else {}
        allocations = {
            number: Allocation(
                *(dim(nbytes), dtype_name(dtype), names.get(str(device), str(device)), kind, name)
            )
            for number, (nbytes, dtype, device, kind, name) in self._allocations.items()
        }
        return StorageEvents(
            items=tuple(self.items),
            allocations=allocations,
            gradients={self.of(tensor).number: name for name, tensor in (gradients or {}).items()},
            caches=frozenset(self.of(tensor).number for tensor in caches),
        )

    def _record(self, key: int, owner: Any) -> StorageRecord:
        record = self._records[key] = StorageRecord(owner, self._release)
        record.key, record.name, record.number = key, "", _UNCOUNTED
        return record

    def _count(
        self,
        record: StorageRecord,
        tensor: torch.Tensor,
        kind: StorageKind = StorageKind.RESULT,
        name: str = "",
    ) -> None:
        """Record the allocation of a storage."""
        number = record.number = self.count
        self.count += 1
        nbytes = tensor.untyped_storage().nbytes()
        self._allocations[number] = nbytes, tensor.dtype, tensor.device, kind, name
        call = self.position if kind is StorageKind.RESULT else BEFORE
        self.items.append(StorageEvent(call, number, number))

    def _resize(self, record: StorageRecord, tensor: torch.Tensor) -> None:
        """Record a storage anew if its size has changed."""
        before, after = self._allocations[record.number][0], tensor.untyped_storage().nbytes()
        if isinstance(before, int) and isinstance(after, int) and before != after:
            self._free(record.number)
            self._count(record, tensor)

    def _free(self, number: int) -> None:
        self.items.append(StorageEvent(self.position, number, None))

    def _release(self, reference: ref[Any]) -> None:
        record: StorageRecord = reference  # type: ignore[assignment]  # as it was made
        if self._records.get(record.key) is record:
            del self._records[record.key]
        if record.number < 0:
            return
        repeat, template, count = self._expected.pop(record.number, (None, 0, 0))
        if repeat is not None and count == self.count:
            repeat.others[template] = record.number
        else:
            self._free(record.number)


def storage_of(tensor: torch.Tensor) -> Any:
    """Return the storage of a tensor; the tensor itself if it has none."""
    if type(tensor) is FakeTensor and tensor.layout is torch.strided:
        return tensor.untyped_storage()  # nearly all are
    if tensor.layout is not torch.strided:
        return tensor
    inner = tensor
    while functorch.is_functorch_wrapped_tensor(inner):
        inner = functorch.get_unwrapped(inner)
    return inner.untyped_storage()


@cache
def _may_allocate(func: Any) -> bool:
    """Return True for an operator with a kernel, which allocates what it returns."""
    if not isinstance(func, OpOverload) or func.namespace == "prim":
        return False
    # Some decompose on other devices alone, as ``silu_backward``.
    name = func.name()  # type: ignore[no-untyped-call]  # torch's gap
    return not is_composite(func) or has_kernel_for_key(name, "CPU")
