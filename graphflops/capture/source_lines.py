"""Source lines of model code, with paths relative to the import path."""

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
_MODEL_RUNNERS = tuple(str(Path(__file__).parent / file) for file in ("forward.py", "training.py"))
_GRAPHFLOPS = str(Path(__file__).parents[1]) + os.sep
_ROOTS = sorted({str(Path(root)) for root in (*sys.path, ".") if root}, key=len, reverse=True)


@cache
def is_model_file(file: str) -> bool:
    """Return True if a file may contain model code: if it is not part of torch or graphflops."""
    return not file.startswith((_TORCH, _GRAPHFLOPS, "<"))


@cache
def line_of_trace(trace: str) -> str:
    """Return ``file:line`` of the innermost model code in a stack trace, if there is any."""
    frames = [match.group("file", "line") for match in _FRAME.finditer(trace)]
    model_frames = [frame for frame in frames if is_model_file(frame[0])]
    if not (model_frames or frames):
        return ""
    file, line = (model_frames or frames)[-1]
    return f"{short_path(file)}:{line}"


class _IsModelFile(dict[str, bool | None]):
    """True by file for model code, False for other code, None for the code that runs a model."""

    def __missing__(self, file: str) -> bool | None:
        self[file] = is_model = None if file in _MODEL_RUNNERS else is_model_file(file)
        return is_model


_IS_MODEL_FILE = _IsModelFile()


def current_source_line() -> str:
    """Return ``file:line`` of the innermost model code on the stack, if there is any."""
    frame: FrameType | None = sys._getframe(1)
    # Frames outside of the ones that run a model are not model code.
    while frame is not None and (is_model := _IS_MODEL_FILE[frame.f_code.co_filename]) is not None:
        if is_model:
            return _line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


@cache
def _line(file: str, number: int) -> str:
    return f"{short_path(file)}:{number}"


@cache
def short_path(file: str) -> str:
    """Return the path of a file relative to the folder in ``sys.path`` that contains it."""
    for root in (str(Path.cwd()), *_ROOTS):
        if file.startswith(root + "/"):
            relative = file[len(root) + 1 :]
            if not relative.startswith((".venv", "site-packages", "lib/")):
                return relative
    return file
