"""Formula of a priced call, in words."""

from __future__ import annotations

from graphflops.core.ir import OpRecord, Status
from graphflops.pricing.registry import Registration


def formula(record: OpRecord, registration: Registration | None) -> list[str]:
    """Return the lines of the formula of a record, or the reason why it has none.

    Args:
        record: Priced call.
        registration: Registry entry of its operator, if any.
    """
    if record.status is Status.DECOMPOSED:
        return ["the sum of what PyTorch decomposes it into:"]
    if record.status is Status.UNKNOWN and registration is not None:
        return [f"none: {registration.reason}"]
    if record.status is Status.UNKNOWN:
        return ["none: register a handler, see docs/tasks/custom_operators.md"]
    if registration is None:
        return ["registered with torch.utils.flop_counter.register_flop_formula"]
    return registration.formula.splitlines()
