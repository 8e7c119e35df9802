"""PyTorch's caching allocator of CUDA memory: what it reserves for a sequence of requests.

The rules are those of ``c10/cuda/CUDACachingAllocator.cpp`` (``round_size``,
``get_allocation_size``, ``get_free_block``, ``should_split``, ``free_block``) under the default
settings, the constants those of ``c10/core/AllocatorConfig.h`` in torch 2.13. A request takes the
smallest free block that holds it; without one, a segment is taken from the device. Free neighbours
within a segment are merged. Segments stay reserved until the cache is emptied.

One stream is simulated, without expandable segments or CUDA graphs. Of free blocks of one size the
allocator takes the one at the lowest address; here, that in the segment reserved first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import NamedTuple

from graphflops.errors import DeviceOutOfMemoryError

MIN_BLOCK = 512
"""Bytes to whose multiples sizes are rounded: ``kMinBlockSize``."""
SMALL_SIZE = 1 << 20
"""Largest size in the pool of small blocks: ``kSmallSize``."""
SMALL_SEGMENT = 2 << 20
"""Bytes of a segment of small blocks: ``kSmallBuffer``."""
MIN_LARGE_ALLOCATION = 10 << 20
"""Size from which on a block has a segment of its own: ``kMinLargeAlloc``."""
LARGE_SEGMENT = 20 << 20
"""Bytes of a segment of blocks below that size: ``large_segment_size``."""
ROUND_LARGE = 2 << 20
"""Bytes to whose multiples segments of their own are rounded: ``kRoundLarge``."""


@dataclass(slots=True, eq=False)
class Block:
    """Part of a segment.

    Attributes:
        segment: Number of the segment, in order of reservation.
        offset: First byte of the block in the segment.
        size: Size in bytes.
        is_small: True in the pool of small blocks.
        is_free: True if it is not in use.
        previous: Block before it in the segment.
        next: Block after it in the segment.
    """

    segment: int
    offset: int
    size: int
    is_small: bool
    is_free: bool = False
    previous: Block | None = field(default=None, repr=False)
    next: Block | None = field(default=None, repr=False)

    @property
    def is_whole_segment(self) -> bool:
        """True if the segment is not split."""
        return self.previous is None and self.next is None


class _Free(NamedTuple):
    """Free block in the order in which the allocator searches."""

    size: int
    segment: int
    offset: int
    block: Block | None = None


class CachingAllocator:
    """State of the allocator of one device.

    Attributes:
        allocated: Bytes of blocks in use, as ``torch.cuda.memory_allocated`` has them.
        reserved: Bytes of segments, as ``torch.cuda.memory_reserved`` has them.
        peak_allocated: Most bytes in use so far.
        peak_reserved: Most bytes reserved so far.

    Example:
        >>> allocator = CachingAllocator()
        >>> block = allocator.allocate(100)
        >>> allocator.allocated, allocator.reserved
        (512, 2097152)
        >>> allocator.free(block)
        >>> allocator.allocated, allocator.reserved
        (0, 2097152)
    """

    def __init__(self, capacity: int | None = None) -> None:
        """Begin without segments.

        Args:
            capacity: Most bytes that can be reserved; by default without a limit.
        """
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = 0
        self._capacity = capacity
        self._segments = 0
        self._free: dict[bool, list[_Free]] = {True: [], False: []}

    def allocate(self, nbytes: int) -> Block:
        """Return a block for a request of at least one byte.

        Raises:
            DeviceOutOfMemoryError: The device has no room for it.
        """
        size = -(-nbytes // MIN_BLOCK) * MIN_BLOCK
        block = self._take_free(size) or self._reserve(size)
        block.is_free = False
        remaining = block.size - size
        if remaining >= MIN_BLOCK if block.is_small else remaining > SMALL_SIZE:
            self._split(block, size)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Return a block to its pool, merged with its free neighbours."""
        self.allocated -= block.size
        block.is_free = True
        before, after = block.previous, block.next
        if before is not None and before.is_free:
            self._remove(before)
            block.offset, block.previous = before.offset, before.previous
            block.size += before.size
            if block.previous is not None:
                block.previous.next = block
        if after is not None and after.is_free:
            self._remove(after)
            block.size, block.next = block.size + after.size, after.next
            if block.next is not None:
                block.next.previous = block
        self._insert(block)

    def empty_cache(self) -> None:
        """Return the segments to the device that are free as a whole."""
        for is_small, pool in self._free.items():
            kept = [free for free in pool if free.block and not free.block.is_whole_segment]
            self.reserved -= sum(free.size for free in pool) - sum(free.size for free in kept)
            self._free[is_small] = kept

    def _take_free(self, size: int) -> Block | None:
        pool = self._free[size <= SMALL_SIZE]
        place = bisect_left(pool, (size, -1, -1), key=_order)
        return pool.pop(place).block if place < len(pool) else None

    def _reserve(self, size: int) -> Block:
        nbytes = segment_size(size)
        if self._capacity is not None and self.reserved + nbytes > self._capacity:
            self.empty_cache()
            if self.reserved + nbytes > self._capacity:
                msg = (
                    f"a request of {size} bytes finds no room: {self.reserved} of "
                    f"{self._capacity} bytes are reserved, {self.allocated} of them in use."
                )
                raise DeviceOutOfMemoryError(msg)
        self.reserved += nbytes
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._segments += 1
        return Block(self._segments, 0, nbytes, is_small=size <= SMALL_SIZE)

    def _split(self, block: Block, size: int) -> None:
        rest = Block(
            block.segment,
            block.offset + size,
            block.size - size,
            block.is_small,
            is_free=True,
            previous=block,
            next=block.next,
        )
        if block.next is not None:
            block.next.previous = rest
        block.size, block.next = size, rest
        self._insert(rest)

    def _insert(self, block: Block) -> None:
        free = _Free(block.size, block.segment, block.offset, block)
        insort(self._free[block.is_small], free, key=_order)

    def _remove(self, block: Block) -> None:
        pool, key = self._free[block.is_small], (block.size, block.segment, block.offset)
        del pool[bisect_left(pool, key, key=_order)]


def _order(free: _Free) -> tuple[int, int, int]:
    return free[:3]


def segment_size(size: int) -> int:
    """Return the bytes of the segment that is reserved for a block.

    Example:
        >>> segment_size(512) >> 20, segment_size(3 << 20) >> 20, segment_size(11 << 20) >> 20
        (2, 20, 12)
    """
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_LARGE_ALLOCATION:
        return LARGE_SEGMENT
    return -(-size // ROUND_LARGE) * ROUND_LARGE
