"""Memory that a pass takes: its peak, what is alive then, and how much is after every call.

Memory is what tensors occupy: bytes of storages that are alive, as the model's own Python code and
autograd keep them. The allocator's rounding, its reserve and the context of a device come on top:
``Memory.with_allocator`` adds them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self, get_args

import numpy as np
import sympy

from graphflops.analysis.allocator_memory import (
    Allocator,
    AllocatorMemory,
    RequestTrace,
    trace_requests,
    under_allocator,
)
from graphflops.analysis.devices import Device
from graphflops.analysis.largest_size import OpenPeak, parse_capacity
from graphflops.analysis.live_tensors import Category, LiveTensor, PassCalls, live_tensors
from graphflops.analysis.optimizer_memory import (
    Implementation,
    OptimizerMemory,
    optimizer_memory,
)
from graphflops.analysis.optimizers import OptimizerStep
from graphflops.analysis.storage_levels import StorageLevels
from graphflops.core.arguments import check_choice
from graphflops.core.cost import Dim, substitute
from graphflops.core.storage_events import BEFORE, StorageEvents, StorageKind
from graphflops.errors import CaptureError, UnboundSymbolError

_NO_EVENTS = (
    "when memory is freed is seen where the model runs as Python: it is not known of a graph that "
    "was exported or read from a file, nor of a part of a training step. Count the nn.Module, and "
    "ask the report of the whole step."
)
_NO_OPTIMIZER = OptimizerMemory(name="", state=0)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Memory that a pass takes.

    Where sizes are symbolic, :attr:`peak` is an expression, and :meth:`subs` gives the memory in
    numbers. All but the peak is of numbers only.

    Attributes:
        storages: When each storage is allocated and freed.
        calls: The calls of the pass.
        caches: Names of inputs that hold the state of earlier tokens.
        optimizer_step: Step of an optimizer that follows; its state is there from the start.
        implementation: Implementation of that step; by default that of ``torch.optim``.
        open_peak: Peak as a function of the sizes that the report keeps open.
    """

    storages: StorageEvents = field(repr=False)
    calls: PassCalls = field(repr=False)
    caches: tuple[str, ...] = ()
    optimizer_step: OptimizerStep | None = field(default=None, repr=False)
    implementation: Implementation | None = None
    open_peak: OpenPeak | None = field(default=None, repr=False)

    @cached_property
    def device(self) -> str:
        """Device whose memory it is: where most storages are; on others only little lies."""
        return main_device(self.storages)

    @cached_property
    def after(self) -> OptimizerMemory:
        """Memory of the step of the optimizer."""
        return self._after_on(self.device)

    def _after_on(self, device: str) -> OptimizerMemory:
        if self.optimizer_step is None:
            return _NO_OPTIMIZER
        return optimizer_memory(self.optimizer_step, device, self.implementation)

    def with_implementation(self, implementation: Implementation) -> Self:
        """Return the memory with another implementation of the optimizer's step.

        Args:
            implementation: ``"for-loop"``, the default of ``torch.optim`` on the CPU, one parameter
                after the other; ``"foreach"``, its default on a GPU, all at once; ``"fused"``.

        Raises:
            ModelSpecError: There is no such implementation.

        Example:
            >>> import torch, graphflops as gf
            >>> x, layers = torch.empty(1, 100), [torch.nn.Linear(100, 100) for _ in range(3)]
            >>> model = torch.nn.Sequential(*layers)
            >>> memory = gf.count_training(model, (x,), optimizer="adamw").memory
            >>> memory.peak, memory.with_implementation("foreach").peak
            (565628, 606428)
        """
        check_choice("implementation", implementation, get_args(Implementation))
        return replace(self, implementation=implementation)

    @cached_property
    def peak(self) -> Dim:
        """Most bytes that are occupied at once; with symbols, the largest of some sums."""
        found = self._levels.highest
        return found[0] if len(found) == 1 else sympy.Max(*found, evaluate=False)

    @cached_property
    def call(self) -> int:
        """Index of the call at which the peak is first reached.

        -1 before the first one, and the number of calls for the step of an optimizer.
        """
        if self._is_in_optimizer_step:
            return len(self.calls)
        position = self._position
        return int(self._levels.events.calls[position]) if position >= 0 else BEFORE

    @cached_property
    def at_peak(self) -> tuple[LiveTensor, ...]:
        """Tensors that are alive at the peak, the largest first."""
        self._check_numbers()
        events = self._levels.events
        position = len(events.calls) - 1 if self._is_in_optimizer_step else self._position
        alive = live_tensors(self.storages, events, position, self.calls, self.caches)
        found = [tensor for tensor in alive if tensor.device == self.device]
        temporaries = self.after.temporaries * self._is_in_optimizer_step
        found.append(self._of_optimizer(self.after.state, Category.OPTIMIZER))
        found.append(self._of_optimizer(temporaries, Category.TEMPORARIES))
        found = [tensor for tensor in found if tensor.nbytes]
        return tuple(sorted(found, key=lambda tensor: -tensor.nbytes))

    @cached_property
    def timeline(self) -> tuple[TimelinePoint, ...]:
        """Memory over the calls, in order."""
        self._check_numbers()
        calls, levels = self._levels.events.calls, self._levels.levels[:, 0]
        starts = np.flatnonzero(np.diff(calls, prepend=BEFORE - 1))
        ends = np.append(starts[1:], len(calls)) - 1
        peaks = np.maximum.reduceat(levels, starts) if len(starts) else levels
        columns = (calls[starts].tolist(), peaks.tolist(), levels[ends].tolist())
        points = tuple(map(TimelinePoint, *columns))
        if points and points[0].call == BEFORE:
            return points
        state = self.after.state
        return (TimelinePoint(BEFORE, state, state), *points)

    def subs(self, **sizes: int) -> Self:
        """Return the memory with numbers for symbolic sizes: ``memory.subs(B=8)``."""
        bound = self.storages.map_sizes(lambda size: substitute(size, sizes))
        return replace(self, storages=bound)

    def keep_open(self, names: Iterable[str], check: Callable[[Mapping[str, int]], None]) -> Self:
        """Return the memory with sizes that :meth:`largest` takes.

        Args:
            names: Symbols of the sizes.
            check: Function of their values that raises a ModelSpecError if the graph does not hold.
        """

        def peak_at(sizes: Mapping[str, int]) -> Dim:
            check(sizes)
            return substitute(self.peak, sizes)

        return replace(self, open_peak=OpenPeak(tuple(names), peak_at))

    def largest(self, size: str, fits: int | str | Device) -> int:
        """Return the largest value of a symbolic size with which the pass fits into memory.

        Args:
            size: Symbol: the batch, or the number of tokens.
            fits: Bytes, ``"80GB"``, ``"80GiB"``, a device or its name. What a process takes
                beside tensors is not subtracted.

        Raises:
            ModelSpecError: The report has no such symbol, or not even the smallest size fits.
            UnboundSymbolError: Other sizes are symbolic too.

        Example:
            >>> import torch, graphflops
            >>> x, axes = torch.empty(4, 250), ({0: "B"},)
            >>> report = graphflops.count(torch.nn.ReLU(), (x,), dynamic_shapes=axes)
            >>> report.memory.peak
            2000*B
            >>> report.memory.largest("B", fits="80GB")
            40000000
        """
        static = {
            "parameters": self._initial(StorageKind.PARAMETER),
            "optimizer state": self.after.state,
        }
        static = {what: nbytes for what, nbytes in static.items() if nbytes}
        open_peak = self.open_peak or OpenPeak((), lambda _: self.peak)
        return open_peak.largest(size, parse_capacity(fits), static)

    def _initial(self, kind: StorageKind) -> int:
        """Return the bytes of what is there from the start, of a kind."""
        allocations = self.storages.allocations.values()
        return sum(int(made.nbytes) for made in allocations if made.kind is kind)

    def with_allocator(self, allocator: Allocator = "cuda", *, context: int = 0) -> AllocatorMemory:
        """Return what the process takes of the device, where an allocator hands out the memory.

        The allocator rounds requests up, and keeps what is freed for later ones: it reserves
        more than is alive. A training step is repeated until it reserves no more; its optimizer
        works on lists of parameters, unless :meth:`with_implementation` has said otherwise.

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

    @cached_property
    def requests(self) -> RequestTrace:
        """Requests of memory on the device, as the allocator of a GPU gets them."""
        self._check_numbers()
        return trace_requests(self.storages, self.device, self._after_on("cuda"))

    def by_category(self) -> dict[str, int]:
        """Return the bytes at the peak by category."""
        sums = dict.fromkeys((category.value for category in Category), 0)
        for tensor in self.at_peak:
            sums[tensor.category.value] += tensor.nbytes
        return sums

    def by_module(self) -> dict[str, int]:
        """Return the bytes at the peak by module, children included; ``""`` is all.

        A tensor belongs to the module that holds it, or that made it.
        """
        sums: defaultdict[str, int] = defaultdict(int)
        for path, nbytes in self._sum_by("module_path").items():
            sums[path] += nbytes
            while path:
                path = path.rpartition(".")[0]  # noqa: PLW2901 - climbing to the root
                sums[path] += nbytes
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

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

    @cached_property
    def _levels(self) -> StorageLevels:
        after = self.after
        return StorageLevels(self.storages, self.device, after.state, after.temporaries)

    @cached_property
    def _position(self) -> int:
        """Number of the event at which the peak is first reached; -1 before the first one."""
        self._check_numbers()
        levels = self._levels.levels[:, 0]
        if not len(levels) or levels.max() <= self.after.state:
            return -1
        return int(levels.argmax())

    @property
    def _is_in_optimizer_step(self) -> bool:
        self._check_numbers()
        return self._levels.is_highest_in_step

    def _check_numbers(self) -> None:
        """Check that no size is symbolic.

        Raises:
            UnboundSymbolError: One is.
        """
        if not self._levels.is_numeric:
            free = {s.name for term in self._levels.terms for s in term.free_symbols}
            msg = (
                f"what is alive at the peak is known in numbers, and {', '.join(sorted(free))} "
                "are symbols: bind them by subs(). The peak itself is an expression."
            )
            raise UnboundSymbolError(msg)

    def _of_optimizer(self, nbytes: int, category: Category) -> LiveTensor:
        name, device = self.after.name, self.device
        return LiveTensor(nbytes=nbytes, category=category, name=name, dtype="", device=device)


def memory_of(
    storages: StorageEvents | None,
    calls: PassCalls,
    *,
    caches: Iterable[str] = (),
    optimizer: OptimizerStep | None = None,
) -> Memory:
    """Return the memory that a pass takes.

    Args:
        storages: Its storage events, if they are known.
        calls: Its calls.
        caches: Names of inputs that hold the state of earlier tokens.
        optimizer: Step that follows, of an optimizer whose state is there from the start.

    Raises:
        CaptureError: Its storage events are not known.
    """
    if storages is None:
        raise CaptureError(_NO_EVENTS)
    return Memory(storages=storages, calls=calls, caches=tuple(caches), optimizer_step=optimizer)


def main_device(events: StorageEvents) -> str:
    """Return the device on which most storages are allocated."""
    counts = Counter(allocation.device for allocation in events.allocations.values())
    return counts.most_common(1)[0][0] if counts else "cpu"
