"""Calls of a report, sorted and found."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal, get_args

from graphflops.core.arguments import check_choice
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError, UnboundSymbolError

SortKey = Literal["order", "flops", "macs", "bytes", "transcendentals"]


def sort_records(records: Sequence[OpRecord], key: SortKey, top: int | None) -> list[OpRecord]:
    """Return records in call order, or the most expensive first; see ``CostReport``."""
    check_choice("key", key, get_args(SortKey))
    if key == "order":
        return list(records[:top])

    def weight(record: OpRecord) -> tuple[bool, int]:
        if record.cost is None:
            return True, 0
        cost = record.cost
        value = cost.bytes_read + cost.bytes_written if key == "bytes" else getattr(cost, key)
        if not isinstance(value, int):
            msg = (
                f"cannot sort by {key}: {record.call.op} costs {value}, which is no number "
                "yet. Count with concrete shapes."
            )
            raise UnboundSymbolError(msg)
        return False, value

    return sorted(records, key=weight, reverse=True)[:top]


def find_records(records: Sequence[OpRecord], what: str, model: str) -> list[OpRecord]:
    """Return calls by node name, number or operator; see ``CostReport``."""
    if found := [r for r in records if what in {r.call.name, str(r.call.index)}]:
        return found
    distinct: dict[object, OpRecord] = {}
    for record in records:
        call = record.call
        if what in {call.op, call.op.rpartition("::")[2], f"{call.op}.{call.overload}"}:
            kind = (tuple(call.inputs.items()), tuple(call.attrs.items()))
            distinct.setdefault(kind, record)
    if not distinct:
        names = sorted({r.call.op for r in records} | {r.call.name for r in records})
        close = ", ".join(get_close_matches(what, names, n=4, cutoff=0.5))
        hint = f" Did you mean {close}?" if close else ""
        raise ModelSpecError(f"{model} makes no call {what!r}.{hint} See graphflops ops.")
    return list(distinct.values())
