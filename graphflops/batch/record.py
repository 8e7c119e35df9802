"""Records of a batch: one JSON object for each item, equal in every run of the same versions."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from graphflops.batch.failures import Failure, FailureClass
from graphflops.batch.item import Item
from graphflops.render import data

if TYPE_CHECKING:
    from graphflops.reports.base import CostReport

SCHEMA_VERSION = 1
OK, INCOMPLETE, FAILED = "ok", "incomplete", "failed"
"""Status of an item: counted; counted but for operators without a price; not counted."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema that records follow.

    Example:
        >>> schema()["title"]
        'graphflops batch record'
    """
    text = resources.files("graphflops.batch").joinpath("record.schema.json").read_text("utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


def make_record(item: Item, report: CostReport, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the record of an item that was counted.

    Args:
        item: The item.
        report: Its report.
        notes: Sentences on the inputs and the capture.
    """
    unsupported = report.unsupported_ops()
    failure = None
    if unsupported:
        listed = ", ".join(f"{op} x {calls}" for op, calls in unsupported.items())
        message = f"no price for {listed}. The totals are lower bounds."
        failure = Failure(failure_class=FailureClass.UNSUPPORTED, message=message)
    first = report.summands[0].report
    return _record(item, INCOMPLETE if unsupported else OK, failure) | {
        "model_class": first.model,
        "inputs": {name: data.tensor_dict(meta) for name, meta in first.capture.inputs},
        "totals": {
            **data.cost_dict(report.total),
            "params": report.params,
            "params_trainable": report.params_trainable,
            "param_bytes": report.root.param_bytes,
        },
        "calls": len(report.records),
        "unsupported_ops": unsupported,
        "assumptions": list(dict.fromkeys(notes)),
    }


def failed_record(item: Item, failure: Failure) -> dict[str, Any]:
    """Return the record of an item that was not counted."""
    return _record(item, FAILED, failure)


def _record(item: Item, status: str, failure: Failure | None) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "item": item.to_dict(),
        "status": status,
        "failure": None if failure is None else failure.to_dict(),
        "environment": data.environment(),
        "totals": None,
    }
