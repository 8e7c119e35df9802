"""Repeated layers on a tape: what was recorded of one is added for another instance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch

from graphflops.capture.layer_reuse.module_call import LEAST_CALLS, Call
from graphflops.capture.record.module_stack import CallSite, ModuleStack
from graphflops.capture.record.tape import State, Tape
from graphflops.capture.source_lines import line_running
from graphflops.core.call_sequence import Block, Relocation, replace_prefix
from graphflops.core.ir import OpCall


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the recording of a layer began.

    Attributes:
        owner: Its path, class, and the line that calls it.
        items: How many items were on the tape.
        start: How many calls.
        called: How often modules had run, by path.
    """

    owner: CallSite
    items: int
    start: int
    called: Counter[str]


@dataclass(frozen=True, slots=True)
class Layer:
    """A recorded layer.

    Attributes:
        owner: Its path, class, and the line that called it.
        block: The calls of its forward.
        given: Names of the tensors it got.
        made: Names of the tensors it made or wrote to.
        called: How often modules in it ran, by path.
    """

    owner: CallSite
    block: Block[OpCall]
    given: list[str]
    made: list[str]
    called: Counter[str]


@dataclass(slots=True)
class Suffixes:
    """What names of tensors end in, one for each repetition of a layer."""

    _times: Counter[str] = field(default_factory=Counter)

    def next(self, path: str) -> str:
        """That of the next repetition at a path."""
        self._times[path] += 1
        times = self._times[path]
        return f"@{path}" if times == 1 else f"@{path}@{times}"


class TapeTracer:
    """Records and repeats layers on the tape of a forward pass."""

    def __init__(self, tape: Tape, running: ModuleStack) -> None:
        self._tape, self._running = tape, running
        self._suffixes = Suffixes()

    def ready(self) -> bool:
        """Whether calls are not within ``torch.vmap``, which shows one instance of many."""
        return torch._C._functorch.peek_interpreter_stack() is None

    def traced(self, tensors: list[torch.Tensor]) -> list[State | None]:
        """Names of tensors, each with how often it was written to."""
        return [self._tape.state_of(tensor) for tensor in tensors]

    def begin(self, call: Call) -> Mark:
        """Begin to record a layer."""
        return Mark(
            owner=self._owner(call),
            items=len(self._tape.items),
            start=self._tape.length,
            called=self._running.calls.copy(),
        )

    def end(self, mark: Mark, call: Call, outputs: list[torch.Tensor]) -> Layer | None:
        """What was recorded, if it uses nothing else than it was given."""
        tape = self._tape
        block = tape.block(mark.items, mark.start)
        given = [tape.name_of(tensor) for tensor in call.look.tensors]
        if block.length < LEAST_CALLS or not tape.uses_only(block, {*given} - {""}):
            return None
        return Layer(
            owner=mark.owner,
            block=block,
            given=given,
            made=[tape.name_of(out) for out in outputs],
            called=self._running.calls - mark.called,
        )

    def repeat(self, recorded: Layer, call: Call, outputs: list[torch.Tensor]) -> None:
        """Add the calls of a layer for another instance."""
        change = self._repeated(recorded, call)
        for out, name in zip(outputs, recorded.made, strict=True):
            self._tape.assign_name(out, change.map_name(name))

    def _repeated(self, recorded: Layer, call: Call) -> Relocation:
        """Add the calls; what is different in them."""
        owner = self._owner(call)
        given = map(self._tape.name_of, call.look.tensors)
        change = Relocation(
            from_path=recorded.owner.module_path,
            to_path=owner.module_path,
            from_line=recorded.owner.source_line,
            to_line=owner.source_line,
            names=dict(zip(recorded.given, given, strict=True)),
            to_suffix=self._suffixes.next(owner.module_path),
        )
        self._tape.repeat(recorded.block, change)
        for path, calls in recorded.called.items():
            self._running.calls[
                replace_prefix(path, recorded.owner.module_path, owner.module_path)
            ] += calls
        return change

    def _owner(self, call: Call) -> CallSite:
        return self._running.call_site_of(call.module)._replace(source_line=line_running())
