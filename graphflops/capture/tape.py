"""A tape: every operator that runs while it is on, below autograd, forward and backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphflops.capture.decompose import Invocation
from graphflops.capture.fused import parts
from graphflops.capture.gradients import Gradients, Purpose, marked
from graphflops.capture.graph import is_view
from graphflops.capture.metadata import bound_arguments, tensor_meta, written_arguments
from graphflops.capture.owners import Owners
from graphflops.capture.regions.change import Change
from graphflops.ir import OpCall, Phase, TensorMeta

_CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Copied:
    """A part of a tape, to be added again.

    Attributes:
        calls: Its calls.
        invocations: What was invoked.
    """

    calls: tuple[OpCall, ...]
    invocations: tuple[Invocation, ...]

    def changed(self, change: Change) -> Copied:
        """The same of another instance."""
        return Copied(tuple(change.of(call, call.index) for call in self.calls), self.invocations)

    def uses_only(self, names: Container[str]) -> bool:
        """Whether its calls use nothing but tensors of some names, what they make, constants."""
        made: set[str] = set()
        for call in self.calls:
            used = (tensor.name for _, tensor in call.tensors())
            if not all(n in made or n in names or n.startswith(_CONSTANT) for n in used):
                return False
            made.update(out.name for out in call.outputs)
        return True


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Records operator calls with the modules they belong to.

    What autograd computes in the backward pass goes by the module whose forward caused it.

    Attributes:
        calls: The calls so far, numbered.
        invocations: What was invoked, by a call's index.
    """

    def __init__(self, owners: Owners, gradients: Gradients) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.calls: list[OpCall] = []
        self.invocations: list[Invocation] = []
        self._owners = owners
        self._gradients = gradients
        # None where a backward call is marked already.
        self._purposes: list[Purpose | None] = []
        self._running_again = False
        self._held: list[torch.Tensor] = []
        self._states: dict[tuple[str, int], str] = {}
        self._used: Counter[str] = Counter()
        self._metas: dict[int, TensorMeta] = {}
        self._from_inputs: set[int] = set()

    def know(self, tensor: torch.Tensor, name: str, *, is_input: bool = False) -> None:
        """Call a tensor by a name; what follows from inputs is activations."""
        if id(tensor) not in self._metas:
            # Tensors are known by their identity, which holds as long as they are held.
            self._held.append(tensor)
        self._metas[id(tensor)] = tensor_meta(tensor, name)
        if is_input:
            self._from_inputs.add(id(tensor))

    def name_of(self, tensor: torch.Tensor) -> str:
        """What a tensor is called; nothing if it was not seen yet."""
        known = self._metas.get(id(tensor))
        return "" if known is None else known.name

    def state_of(self, tensor: torch.Tensor) -> str | None:
        """What stands for a tensor as it is: another after it was written to."""
        if id(tensor) not in self._metas:
            return None
        name, version = self.name_of(tensor), tensor._version
        return self._states.setdefault((name, version), f"{name} written {version} times")

    def is_of_inputs(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor follows from inputs of the model."""
        return id(tensor) in self._from_inputs

    def recorded(self, start: int = 0) -> tuple[OpCall, ...]:
        """Calls from one on, backward ones marked where they serve weights."""
        delivered = {
            self._metas[tensor].name: to_weights
            for tensor, (_, to_weights) in self._gradients.delivered.items()
            if tensor in self._metas
        }
        return marked(self.calls[start:], self._purposes[start:], delivered)

    def copied(self, start: int) -> Copied:
        """The calls from one on."""
        return Copied(tuple(self.calls[start:]), tuple(self.invocations[start:]))

    def settled(self, start: int, change: Change) -> Copied:
        """The calls from one on, marked and changed where they stand."""
        calls = (change.of(call, call.index) for call in self.recorded(start))
        self.calls[start:] = calls
        self._purposes[start:] = [None] * (len(self.calls) - start)
        return self.copied(start)

    def add(self, copied: Copied, change: Change) -> None:
        """Add calls of another instance, which are marked already."""
        for call, invocation in zip(copied.calls, copied.invocations, strict=True):
            self.calls.append(change.of(call, len(self.calls)))
            self.invocations.append(invocation)
            self._purposes.append(None)

    @contextmanager
    def running_again(self) -> Iterator[list[OpCall]]:
        """Take calls of the forward, during the backward, from the tape again: into a list."""
        start = len(self.calls)
        found: list[OpCall] = []
        self._running_again = True
        try:
            yield found
        finally:
            self._running_again = False
            found += self.calls[start:]
            del self.calls[start:], self.invocations[start:], self._purposes[start:]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload) or func.namespace == "prim":
            return func(*args, **kwargs)
        # Before it runs: an operator may change the shape of what it is given.
        inputs, attrs = bound_arguments(func, args, kwargs, self._meta)
        out = func(*args, **kwargs)
        results = _tensors(out)
        if results and not _is_taken_over(func):
            given = _tensors((args, kwargs))
            derived = any(id(tensor) in self._from_inputs for tensor in given)
            if derived:
                self._from_inputs.update(map(id, results))
            purpose = self._purpose(func, of_weights=bool(given) and not derived)
            name = self._unused(func._opname)
            call = OpCall(
                op=func._schema.name,
                overload=func._overloadname,
                inputs=inputs,
                attrs=attrs,
                outputs=self._outputs(name, results),
                writes=written_arguments(func),
                is_view=is_view(out, given),
                path=purpose.owner.path,
                name=name,
                source=purpose.owner.source,
                cls=purpose.owner.cls,
                phase=purpose.phase,
            )
            for part in parts(call, purpose.asked):
                self.calls.append(replace(part, index=len(self.calls)))
                self.invocations.append(Invocation(func, args, kwargs, out))
                self._purposes.append(purpose)
        return out

    def _purpose(self, func: Any, *, of_weights: bool) -> Purpose:
        if self._owners.recomputing:
            return Purpose(self._owners.current(of_weights=of_weights), Phase.RECOMPUTE)
        if self._running_again or torch._C._current_graph_task_id() == -1:
            return Purpose(self._owners.current(of_weights=of_weights), Phase.FORWARD)
        return self._gradients.purpose(func)

    def _meta(self, tensor: torch.Tensor) -> TensorMeta:
        if id(tensor) not in self._metas:
            self.know(tensor, self._unused(_CONSTANT))
        return self._metas[id(tensor)]

    def _outputs(self, name: str, results: list[torch.Tensor]) -> tuple[TensorMeta, ...]:
        for at, result in enumerate(results):
            known = self._metas.get(id(result))
            given = name if len(results) == 1 else f"{name}.{at}"
            # One that was written to in place stays the tensor it was.
            self.know(result, given if known is None else known.name)
        return tuple(self._metas[id(result)] for result in results)

    def _unused(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name] - 1}"


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _is_taken_over(func: Any) -> bool:
    """Whether autograd only puts a gradient where it belongs.

    It takes one over that nobody else holds; the tape holds it, and so it is copied here.
    """
    node = torch._C._current_autograd_node()
    return getattr(node, "variable", None) is not None and func._opname not in {"add", "add_"}
