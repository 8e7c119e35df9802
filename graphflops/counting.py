"""The public entry: capture, price, roll up, report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflops import conventions
from graphflops.capture import capture
from graphflops.ir import Capture
from graphflops.pricing import price_all
from graphflops.report import Report
from graphflops.tree import roll_up


def count(
    model: object,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Report:
    """Count one forward pass, without running it and without its weights.

    The model is counted as it stands: call ``eval()`` first, or dropout is counted as in
    training. It is left as it was found.

    Args:
        model: An ``nn.Module`` (real, fake or meta parameters), a
            ``torch.export.ExportedProgram``, an ``fx.GraphModule`` of ATen operators, or the
            path of a ``.pt2`` file.
        args: Positional inputs; their shapes and dtypes are all that is used.
        kwargs: Keyword inputs, likewise.
        dynamic_shapes: Axes to keep symbolic, as ``torch.export.export`` takes it; costs are
            then sympy expressions.

    Returns:
        The report.

    Raises:
        CaptureError: The model's forward failed on the inputs, or it cannot be captured.
        ModelSpecError: ``model`` is nothing that can be counted.
        HandlerError: A handler is broken.

    Example:
        >>> import torch
        >>> report = count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
        >>> report.macs, report.flops  # 2 * 3 * 4 MACs; twice that and 2 * 4 bias additions
        (24, 56)
    """
    captured = capture(model, args, kwargs, dynamic_shapes)
    return report(captured, captured.modules[0].cls or type(model).__name__)


def report(captured: Capture, name: str) -> Report:
    """Price a capture under the default convention and roll it up."""
    registry = conventions.exact()
    records = price_all(captured.calls, registry, captured.fallback)
    return Report(
        model=name,
        convention=registry.name,
        capture=captured,
        records=records,
        root=roll_up(records, captured.modules),
    )
