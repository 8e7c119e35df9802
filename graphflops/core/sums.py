"""Sums over calls in which a repeated layer is summed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Any, TypeVar

from graphflops.core.call_sequence import Block, CallSequence, Relocation, Repeat
from graphflops.core.ir import OpRecord

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def _unchanged(key: Any, _: Relocation) -> Any:
    return key


def sum_by_key(
    records: Iterable[OpRecord],
    terms: Callable[[OpRecord], Iterable[tuple[K, V]]],
    relocate: Callable[[K, Relocation], K] = _unchanged,
) -> dict[K, V]:
    """Return the sums of the terms of calls by their keys.

    Args:
        records: Calls. A layer that is repeated among them is summed once.
        terms: Function from a call to its terms, each with its key; values are summed by ``+``.
        relocate: Function from a key to that of another instance of a layer. By default the calls
            of all instances have the same keys.

    Example:
        >>> from graphflops.core.cost import OpCost
        >>> from graphflops.core.ir import OpCall, OpRecord, Status
        >>> call = OpCall(op="aten::relu", overload="", inputs={}, attrs={}, outputs=(), index=0)
        >>> record = OpRecord(call=call, status=Status.COUNTED, cost=OpCost(flops=3))
        >>> sum_by_key([record, record], lambda record: [(record.call.op, record.cost.flops)])
        {'aten::relu': 6}
    """

    @cache
    def sum_block(block: Block[OpRecord]) -> dict[K, V]:
        return sum_items(block.items)

    def terms_of(item: OpRecord | Repeat[OpRecord]) -> Iterable[tuple[K, V]]:
        if not isinstance(item, Repeat):
            return terms(item)
        sums = sum_block(item.block).items()
        return ((relocate(key, item.relocation), value) for key, value in sums)

    def sum_items(items: Iterable[OpRecord | Repeat[OpRecord]]) -> dict[K, V]:
        sums: dict[K, Any] = {}
        for item in items:
            for key, value in terms_of(item):
                sums[key] = sums[key] + value if key in sums else value
        return sums

    return sum_items(CallSequence.of(records).items)
