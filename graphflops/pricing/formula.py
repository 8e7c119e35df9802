"""The formula that a call was priced with, in words."""

from __future__ import annotations

from graphflops.core.ir import OpRecord, Status
from graphflops.pricing.registry import Registration


def formula(record: OpRecord, registration: Registration | None) -> list[str]:
    """Return the lines of the formula a record was priced with, or why there is none.

    Args:
        record: The priced call.
        registration: What the registry has for its operator.
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
