"""Prices in the places where torch asks for the cost of an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from graphflops.capture.torch_internals.compiler import functorch_config, inductor_config
from graphflops.capture.torch_internals.operators import OpOverloadPacket
from graphflops.compiler.estimators import FlopsEstimator, OverlapEstimator
from graphflops.compiler.operator_price import flops_of_call
from graphflops.compiler.roofline import Roofline
from graphflops.conventions.exact import exact

_BUDGET = "activation_memory_budget_runtime_estimator"
_OVERLAP = "custom_runtime_estimation"


@dataclass(slots=True)
class _Installed:
    """Installed options and formulas, and the options in whose place they are."""

    options: list[tuple[Any, str, Any, Any]] = field(default_factory=list)
    formulas: dict[Any, Any] = field(default_factory=dict)

    def set_option(self, owner: Any, name: str, value: Any) -> None:
        """Set an option, and keep what it was."""
        self.options.append((owner, name, value, getattr(owner, name)))
        setattr(owner, name, value)

    def remove(self) -> None:
        """Put back everything that nobody has changed since."""
        changed = []
        for owner, name, value, original in reversed(self.options):
            if getattr(owner, name) is value:
                setattr(owner, name, original)
            else:
                # A ``config.patch`` that began after the installation puts the value back.
                changed.append((owner, name, value, original))
        self.options = changed[::-1]
        while self.formulas:
            packet, formula = self.formulas.popitem()
            if flop_registry.get(packet) is formula:
                del flop_registry[packet]


_INSTALLED = _Installed()


def install(
    *,
    accelerator: str = "h100-sxm",
    bytes_per_second: float | None = None,
    flop_counter: bool = True,
) -> None:
    """Let torch's own schedulers and counters use the prices of graphflops, in this process.

    - The partitioner of AOTAutograd, which chooses what to recompute under
      ``torch._functorch.config.activation_memory_budget``, gets the FLOPs of each node.
    - Inductor's overlap scheduler gets the time of each node that computes: the larger of its
      FLOPs at peak rate and its bytes at peak bandwidth.
    - ``torch.utils.flop_counter`` gets a formula for each operator that has a price here and none
      there: what :class:`~torch.utils.flop_counter.FlopCounterMode` counts is complete then.
      Formulas that it has, for contractions without their bias, stay.

    A second call replaces what the first has installed.

    Args:
        accelerator: Accelerator whose peak rates the overlap scheduler gets.
        bytes_per_second: Its memory bandwidth; ``None`` for what its maker publishes.
        flop_counter: False to leave ``torch.utils.flop_counter`` as it is. Inductor takes every
            operator with a formula there for one that is not fused: where the overlap scheduler
            is enabled, leave it.

    Raises:
        ModelSpecError: There is no such accelerator, or the bandwidth is not above 0.

    Example:
        >>> import torch
        >>> from torch.utils.flop_counter import FlopCounterMode
        >>> install()
        >>> with FlopCounterMode(display=False) as counter:
        ...     _ = torch.ones(2, 3).exp()
        >>> uninstall()
        >>> counter.get_total_flops()
        6
    """
    roofline = Roofline(accelerator=accelerator, bytes_per_second=bytes_per_second)
    uninstall()
    _INSTALLED.set_option(functorch_config, _BUDGET, FlopsEstimator())
    overlap = inductor_config.aten_distributed_optimizations
    _INSTALLED.set_option(overlap, _OVERLAP, OverlapEstimator(roofline))
    if flop_counter:
        for packet in _priced_packets():
            if packet not in flop_registry:
                _INSTALLED.formulas[packet] = flop_registry[packet] = _formula(packet)


def uninstall() -> None:
    """Put back what :func:`install` has replaced; without effect if it was not called.

    What others have set since stays.

    Example:
        >>> from torch.utils.flop_counter import flop_registry
        >>> before = dict(flop_registry)
        >>> install(accelerator="a100")
        >>> len(flop_registry) > len(before)
        True
        >>> uninstall()
        >>> flop_registry == before
        True
    """
    _INSTALLED.remove()


def _priced_packets() -> Iterator[OpOverloadPacket]:
    """Yield the packets of operators that have a handler, and of their in-place forms."""
    names = {entry.op.partition(".")[0] for entry in exact() if entry.handler is not None}
    for name in sorted(names):
        namespace, _, op = name.partition("::")
        for form in (op, f"{op}_"):
            packet = getattr(getattr(torch.ops, namespace, None), form, None)
            if isinstance(packet, OpOverloadPacket):
                yield packet


def _formula(packet: OpOverloadPacket) -> Callable[..., int]:
    """Return a formula in the form of ``torch.utils.flop_counter``."""

    def flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return flops_of_call(packet, args, kwargs, out_val)

    return flops
