"""Why a model could not be captured, in a sentence a user can act on."""

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
from graphflops.errors import CaptureError, GraphFlopsError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET
from graphflops.runtime.versions import untested_versions, version_error_behind


def explain_failure(
    model: nn.Module, args: Any, kwargs: Any, failures: list[tuple[str, Exception]]
) -> GraphFlopsError:
    """An error that says whose fault it was, where, and what to try.

    If what failed is a piece of torch that has changed, that is said. Else the forward is run
    once more on the meta device, where nothing of a count has a part: if that fails in the same
    way, the model or its inputs are wrong; if not, tracing is what failed.
    """
    for _, error in failures:
        if (change := version_error_behind(error)) is not None:
            return change
    own = _forward_error(model, args, kwargs)
    name = type(model).__name__
    if own is not None and type(own) is type(failures[0][1]):
        return CaptureError(
            f"the forward of {name} fails on these inputs: {first_line(own)}{_where(own)}. "
            f"The inputs were: {_inputs(args, kwargs)}. Correct the inputs or the model."
        )
    reasons = [f"{first_line(error)}{_where(error)}" for _, error in failures]
    # What stops one way often stops another alike.
    tried = "; ".join(
        f"{method}: {reason}"
        for at, ((method, _), reason) in enumerate(zip(failures, reasons, strict=True))
        if reason not in reasons[:at]
    )
    msg = (
        f"{name} cannot be captured as a graph. {tried}. Its Python depends on values that a "
        "graph without data does not have, or uses an operator without shape rules: pass inputs "
        "that avoid that line, or export the model yourself and count the ExportedProgram."
    )
    return CaptureError(" ".join(filter(None, (msg, untested_versions()))))


def _forward_error(model: nn.Module, args: Any, kwargs: Any) -> Exception | None:
    try:
        with QUIET.holding(), torch.device("meta"), model_running():
            (own, *own_args), own_kwargs = copy_to_meta(model, args, kwargs)
            own(*own_args, **own_kwargs)
    except Exception as error:  # noqa: BLE001 - whatever the model raises is the answer
        raise_interruption(error)
        # What meta cannot do says nothing of the model.
        return None if "meta" in str(error).lower() else error
    return None


def refuse_mixed_dtypes(calls: Iterable[OpCall]) -> None:
    """Refuse a product of tensors of several dtypes: shape rules let it pass, no kernel does.

    Raises:
        CaptureError: A contraction takes them, usually because an input has the wrong dtype.
    """
    for call in calls:
        if call.op not in _ONE_DTYPE or call.phase is not Phase.FORWARD:
            continue
        dtypes = sorted({tensor.dtype for _, tensor in call.tensors()})
        if len(dtypes) > 1:
            at = f" (at {call.source_line})" if call.source_line else ""
            msg = (
                f"{call.op} gets {' and '.join(dtypes)} tensors{at}, which PyTorch refuses to "
                "multiply. Give inputs of the model's dtypes."
            )
            raise CaptureError(msg)


def refuse_unseen(ran: int, recorded: int) -> None:
    """Refuse a trace on which nothing stands though something was computed.

    Raises:
        CaptureError: Operators ran, and none of them was seen.
    """
    if ran and not recorded:
        msg = (
            f"the forward runs {ran} operators, and none of them can be seen: it switches "
            "off the modes of PyTorch that watch operators. Count what it calls there by itself."
        )
        raise CaptureError(msg)


_ONE_DTYPE = {
    *("aten::linear", "aten::mm", "aten::bmm", "aten::matmul", "aten::addmm", "aten::baddbmm"),
    *("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution"),
}


def first_line(error: BaseException) -> str:
    """An error as ``Type: first line of its message``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].rstrip(".") if lines else "no message"
    # A guard over hundreds of symbols is no sentence.
    return f"{type(error).__name__}: {textwrap.shorten(text, 300, placeholder=' ...')}"


def _where(error: BaseException) -> str:
    """The innermost line of the model's own code, as `` (at file:line: code)``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if is_model_file(frame.filename) and "transformers/exporters" not in frame.filename
    ]
    if not own:
        return ""
    frame = own[-1]
    return f" (at {short_path(frame.filename)}:{frame.lineno}: {(frame.line or '').strip()})"


def _inputs(args: Any, kwargs: Any) -> str:
    named = [(f"args[{i}]", value) for i, value in enumerate(args)] + list(kwargs.items())
    shown = [
        f"{name} {str(t.dtype).removeprefix('torch.')}{list(t.shape)}"
        for name, value in named
        for t in tensors_in(value)
    ]
    return ", ".join(shown) or "none"
