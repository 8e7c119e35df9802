"""Cost of a module in a training step."""

from __future__ import annotations

from dataclasses import dataclass

from graphflops.core.cost import OpCost


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
