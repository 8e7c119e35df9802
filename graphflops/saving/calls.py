"""Calls, records and captures as plain data; a repeated layer stands once, as it does in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import sympy

from graphflops.core.call_sequence import Block, CallSequence, Relocation, Repeat
from graphflops.core.cost import OpCost
from graphflops.core.ir import (
    Capture,
    DataSize,
    LayerReuse,
    Module,
    OpCall,
    OpRecord,
    Parameter,
    Phase,
    SparseStorage,
    Status,
    TensorMeta,
)
from graphflops.saving.codec import (
    Codec,
    DataError,
    check_keys,
    enumeration,
    mapping,
    optional,
    row,
    scalar,
    sequence,
    structure,
    within,
)
from graphflops.saving.expressions import CONDITION, DIM, decode_expression, encode_expression
from graphflops.saving.storages import STORAGES

TEXT, INTEGER, FLAG, SECONDS = scalar(str), scalar(int), scalar(bool), scalar(float, int)
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _encode_value(value: Any) -> Any:
    """Return an argument that is no tensor: JSON's own values stand for themselves."""
    if isinstance(value, tuple | list):
        return [_encode_value(item) for item in value]
    if isinstance(value, sympy.Basic):
        return {"expression": encode_expression(value)}
    if isinstance(value, complex):
        return {"complex": [_encode_value(value.real), _encode_value(value.imag)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _decode_value(data: Any) -> Any:
    if isinstance(data, list):
        return tuple([_decode_value(item) for item in data])
    if not isinstance(data, dict):
        return data
    if data.keys() == {"expression"}:
        return decode_expression(data["expression"])
    if data.keys() == {"float"} and data["float"] in _FLOATS:
        return _FLOATS[data["float"]]
    if data.keys() == {"complex"} and len(data["complex"]) == 2:  # noqa: PLR2004 - real and imaginary
        return complex(*map(_decode_value, data["complex"]))
    raise DataError("is no value of an argument")


VALUE = Codec(_encode_value, _decode_value)
COST = structure(
    OpCost,
    **dict.fromkeys(("flops", "macs", "transcendentals", "flops_masked"), DIM),
    **dict.fromkeys(("bytes_read", "bytes_written"), DIM),
)
TENSOR = structure(
    TensorMeta,
    shape=sequence(DIM),
    dtype=TEXT,
    strides=optional(sequence(DIM)),
    name=TEXT,
    sparse=optional(structure(SparseStorage, elements=optional(DIM), index_nbytes=DIM)),
    masked_elements=optional(DIM),
    known_values=optional(sequence(INTEGER)),
    storage=TEXT,
)
_LIST = sequence(optional(TENSOR))
TENSORS = Codec(
    lambda value: _LIST.encode(value) if isinstance(value, tuple) else TENSOR.encode(value),
    lambda data: _LIST.decode(data) if isinstance(data, list) else TENSOR.decode(data),
)
CALL = structure(
    OpCall,
    **dict.fromkeys(("op", "overload", "module_path", "name", "source_line"), TEXT),
    **dict.fromkeys(("torch_function", "module_class"), TEXT),
    **dict.fromkeys(("is_view", "is_weight_gradient"), FLAG),
    inputs=mapping(TENSORS),
    attrs=mapping(VALUE),
    outputs=sequence(TENSOR),
    writes=sequence(TEXT),
    index=INTEGER,
    trip_count=DIM,
    phase=enumeration(Phase),
    discarded_gradients=Codec(sorted, sequence(TEXT, frozenset).decode),
    masked_scores=row(DIM, DIM),
    same_as=optional(INTEGER),
)


def _encode_record(record: OpRecord) -> dict[str, Any]:
    data = {"call": CALL.encode(record.call), "status": record.status.value}
    if record.cost is not None:
        data["cost"] = COST.encode(record.cost)
    if record.parts:
        data["parts"] = [_encode_record(part) for part in record.parts]
    return data


_PARTS = sequence(Codec(_encode_record, lambda data: _decode_record(data)))  # noqa: PLW0108 - defined below
_RECORD = {
    "call": CALL,
    "status": enumeration(Status),
    "cost": optional(COST),
    "parts": _PARTS,
}


def _decode_record(data: Any) -> OpRecord:
    check_keys(data, _RECORD, {"call", "status"})
    values: dict[str, Any] = {"cost": None}
    values |= {key: within(key, _RECORD[key].decode, item) for key, item in data.items()}
    return OpRecord(**values)


RELOCATION = structure(
    Relocation,
    names=mapping(TEXT),
    **dict.fromkeys(
        ("from_path", "to_path", "from_line", "to_line", "to_suffix", "from_suffix"), TEXT
    ),
)


class _Encoder:
    """Encodes records; each block of a repeated layer once."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self._numbers: dict[Block[OpRecord], int] = {}

    def items(self, items: tuple[OpRecord | Repeat[OpRecord], ...]) -> list[Any]:
        return [self._item(item) for item in items]

    def _item(self, item: OpRecord | Repeat[OpRecord]) -> Any:
        if isinstance(item, OpRecord):
            return _encode_record(item)
        return {
            "block": self._number(item.block),
            "start": item.start,
            "relocation": RELOCATION.encode(item.relocation),
        }

    def _number(self, block: Block[OpRecord]) -> int:
        if block not in self._numbers:
            data = {"start": block.start, "items": self.items(block.items)}
            self._numbers[block] = len(self.blocks)
            self.blocks.append(data)
        return self._numbers[block]


def _encode_records(records: Any) -> dict[str, Any]:
    encoder = _Encoder()
    items = encoder.items(CallSequence.of(records).items)
    return {"blocks": encoder.blocks, "items": items}


def _decode_records(data: Any) -> CallSequence[OpRecord]:
    check_keys(data, {"blocks": 0, "items": 0}, {"blocks", "items"})
    blocks: list[Block[OpRecord]] = []

    def item(entry: Any) -> OpRecord | Repeat[OpRecord]:
        if not isinstance(entry, dict) or "block" not in entry:
            return _decode_record(entry)
        check_keys(
            entry, {"block": 0, "start": 0, "relocation": 0}, {"block", "start", "relocation"}
        )
        number = INTEGER.decode(entry["block"])
        if not 0 <= number < len(blocks):
            raise DataError(f"repeats block {number}, which stands nowhere before")
        start, change = INTEGER.decode(entry["start"]), RELOCATION.decode(entry["relocation"])
        return Repeat(start, blocks[number], change)

    def block(entry: Any) -> None:
        check_keys(entry, {"start": 0, "items": 0}, {"start", "items"})
        items = sequence(Codec(_encode_record, item)).decode(entry["items"])
        blocks.append(Block(INTEGER.decode(entry["start"]), items))

    within("blocks", sequence(Codec(_encode_record, block)).decode, data["blocks"])
    items = within("items", sequence(Codec(_encode_record, item)).decode, data["items"])
    return CallSequence(items)


RECORDS = Codec(_encode_records, _decode_records)
"""Codec of a sequence of records."""
_PARAMETER = structure(
    Parameter, name=TEXT, identity=INTEGER, numel=INTEGER, nbytes=INTEGER, trainable=FLAG
)
_MODULE = structure(
    Module,
    **dict.fromkeys(("path", "module_class", "extra"), TEXT),
    parameters=sequence(_PARAMETER),
    calls=optional(INTEGER),
)
_DATA_SIZE = structure(
    DataSize,
    **dict.fromkeys(("name", "operator", "source"), TEXT),
    **dict.fromkeys(("largest", "value"), optional(DIM)),
    count=INTEGER,
    is_placeholder=FLAG,
)
_CAPTURE = structure(
    Capture,
    calls=Codec(lambda _: [], lambda _: ()),
    modules=sequence(_MODULE),
    method=TEXT,
    seconds=SECONDS,
    inputs=sequence(row(TEXT, TENSOR)),
    outputs=sequence(TENSOR),
    constants=mapping(Codec(lambda _: None, lambda _: None)),
    control_flow=sequence(TEXT),
    caches=Codec(sorted, sequence(TEXT, frozenset).decode),
    notes=sequence(TEXT),
    assumptions=sequence(CONDITION),
    data_sizes=sequence(_DATA_SIZE),
    layer_reuse=structure(LayerReuse, layers=INTEGER, distinct=INTEGER),
    timings=mapping(SECONDS),
    storages=optional(STORAGES),
)
CAPTURE = Codec(lambda capture: _CAPTURE.encode(replace(capture, calls=())), _CAPTURE.decode)
"""Codec of a capture, without its calls (the records have them) and values of constants."""
