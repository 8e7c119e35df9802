"""Formula of a priced call, in words."""

from __future__ import annotations

from contextlib import suppress

from graphflops.core.ir import OpRecord, Status
from graphflops.pricing.price import cost_of
from graphflops.pricing.registry import HandlerNotLoadedError, Registration, Registry


def formula(record: OpRecord, registry: Registry) -> list[str]:
    """Return the lines of the formula of a record, or the reason why it has none.

    Args:
        record: Priced call.
        registry: Registry that it was priced by.
    """
    registration = registry.lookup(record.call)
    if record.status is Status.DECOMPOSED:
        return ["the sum of what PyTorch decomposes it into:"]
    if record.status is Status.UNKNOWN and registration is not None:
        return [f"none: {registration.reason}"]
    if record.status is Status.UNKNOWN:
        return ["none: register a handler, see docs/tasks/custom_operators.md"]
    if registration is None:
        return ["registered with torch.utils.flop_counter.register_flop_formula"]
    lines = registration.formula.splitlines()
    if registry.skips_masked and _has_masked_scores(record, registration):
        lines.append("The products of masked scores, flops_masked, are left out.")
    return lines


def _has_masked_scores(record: OpRecord, registration: Registration) -> bool:
    with suppress(HandlerNotLoadedError):
        return cost_of(record.call, registration).flops_masked != 0
    return False
