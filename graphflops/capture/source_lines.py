"""Lines of code: those of the model, as a user knows their files."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from types import FrameType

import torch

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_TORCH = str(Path(torch.__file__).parent) + os.sep  # not torchvision
_RUN_MODELS = tuple(str(Path(__file__).parent / file) for file in ("forward.py", "training.py"))
_OURS = str(Path(__file__).parents[1]) + os.sep
_ROOTS = sorted({str(Path(root)) for root in (*sys.path, ".") if root}, key=len, reverse=True)


@cache
def is_models(file: str) -> bool:
    """Whether a file may hold a model's code: it is neither torch's nor ours."""
    return not file.startswith((_TORCH, _OURS, "<"))


@cache
def line_of_trace(trace: str) -> str:
    """``file:line`` of the innermost model code in a stack trace, if there is any."""
    frames = [match.group("file", "line") for match in _FRAME.finditer(trace)]
    own = [frame for frame in frames if is_models(frame[0])]
    if not (own or frames):
        return ""
    file, line = (own or frames)[-1]
    return f"{short_path(file)}:{line}"


def line_running() -> str:
    """``file:line`` of the innermost model code that runs now, if there is any."""
    frame: FrameType | None = sys._getframe(1)
    # Who runs a model is no code of it.
    while frame is not None and frame.f_code.co_filename not in _RUN_MODELS:
        if is_models(frame.f_code.co_filename):
            return f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@cache
def short_path(file: str) -> str:
    """A file as it is imported: relative to the folder on the path that holds it."""
    for root in (str(Path.cwd()), *_ROOTS):
        if file.startswith(root + "/"):
            relative = file[len(root) + 1 :]
            if not relative.startswith((".venv", "site-packages", "lib/")):
                return relative
    return file
