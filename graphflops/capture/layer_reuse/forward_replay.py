"""Replay of layers on the tape of a forward pass."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from graphflops.capture.fake.storages import EventMark
from graphflops.capture.layer_reuse.module_call import ModuleCall
from graphflops.capture.record.module_stack import CallSite, ModuleStack
from graphflops.capture.record.tape import Tape, TensorVersion
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.functorch_levels import functorch
from graphflops.core.call_sequence import Block, Relocation, replace_prefix
from graphflops.core.ir import OpCall
from graphflops.core.storage_events import EventBlock, EventRepeat


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """Position on the tape at which the recording of a layer began.

    Attributes:
        call_site: Path and class of the layer, and the line that calls it.
        first_item: Number of items on the tape before.
        first_call: Number of operator calls before.
        module_calls: Number of calls of each module before, by path.
        events: Position among the storage events.
    """

    call_site: CallSite
    first_item: int
    first_call: int
    module_calls: Counter[str]
    events: EventMark


@dataclass(frozen=True, slots=True)
class TapeSegment:
    """Recording of a layer on a tape.

    Attributes:
        call_site: Path and class of the layer, and the line that calls it.
        block: The operator calls of its forward.
        input_names: Names of the tensors in its fingerprint.
        constants: Names of the constants that it uses beside these.
        input_storages: Names of the storages of those inputs that lie in another tensor's memory,
            by their position.
        output_names: Names of the tensors it created or wrote to.
        output_memory: Names of the storages of these.
        module_calls: Number of calls of each module in it, by path.
        events: Its storage events.
        output_storages: Number of the storage of each output; ``None`` for one from before.
    """

    call_site: CallSite
    block: Block[OpCall]
    input_names: list[str]
    constants: set[str]
    input_storages: dict[int, str]
    output_names: list[str]
    output_memory: list[str]
    module_calls: Counter[str]
    events: EventBlock
    output_storages: list[int | None]


_ILLEGAL = re.compile(r"\W")


@dataclass(slots=True)
class Suffixes:
    """Suffixes of tensor names, one for each replay of a layer."""

    _replays: Counter[str] = field(default_factory=Counter)
    _used: set[str] = field(default_factory=set)

    def next(self, path: str) -> str:
        """Return the suffix of the next replay at a path, part of a legal name of a node."""
        self._replays[path] += 1
        count = self._replays[path]
        suffix = "_at_" + _ILLEGAL.sub("_", path) + (f"_call{count}" if count > 1 else "")
        while suffix in self._used:
            suffix += "_"
        self._used.add(suffix)
        return suffix


class TapeTracer:
    """Recorder and replayer of layers on the tape of a forward pass."""

    def __init__(self, tape: Tape, module_stack: ModuleStack) -> None:
        self._tape, self._module_stack = tape, module_stack
        self._storages = tape.storages
        self._suffixes = Suffixes()

    def can_record(self) -> bool:
        """Return False under ``torch.vmap``, which shows one instance of many."""
        return functorch.peek_interpreter_stack() is None

    def can_repeat(self, module: nn.Module) -> bool:
        """Return True: a forward pass leaves nothing behind in a module."""
        del module
        return True

    def tensor_versions(self, tensors: list[torch.Tensor]) -> list[TensorVersion | None]:
        """Return the versions of tensors on the tape."""
        return [self._tape.version_of(tensor) for tensor in tensors]

    def begin(self, call: ModuleCall) -> SegmentStart:
        """Begin to record a layer."""
        return SegmentStart(
            call_site=self._call_site(call),
            first_item=len(self._tape.items),
            first_call=self._tape.length,
            module_calls=self._module_stack.calls.copy(),
            events=self._storages.mark(),
        )

    def end(
        self, start: SegmentStart, call: ModuleCall, outputs: list[torch.Tensor]
    ) -> TapeSegment | None:
        """Return the recorded segment, if it uses no tensors but its inputs."""
        tape = self._tape
        block = tape.block(start.first_item, start.first_call)
        input_names = [tape.name_of(tensor) for tensor in call.fingerprint.tensors]
        if block.length < call.min_calls:
            return None
        outside_names = tape.outside_names(block) - {*input_names}
        if not outside_names <= tape.constants.keys():
            return None
        events = self._storages.block_since(start.events)
        storages = (self._storages.of(out).number for out in outputs)
        return TapeSegment(
            call_site=start.call_site,
            block=block,
            input_names=input_names,
            constants=outside_names,
            input_storages=self._shared_storages(call.fingerprint.tensors),
            output_names=[tape.name_of(out) for out in outputs],
            output_memory=[tape.storage_name(out) for out in outputs],
            module_calls=self._module_stack.calls - start.module_calls,
            events=events,
            output_storages=[n if events.allocates(n) else None for n in storages],
        )

    def replay(self, segment: TapeSegment, call: ModuleCall, outputs: list[torch.Tensor]) -> None:
        """Add the operator calls of a segment for another instance of the layer."""
        _, relocation = self._replay_calls(segment, call, outputs)
        for out, name in zip(outputs, segment.output_names, strict=True):
            self._tape.assign_name(out, relocation.map_name(name))

    def _replay_calls(
        self, segment: TapeSegment, call: ModuleCall, outputs: list[torch.Tensor]
    ) -> tuple[EventRepeat, Relocation]:
        """Add the calls and the storage events of a segment; return what they were mapped by."""
        repeat = self._storages.repeat(segment.events)
        new = [not self._tape.name_of(out) for out in outputs]  # else an input that was written to
        for out, number, is_new in zip(outputs, segment.output_storages, new, strict=True):
            if is_new:
                self._storages.identify(out, None if number is None else repeat.storage(number))
        call_site = self._call_site(call)
        tensors = call.fingerprint.tensors
        names = {name: name for name in segment.constants}
        names |= {
            storage: self._tape.storage_name(tensors[position])
            for position, storage in segment.input_storages.items()
        }
        names |= zip(segment.input_names, map(self._tape.name_of, tensors), strict=True)
        relocation = Relocation(
            from_path=segment.call_site.module_path,
            to_path=call_site.module_path,
            from_line=segment.call_site.source_line,
            to_line=call_site.source_line,
            names=names,
            to_suffix=self._suffixes.next(call_site.module_path),
        )
        self._tape.replay(segment.block, relocation)
        for out, name, is_new in zip(outputs, segment.output_memory, new, strict=True):
            if is_new:
                self._storages.of(out).name = relocation.map_name(name)
        for path, calls in segment.module_calls.items():
            self._module_stack.calls[
                replace_prefix(path, segment.call_site.module_path, call_site.module_path)
            ] += calls
        return repeat, relocation

    def _shared_storages(self, tensors: list[torch.Tensor]) -> dict[int, str]:
        """Return names of storages by position, of tensors in the memory of others."""
        storages = {
            position: self._tape.storage_name(tensor)
            for position, tensor in enumerate(tensors)
            if self._tape.name_of(tensor)
        }
        return {p: name for p, name in storages.items() if name != self._tape.name_of(tensors[p])}

    def _call_site(self, call: ModuleCall) -> CallSite:
        return self._module_stack.call_site_of(call.module)._replace(
            source_line=current_source_line()
        )
