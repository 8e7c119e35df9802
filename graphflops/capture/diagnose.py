"""Diagnosis of failed captures: errors that name the cause and a remedy."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake.fake_model import copy_to_meta
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.source_lines import is_model_file, short_path
from graphflops.capture.torch_internals.count_flags import model_running
from graphflops.core.ir import OpCall, Phase
from graphflops.errors import CaptureError, ForwardError, GraphFlopsError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET
from graphflops.runtime.versions import untested_versions, version_error_behind


def explain_failure(
    model: nn.Module, args: Any, kwargs: Any, failures: list[tuple[str, Exception]]
) -> GraphFlopsError:
    """Return an error that names the cause of failed captures, its location and a remedy.

    A change of torch is named if it is the cause. Otherwise the forward is run once more on the
    meta device, without any code of a count: if it fails in the same way, the cause is the model
    or its inputs; if not, it is the tracing.

    Args:
        model: Model.
        args: Positional inputs.
        kwargs: Keyword inputs.
        failures: Capture methods and the errors with which they failed.
    """
    for _, error in failures:
        if (version_error := version_error_behind(error)) is not None:
            return version_error
    forward_error = _forward_error(model, args, kwargs)
    name = type(model).__name__
    if forward_error is not None and _is_same_failure(forward_error, failures[0][1]):
        reason = f"{first_line(forward_error)}{model_line(forward_error)}"
        return ForwardError(
            f"the forward of {name} fails on these inputs: {reason}. "
            f"The inputs were: {_describe_inputs(args, kwargs)}. Correct the inputs or the model."
        )
    reasons = [f"{first_line(error)}{model_line(error)}" for _, error in failures]
    # Several methods often fail for the same reason, which is listed once.
    attempts = "; ".join(
        f"{method}: {reason}"
        for index, ((method, _), reason) in enumerate(zip(failures, reasons, strict=True))
        if reason not in reasons[:index]
    )
    msg = (
        f"{name} cannot be captured as a graph. {attempts}. Its Python depends on values that a "
        "graph without data does not have, or uses an operator without shape rules: pass inputs "
        "that avoid that line, or export the model yourself and count the ExportedProgram."
    )
    return CaptureError(" ".join(filter(None, (msg, untested_versions()))))


def _is_same_failure(forward_error: Exception, error: Exception) -> bool:
    """Return True if a forward fails with the same error or at the same line as a count of it.

    Shape rules check some arguments with errors of other types than the kernels.
    """
    line = model_line(forward_error)
    is_same_line = bool(line) and line == model_line(error)
    return is_same_line or type(forward_error) is type(error)


def _forward_error(model: nn.Module, args: Any, kwargs: Any) -> Exception | None:
    try:
        with QUIET.holding(), torch.device("meta"), model_running():
            (meta_model, *meta_args), meta_kwargs = copy_to_meta(model, args, kwargs)
            meta_model(*meta_args, **meta_kwargs)
    except Exception as error:  # noqa: BLE001 - any error of the model is the result
        raise_interruption(error)
        # An error of the meta device is not one of the model.
        return None if "meta" in str(error).lower() else error
    return None


def refuse_mixed_dtypes(calls: Iterable[OpCall]) -> None:
    """Refuse products of tensors of different dtypes, which only real kernels reject.

    Raises:
        CaptureError: A contraction takes such tensors, usually because an input has the wrong
            dtype.
    """
    for call in calls:
        if call.op not in _SAME_DTYPE or call.phase is not Phase.FORWARD:
            continue
        dtypes = sorted({tensor.dtype for _, tensor in call.tensors()})
        if len(dtypes) > 1:
            location = f" (at {call.source_line})" if call.source_line else ""
            msg = (
                f"{call.op} gets {' and '.join(dtypes)} tensors{location}, which PyTorch refuses "
                "to multiply. Give inputs of the model's dtypes."
            )
            raise ForwardError(msg)


def refuse_empty_trace(run_count: int, recorded_count: int) -> None:
    """Refuse an empty trace of a forward that ran operators.

    Raises:
        CaptureError: Operators ran, and none was recorded.
    """
    if run_count and not recorded_count:
        msg = (
            f"the forward runs {run_count} operators, and none of them can be seen: it switches "
            "off the modes of PyTorch that watch operators. Count what it calls there by itself."
        )
        raise CaptureError(msg)


_SAME_DTYPE = {
    *("aten::linear", "aten::mm", "aten::bmm", "aten::matmul", "aten::addmm", "aten::baddbmm"),
    *("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution"),
}


def first_line(error: BaseException) -> str:
    """Return an error as ``Type: first line of its message``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].rstrip(".") if lines else "no message"
    # A guard may have hundreds of symbols.
    return f"{type(error).__name__}: {textwrap.shorten(text, 300, placeholder=' ...')}"


def model_line(error: BaseException) -> str:
    """Return the innermost line of model code, as `` (at file:line: code)``."""
    frames = traceback.extract_tb(error.__traceback__)
    model_frames = [
        frame
        for frame in frames
        if is_model_file(frame.filename) and "transformers/exporters" not in frame.filename
    ]
    if not model_frames:
        return ""
    frame = model_frames[-1]
    return f" (at {short_path(frame.filename)}:{frame.lineno}: {(frame.line or '').strip()})"


def _describe_inputs(args: Any, kwargs: Any) -> str:
    inputs = [(f"args[{i}]", value) for i, value in enumerate(args)] + list(kwargs.items())
    descriptions = [
        f"{name} {str(t.dtype).removeprefix('torch.')}{list(t.shape)}"
        for name, value in inputs
        for t in tensors_in(value)
    ]
    return ", ".join(descriptions) or "none"
