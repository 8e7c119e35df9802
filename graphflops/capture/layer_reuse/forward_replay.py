"""Replay of layers on the tape of a forward pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch

from graphflops.capture.layer_reuse.module_call import MIN_CALLS, ModuleCall
from graphflops.capture.record.module_stack import CallSite, ModuleStack
from graphflops.capture.record.tape import Tape, TensorVersion
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.functorch_levels import functorch
from graphflops.core.call_sequence import Block, Relocation, replace_prefix
from graphflops.core.ir import OpCall


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """Position on the tape at which the recording of a layer began.

    Attributes:
        call_site: Path and class of the layer, and the line that calls it.
        first_item: Number of items on the tape before.
        first_call: Number of operator calls before.
        module_calls: Number of calls of each module before, by path.
    """

    call_site: CallSite
    first_item: int
    first_call: int
    module_calls: Counter[str]


@dataclass(frozen=True, slots=True)
class TapeSegment:
    """Recording of a layer on a tape.

    Attributes:
        call_site: Path and class of the layer, and the line that calls it.
        block: The operator calls of its forward.
        input_names: Names of the tensors in its fingerprint.
        output_names: Names of the tensors it created or wrote to.
        module_calls: Number of calls of each module in it, by path.
    """

    call_site: CallSite
    block: Block[OpCall]
    input_names: list[str]
    output_names: list[str]
    module_calls: Counter[str]


@dataclass(slots=True)
class Suffixes:
    """Suffixes of tensor names, one for each replay of a layer."""

    _replays: Counter[str] = field(default_factory=Counter)

    def next(self, path: str) -> str:
        """Return the suffix of the next replay at a path."""
        self._replays[path] += 1
        count = self._replays[path]
        return f"@{path}" if count == 1 else f"@{path}@{count}"


class TapeTracer:
    """Recorder and replayer of layers on the tape of a forward pass."""

    def __init__(self, tape: Tape, module_stack: ModuleStack) -> None:
        self._tape, self._module_stack = tape, module_stack
        self._suffixes = Suffixes()

    def can_record(self) -> bool:
        """Return False under ``torch.vmap``, which shows one instance of many."""
        return functorch.peek_interpreter_stack() is None

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
        )

    def end(
        self, start: SegmentStart, call: ModuleCall, outputs: list[torch.Tensor]
    ) -> TapeSegment | None:
        """Return the recorded segment, if it uses no tensors but its inputs."""
        tape = self._tape
        block = tape.block(start.first_item, start.first_call)
        input_names = [tape.name_of(tensor) for tensor in call.fingerprint.tensors]
        if block.length < MIN_CALLS or not tape.uses_only(block, {*input_names} - {""}):
            return None
        return TapeSegment(
            call_site=start.call_site,
            block=block,
            input_names=input_names,
            output_names=[tape.name_of(out) for out in outputs],
            module_calls=self._module_stack.calls - start.module_calls,
        )

    def replay(self, segment: TapeSegment, call: ModuleCall, outputs: list[torch.Tensor]) -> None:
        """Add the operator calls of a segment for another instance of the layer."""
        relocation = self._replay_calls(segment, call)
        for out, name in zip(outputs, segment.output_names, strict=True):
            self._tape.assign_name(out, relocation.map_name(name))

    def _replay_calls(self, segment: TapeSegment, call: ModuleCall) -> Relocation:
        """Add the operator calls of a segment, and return their relocation."""
        call_site = self._call_site(call)
        names = map(self._tape.name_of, call.fingerprint.tensors)
        relocation = Relocation(
            from_path=segment.call_site.module_path,
            to_path=call_site.module_path,
            from_line=segment.call_site.source_line,
            to_line=call_site.source_line,
            names=dict(zip(segment.input_names, names, strict=True)),
            to_suffix=self._suffixes.next(call_site.module_path),
        )
        self._tape.replay(segment.block, relocation)
        for path, calls in segment.module_calls.items():
            self._module_stack.calls[
                replace_prefix(path, segment.call_site.module_path, call_site.module_path)
            ] += calls
        return relocation

    def _call_site(self, call: ModuleCall) -> CallSite:
        return self._module_stack.call_site_of(call.module)._replace(
            source_line=current_source_line()
        )
