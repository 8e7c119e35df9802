"""Files of saved reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from graphflops.analysis.optimizers import OPTIMIZERS, Optimizer, OptimizerStep
from graphflops.analysis.utilization import Measurement
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Phase
from graphflops.errors import OutputError, ReportFileError
from graphflops.reports.decoding import DecodeGraph
from graphflops.reports.generation import GenerationReport
from graphflops.reports.report import Report
from graphflops.reports.training import TrainingReport
from graphflops.saving.calls import (
    CAPTURE,
    COST,
    INTEGER,
    RECORDS,
    SECONDS,
    TEXT,
)
from graphflops.saving.codec import (
    Codec,
    DataError,
    check_keys,
    enumeration,
    mapping,
    optional,
    scalar,
    sequence,
    structure,
)
from graphflops.saving.prices import RecordedFallback, decode_registry, encode_registry
from graphflops.saving.storages import STORAGES

AnyReport: TypeAlias = Report | TrainingReport | GenerationReport
FORMAT, VERSION = "graphflops report", 1

_FIELDS = structure(
    Report,
    model=TEXT,
    registry=Codec(encode_registry, decode_registry),
    capture=CAPTURE,
    records=RECORDS,
    phase=enumeration(Phase),
    timings=mapping(SECONDS),
)


def _decode_report(data: Any) -> Report:
    report: Report = _FIELDS.decode(data)
    records = CallSequence.of(report.records)
    capture = replace(
        report.capture,
        calls=records.map_items(lambda record: (record.call,)),
        fallback=RecordedFallback(records.distinct(), report.registry),
    )
    return replace(report, capture=capture)


def _decode_optimizer(data: Any) -> Optimizer:
    if data not in OPTIMIZERS:
        raise DataError(f"is {data!r}, no optimizer of this version")
    return OPTIMIZERS[data]


_REPORT = Codec(_FIELDS.encode, _decode_report)
_OPTIMIZER_STEP = structure(
    OptimizerStep,
    optimizer=Codec(lambda optimizer: optimizer.name, _decode_optimizer),
    parameters=INTEGER,
    cost=COST,
    state_bytes=INTEGER,
    sizes=sequence(INTEGER),
)
_NUMBER = scalar(float, int)
_KINDS: dict[str, tuple[type, Codec]] = {
    "forward": (Report, _REPORT),
    "training": (
        TrainingReport,
        structure(
            TrainingReport,
            **dict.fromkeys(("forward", "backward", "recompute"), _REPORT),
            loss=TEXT,
            optimizer=optional(_OPTIMIZER_STEP),
            gradient_accumulation_steps=INTEGER,
            steps=INTEGER,
            notes=sequence(TEXT),
            storages=optional(STORAGES),
            measured=optional(
                structure(Measurement, step_time=_NUMBER, peak_flops=_NUMBER, accelerator=TEXT)
            ),
        ),
    ),
    "generation": (
        GenerationReport,
        structure(
            GenerationReport,
            model=TEXT,
            symbolic_prefill=_REPORT,
            decode_graphs=sequence(structure(DecodeGraph, report=_REPORT, cached=INTEGER)),
            sizes=mapping(INTEGER),
            cache=TEXT,
            notes=sequence(TEXT),
            seconds=SECONDS,
        ),
    ),
}


def save(report: AnyReport, path: str | PathLike[str]) -> None:
    """Write a report to a file, as JSON that :func:`load` reads.

    Records, modules, notes and symbols are saved; code of handlers is not, only the formulas
    of those that override the convention.

    Args:
        report: The report.
        path: The file; it is replaced if it is there.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> import tempfile, torch, graphflops
        >>> report = graphflops.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(report, f"{folder}/linear.json")
        ...     load(f"{folder}/linear.json").flops
        56
    """
    kind = next(name for name, (cls, _) in _KINDS.items() if isinstance(report, cls))
    data = {"format": FORMAT, "version": VERSION, "kind": kind}
    data["report"] = _KINDS[kind][1].encode(report)
    try:
        Path(path).write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def load(path: str | PathLike[str]) -> AnyReport:
    """Read a report that :func:`save` wrote; torch is not needed.

    The report answers what the saved one answered. It is compared with other conventions by
    the decompositions that were recorded.

    Args:
        path: The file.

    Raises:
        ReportFileError: The file cannot be read, is no saved report, or one of another version.
    """
    data = _read(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        msg = (
            f"{path} is no saved report. Write one with graphflops.save; the JSON of --format json "
            "is for other programs."
        )
        raise ReportFileError(msg)
    if data.get("version") != VERSION:
        msg = (
            f"{path} was saved in version {data.get('version')!r} of the format, and this "
            f"graphflops reads version {VERSION}. Load it with the graphflops that saved it, or "
            "count again."
        )
        raise ReportFileError(msg)
    try:
        return _decode(data)
    except DataError as error:
        where = ".".join(error.path)
        subject = f"{path}: {where}" if where else f"{path}"
        raise ReportFileError(f"{subject} {error.problem}. Save the report again.") from None


def _decode(data: Any) -> AnyReport:
    keys = {"format", "version", "kind", "report"}
    check_keys(data, dict.fromkeys(keys), keys)
    if data["kind"] not in _KINDS:
        raise DataError(f"is of the kind {data['kind']!r}, which this version does not know")
    decode: Callable[[Any], AnyReport] = _KINDS[data["kind"]][1].decode
    return decode(data["report"])


def _read(path: str | PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ReportFileError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        msg = f"{path} is no JSON, or was cut off: {error}. Save the report again."
        raise ReportFileError(msg) from error
