"""``count``: capture a forward pass, price its calls and return a report."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

from torch import Tensor

from graphflops import conventions
from graphflops.capture import capture as capture_model
from graphflops.capture.counting_thread import in_counting_thread
from graphflops.capture.forward import Method
from graphflops.core import arguments
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Capture, OpRecord, Phase, Status
from graphflops.counting.renamed import refuse_renamed
from graphflops.errors import UnknownOpError, UnknownOpWarning
from graphflops.pricing.price import price_all
from graphflops.pricing.registry import Registry
from graphflops.reports.report import Report
from graphflops.runtime.versions import translate_version_errors

OnUnknown: TypeAlias = Literal["warn", "raise", "ignore"]


@refuse_renamed
@in_counting_thread
def count(
    model: object,
    args: Sequence[Any] | Tensor = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    convention: str = "exact",
    registry: Registry | None = None,
    on_unknown: OnUnknown = "warn",
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
    capture: Method = "auto",
) -> Report:
    """Count one forward pass, without running it and without its weights.

    The model is counted in its current mode: call ``eval()`` first, or dropout is counted as in
    training. The model is left unchanged.

    Args:
        model: An ``nn.Module`` (real, fake or meta parameters), a
            ``torch.export.ExportedProgram``, an ``fx.GraphModule`` of ATen operators, or the
            path of a ``.pt2`` file.
        args: Positional inputs; only their shapes and dtypes are used. A single tensor is one
            input.
        kwargs: Keyword inputs, likewise.
        dynamic_shapes: Axes to keep symbolic: ``{"input_ids": {0: "B", 1: "S"}}``, or all that
            ``torch.export.export`` takes. Costs are then sympy expressions in these names.
            Inputs need at least 2 along such an axis.
        convention: Way of counting: ``"exact"``, ``"causal"``, ``"torch"``, ``"calflops"`` or
            ``"fvcore"``; described by :func:`graphflops.conventions.describe`.
        registry: Your own handlers, which precede those of the convention.
        on_unknown: Reaction to operators without a price: ``"warn"``, ``"raise"`` or
            ``"ignore"``. The report names them in any case.
        reuse_layers: Trace a repeated layer of an ``nn.Module`` once and repeat its calls for
            every instance that provably does the same. The report is the same either way.
        assume: Values of data-dependent sizes, by their names in reports: ``{"u0": 10}``. The
            default is their upper bound.
        capture: Method of capturing an ``nn.Module``: ``"eager"`` runs its Python under fake
            tensors, ``"export"`` reads the graph of ``torch.export.export``; ``"auto"`` is the
            second where the first fails. The report names the one that was used.

    Returns:
        The report.

    Raises:
        CaptureError: The model's forward failed on the inputs, or it cannot be captured.
        ModelSpecError: ``model`` cannot be counted, or an argument is invalid.
        HandlerError: A handler is broken.
        UnknownOpError: An operator has no price and ``on_unknown`` is ``"raise"``.
        VersionError: A name is missing in an untested version of torch or transformers.

    Example:
        >>> import torch
        >>> report = count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
        >>> report.macs, report.flops  # 2 * 3 * 4 MACs; twice that and 2 * 4 bias additions
        (24, 56)
        >>> count(torch.nn.Linear(3, 4), (torch.empty(2, 3),), convention="calflops").flops
        48
    """
    arguments.check_choice("on_unknown", on_unknown, get_args(OnUnknown))
    arguments.check_choice("capture", capture, get_args(Method))
    positional, named = arguments.model_inputs(args, kwargs)
    assumed = arguments.sizes_by_name("assume", assume)
    prices = resolve_registry(convention, registry)
    with translate_version_errors():
        captured = capture_model(
            model,
            positional,
            named,
            dynamic_shapes,
            reuse_layers=reuse_layers,
            assume=assumed,
            method=capture,
        )
    name = captured.modules[0].module_class or type(model).__name__
    report = make_report(captured, name, prices)
    if not report.complete and on_unknown != "ignore":
        report_unsupported(report, on_unknown)
    return report


class _HasUnsupportedOps(Protocol):
    def unsupported_ops(self) -> dict[str, int]: ...


def report_unsupported(report: _HasUnsupportedOps, on_unknown: Literal["warn", "raise"]) -> None:
    """Warn about operators of a report without a price, or raise.

    Raises:
        UnknownOpError: ``on_unknown`` is ``"raise"``.
    """
    operators = report.unsupported_ops()
    listed = ", ".join(f"{op} x {calls}" for op, calls in operators.items())
    message = (
        f"{sum(operators.values())} calls have no price: {listed}. Totals are lower bounds. Give "
        "them one with @graphflops.register, see docs/tasks/custom_operators.md."
    )
    if on_unknown == "raise":
        raise UnknownOpError(message)
    warnings.warn(message, UnknownOpWarning, stacklevel=arguments.caller_stacklevel())


def resolve_registry(convention: str, registry: Registry | None) -> Registry:
    """Return the registry of a convention, with the user's registry on top of it.

    Raises:
        ModelSpecError: There is no convention of that name.
    """
    prices = conventions.get(convention)
    return prices if registry is None else registry.with_base(prices)


def make_report(captured: Capture, name: str, registry: Registry) -> Report:
    """Price a capture and return its report."""
    start = time.perf_counter()
    records = price_all(captured.calls, registry, captured.fallback)
    timing = {"pricing": time.perf_counter() - start}
    notes = (*captured.notes, *_unknown_reasons(records, registry))
    return Report(
        model=name,
        registry=registry,
        capture=captured if notes == captured.notes else replace(captured, notes=notes),
        records=records,
        phase=_phase(captured),
        timings={**captured.timings, **timing},
    )


def _unknown_reasons(records: CallSequence[OpRecord], registry: Registry) -> tuple[str, ...]:
    """Return the reasons in the registry for calls without a price."""
    unknown = (record.call for record in records.distinct() if record.status is Status.UNKNOWN)
    entries = filter(None, map(registry.lookup, unknown))
    return tuple(dict.fromkeys(entry.reason for entry in entries))


def _phase(captured: Capture) -> Phase:
    """Return the phase of a capture: backward for a graph of a backward pass alone."""
    calls = captured.calls
    phases = {call.phase for call in calls} if isinstance(calls, tuple) else set()
    is_backward = Phase.BACKWARD in phases and Phase.FORWARD not in phases
    return Phase.BACKWARD if is_backward else Phase.FORWARD
