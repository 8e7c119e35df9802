"""Tape of a training step: forward and backward pass, recorded below autograd."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.record.autograd_attribution import AutogradAttribution
from graphflops.capture.record.fused_kernels import split_fused
from graphflops.capture.record.gradients import GradientTracker, Purpose, mark_weight_gradients
from graphflops.capture.record.tape import Item, Tape
from graphflops.capture.torch_internals.autograd_engine import (
    current_graph_task_id,
    current_node,
    run_backward_engine,
)
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction, TorchDispatchMode
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.jagged import NestedTensor
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.core.call_sequence import Block, Relocation, expand
from graphflops.core.ir import OpCall, Phase
from graphflops.runtime.interruption import SIGNALS


class TrainingTape(Tape, TorchDispatchMode):
    """Recorder of operator calls with the modules they belong to.

    A backward call belongs to the module whose forward caused it.
    """

    def __init__(
        self,
        attribution: AutogradAttribution,
        gradient_tracker: GradientTracker,
        values: ValueTracker,
    ) -> None:
        Tape.__init__(self, values)
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]  # torch's gap
        self._attribution = attribution
        self._gradient_tracker = gradient_tracker
        # By the number of a call; a relocated call has none, since it is marked already.
        self._purposes: dict[int, Purpose] = {}
        self._is_rerunning_forward = False
        self._factory = values.factory
        gradient_tracker.tensors = self.tensors

    def assign_input_name(self, tensor: torch.Tensor, name: str) -> None:
        """Assign a name to an input of the model, or to a tensor that depends on one."""
        self.assign_name(tensor, name)
        self.tensors.of(tensor).depends_on_inputs = True

    def depends_on_inputs(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor depends on inputs of the model."""
        record = self.tensors.find(tensor)
        return record is not None and record.depends_on_inputs

    def marked_items(self, first_item: int = 0) -> tuple[Item, ...]:
        """Return the items from an index on, with weight gradients marked."""
        deliveries = {
            record.name: is_weights_only
            for record, is_weights_only in self._gradient_tracker.deliveries.items()
            if record.name
        }
        return mark_weight_gradients(self.items[first_item:], self._purposes, deliveries)

    def relocate(self, first_item: int, first_call: int, relocation: Relocation) -> Block[OpCall]:
        """Mark and relocate the items from an index on, in place, and return them as a block."""
        calls = [
            relocation.relocate(call, call.index) for call in expand(self.marked_items(first_item))
        ]
        self.items[first_item:] = [replace(call, same_as=None) for call in calls]
        for call in calls:
            del self._purposes[call.index]
        return self.block(first_item, first_call)

    @contextmanager
    def rerunning_forward(self) -> Iterator[list[OpCall]]:
        """Move calls of a forward rerun in the backward pass from the tape into a list."""
        first_item, first_call = len(self.items), self.length
        forward_calls: list[OpCall] = []
        self._is_rerunning_forward = True
        try:
            yield forward_calls
        finally:
            self._is_rerunning_forward = False
            forward_calls += expand(self.items[first_item:])
            del self.items[first_item:]
            self.length = first_call
            for call in forward_calls:
                self.invocations.remove(call.index)
                del self._purposes[call.index]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if NestedTensor in types:
            return NotImplemented  # its operator on the values comes here
        if func is torch.ops.prim.device.default:
            return args[0].device  # of a fake tensor; autograd calls this very often
        if not isinstance(func, OpOverload) or func.namespace == "prim":
            return func(*args, **kwargs)
        # In the backward pass, torch function modes would see what the tape calls.
        with DisableTorchFunction():
            if _accumulates_grad(func):
                return self._run_unrecorded(func, args, kwargs)
            return self._record(func, args, kwargs)

    def _run_unrecorded(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator of AccumulateGrad: mostly ``detach``, once for every weight."""
        gradient = args[0]
        is_plain = type(gradient) is FakeTensor and gradient.layout is torch.strided
        if func is torch.ops.aten.detach.default and is_plain:
            with no_modes():
                return self._factory.alias(gradient, gradient)
        return func(*args, **kwargs)

    def _record(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator and add its calls to the tape."""
        execution = self.templates.run(func, args, kwargs, _execute, is_below_autograd=True)
        results, out = execution.results, execution.invocation.result
        if results or func._schema.is_mutable:
            inputs = tensors_in((args, kwargs))
            is_input_dependent = any(map(self.depends_on_inputs, inputs))
            if is_input_dependent:
                for result in results:
                    self.tensors.of(result).depends_on_inputs = True
            purpose = self._purpose(func, weights_only=bool(inputs) and not is_input_dependent)
            call = self.make_call(execution, purpose.call_site, phase=purpose.phase)
            for part in split_fused(call, purpose.needs_input_grad):
                self._purposes[self.length] = purpose
                self.add(replace(part, index=self.length), execution)
        SIGNALS.deliver()
        return out

    def _purpose(self, func: Any, *, weights_only: bool) -> Purpose:
        if self._attribution.is_recomputing:
            return Purpose(
                self._attribution.record_creator(weights_only=weights_only), Phase.RECOMPUTE
            )
        in_backward = self._attribution.is_forward_done and current_graph_task_id() != -1
        if self._is_rerunning_forward or not in_backward:
            return Purpose(
                self._attribution.record_creator(weights_only=weights_only), Phase.FORWARD
            )
        return self._gradient_tracker.purpose(func)


def _execute(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return func(*args, **kwargs)


def _accumulates_grad(func: Any) -> bool:
    """Return True if AccumulateGrad takes a gradient over, or a copy of one with other users.

    Sums of gradients are calls. Hooks on the gradient run at the same node, but are called from
    Python.
    """
    node = current_node()
    if getattr(node, "variable", None) is None or func._opname in {"add", "add_"}:
        return False
    caller = sys._getframe(2)  # the caller of ``__torch_dispatch__``
    return caller.f_code is run_backward_engine.__code__
