"""Cost of an optimizer step, and size of the optimizer's state."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from graphflops.core.cost import OpCost
from graphflops.core.ir import Module, Parameter
from graphflops.errors import ModelSpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer, by what it does with one element of a parameter.

    Attributes:
        name: What it is called.
        formula: Its arithmetic, as PyTorch's single-tensor implementation writes it.
        flops: FLOPs an element.
        transcendentals: Those of them that are square roots.
        state: Elements it keeps for an element, of the parameter's dtype.
    """

    name: str
    formula: str
    flops: int
    transcendentals: int = 0
    state: int = 0

    @property
    def has_counter(self) -> bool:
        """True if it counts the steps of each parameter."""
        return self.has_denominator

    @property
    def has_denominator(self) -> bool:
        """True if it divides by the root of a second moment."""
        return self.transcendentals > 0


_MOMENTS = (
    "m = lerp(m, g, 1 - b1): 3; v = b2 v + (1 - b2) g g: 1 + 3; d = sqrt(v) / c + eps: 3; "
    "p += -a m / d: 3"
)
OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer(name="sgd", formula="p += -lr g: 2", flops=2),
        Optimizer(name="momentum", formula="b = mu b + g: 2; p += -lr b: 2", flops=4, state=1),
        Optimizer(name="adam", formula=_MOMENTS, flops=13, transcendentals=1, state=2),
        Optimizer(
            name="adamw",
            formula=f"p = (1 - lr w) p: 1; {_MOMENTS}",
            flops=14,
            transcendentals=1,
            state=2,
        ),
    )
}
"""The optimizers known, by name; ``momentum`` is SGD with it, none decays weights but AdamW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerStep:
    """One step of an optimizer over the parameters of a model.

    Attributes:
        optimizer: The optimizer.
        parameters: Elements it updates: those of parameters with a gradient, tied ones once.
        cost: FLOPs, and bytes of one pass over parameters, gradients and state.
        state_bytes: Bytes of what it keeps between steps.
        sizes: Bytes of each of these parameters, in order.
    """

    optimizer: Optimizer
    parameters: int
    cost: OpCost
    state_bytes: int
    sizes: tuple[int, ...] = ()


def optimizer_step(
    name: str, modules: Iterable[Module], differentiated: Container[int]
) -> OptimizerStep:
    """Return the cost of an optimizer step on the parameters of some modules.

    Args:
        name: ``"sgd"``, ``"momentum"``, ``"adam"`` or ``"adamw"``.
        modules: The modules of a model.
        differentiated: Identities of the parameters that got a gradient: PyTorch's optimizers
            pass over those whose ``grad`` is ``None``.

    Raises:
        ModelSpecError: There is no such optimizer.

    Example:
        >>> weight = Parameter(name="weight", identity=1, numel=10, nbytes=40, trainable=True)
        >>> step = optimizer_step("adamw", [Module(path="", parameters=(weight,))], {1})
        >>> step.cost.flops, step.state_bytes  # 14 an element; two moments of 40 bytes
        (140, 80)
    """
    if name not in OPTIMIZERS:
        close = get_close_matches(str(name).lower(), OPTIMIZERS, n=2, cutoff=0.5)
        known = ", ".join(OPTIMIZERS)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {known}."
        raise ModelSpecError(f"{name!r} is no optimizer known here. {hint}")
    optimizer = OPTIMIZERS[name]
    unique: dict[int, Parameter] = {}
    for module in modules:
        unique |= {p.identity: p for p in module.parameters if p.identity in differentiated}
    elements = sum(parameter.numel for parameter in unique.values())
    nbytes = sum(parameter.nbytes for parameter in unique.values())
    cost = OpCost(
        flops=optimizer.flops * elements,
        transcendentals=optimizer.transcendentals * elements,
        # The parameter, its gradient and its state; the gradient is not written.
        bytes_read=(2 + optimizer.state) * nbytes,
        bytes_written=(1 + optimizer.state) * nbytes,
    )
    return OptimizerStep(
        optimizer=optimizer,
        parameters=elements,
        cost=cost,
        state_bytes=optimizer.state * nbytes,
        sizes=tuple(parameter.nbytes for parameter in unique.values()),
    )
