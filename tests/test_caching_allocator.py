"""PyTorch's caching allocator: cases by its rules, and against a naive simulation of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import graphflops as gf
from benchmarks import published_memory, timm_memory
from graphflops.analysis.allocator_memory import RequestTrace
from graphflops.analysis.caching_allocator import (
    Block,
    CachingAllocator,
)
from graphflops.errors import DeviceOutOfMemoryError, ModelSpecError

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("requested", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # the largest of the small pool
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        # A rest of up to 1 MiB is no block of its own.
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),
        (500 * MIB, 500 * MIB, 500 * MIB),
    ],
)
def test_size_of_a_block_and_its_segment(requested: int, allocated: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.allocate(requested)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_small_blocks_share_a_segment() -> None:
    allocator = CachingAllocator()
    for _ in range(2 * MIB // 512):
        allocator.allocate(500)
    assert allocator.allocated == allocator.reserved == 2 * MIB
    allocator.allocate(1)
    assert allocator.reserved == 4 * MIB


def test_blocks_of_1_to_10_mib_share_a_segment() -> None:
    allocator = CachingAllocator()
    for _ in range(4):
        allocator.allocate(5 * MIB)
    assert allocator.allocated == allocator.reserved == 20 * MIB


def test_a_small_request_takes_no_large_block() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(5 * MIB))
    allocator.allocate(1)
    assert allocator.reserved == 22 * MIB


def test_the_smallest_block_that_holds_a_request_is_taken() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    allocator.free(large)
    allocator.free(small)
    assert allocator.allocate(20 * MIB).segment == small.segment
    # What is left of it, 10 MiB, holds the next.
    assert allocator.allocate(9 * MIB).segment == small.segment
    assert allocator.reserved == 70 * MIB


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_free_neighbours_are_merged(order: tuple[int, ...]) -> None:
    allocator = CachingAllocator()
    blocks = [allocator.allocate(6 * MIB) for _ in range(3)]
    for place in order:
        allocator.free(blocks[place])
    allocator.allocate(20 * MIB)
    assert allocator.allocated == allocator.reserved == 20 * MIB


def test_free_blocks_apart_hold_no_larger_request() -> None:
    allocator = CachingAllocator()
    first, _, third, _ = (allocator.allocate(5 * MIB) for _ in range(4))
    allocator.free(first)
    allocator.free(third)
    allocator.allocate(8 * MIB)
    assert allocator.reserved == 40 * MIB


def test_the_cache_is_emptied_of_whole_segments() -> None:
    allocator = CachingAllocator()
    whole, part, _ = (allocator.allocate(size * MIB) for size in (30, 5, 5))
    allocator.free(whole)
    allocator.free(part)
    allocator.empty_cache()
    assert allocator.reserved == 20 * MIB
    allocator.allocate(30 * MIB)
    assert allocator.reserved == 50 * MIB


def test_a_full_device_empties_the_cache_before_it_gives_up() -> None:
    allocator = CachingAllocator(capacity=60 * MIB)
    allocator.free(allocator.allocate(40 * MIB))
    allocator.allocate(50 * MIB)
    assert (allocator.reserved, allocator.peak_reserved) == (50 * MIB, 50 * MIB)
    with pytest.raises(DeviceOutOfMemoryError, match="finds no room"):
        allocator.allocate(20 * MIB)


@dataclass
class NaiveAllocator:
    """The same rules, on lists of ``[offset, size, is free]`` that are searched in full."""

    small: list[list[list[int]]] = field(default_factory=list)
    large: list[list[list[int]]] = field(default_factory=list)

    def allocate(self, nbytes: int) -> list[int]:
        """Return the block for a request."""
        size = max(512, (nbytes + 511) // 512 * 512)
        is_small = size <= MIB
        pool = self.small if is_small else self.large
        fits = [
            (block[1], number, block[0], place)
            for number, segment in enumerate(pool)
            for place, block in enumerate(segment)
            if block[2] and block[1] >= size
        ]
        if fits:
            _, number, _, place = min(fits)
        else:
            own = (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB
            total = 2 * MIB if is_small else 20 * MIB if size < 10 * MIB else own
            pool.append([[0, total, 1]])
            number, place = len(pool) - 1, 0
        segment = pool[number]
        block = segment[place]
        rest = block[1] - size
        if rest >= 512 if is_small else rest > MIB:
            segment.insert(place + 1, [block[0] + size, rest, 1])
            block[1] = size
        block[2] = 0
        return block

    def free(self, block: list[int]) -> None:
        """Free a block, and merge all free neighbours."""
        block[2] = 1
        for segment in (*self.small, *self.large):
            place = 1
            while place < len(segment):
                before, after = segment[place - 1 : place + 1]
                if before[2] and after[2]:
                    before[1] += after[1]
                    del segment[place]
                else:
                    place += 1

    def sums(self) -> tuple[int, int]:
        """Return the bytes in use and those reserved."""
        blocks = [block for segment in (*self.small, *self.large) for block in segment]
        return sum(b[1] for b in blocks if not b[2]), sum(b[1] for b in blocks)


SIZES = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 40 * MIB),
    st.sampled_from((512, MIB, 10 * MIB, 20 * MIB)),
)
STEPS = st.lists(st.one_of(SIZES, st.integers(-40, -1)), max_size=60)
"""A size is requested, a negative number frees one of the blocks in use."""


@given(STEPS)
def test_against_a_naive_simulation(steps: list[int]) -> None:
    allocator, naive = CachingAllocator(), NaiveAllocator()
    held: list[tuple[Block, list[int], int]] = []
    for step in steps:
        if step > 0:
            held.append((allocator.allocate(step), naive.allocate(step), step))
        elif held:
            block, other, _ = held.pop(step % len(held))
            allocator.free(block)
            naive.free(other)
        assert (allocator.allocated, allocator.reserved) == naive.sums()
        assert sum(size for *_, size in held) <= allocator.allocated <= allocator.reserved
    for block, *_ in held:
        allocator.free(block)
    assert allocator.allocated == 0
    allocator.empty_cache()
    assert allocator.reserved == 0


def linears(count: int, width: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(count)))


def test_a_forward_pass_under_the_allocator() -> None:
    with torch.device("meta"):
        report = gf.count(linears(4, 1024), (torch.empty(1024, 1024),))
    memory = report.memory.with_allocator("cuda", context=300 * MIB)
    # Weights, the input and results of 4 MiB each: five to a segment of 20 MiB, without a rest.
    assert report.memory.peak == memory.allocated == (4 + 1 + 2) * 4 * MIB
    assert memory.reserved == 40 * MIB
    assert memory.peak == 340 * MIB
    assert memory.fragmentation == pytest.approx(12 / 40)


def test_a_training_step_is_repeated_until_it_reserves_no_more() -> None:
    with torch.device("meta"):
        step = gf.count_training(linears(3, 2048), (torch.empty(2048, 2048),), optimizer="momentum")
    memory = step.memory.with_allocator()
    # Segments of 16 MiB hold the tensors exactly; scalars take a segment of the small pool.
    assert memory.reserved == step.memory.peak // MIB * MIB + 2 * MIB
    assert step.memory.peak <= memory.allocated <= memory.reserved


def test_an_unknown_allocator() -> None:
    memory = gf.count(nn.Linear(2, 2), (torch.empty(1, 2),)).memory
    with pytest.raises(ModelSpecError, match="'cuda'"):
        memory.with_allocator("hip")  # type: ignore[arg-type]  # the mistake


def test_one_count_gives_the_requests_of_other_batches() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.Flatten()
    ).to("meta")

    def requests(batch: int) -> RequestTrace:
        images = torch.empty(batch, 3, 20, 20, device="meta")
        return gf.count_training(net, (images,), optimizer="momentum").memory.requests

    scaled, fresh = timm_memory.at_batch(requests(timm_memory.COUNTED_BATCH), 8), requests(8)
    assert scaled.requests == list(fresh.requests)


@pytest.mark.parametrize(
    ("convolution", "is_winograd"),
    [
        (nn.Conv2d(16, 32, 3, padding=1), True),
        (nn.Conv2d(16, 32, 1), False),
        (nn.Conv2d(16, 32, 3, padding=1, stride=2), False),
        (nn.Conv2d(16, 32, 3, padding=2, dilation=2), False),
        (nn.Conv2d(16, 32, 3, padding=1, groups=2), False),
    ],
    ids=["3 x 3", "1 x 1", "strided", "dilated", "grouped"],
)
def test_workspaces_of_winograd_convolutions(convolution: nn.Conv2d, is_winograd: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), convolution).to("meta")
    images = torch.empty(2, 3, 28, 28, device="meta")
    step = gf.count_training(model, (images,), loss=lambda y: (y * y).sum())
    calls = [record.call for part in step.parts for record in part.records]
    # 7 x 7 tiles of 6 x 6 numbers, of 16 and of 32 channels: forward, gradients of both inputs.
    tiles = 2 * 7 * 7 * (16 + 32) * 36 * 4
    assert list(timm_memory.workspaces(calls).values()) == [tiles] * 3 * is_winograd


def test_what_selective_checkpoints_save_of_a_layer() -> None:
    tokens = 8192
    two, three = (
        published_memory.trained("selective", 1, tokens, layers).memory for layers in (2, 3)
    )
    dim, narrow, hidden = 4096, 1024, 14336
    # The input, products 1 and 3 (queries and values), attention, products 5 and 7.
    saved = 2 * tokens * (dim + dim + narrow + dim + hidden + dim)
    weights = 2 * (2 * dim * dim + 2 * dim * narrow + 3 * dim * hidden + 2 * dim)
    statistics = 4 * tokens * 32 + 3 * 8  # of the attention of 32 heads; the random state
    assert three.peak - two.peak == saved + weights + statistics
