"""Repeated layers under autograd: recorded on a tape, repeated as one node of its graph.

The forward of a further instance is copied from that of the first. Its backward is copied too,
from the first instance that got gradients like its own; that one runs once more for it, as a
checkpoint does, since what a backward does depends on the gradients that come in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.autograd.graph import get_gradient_edge
from torch.utils import _pytree as pytree

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.metadata import tensor_meta
from graphflops.capture.layer_reuse.forward_replay import Layer, Mark, TapeTracer
from graphflops.capture.layer_reuse.module_call import Call
from graphflops.capture.record.autograd_attribution import UNATTRIBUTED, AutogradAttribution
from graphflops.capture.record.gradients import Edge, Gradients
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.training_tape import StepTape
from graphflops.core.call_sequence import Block, Relocation, expand
from graphflops.core.ir import OpCall


class NotAlikeError(Exception):
    """A layer that was taken for a repeated one did something else."""


@dataclass(frozen=True, slots=True)
class _Backward:
    """What a backward pass of an instance did, told as of the first instance.

    Attributes:
        block: Its calls.
        gradients: What it handed on for each input, ``None`` where nothing.
        names: What these are called.
        given: What the gradients that came in are called.
    """

    block: Block[OpCall]
    gradients: list[torch.Tensor | None]
    names: list[str]
    given: list[str]


@dataclass(frozen=True, slots=True)
class _Layer(Layer):
    """A recorded layer, with what autograd needs of it.

    Attributes:
        inputs: Numbers of the tensors that get a gradient from it.
        kinds: Of the tensors it made, whether differentiable, whether of inputs.
        backward: Its backward passes, by what the gradients that came in are like.
    """

    inputs: list[int]
    kinds: list[tuple[bool, bool]]
    backward: dict[Any, _Backward] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Mark(Mark):
    """Where the recording of a layer began, also by the number of autograd nodes."""

    nodes: int


@dataclass(frozen=True, slots=True)
class _Instance:
    """A further instance of a layer, with what is different in it."""

    layer: _Layer
    call: Call
    change: Relocation


class AutogradTracer(TapeTracer):
    """Records and repeats layers on the tape of a training step."""

    def __init__(
        self, tape: StepTape, owners: AutogradAttribution, gradients: Gradients, known: ValueTracker
    ) -> None:
        super().__init__(tape, owners)
        self._step, self._owners, self._gradients, self._known = tape, owners, gradients, known

    def ready(self) -> bool:
        """Whether calls are of the forward pass, outside of checkpoints: they run twice."""
        in_backward = torch._C._current_graph_task_id() != -1
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        return not (in_backward or self._owners.in_reentrant or hooks)

    def begin(self, call: Call) -> _Mark:
        """Begin to record a layer."""
        mark, nodes = super().begin(call), torch._C._autograd._get_sequence_nr()
        return _Mark(mark.owner, mark.items, mark.start, mark.called, nodes)

    def end(self, mark: Any, call: Call, outputs: list[torch.Tensor]) -> _Layer | None:
        """What was recorded, if it uses nothing else and may be repeated."""
        tape, tensors = self._step, call.look.tensors
        # A cache would be filled again by another run; a reentrant checkpoint fills gradients.
        if call.look.caches or self._owners.was_reentrant:
            return None
        layer = super().end(mark, call, outputs)
        if layer is None:
            return None
        if any(tape.name_of(out) in layer.given and out.requires_grad for out in outputs):
            return None
        edges = set(_edges_out_of(outputs, mark.nodes))
        inputs = [n for n, tensor in enumerate(tensors) if _edge(tensor) in edges]
        if len({_edge(tensors[n]) for n in inputs}) < max(len(edges), len(inputs)):
            return None
        # To run again it gets others in their place.
        arguments = set(map(id, pytree.tree_leaves((call.args, call.kwargs))))
        activations = (tensors[n] for n in inputs if not _is_parameter(tensors[n]))
        if any(id(tensor) not in arguments for tensor in activations):
            return None
        return _Layer(
            owner=layer.owner,
            block=layer.block,
            given=layer.given,
            made=layer.made,
            called=layer.called,
            inputs=inputs,
            kinds=[(out.requires_grad, tape.is_of_inputs(out)) for out in outputs],
        )

    def repeat(self, recorded: Any, call: Call, outputs: list[torch.Tensor]) -> None:
        """Add the calls of a layer for another instance, and a node for its backward."""
        change = self._repeated(recorded, call)
        for out, name, (_, of_inputs) in zip(outputs, recorded.made, recorded.kinds, strict=True):
            assign_name = self._step.assign_input_name if of_inputs else self._step.assign_name
            assign_name(out, change.map_name(name))
        instance = _Instance(recorded, call, change)
        if torch.is_grad_enabled() and any(is_made for is_made, _ in recorded.kinds):
            owner = CallSite(change.to_path, recorded.owner.module_class, change.to_line)
            with self._owners.making_for(owner):
                given = [call.look.tensors[number] for number in recorded.inputs]
                _Again.apply(self, instance, outputs, *given)  # type: ignore[no-untyped-call]  # torch's gap

    def backward(
        self, instance: _Instance, given: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Add the calls of the backward pass of an instance; the gradients it hands on."""
        with torch._C.DisableTorchFunction():
            signature = tuple(None if g is None else tensor_meta(g) for g in given)
        layer, change = instance.layer, instance.change
        names = [self._tape.name_of(gradient) for gradient in _there(given)]
        if signature not in layer.backward:
            return self._run(instance, given, names, signature)
        found = layer.backward[signature]
        given_names = dict(zip(found.given, names, strict=True))
        back = replace(change, names={**change.names, **given_names})
        self._tape.repeat(found.block, back)
        made: list[torch.Tensor | None] = []
        for gradient, name in zip(found.gradients, found.names, strict=True):
            if gradient is None:
                made.append(None)
            else:
                made.append(again := self._known.empty_like(gradient))
                self._tape.assign_name(again, back.map_name(name))
        return made

    def _run(
        self,
        instance: _Instance,
        given: Sequence[torch.Tensor | None],
        names: list[str],
        signature: Any,
    ) -> list[torch.Tensor | None]:
        """Run an instance, for a backward pass with gradients as no other has got them."""
        tape, layer, call, change = self._step, instance.layer, instance.call, instance.change
        parent = change.to_path.rpartition(".")[0]
        twins = self._twins(layer, call)
        args, kwargs = _exchanged((call.args, call.kwargs), twins)
        with self._gradients.nested(), torch.enable_grad():
            again = self._owners.within(CallSite(parent, source_line=change.to_line))
            with tape.running_again() as forward, again:
                outputs = call.module(*args, **kwargs)
            items, start = len(tape.items), tape.length
            made = _made(outputs, [*call.look.tensors, *twins.values()])
            self._gradients.follow(made)
            for tensor, twin in twins.items():
                if (inner := _edge(twin)) and (outer := _edge(tensor)):
                    self._gradients.stands_in(inner, outer)
            # Behind those made there may be counters that were written to, without gradients.
            pairs = [pair for pair in zip(made, given, strict=False) if pair[1] is not None]
            inputs = (call.look.tensors[number] for number in layer.inputs)
            found = torch.autograd.grad(
                [out for out, _ in pairs],
                [twins.get(tensor, tensor) for tensor in inputs],
                [gradient for _, gradient in pairs],
                allow_unused=True,
            )
        block = tape.finalize(items, start, _under_names(forward, layer, change))
        _refuse_outer(block, change.to_path)
        back = _back(change)
        calls = tuple(back.relocate(call, call.index) for call in expand(block.items))
        layer.backward[signature] = _Backward(
            block=Block(start, calls),
            gradients=list(found),
            names=["" if g is None else back.map_name(tape.name_of(g)) for g in found],
            given=names,
        )
        return list(found)

    def _twins(self, layer: _Layer, call: Call) -> dict[torch.Tensor, torch.Tensor]:
        """For each input that is no parameter a tensor without a history."""
        found = {}
        for number in layer.inputs:
            tensor = call.look.tensors[number]
            if not _is_parameter(tensor):
                with torch.utils._python_dispatch._disable_current_modes():
                    found[tensor] = tensor.detach().requires_grad_()
                assign_name = self._step.assign_name
                if self._step.is_of_inputs(tensor):
                    assign_name = self._step.assign_input_name
                assign_name(found[tensor], self._step.name_of(tensor))
        return found


def _exchanged(arguments: Any, twins: Mapping[torch.Tensor, torch.Tensor]) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda t: twins.get(t, t), arguments)


def _under_names(forward: list[OpCall], layer: _Layer, change: Relocation) -> Relocation:
    """To the names that the tensors of a forward have, of those of the same, run again.

    Raises:
        NotAlikeError: It is not the same.
    """
    names: dict[str, str] = {}
    recorded = tuple(expand(layer.block.items))
    if [call.op for call in forward] != [call.op for call in recorded]:
        msg = f"{change.to_path} does not do what {change.from_path} does"
        raise NotAlikeError(msg)
    for again, first in zip(forward, recorded, strict=True):
        for out, known in zip(again.outputs, first.outputs, strict=True):
            names[out.name] = change.map_name(known.name)
    return Relocation(change.to_path, change.to_path, "", "", names, to_suffix="")


def _refuse_outer(block: Block[OpCall], path: str) -> None:
    """Refuse a backward that adds up what belongs to another layer, of whose weights it has some.

    Raises:
        NotAlikeError: A call belongs to a module that neither is in the layer nor contains it.
    """
    for call in expand(block.items):
        inside = f"{call.module_path}.".startswith(f"{path}.")
        around = not call.module_path or f"{path}.".startswith(f"{call.module_path}.")
        if not (inside or around or call.module_path == UNATTRIBUTED.module_path):
            msg = f"{path} adds up gradients of {call.module_path}"
            raise NotAlikeError(msg)


def _back(change: Relocation) -> Relocation:
    """From an instance to the first one."""
    return Relocation(
        from_path=change.to_path,
        to_path=change.from_path,
        from_line=change.to_line,
        to_line=change.from_line,
        names={now: was for was, now in change.names.items() if now},
        to_suffix="",
        from_suffix=change.to_suffix,
    )


def _made(outputs: Any, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors among outputs that are no inputs, each once."""
    known = set(map(id, given))
    found: dict[int, torch.Tensor] = {}
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor) and id(leaf) not in known:
            found[id(leaf)] = leaf
    return list(found.values())


def _there(gradients: Sequence[torch.Tensor | None]) -> Iterator[torch.Tensor]:
    return (gradient for gradient in gradients if gradient is not None)


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter)


def _edge(tensor: torch.Tensor) -> Edge | None:
    """Where a tensor takes its gradient."""
    if not tensor.requires_grad:
        return None
    if tensor.grad_fn is not None:
        return tensor.grad_fn, tensor.output_nr
    with torch.utils._python_dispatch._disable_current_modes():
        node, number = get_gradient_edge(tensor)[:2]
    return node, number


def _edges_out_of(outputs: Sequence[torch.Tensor], first: int) -> Iterator[Edge]:
    """Edges that lead from nodes behind some tensors to nodes older than a number, or to leaves."""
    waiting: list[Any] = [out.grad_fn for out in outputs if out.grad_fn is not None]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for edge in node.next_functions:
            target = edge[0]
            if target is None:
                continue
            is_leaf = getattr(target, "variable", None) is not None
            if is_leaf or target._sequence_nr() < first:
                yield edge
            else:
                waiting.append(target)


class _Again(torch.autograd.Function):
    """Stands for the backward pass of an instance."""

    @staticmethod
    def forward(
        ctx: Any,
        tracer: AutogradTracer,
        instance: _Instance,
        outputs: list[torch.Tensor],
        *inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        del inputs
        ctx.tracer, ctx.instance = tracer, instance
        ctx.set_materialize_grads(value=False)
        pairs = zip(outputs, instance.layer.kinds, strict=True)
        plain = [out for out, (differentiable, _) in pairs if not differentiable]
        ctx.mark_non_differentiable(*plain)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor | None) -> Any:
        return None, None, None, *ctx.tracer.backward(ctx.instance, given)
