"""A training step as calls: a tape below autograd, of the forward and the backward pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.autograd.graph import _engine_run_backward
from torch.nested._internal.nested_tensor import NestedTensor
from torch.utils._python_dispatch import TorchDispatchMode

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.record.autograd_attribution import AutogradAttribution
from graphflops.capture.record.fused_kernels import parts
from graphflops.capture.record.gradients import Gradients, Purpose, marked
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.tape import Item, Tape
from graphflops.core.call_sequence import Block, Relocation, expand
from graphflops.core.ir import OpCall, Phase
from graphflops.runtime.interruption import SIGNALS


class StepTape(Tape, TorchDispatchMode):
    """Records operator calls with the modules they belong to.

    What autograd computes in the backward pass goes by the module whose forward caused it.
    """

    def __init__(self, owners: AutogradAttribution, gradients: Gradients) -> None:
        Tape.__init__(self)
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]  # torch's gap
        self._owners = owners
        self._gradients = gradients
        # What each call is for; nothing is noted of one that is marked already.
        self._purposes: dict[int, Purpose] = {}
        self._running_again = False
        self._from_inputs: set[int] = set()

    def assign_input_name(self, tensor: torch.Tensor, name: str) -> None:
        """Call a tensor by a name, which is an input of the model or follows from one."""
        self.assign_name(tensor, name)
        self._from_inputs.add(id(tensor))

    def is_of_inputs(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor follows from inputs of the model."""
        return id(tensor) in self._from_inputs

    def recorded(self, items: int = 0) -> tuple[Item, ...]:
        """What is on the tape from some item on, backward calls marked where they serve weights."""
        delivered = {
            self._names[tensor]: to_weights
            for tensor, (_, to_weights) in self._gradients.delivered.items()
            if tensor in self._names
        }
        return marked(self.items[items:], self._purposes, delivered)

    def finalize(self, items: int, start: int, change: Relocation) -> Block[OpCall]:
        """Calls from one on, marked and changed where they stand."""
        calls = [change.relocate(call, call.index) for call in expand(self.recorded(items))]
        self.items[items:] = [replace(call, same_as=None) for call in calls]
        for call in calls:
            del self._purposes[call.index]
        return self.block(items, start)

    @contextmanager
    def running_again(self) -> Iterator[list[OpCall]]:
        """Take calls of the forward, during the backward, from the tape again: into a list."""
        items, start = len(self.items), self.length
        found: list[OpCall] = []
        self._running_again = True
        try:
            yield found
        finally:
            self._running_again = False
            found += expand(self.items[items:])
            del self.items[items:]
            self.length = start
            for call in found:
                del self.invocations[call.index], self._purposes[call.index]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if NestedTensor in types:
            return NotImplemented  # it is an operator on its values, which comes here
        if func is torch.ops.prim.device.default:
            return args[0].device  # of a fake tensor, which autograd asks for all the time
        if not isinstance(func, torch._ops.OpOverload) or func.namespace == "prim":
            return func(*args, **kwargs)
        # In the backward pass, modes that watch functions would watch what is done here.
        with torch._C.DisableTorchFunction():
            return self._record(func, args, kwargs)

    def _record(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator and add its calls."""
        # Before it runs: an operator may change the shape of what it is given.
        bound = self.bound(func, args, kwargs)
        out = func(*args, **kwargs)
        results = tensors_in(out)
        if (results or func._schema.is_mutable) and not _is_taken_over(func):
            given = tensors_in((args, kwargs))
            derived = any(id(tensor) in self._from_inputs for tensor in given)
            if derived:
                self._from_inputs.update(map(id, results))
            purpose = self._purpose(func, of_weights=bool(given) and not derived)
            ran = Invocation(func, args, kwargs, out)
            call = self.described(ran, bound, purpose.owner, phase=purpose.phase)
            for part in parts(call, purpose.asked):
                self._purposes[self.length] = purpose
                self.add(replace(part, index=self.length), ran)
        SIGNALS.deliver()
        return out

    def _purpose(self, func: Any, *, of_weights: bool) -> Purpose:
        if self._owners.recomputing:
            return Purpose(self._owners.making(of_weights=of_weights), Phase.RECOMPUTE)
        in_backward = self._owners.finished and torch._C._current_graph_task_id() != -1
        if self._running_again or not in_backward:
            return Purpose(self._owners.making(of_weights=of_weights), Phase.FORWARD)
        return self._gradients.purpose(func)


def _is_taken_over(func: Any) -> bool:
    """Whether autograd only puts a gradient where it belongs.

    It takes one over that nobody else holds; the tape holds it, and so it is copied here. Hooks on
    the gradient run at the same place, but from Python.
    """
    node = torch._C._current_autograd_node()
    if getattr(node, "variable", None) is None or func._opname in {"add", "add_"}:
        return False
    caller = sys._getframe(3)  # of the mode, which has called what calls this
    return caller.f_code is _engine_run_backward.__code__
