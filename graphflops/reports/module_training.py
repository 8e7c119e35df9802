"""Cost of a module in a training step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphflops.core.cost import OpCost
from graphflops.core.ir import Module, OpRecord
from graphflops.core.module_tree import roll_up


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTraining:
    """Cost of a module in a training step, submodules included.

    Attributes:
        forward: Its forward pass.
        input_gradient: That part of its backward pass which hands gradients on.
        weight_gradient: That part which makes the gradients of its parameters.
        recompute: What is computed again for the backward pass.
    """

    forward: OpCost
    input_gradient: OpCost
    weight_gradient: OpCost
    recompute: OpCost

    @property
    def backward(self) -> OpCost:
        """Its backward pass, without what is recomputed."""
        return self.input_gradient + self.weight_gradient

    @property
    def ratio(self) -> float | None:
        """FLOPs of its backward pass over those of its forward; ``None`` if there is no number."""
        forward, backward = self.forward.flops, self.backward.flops
        if forward == 0 or not (isinstance(forward, int) and isinstance(backward, int)):
            return None
        return backward / forward


def costs_of_modules(
    forward: Mapping[str, OpCost],
    backward: Iterable[OpRecord],
    recompute: Mapping[str, OpCost],
    modules: Iterable[Module],
) -> dict[str, ModuleTraining]:
    """Return the cost of each module in a training step by path.

    Args:
        forward: Costs of the forward pass by module.
        backward: Records of the backward pass.
        recompute: Costs of what is computed again, by module.
        modules: The modules.
    """
    records, modules = list(backward), tuple(modules)

    def gradients(*, of_weights: bool) -> dict[str, OpCost]:
        wanted = [r for r in records if r.call.is_weight_gradient is of_weights]
        return {node.path: node.total for node in roll_up(wanted, modules).walk()}

    of_weights, of_inputs = gradients(of_weights=True), gradients(of_weights=False)
    nothing = OpCost()
    return {
        path: ModuleTraining(
            forward=forward.get(path, nothing),
            input_gradient=of_inputs.get(path, nothing),
            weight_gradient=of_weights.get(path, nothing),
            recompute=recompute.get(path, nothing),
        )
        for path in {**forward, **of_inputs, **of_weights, **recompute}
    }
