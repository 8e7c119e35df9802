"""Recording of the backward pass of a replayed layer: it runs again, on copies of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import GradientEdge

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.autograd_boundary import (
    activation,
    gradient_edges,
    new_tensors,
    seed,
)
from graphflops.capture.layer_reuse.kv_caches import copy_without_tensors
from graphflops.capture.layer_reuse.training_segment import (
    BackwardSegment,
    CacheNumber,
    InputNumber,
    NotEquivalentError,
    ReplayedLayer,
    TrainingSegment,
)
from graphflops.capture.record.autograd_attribution import UNATTRIBUTED, AutogradAttribution
from graphflops.capture.record.gradients import GradientTracker
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.training_tape import TrainingTape
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.call_sequence import Block, Relocation, expand
from graphflops.core.ir import OpCall


class _Graph(NamedTuple):
    """Autograd graph of a layer that ran again.

    Attributes:
        root: Scalar whose backward pass begins with the incoming gradients.
        inputs: Edges and parameters that get a gradient.
        first_storage: Number of the first storage that the layer allocated.
        input_storages: Numbers of the storages of its inputs.
    """

    root: torch.Tensor
    inputs: list[Any]
    first_storage: int
    input_storages: dict[int, int]


@dataclass(frozen=True, slots=True)
class BackwardRecorder:
    """Recorder of the backward passes of replayed layers."""

    tape: TrainingTape
    attribution: AutogradAttribution
    gradient_tracker: GradientTracker
    values: ValueTracker

    def record(
        self, instance: ReplayedLayer, incoming: Sequence[torch.Tensor | None]
    ) -> tuple[BackwardSegment, list[torch.Tensor | None]]:
        """Run an instance and its backward pass, and return the recording and the gradients.

        Raises:
            NotEquivalentError: The instance does not do what the recorded one did.
        """
        tape, storages = self.tape, self.tape.storages
        segment, relocation = instance.segment, instance.relocation
        start = storages.mark()
        copies = [None if g is None else self._copy_of_gradient(g) for g in incoming]
        defined = [copy for copy in copies if copy is not None]
        incoming_storages = [storages.of(copy).number for copy in defined]
        parent = relocation.to_path.rpartition(".")[0]
        with self.gradient_tracker.nested_backward(), torch.enable_grad():
            attributed = self.attribution.rerun_at(CallSite(parent, source_line=relocation.to_line))
            with tape.rerunning_forward() as forward, attributed:
                graph = self._run_forward(instance, copies)
            del copies, defined
            storages.cut(start)
            first_item, first_call, mark = len(tape.items), tape.length, storages.mark()
            gradients = torch.autograd.grad(
                [graph.root], graph.inputs, [self._scalar(graph.root.device)], allow_unused=True
            )
            events = storages.cut(mark)
        block = tape.relocate(
            first_item, first_call, _rerun_relocation(forward, segment, relocation)
        )
        _refuse_outside_calls(block, relocation.to_path)
        inverse = _inverse(relocation)
        calls = tuple(inverse.relocate(call, call.index) for call in expand(block.items))
        numbers = [None if g is None else storages.of(g).number for g in gradients]
        recorded = BackwardSegment(
            block=Block(first_call, calls),
            gradients=[None if g is None else self.values.empty_like(g) for g in gradients],
            gradient_names=[
                "" if g is None else inverse.map_name(tape.name_of(g)) for g in gradients
            ],
            gradient_storages=[
                None if n is None or not events.allocates(n) else n for n in numbers
            ],
            passed_on=[
                incoming_storages.index(n) if n in incoming_storages else None for n in numbers
            ],
            incoming_names=[tape.name_of(g) for g in incoming if g is not None],
            incoming_storages=incoming_storages,
            input_storages=graph.input_storages,
            first_storage=graph.first_storage,
            events=events,
        )
        return recorded, list(gradients)

    def _run_forward(
        self, instance: ReplayedLayer, incoming: Sequence[torch.Tensor | None]
    ) -> _Graph:
        """Run the forward pass; when it returns, the autograd graph alone refers to its tensors."""
        segment, storages = instance.segment, self.tape.storages
        inputs = {n: self._copy_of_input(instance, n) for n in segment.copies}
        input_storages = {n: storages.of(tensor).number for n, tensor in inputs.items()}
        edges = dict(zip(inputs, gradient_edges(list(inputs.values())), strict=True))
        tensors = {**instance.weights, **inputs}
        caches = list(map(copy_without_tensors, segment.caches))
        args, kwargs = pytree.tree_map_only(
            (InputNumber, CacheNumber),
            lambda place: (tensors if isinstance(place, InputNumber) else caches)[place.number],
            segment.arguments,
        )
        first_storage = storages.count
        outputs = instance.module(*args, **kwargs)
        if storages.count - first_storage != segment.events.storages:
            raise NotEquivalentError(f"{instance.relocation.to_path} allocates other memory")
        results = new_tensors(outputs, list(tensors.values()))
        if any(gradient is not None for gradient in incoming[len(results) :]):
            raise NotEquivalentError(f"{instance.relocation.to_path} is used through a cache")
        # Their nodes stand for those of the outer graph, which are hooked already.
        self.gradient_tracker.hook_nodes(
            results, until=[edge[0] for edge in edges.values() if edge]
        )
        for number, inner in edges.items():
            if inner and (outer := instance.edges[number]):
                self.gradient_tracker.alias_edge(inner, outer)
        # Inputs written to, such as counters, follow the new tensors, without gradients.
        pairs = [(r, g) for r, g in zip(results, incoming, strict=False) if g is not None]
        return _Graph(
            root=seed(
                self._scalar(pairs[0][1].device), [r for r, _ in pairs], [g for _, g in pairs]
            ),
            inputs=[
                instance.weights[n] if n in instance.weights else GradientEdge(*edges[n])  # type: ignore[misc]  # an input with a gradient has an edge
                for n in segment.input_numbers
            ],
            first_storage=first_storage,
            input_storages=input_storages,
        )

    def _copy_of_input(self, instance: ReplayedLayer, number: int) -> torch.Tensor:
        """Return a tensor like an input of an instance, named as it is."""
        segment, relocation, tape = instance.segment, instance.relocation, self.tape
        copy = segment.copies[number]
        tensor: torch.Tensor = self.values.empty_like(copy.tensor)
        self.values.restore(tensor, copy.state)
        if copy.requires_grad:
            tensor = activation(tensor, self._scalar(tensor.device, requires_grad=True))
        tape.storages.stand_in(tensor, relocation.map_name(copy.storage))
        tape.assign_name(tensor, relocation.map_name(segment.input_names[number]))
        tape.tensors.of(tensor).depends_on_inputs = number in instance.input_dependent
        return tensor

    def _copy_of_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return a tensor like an incoming gradient, named as it is."""
        tape = self.tape
        copy = self.values.empty_like(gradient)
        self.values.restore(copy, self.values.state(gradient))
        tape.storages.stand_in(copy, tape.storages.of(gradient).name)
        tape.assign_name(copy, tape.name_of(gradient))
        tape.tensors.of(copy).depends_on_inputs = tape.depends_on_inputs(gradient)
        return copy

    def _scalar(self, device: torch.device, *, requires_grad: bool = False) -> torch.Tensor:
        """Return a scalar that no operator has made."""
        with no_modes():
            scalar = torch.empty((), device="meta")
            return self.values.factory.make(scalar, device, requires_grad=requires_grad)


def _rerun_relocation(
    forward: list[OpCall], segment: TrainingSegment, relocation: Relocation
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
