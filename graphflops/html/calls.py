"""Calls of a pass as data: a repeated layer stands once, and the browser expands it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from graphflops.analysis.call_time import Roofline, Seconds
from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.ir import OpRecord, TensorMeta
from graphflops.pricing.price import price_key
from graphflops.pricing.registry import Registry
from graphflops.render.data import number
from graphflops.render.explain import details, parts
from graphflops.render.units import shape

COLUMNS = (
    *("index", "path", "name", "line", "operator", "status", "inputs", "outputs"),
    *("flops", "macs", "read", "written", "seconds", "explanation"),
)
_DIGITS = 4
"""Digits of the numbers in expressions."""


class FoldedCalls:
    """Calls of passes, each that is not a repeat once.

    Args:
        roofline: Device whose times are shown, if any.
    """

    def __init__(self, roofline: Roofline | None) -> None:
        self._roofline = roofline
        self._explanations: list[dict[str, Any]] = []
        self._positions: dict[Hashable, int] = {}

    @property
    def explanations(self) -> list[dict[str, Any]]:
        """Explanations of calls by number; equal calls share one."""
        return self._explanations

    def fold(self, records: Iterable[OpRecord], registry: Registry) -> dict[str, Any]:
        """Return the calls of a pass.

        ``records`` has a row for each call that is not a repeat. ``items`` are numbers of rows, and
        repeats as lists: the number of the block, the start of both, and what to rename.

        Args:
            records: Priced calls, in order.
            registry: What they were priced with.
        """
        rows: list[list[Any]] = []
        blocks: list[list[Any]] = []
        numbers: dict[Block[OpRecord], int] = {}

        def fold_block(block: Block[OpRecord]) -> int:
            if block not in numbers:
                items = fold_items(block.items)
                numbers[block] = len(blocks)
                blocks.append(items)
            return numbers[block]

        def fold_items(items: Iterable[OpRecord | Repeat[OpRecord]]) -> list[Any]:
            found: list[Any] = []
            for item in items:
                if isinstance(item, Repeat):
                    found.append([fold_block(item.block), item.shift, *_renaming(item)])
                else:
                    found.append(len(rows))
                    rows.append(self._row(item, registry))
            return found

        items = fold_items(CallSequence.of(records).items)
        return {"columns": COLUMNS, "records": rows, "blocks": blocks, "items": items}

    def _row(self, record: OpRecord, registry: Registry) -> list[Any]:
        call, cost = record.call, record.cost
        figures: list[Any] = [None] * 4
        if cost is not None:
            values = (cost.flops, cost.macs, cost.bytes_read, cost.bytes_written)
            figures = list(map(number, values))
        return [
            call.index,
            call.module_path,
            call.name,
            call.source_line,
            f"{call.op}.{call.overload}".removesuffix(".default"),
            record.status.value,
            _shapes(meta for _, meta in call.tensors()),
            _shapes(call.outputs),
            *figures,
            self._seconds(record),
            self._explain(record, registry),
        ]

    def _seconds(self, record: OpRecord) -> float | str | None:
        if self._roofline is None:
            return None
        return seconds_number(self._roofline.time(record).expected)

    def _explain(self, record: OpRecord, registry: Registry) -> int:
        key = id(registry), price_key(record.call), record.status, record.cost
        if key not in self._positions:
            self._positions[key] = len(self._explanations)
            explanation = {"lines": list(details(record, registry)), "parts": list(parts(record))}
            self._explanations.append(explanation)
        return self._positions[key]


def seconds_number(value: Seconds) -> float | str:
    """Return seconds as a number; an expression as text, its numbers with few digits."""
    return value if isinstance(value, int | float) else str(value.evalf(_DIGITS))


def _renaming(repeat: Repeat[OpRecord]) -> list[str]:
    moved = repeat.relocation
    return [
        *(moved.from_path, moved.to_path, moved.from_line, moved.to_line),
        *(moved.from_suffix, moved.to_suffix),
    ]


def _shapes(tensors: Iterable[TensorMeta]) -> str:
    return ", ".join(shape(meta.shape) for meta in tensors)
