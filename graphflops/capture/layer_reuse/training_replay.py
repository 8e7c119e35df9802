"""Replay of layers under autograd: a replayed layer is one node of the autograd graph.

The forward of a further instance is replayed from the first; so is its backward, from the first
one with gradients of the same metadata. To record that one its forward runs again, on tensors like
its inputs.

Storages have the lifetimes that the layers' own code gives them. What a layer saves of its own is
freed where the recorded backward pass frees it. What it saves of its inputs and outputs is held by
the node, and let go of at the end of its backward pass, as the incoming gradients are: such a
release is dated back to where the recorded pass has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.metadata import tensor_meta
from graphflops.capture.layer_reuse.autograd_boundary import (
    boundary_edges,
    gradient_edges,
    is_parameter,
    references,
    saved_storages,
)
from graphflops.capture.layer_reuse.backward_recorder import BackwardRecorder
from graphflops.capture.layer_reuse.forward_replay import SegmentStart, TapeSegment, TapeTracer
from graphflops.capture.layer_reuse.kv_caches import copy_without_tensors, is_cache
from graphflops.capture.layer_reuse.module_call import MIN_CALLS, ModuleCall
from graphflops.capture.layer_reuse.training_segment import (
    BackwardSegment,
    CacheNumber,
    InputCopy,
    InputNumber,
    ReplayedLayer,
    TrainingSegment,
)
from graphflops.capture.record.aliasing import storage_identity
from graphflops.capture.record.autograd_attribution import AutogradAttribution
from graphflops.capture.record.gradients import GradientTracker
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.training_tape import TrainingTape
from graphflops.capture.torch_internals.autograd_engine import (
    current_graph_task_id,
    next_sequence_number,
    top_saved_tensors_hooks,
)
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.storage_events import EventRepeat


@dataclass(frozen=True, slots=True)
class _TrainingStart(SegmentStart):
    """Position on the tape and in the autograd graph at which the recording of a layer began.

    Attributes:
        first_node: Autograd's sequence number then.
        references: Number of references to each of its tensors.
        caches: Copies of the caches among its arguments.
    """

    first_node: int
    references: list[tuple[int, ...]]
    caches: list[Any]


class AutogradTracer(TapeTracer):
    """Recorder and replayer of layers on the tape of a training step."""

    def __init__(
        self,
        tape: TrainingTape,
        attribution: AutogradAttribution,
        gradient_tracker: GradientTracker,
        values: ValueTracker,
    ) -> None:
        super().__init__(tape, attribution)
        self._training_tape, self._attribution, self._values = tape, attribution, values
        self._recorder = BackwardRecorder(tape, attribution, gradient_tracker, values)

    def can_record(self) -> bool:
        """Return True in the forward pass outside of checkpoints, which run twice."""
        in_backward = current_graph_task_id() != -1
        hooks = top_saved_tensors_hooks(True)
        return not (in_backward or self._attribution.reentrant_depth or hooks)

    def can_repeat(self, module: nn.Module) -> bool:
        """Return True if no gradients of the calls, or of what they share, add up.

        Autograd adds them up in the midst of a backward pass, a replay at its end.
        """
        del module
        return not torch.is_grad_enabled()

    def begin(self, call: ModuleCall) -> _TrainingStart:
        """Begin to record a layer."""
        start, first_node = super().begin(call), next_sequence_number()
        return _TrainingStart(
            **{item.name: getattr(start, item.name) for item in fields(start)},
            first_node=first_node,
            references=references(call.fingerprint.tensors),
            caches=list(map(copy_without_tensors, call.fingerprint.caches)),
        )

    def end(
        self, start: Any, call: ModuleCall, outputs: list[torch.Tensor]
    ) -> TrainingSegment | None:
        """Return the recorded segment, if it uses no other tensors and may be replayed."""
        tape, tensors = self._training_tape, call.fingerprint.tensors
        segment = super().end(start, call, outputs) if self._can_rerun(start, call) else None
        if segment is None or segment.block.length < MIN_CALLS:
            return None
        if any(tape.name_of(out) in segment.input_names and out.requires_grad for out in outputs):
            return None
        new = [out for out in outputs if tape.name_of(out) not in segment.input_names]
        if len(set(map(storage_identity, new))) < len(new):
            return None  # views of one tensor, which share a node
        edges, own_edges = (
            set(boundary_edges(outputs, start.first_node)),
            gradient_edges(tensors),
        )
        numbers = [n for n, edge in enumerate(own_edges) if edge in edges]
        if len({own_edges[n] for n in numbers}) < max(len(edges), len(numbers)):
            return None
        # A rerun gets copies of the activations among its arguments.
        leaves, spec = pytree.tree_flatten((call.args, call.kwargs), is_leaf=is_cache)
        arguments = set(map(id, leaves))
        places = {id(t): InputNumber(n) for n, t in enumerate(tensors) if id(t) in arguments}
        caches = {id(cache): CacheNumber(n) for n, cache in enumerate(call.fingerprint.caches)}
        if any(not is_parameter(tensors[n]) and id(tensors[n]) not in places for n in numbers):
            return None
        saved, counts = saved_storages(outputs, start.first_node), references(tensors)
        copies = self._copies(segment, tensors, places.values())
        return TrainingSegment(
            **{item.name: getattr(segment, item.name) for item in fields(segment)},
            input_numbers=numbers,
            output_kinds=[(out.requires_grad, tape.depends_on_inputs(out)) for out in outputs],
            arguments=pytree.tree_unflatten(
                [places.get(id(leaf)) or caches.get(id(leaf), leaf) for leaf in leaves], spec
            ),
            caches=start.caches,
            copies=copies,
            saved_inputs=[n for n in copies if counts[n] > start.references[n]],
            saved_outputs=[n for n, t in enumerate(outputs) if storage_identity(t) in saved],
        )

    def _can_rerun(self, start: _TrainingStart, call: ModuleCall) -> bool:
        """Return True if a layer can run again for its backward pass, and leave nothing behind.

        A rerun fills copies of caches, which hold no tensors; a reentrant checkpoint accumulates
        into ``.grad``.
        """
        has_filled_entry = len(call.fingerprint.tensors) > len(start.references)
        leaves = pytree.tree_leaves((call.args, call.kwargs), is_leaf=is_cache)
        return not (
            has_filled_entry
            or any(cache is None for cache in start.caches)
            or self._attribution.used_reentrant_checkpoint
            or {*map(id, call.fingerprint.caches)} - {*map(id, leaves)}
        )

    def _copies(
        self, segment: TapeSegment, tensors: Sequence[torch.Tensor], places: Iterable[InputNumber]
    ) -> dict[int, InputCopy]:
        """Return tensors like those of a layer's arguments that are no parameters."""
        return {
            number: InputCopy(
                self._values.empty_like(tensor),
                self._values.state(tensor),
                tensor.requires_grad,
                segment.input_storages.get(number, segment.input_names[number]),
            )
            for number, tensor in ((place.number, tensors[place.number]) for place in places)
            if not is_parameter(tensor)
        }

    def replay(self, segment: Any, call: ModuleCall, outputs: list[torch.Tensor]) -> None:
        """Add the operator calls of a segment, and a node for its backward."""
        events, relocation = self._replay_calls(segment, call, outputs)
        for out, name, (_, from_inputs) in zip(
            outputs, segment.output_names, segment.output_kinds, strict=True
        ):
            assign_name = (
                self._training_tape.assign_input_name
                if from_inputs
                else self._training_tape.assign_name
            )
            assign_name(out, relocation.map_name(name))
        if not (torch.is_grad_enabled() and any(has_grad for has_grad, _ in segment.output_kinds)):
            return
        tensors = call.fingerprint.tensors
        copied = [tensors[n] for n in segment.copies]
        saved = [tensors[n] for n in segment.saved_inputs]
        saved += [outputs[n] for n in segment.saved_outputs]
        instance = ReplayedLayer(
            segment=segment,
            module=call.module,
            relocation=relocation,
            events=events,
            weights={n: tensor for n, tensor in enumerate(tensors) if is_parameter(tensor)},
            edges=dict(zip(segment.copies, gradient_edges(copied), strict=True)),
            storages={n: self._storages.of(tensors[n]).number for n in segment.copies},
            input_dependent=frozenset(
                n for n in segment.copies if self._training_tape.depends_on_inputs(tensors[n])
            ),
            held=[tensor.untyped_storage() for tensor in saved],
        )
        call_site = CallSite(relocation.to_path, segment.call_site.module_class, relocation.to_line)
        with self._attribution.attribute_to(call_site):
            inputs = [tensors[number] for number in segment.input_numbers]
            _ReplayedBackward.apply(self, instance, outputs, *inputs)  # type: ignore[no-untyped-call]  # torch's gap

    def backward(
        self, instance: ReplayedLayer, incoming: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Add the operator calls of an instance's backward pass, and return the gradients."""
        with DisableTorchFunction():
            signature = tuple(None if g is None else tensor_meta(g) for g in incoming)
        recorded = instance.segment.backward.get(signature)
        if recorded is None:
            recorded, gradients = self._recorder.record(instance, incoming)
            instance.segment.backward[signature] = recorded
            self._repeat_events(recorded, instance, incoming, is_traced=True)
        else:
            gradients = self._replay_backward(recorded, instance, incoming)
        instance.held.clear()
        defined = list(_defined(incoming))
        return [
            gradient if position is None else self._pass_on(defined[position], gradient)
            for gradient, position in zip(gradients, recorded.passed_on, strict=True)
        ]

    def _pass_on(
        self, incoming: torch.Tensor, gradient: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Return a gradient in the memory of an incoming one."""
        if gradient is None or tensor_meta(gradient) == tensor_meta(incoming):
            return incoming
        with no_modes():
            alias = self._values.factory.alias(incoming, gradient)
        self._tape.assign_name(alias, self._tape.name_of(gradient))
        return alias

    def _replay_backward(
        self,
        recorded: BackwardSegment,
        instance: ReplayedLayer,
        incoming: Sequence[torch.Tensor | None],
    ) -> list[torch.Tensor | None]:
        """Add the operator calls of a recorded backward pass, and return its gradients."""
        names = [self._tape.name_of(gradient) for gradient in _defined(incoming)]
        incoming_names = dict(zip(recorded.incoming_names, names, strict=True))
        relocation = instance.relocation
        relocation = replace(relocation, names={**relocation.names, **incoming_names})
        repeat = self._repeat_events(recorded, instance, incoming)
        self._tape.replay(recorded.block, relocation)
        gradients: list[torch.Tensor | None] = []
        for gradient, name, number in zip(
            recorded.gradients, recorded.gradient_names, recorded.gradient_storages, strict=True
        ):
            if gradient is None:
                gradients.append(None)
            else:
                gradients.append(copy := self._values.empty_like(gradient))
                self._storages.identify(copy, None if number is None else repeat.storage(number))
                self._tape.assign_name(copy, relocation.map_name(name))
        return gradients

    def _repeat_events(
        self,
        recorded: BackwardSegment,
        instance: ReplayedLayer,
        incoming: Sequence[torch.Tensor | None],
        *,
        is_traced: bool = False,
    ) -> EventRepeat:
        """Add the storage events of a recorded backward pass."""
        storages, forward = self._storages, instance.events
        repeat = storages.repeat(recorded.events, is_traced=is_traced)
        outputs = set(instance.segment.output_storages)
        for number in recorded.events.releases:
            template = number - recorded.first_storage + forward.block.first_storage
            if forward.block.allocates(template):
                if template in outputs:
                    storages.expect_release(forward.storage(template), repeat, number)
                else:
                    repeat.others[number] = forward.storage(template)
        for gradient, number in zip(_defined(incoming), recorded.incoming_storages, strict=True):
            storages.expect_release(storages.of(gradient).number, repeat, number)
        for place, number in recorded.input_storages.items():
            storages.expect_release(instance.storages[place], repeat, number)
        return repeat


def _defined(gradients: Sequence[torch.Tensor | None]) -> Iterator[torch.Tensor]:
    return (gradient for gradient in gradients if gradient is not None)


class _ReplayedBackward(torch.autograd.Function):
    """Autograd node of a replayed layer."""

    @staticmethod
    def forward(
        ctx: Any,
        tracer: AutogradTracer,
        instance: ReplayedLayer,
        outputs: list[torch.Tensor],
        *inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        del inputs
        ctx.tracer, ctx.instance = tracer, instance
        ctx.set_materialize_grads(value=False)
        pairs = zip(outputs, instance.segment.output_kinds, strict=True)
        ctx.mark_non_differentiable(*(out for out, (has_grad, _) in pairs if not has_grad))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *incoming: torch.Tensor | None) -> Any:
        return None, None, None, *ctx.tracer.backward(ctx.instance, incoming)
