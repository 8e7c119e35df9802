"""Memory of an optimizer: its state, and what a step takes beside it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from graphflops.analysis.optimizers import OptimizerStep

Implementation: TypeAlias = Literal["for-loop", "foreach", "fused"]
"""Implementation of a step in ``torch.optim``: one parameter after the other, operators on lists of
parameters (the default on a GPU), one kernel."""
_COUNTER_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerMemory:
    """Memory of an optimizer.

    Attributes:
        name: Name of the optimizer.
        state: Bytes that it keeps between steps.
        temporaries: Most bytes that a step takes beside its state.
        state_sizes: Bytes of each tensor that it keeps.
        temporary_sizes: Bytes of each tensor of those temporaries.
    """

    name: str
    state: int
    temporaries: int = 0
    state_sizes: tuple[int, ...] = ()
    temporary_sizes: tuple[int, ...] = ()


def optimizer_memory(
    step: OptimizerStep, device: str, implementation: Implementation | None = None
) -> OptimizerMemory:
    """Return the memory of an optimizer.

    Args:
        step: A step of it.
        device: Device of the parameters.
        implementation: Implementation of the step; by default that of ``torch.optim``.

    Example:
        >>> from graphflops.analysis.optimizers import optimizer_step
        >>> from graphflops.core.ir import Module, Parameter
        >>> weights = tuple(Parameter(f"w{n}", n, n, 4 * n, True) for n in (10, 100))
        >>> adamw = optimizer_step("adamw", [Module(path="", parameters=weights)], {10, 100})
        >>> memory = optimizer_memory(adamw, "cuda:0")
        >>> memory.state, memory.temporaries  # two moments; the root of one
        (880, 440)
    """
    is_on_cpu = device.startswith("cpu")
    implementation = implementation or ("for-loop" if is_on_cpu else "foreach")
    optimizer = step.optimizer
    # Counters of steps lie on the CPU, but for a fused step.
    has_counters = optimizer.has_counter and (is_on_cpu or implementation == "fused")
    counters = (_COUNTER_BYTES,) * has_counters
    state_sizes = tuple(
        nbytes for size in step.sizes for nbytes in (*counters, *(size,) * optimizer.state)
    )
    temporaries = _temporaries(step.sizes, implementation) if optimizer.has_denominator else ()
    return OptimizerMemory(
        name=optimizer.name,
        state=sum(state_sizes),
        temporaries=sum(temporaries),
        state_sizes=state_sizes,
        temporary_sizes=temporaries,
    )


def _temporaries(sizes: tuple[int, ...], implementation: Implementation) -> tuple[int, ...]:
    """Return the bytes of the denominators that are alive when they take most.

    They are square roots of the second moments.
    """
    if implementation == "fused":
        return ()
    if implementation == "foreach":
        return sizes
    # ``denom = v.sqrt() / c``: the root and the quotient, beside the denominator before.
    alive = ((before, size, size) for before, size in pairwise((0, *sizes)))
    return max(alive, key=sum, default=())
