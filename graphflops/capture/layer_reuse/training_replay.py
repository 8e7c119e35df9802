"""Replay of layers under autograd: a replayed layer is one node of the autograd graph.

The forward of a further instance is replayed from the first; so is its backward, from the first
one with gradients of the same metadata. To record that one its forward runs again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch.autograd.graph import get_gradient_edge

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.metadata import tensor_meta
from graphflops.capture.layer_reuse.forward_replay import SegmentStart, TapeSegment, TapeTracer
from graphflops.capture.layer_reuse.module_call import ModuleCall
from graphflops.capture.record.autograd_attribution import UNATTRIBUTED, AutogradAttribution
from graphflops.capture.record.gradients import Edge, GradientTracker
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.training_tape import TrainingTape
from graphflops.capture.torch_internals.autograd_engine import (
    current_graph_task_id,
    next_sequence_number,
    top_saved_tensors_hooks,
)
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction, disable_current_modes
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.call_sequence import Block, Relocation, expand
from graphflops.core.ir import OpCall


class NotEquivalentError(Exception):
    """A replayed layer turned out not to be equivalent."""


@dataclass(frozen=True, slots=True)
class _BackwardSegment:
    """Recording of a backward pass of a layer, relocated to the first instance.

    Attributes:
        block: Its operator calls.
        gradients: A tensor like the gradient of each input, ``None`` where there is none.
        gradient_names: Names of these gradients.
        incoming_names: Names of the incoming gradients.
    """

    block: Block[OpCall]
    gradients: list[torch.Tensor | None]
    gradient_names: list[str]
    incoming_names: list[str]


@dataclass(frozen=True, slots=True)
class _TrainingSegment(TapeSegment):
    """Recording of a layer on the tape of a training step.

    Attributes:
        input_numbers: Numbers of the tensors that get a gradient from it.
        output_kinds: For each tensor it created or wrote to: True if it requires a gradient, True
            if it depends on inputs of the model.
        backward: Its backward passes, by the metadata of the incoming gradients.
    """

    input_numbers: list[int]
    output_kinds: list[tuple[bool, bool]]
    backward: dict[Any, _BackwardSegment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _TrainingStart(SegmentStart):
    """Position on the tape and in the autograd graph at which the recording of a layer began.

    Attributes:
        first_node: Autograd's sequence number then.
    """

    first_node: int


@dataclass(frozen=True, slots=True)
class _ReplayedLayer:
    """A replayed instance of a layer.

    Attributes:
        segment: Recording of the layer.
        call: The call of the instance.
        relocation: Relocation from the recorded instance to this one.
    """

    segment: _TrainingSegment
    call: ModuleCall
    relocation: Relocation


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
        self._training_tape, self._attribution, self._gradient_tracker, self._values = (
            tape,
            attribution,
            gradient_tracker,
            values,
        )

    def can_record(self) -> bool:
        """Return True in the forward pass outside of checkpoints, which run twice."""
        in_backward = current_graph_task_id() != -1
        hooks = top_saved_tensors_hooks(True)
        return not (in_backward or self._attribution.reentrant_depth or hooks)

    def begin(self, call: ModuleCall) -> _TrainingStart:
        """Begin to record a layer."""
        start, first_node = super().begin(call), next_sequence_number()
        return _TrainingStart(
            **{item.name: getattr(start, item.name) for item in fields(start)},
            first_node=first_node,
        )

    def end(
        self, start: Any, call: ModuleCall, outputs: list[torch.Tensor]
    ) -> _TrainingSegment | None:
        """Return the recorded segment, if it uses no other tensors and may be replayed."""
        tape, tensors = self._training_tape, call.fingerprint.tensors
        # A rerun would fill a cache again; a reentrant checkpoint accumulates into ``.grad``.
        if call.fingerprint.caches or self._attribution.used_reentrant_checkpoint:
            return None
        segment = super().end(start, call, outputs)
        if segment is None:
            return None
        if any(tape.name_of(out) in segment.input_names and out.requires_grad for out in outputs):
            return None
        edges = set(_boundary_edges(outputs, start.first_node))
        numbers = [n for n, tensor in enumerate(tensors) if _gradient_edge(tensor) in edges]
        if len({_gradient_edge(tensors[n]) for n in numbers}) < max(len(edges), len(numbers)):
            return None
        # A rerun gets detached tensors in place of the activations among its arguments.
        arguments = set(map(id, pytree.tree_leaves((call.args, call.kwargs))))
        activations = (tensors[n] for n in numbers if not _is_parameter(tensors[n]))
        if any(id(tensor) not in arguments for tensor in activations):
            return None
        return _TrainingSegment(
            **{item.name: getattr(segment, item.name) for item in fields(segment)},
            input_numbers=numbers,
            output_kinds=[(out.requires_grad, tape.depends_on_inputs(out)) for out in outputs],
        )

    def replay(self, segment: Any, call: ModuleCall, outputs: list[torch.Tensor]) -> None:
        """Add the operator calls of a segment for another instance, and a node for its backward."""
        relocation = self._replay_calls(segment, call, outputs)
        for out, name, (_, from_inputs) in zip(
            outputs, segment.output_names, segment.output_kinds, strict=True
        ):
            assign_name = (
                self._training_tape.assign_input_name
                if from_inputs
                else self._training_tape.assign_name
            )
            assign_name(out, relocation.map_name(name))
        instance = _ReplayedLayer(segment, call, relocation)
        if torch.is_grad_enabled() and any(
            requires_grad for requires_grad, _ in segment.output_kinds
        ):
            call_site = CallSite(
                relocation.to_path, segment.call_site.module_class, relocation.to_line
            )
            with self._attribution.attribute_to(call_site):
                inputs = [call.fingerprint.tensors[number] for number in segment.input_numbers]
                _ReplayedBackward.apply(self, instance, outputs, *inputs)  # type: ignore[no-untyped-call]  # torch's gap

    def backward(
        self, instance: _ReplayedLayer, incoming: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Add the operator calls of an instance's backward pass, and return the gradients."""
        with DisableTorchFunction():
            signature = tuple(None if g is None else tensor_meta(g) for g in incoming)
        segment, relocation = instance.segment, instance.relocation
        names = [self._tape.name_of(gradient) for gradient in _defined(incoming)]
        if signature not in segment.backward:
            return self._rerun(instance, incoming, names, signature)
        recorded = segment.backward[signature]
        incoming_names = dict(zip(recorded.incoming_names, names, strict=True))
        relocation = replace(relocation, names={**relocation.names, **incoming_names})
        self._tape.replay(recorded.block, relocation)
        gradients: list[torch.Tensor | None] = []
        for gradient, name in zip(recorded.gradients, recorded.gradient_names, strict=True):
            if gradient is None:
                gradients.append(None)
            else:
                gradients.append(copy := self._values.empty_like(gradient))
                self._tape.assign_name(copy, relocation.map_name(name))
        return gradients

    def _rerun(
        self,
        instance: _ReplayedLayer,
        incoming: Sequence[torch.Tensor | None],
        incoming_names: list[str],
        signature: Any,
    ) -> list[torch.Tensor | None]:
        """Run an instance, to record its backward pass for gradients of a new signature."""
        tape, segment, call, relocation = (
            self._training_tape,
            instance.segment,
            instance.call,
            instance.relocation,
        )
        parent = relocation.to_path.rpartition(".")[0]
        detached = self._detached_inputs(segment, call)
        args, kwargs = _substitute((call.args, call.kwargs), detached)
        with self._gradient_tracker.nested_backward(), torch.enable_grad():
            attributed = self._attribution.rerun_at(
                CallSite(parent, source_line=relocation.to_line)
            )
            with tape.rerunning_forward() as forward, attributed:
                outputs = call.module(*args, **kwargs)
            first_item, first_call = len(tape.items), tape.length
            new_tensors = _new_tensors(outputs, [*call.fingerprint.tensors, *detached.values()])
            self._gradient_tracker.hook_nodes(new_tensors)
            for tensor, detached_input in detached.items():
                if (inner := _gradient_edge(detached_input)) and (outer := _gradient_edge(tensor)):
                    self._gradient_tracker.alias_edge(inner, outer)
            # Inputs written to, such as counters, follow the new tensors, without gradients.
            pairs = [
                pair for pair in zip(new_tensors, incoming, strict=False) if pair[1] is not None
            ]
            inputs = (call.fingerprint.tensors[number] for number in segment.input_numbers)
            gradients = torch.autograd.grad(
                [out for out, _ in pairs],
                [detached.get(tensor, tensor) for tensor in inputs],
                [gradient for _, gradient in pairs],
                allow_unused=True,
            )
        block = tape.relocate(
            first_item, first_call, _rerun_relocation(forward, segment, relocation)
        )
        _refuse_outside_calls(block, relocation.to_path)
        inverse = _inverse(relocation)
        calls = tuple(inverse.relocate(call, call.index) for call in expand(block.items))
        segment.backward[signature] = _BackwardSegment(
            block=Block(first_call, calls),
            gradients=[g if g is None else self._values.empty_like(g) for g in gradients],
            gradient_names=[
                "" if g is None else inverse.map_name(tape.name_of(g)) for g in gradients
            ],
            incoming_names=incoming_names,
        )
        return list(gradients)

    def _detached_inputs(
        self, segment: _TrainingSegment, call: ModuleCall
    ) -> dict[torch.Tensor, torch.Tensor]:
        """Return a detached tensor for each input that is no parameter."""
        detached = {}
        for number in segment.input_numbers:
            tensor = call.fingerprint.tensors[number]
            if not _is_parameter(tensor):
                with disable_current_modes():
                    detached[tensor] = tensor.detach().requires_grad_()
                assign_name = self._training_tape.assign_name
                if self._training_tape.depends_on_inputs(tensor):
                    assign_name = self._training_tape.assign_input_name
                assign_name(detached[tensor], self._training_tape.name_of(tensor))
        return detached


def _substitute(arguments: Any, detached: Mapping[torch.Tensor, torch.Tensor]) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda t: detached.get(t, t), arguments)


def _rerun_relocation(
    forward: list[OpCall], segment: _TrainingSegment, relocation: Relocation
) -> Relocation:
    """Return the relocation from the tensor names of a rerun forward to those of the instance.

    Raises:
        NotEquivalentError: The rerun has called other operators.
    """
    names: dict[str, str] = {}
    recorded = tuple(expand(segment.block.items))
    if [call.op for call in forward] != [call.op for call in recorded]:
        msg = f"{relocation.to_path} does not do what {relocation.from_path} does"
        raise NotEquivalentError(msg)
    for rerun_call, recorded_call in zip(forward, recorded, strict=True):
        for rerun, original in zip(rerun_call.outputs, recorded_call.outputs, strict=True):
            names[rerun.name] = relocation.map_name(original.name)
    return Relocation(relocation.to_path, relocation.to_path, "", "", names, to_suffix="")


def _refuse_outside_calls(block: Block[OpCall], path: str) -> None:
    """Refuse a backward that sums gradients of another layer, with which it shares weights.

    Raises:
        NotEquivalentError: A call belongs to a module that neither is in the layer nor contains
            it.
    """
    for call in expand(block.items):
        is_inside = f"{call.module_path}.".startswith(f"{path}.")
        is_ancestor = not call.module_path or f"{path}.".startswith(f"{call.module_path}.")
        if not (is_inside or is_ancestor or call.module_path == UNATTRIBUTED.module_path):
            msg = f"{path} adds up gradients of {call.module_path}"
            raise NotEquivalentError(msg)


def _inverse(relocation: Relocation) -> Relocation:
    """Return the relocation from an instance to the recorded one."""
    return Relocation(
        from_path=relocation.to_path,
        to_path=relocation.from_path,
        from_line=relocation.to_line,
        to_line=relocation.from_line,
        names={new: old for old, new in relocation.names.items() if new},
        to_suffix="",
        from_suffix=relocation.to_suffix,
    )


def _new_tensors(outputs: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors among outputs that are no inputs, each once."""
    input_ids = set(map(id, inputs))
    tensors: dict[int, torch.Tensor] = {}
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor) and id(leaf) not in input_ids:
            tensors[id(leaf)] = leaf
    return list(tensors.values())


def _defined(gradients: Sequence[torch.Tensor | None]) -> Iterator[torch.Tensor]:
    return (gradient for gradient in gradients if gradient is not None)


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter)


def _gradient_edge(tensor: torch.Tensor) -> Edge | None:
    """Return the gradient edge of a tensor, if it requires a gradient."""
    if not tensor.requires_grad:
        return None
    if tensor.grad_fn is not None:
        return tensor.grad_fn, tensor.output_nr
    with disable_current_modes():
        node, number = get_gradient_edge(tensor)[:2]
    return node, number


def _boundary_edges(outputs: Sequence[torch.Tensor], first_node: int) -> Iterator[Edge]:
    """Yield edges from the graph of some tensors to leaves and to nodes before ``first_node``."""
    pending: list[Any] = [out.grad_fn for out in outputs if out.grad_fn is not None]
    visited: set[Any] = set()
    while pending:
        node = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        for edge in node.next_functions:
            target = edge[0]
            if target is None:
                continue
            is_leaf = getattr(target, "variable", None) is not None
            if is_leaf or target._sequence_nr() < first_node:
                yield edge
            else:
                pending.append(target)


class _ReplayedBackward(torch.autograd.Function):
    """Autograd node of a replayed layer."""

    @staticmethod
    def forward(
        ctx: Any,
        tracer: AutogradTracer,
        instance: _ReplayedLayer,
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
