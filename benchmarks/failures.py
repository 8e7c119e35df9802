"""Failures as results of a sweep: their kind and their reason, in one line."""

from __future__ import annotations

import re

LONGEST_REASON = 300
_NO_MEMORY = re.compile(r"MemoryError|an't allocate memory|annot allocate memory|bad_alloc")
_NEEDS = re.compile(r"requires the (\S+) library|No module named '(\w+)")
_KINDS = {
    "no model that is built from it alone": "no class",
    "cannot build": "not built",
    "cannot be built": "not built",
    "no model of type": "no generation",
    "cannot continue a prompt": "no generation",
    "no head for the next token": "no generation",
    "fails on these inputs": "inputs do not fit",
    "cannot be captured": "not captured",
}


def kind(error: Exception) -> str:
    """Outcome of a model that raised an error."""
    from graphflops.errors import CaptureError, ModelSpecError

    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return "out of memory"
    if needed := _NEEDS.search(str(error)):
        return f"needs {needed[1] or needed[2]}"
    told = isinstance(error, CaptureError | ModelSpecError)
    said = (outcome for text, outcome in _KINDS.items() if told and text in str(error))
    return next(said, "refused" if told else "failed")


def reason(error: BaseException) -> str:
    """Type and first line, without folders of this machine."""
    line = next(iter(str(error).strip().splitlines()), "no message")
    line = re.sub(r"Model type should be one of .*?\. ", "", line)
    line = re.sub(r"(?<![\w.])(?:/[\w.@+-]+)+/(?=[\w.-])", "", line)
    return f"{type(error).__name__}: {line}"[:LONGEST_REASON]
