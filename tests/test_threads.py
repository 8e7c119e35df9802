"""Counts in several threads at once: as alone, and nobody is disturbed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.utils import _python_dispatch as dispatch

import graphflops as gf
from graphflops.errors import CaptureError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)
        )

    def forward(self, x: Any) -> Any:
        return x + self.steps(x)


class Checkpointed(Block):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Any) -> Any:
        y: torch.Tensor = torch.utils.checkpoint.checkpoint(
            self.steps, x, use_reentrant=self.reentrant
        )
        return y


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 8)

    def forward(self, x: Any) -> Any:
        y: torch.Tensor = self.cells(x)[0]
        return y


class Unpriced(nn.Module):
    """Calls an operator that is priced by what it decomposes into."""

    def forward(self, x: Any) -> Any:
        return torch.special.entr(x) + torch.nn.functional.pdist(x).sum()


def models() -> list[nn.Module]:
    return [
        nn.Sequential(*[Block() for _ in range(4)], nn.Dropout(0.1)),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        nn.Sequential(nn.Linear(8, 8), Checkpointed(reentrant=False), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), Checkpointed(reentrant=True), nn.Linear(8, 8)),
        Recurrent(),
        nn.Sequential(nn.Linear(8, 8), Unpriced()),
    ]


def summary(subject: nn.Module, x: torch.Tensor, *, training: bool) -> Any:
    if training:
        step = gf.count_training(subject, (x,))
        return [_of(report) for report in (step.forward, step.backward)], step.recompute.flops
    return _of(gf.count(subject, (x,)))


def _of(report: Any) -> Any:
    rows = {path: (row.flops, row.macs) for path, row in report.by_module().items()}
    return report.flops, report.macs, report.bytes_read, report.bytes_written, rows


@contextmanager
def others_at_work(shared: nn.Module, x: torch.Tensor) -> Iterator[None]:
    """Train a model in one thread, and run one that is counted meanwhile in another."""
    stop, errors = threading.Event(), list[BaseException]()

    def repeat(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to see it
            errors.append(error)

    own = nn.Sequential(Block(), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(own.parameters(), 1e-3)
    expected = shared(x)

    def train() -> None:
        optimizer.zero_grad()
        own(x).sum().backward()
        assert all(type(p.grad) is torch.Tensor for p in own.parameters())
        optimizer.step()
        assert not torch.compiler.is_compiling()

    def run() -> None:
        out = shared(x)
        assert type(out) is torch.Tensor
        assert torch.equal(out, expected)

    workers = [threading.Thread(target=repeat, args=(work,)) for work in (train, run)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert not errors, errors


@pytest.mark.parametrize("times", [48, pytest.param(1000, marks=pytest.mark.slow, id="many")])
def test_counts_in_threads_are_as_alone(times: int) -> None:
    subjects, x = models(), torch.randn(4, 8)
    kinds = [(model, training) for model in subjects for training in (False, True)]
    alone = [summary(model, x, training=training) for model, training in kinds]

    def count(number: int) -> bool:
        model, training = kinds[number % len(kinds)]
        return bool(summary(model, x, training=training) == alone[number % len(kinds)])

    with others_at_work(subjects[0].eval(), x), ThreadPoolExecutor(8) as pool:
        alone[0] = summary(subjects[0], x, training=False)  # it is in evaluation now
        alone[1] = summary(subjects[0], x, training=True)
        assert sum(pool.map(count, range(times))) == times
    assert all(type(p) is nn.Parameter for model in subjects for p in model.parameters())
    assert not dispatch._is_in_torch_dispatch_mode
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(1)
        return graph

    torch.compile(nn.Linear(8, 8), backend=backend)(x)
    assert compiled == [1]


def test_one_model_counted_by_many() -> None:
    subject, x = nn.Sequential(Block(), Block(), Block()), torch.randn(4, 8)
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: gf.count(subject, (x,)).macs, range(16)))
    assert counts == [3 * 3 * 4 * 8 * 8] * 16
    assert all(type(p) is nn.Parameter for p in subject.parameters())


class Pooled(nn.Module):
    """Runs its branches in threads of a pool."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.pool = ThreadPoolExecutor(2)
        self.how = how
        list(self.pool.map(abs, range(4)))  # its threads are there

    def forward(self, x: Any) -> Any:
        if self.how == "map":
            return sum(self.pool.map(lambda branch: branch(x), self.branches))
        if self.how == "submit":
            futures = [self.pool.submit(branch, x) for branch in self.branches]
            return torch.stack([future.result() for future in futures]).sum(0)
        if self.how == "new":
            with ThreadPoolExecutor(2) as pool:
                return sum(pool.map(lambda branch: branch(x), self.branches))

        async def gather() -> list[torch.Tensor]:
            tasks = [asyncio.to_thread(branch, x) for branch in self.branches]
            return list(await asyncio.gather(*tasks))

        return torch.stack(asyncio.run(gather())).sum(0)


@pytest.mark.parametrize("how", ["map", "submit", "new", "asyncio"])
def test_branches_that_run_in_a_pool_are_counted(how: str) -> None:
    model = Pooled(how)
    report = gf.count(model, (torch.randn(2, 4),))
    assert report.macs == 3 * 2 * 4 * 4
    assert {f"branches.{n}" for n in range(3)} <= set(report.by_module())
    assert model(torch.randn(2, 4)).shape == (2, 4)


class Starts(nn.Module):
    """Runs its layer in a thread that is none of a ``ThreadPoolExecutor``'s."""

    def __init__(self, pool: ThreadPool | None = None) -> None:
        super().__init__()
        self.layer, self.pool = nn.Linear(4, 4), pool

    def forward(self, x: Any) -> Any:
        if self.pool is not None:
            out: torch.Tensor = self.pool.apply(self.layer, (x,))
            return out
        outs: list[torch.Tensor] = []
        thread = threading.Thread(target=lambda: outs.append(self.layer(x)), name="branch")
        thread.start()
        thread.join()
        return outs[0]


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
def test_a_forward_that_computes_in_threads_of_its_own_is_refused(count: Any) -> None:
    with pytest.raises(CaptureError, match="starts a thread of its own"):
        count(Starts(), (torch.randn(2, 4),))
    with ThreadPool(1) as pool, pytest.raises(CaptureError, match="computes in another thread"):
        count(Starts(pool), (torch.randn(2, 4),))
