"""Reports as data: JSON by published schemas, and CSV."""

from __future__ import annotations

import csv
import importlib.util
import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata, resources
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

from graphflops.core.cost import Dim, OpCost, as_dim
from graphflops.core.ir import DataSize, OpRecord, Status, TensorMeta
from graphflops.core.module_tree import ModuleNode
from graphflops.graph.operator_graph import OperatorGraph
from graphflops.render.escape import csv_cell
from graphflops.render.protocols import Costs, PassCosts

SCHEMA_VERSION = 2
Kind: TypeAlias = Literal["forward", "training", "generation"]
"""Kind of a report, as its JSON names it."""


def schema(kind: Kind = "forward") -> dict[str, Any]:
    """Return the JSON Schema that a report's ``to_dict`` follows.

    Args:
        kind: The kind of report.

    Example:
        >>> schema("training")["title"]
        'graphflops training report'
    """
    text = resources.files("graphflops.render").joinpath("report.schema.json").read_text("utf-8")
    schemas: dict[str, Any] = json.loads(text)
    return {
        "$schema": schemas["$schema"],
        "title": f"graphflops {kind} report",
        "$defs": schemas["$defs"],
        "$ref": f"#/$defs/{kind}_report",
    }


def common_dict(
    report: Costs, kind: Kind, captured: PassCosts, notes: Sequence[str]
) -> dict[str, Any]:
    """Return what the data of every report have in common.

    Args:
        report: The report.
        kind: Its kind.
        captured: The pass whose inputs and capture are shown.
        notes: Sentences that a reader of the report must know.
    """
    by_status = report.coverage
    capture = captured.capture
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "model": {
            "name": captured.model,
            "inputs": {name: tensor_dict(meta) for name, meta in capture.inputs},
        },
        "environment": environment(),
        "capture": {
            "method": capture.method,
            "seconds": round(capture.seconds, 3),
            "layer_reuse": asdict(capture.layer_reuse),
            "notes": list(notes),
            "data_sizes": list(map(_data_size_dict, capture.data_sizes)),
        },
        "convention": report.convention,
        "flops_per_mac": captured.registry.flops_per_mac,
        "totals": {
            **cost_dict(report.total),
            "params": report.params,
            "params_trainable": report.params_trainable,
            "param_bytes": report.root.param_bytes,
        },
        "coverage": {
            "complete": report.complete,
            "calls": len(report.records),
            **{status.value: by_status[status] for status in Status},
            "unsupported_ops": report.unsupported_ops(),
        },
        "modules": [module_dict(node) for node in report.root.walk()],
        "uncalled_modules": sorted(report.uncalled_modules()),
        "operators": operator_dicts(report),
        "dtypes": {dtype: cost_dict(cost) for dtype, cost in report.by_dtype().items()},
    }


def to_dict(report: PassCosts, *, ops: bool = False) -> dict[str, Any]:
    """Return a report of one pass as plain data, one entry per call too if ``ops``."""
    result = common_dict(report, "forward", report, report.capture.notes)
    result["phase"] = report.phase.value
    if ops:
        result["ops"] = call_dicts(report.records, report.graph)
    return result


def json_text(data: dict[str, Any]) -> str:
    """Return plain data as indented JSON."""
    return json.dumps(data, indent=2)


def module_csv(root: ModuleNode, depth: int | None = None) -> str:
    """Return one line per module, numbers unformatted."""
    return csv_text([module_dict(node) for node in root.walk(depth)])


def calls_csv(records: list[OpRecord]) -> str:
    """Return one line per call, numbers unformatted."""
    rows = []
    for record in records:
        row = call_dict(record)
        row["inputs"] = "; ".join(f"{i['name']}:{_flat(i)}" for i in row["inputs"])
        row["outputs"] = "; ".join(map(_flat, row["outputs"]))
        rows.append(row)
    return csv_text(rows)


def call_dicts(records: Iterable[OpRecord], graph: OperatorGraph) -> list[dict[str, Any]]:
    """Return calls as data, each input with the node that produces it.

    Args:
        records: Records of the graph, the very same objects.
        graph: The graph.
    """
    by_position = [call_dict(record) for record in graph.records]
    inputs = [iter(call["inputs"]) for call in by_position]
    for call, name in zip(by_position, graph.names, strict=True):
        call["node"] = name
    for use in graph.uses:
        producer = None if use.producer is None else graph.names[use.producer]
        next(inputs[use.consumer])["producer"] = producer
    calls = dict(zip(map(id, graph.records), by_position, strict=True))
    return [calls[id(record)] for record in records]


def call_dict(record: OpRecord) -> dict[str, Any]:
    """Return a call as data; the cost of an unsupported one is ``null``."""
    call = record.call
    empty = dict.fromkeys(cost_dict(OpCost()))
    return {
        "index": call.index,
        "node": call.name,
        "module": call.module_path,
        "operator": call.op,
        "overload": call.overload,
        "status": record.status.value,
        "dtype": call.dtype,
        "inputs": [{"name": name, **tensor_dict(meta)} for name, meta in call.tensors()],
        "outputs": [tensor_dict(meta) for meta in call.outputs],
        "phase": call.phase.value,
        "is_weight_gradient": call.is_weight_gradient,
        "trip_count": number(call.trip_count),
        **(empty if record.cost is None else cost_dict(record.cost)),
        "source_line": call.source_line,
    }


def _data_size_dict(size: DataSize) -> dict[str, Any]:
    """Return a size that follows from data."""
    return {
        "name": size.name,
        "operator": size.operator,
        "source_line": size.source,
        "largest": None if size.largest is None else number(size.largest),
        "value": None if size.value is None else number(size.value),
        "count": size.count,
    }


def environment() -> dict[str, str]:
    """Return the versions that a reader needs to repeat the count."""
    packages = ("graphflops", "torch", "transformers")
    installed = {p: metadata.version(p) for p in packages if importlib.util.find_spec(p)}
    return {"python": platform.python_version(), **installed}


def cost_dict(cost: OpCost) -> dict[str, int | str]:
    """Return a cost by field; expressions become strings."""
    return {name: number(value) for name, value in cost.items()}


def number(value: Dim) -> int | str:
    """Return an integer as it is, an expression as text."""
    value = as_dim(value)
    return value if isinstance(value, int) else str(value)


def tensor_dict(meta: TensorMeta) -> dict[str, Any]:
    """Return shape and dtype of a tensor."""
    return {"shape": [number(size) for size in meta.shape], "dtype": meta.dtype}


def _flat(tensor: dict[str, Any]) -> str:
    return f"{tensor['dtype']}[{'x'.join(map(str, tensor['shape']))}]"


def module_dict(node: ModuleNode) -> dict[str, Any]:
    """Return a module with its costs."""
    return {
        "path": node.path,
        "class": node.module_class,
        "calls": node.calls,
        "params": node.params_total,
        "params_own": node.params_own,
        "params_trainable": node.params_trainable,
        **cost_dict(node.total),
        **{f"own_{name}": value for name, value in cost_dict(node.own).items()},
        "unknown": node.unknown,
    }


def operator_dicts(report: Costs) -> list[dict[str, Any]]:
    """Return operators with the number and the cost of their calls, in order of the first."""
    calls = Counter(record.call.op for record in report.records)
    statuses = {record.call.op: record.status.value for record in report.records}
    costs = report.by_operator()
    return [
        {
            "operator": op,
            "calls": calls[op],
            "status": statuses[op],
            **(cost_dict(costs[op]) if op in costs else dict.fromkeys(cost_dict(OpCost()))),
        }
        for op in calls
    ]


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Return rows as CSV, the keys of the first as header."""
    lines: list[str] = []
    if rows:
        # With this end of line, both of its characters are quoted inside a cell.
        writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
        writer.writerow(rows[0])
        writer.writerows(map(csv_cell, row.values()) for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)
