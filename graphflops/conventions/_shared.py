"""What the conventions of other packages have in common."""

from __future__ import annotations

from functools import cache

from graphflops.conventions.exact import exact
from graphflops.cost import Dim, OpCost
from graphflops.ir import OpCall
from graphflops.pricing import cost_of
from graphflops.registry import Entry
from graphflops.traffic import copied_unless_view


def exact_cost(call: OpCall) -> OpCost:
    """What one run of a call costs under ``exact``; only bytes move where that has no handler."""
    entry = exact().lookup(call)
    return OpCost().moving(*copied_unless_view(call)) if entry is None else cost_of(call, entry)


def exact_traffic(call: OpCall) -> tuple[Dim, Dim]:
    """The bytes of ``exact``: what moves does not depend on how FLOPs are counted."""
    cost = exact_cost(call)
    return cost.bytes_read, cost.bytes_written


@cache
def overlooked(op: str, reason: str) -> Entry:
    """The entry of a call that a convention does not see: no FLOPs, the bytes of ``exact``."""
    return Entry(op=op, handler=None, traffic=exact_traffic, reason=reason, origin=__file__)
