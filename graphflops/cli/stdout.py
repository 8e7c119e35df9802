"""Stdout for data alone: what anything else prints while a command runs goes to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO | None]:
    """Keep stdout for data.

    What a model's code prints meanwhile goes to stderr, at whatever level it does so: by
    ``print``, by ``printf`` in C, by a process that it starts.

    Yields:
        The stream for data; ``None`` if stdout is closed.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        if stdout is None or not _is_standard(stdout):
            # Closed, or a stand-in of who runs the command from Python.
            yield stdout
            return
        stdout.flush()
        with open(  # noqa: PTH123 - a descriptor, no path
            os.dup(_STDOUT), "w", encoding=stdout.encoding, errors=stdout.errors
        ) as data:
            _divert()
            try:
                yield data
            finally:
                stdout.flush()
                os.dup2(data.fileno(), _STDOUT)


def claim_stdout() -> None:
    """Let no file be opened as stdout where a process is started without one."""
    try:
        os.fstat(_STDOUT)
    except OSError:
        _divert()


def retire_stdout() -> None:
    """Send to stderr what is printed when the process ends: that is no data either."""
    stdout: TextIO | None = sys.stdout
    if stdout is sys.__stdout__ and stdout is not None and _is_standard(stdout):
        with contextlib.suppress(OSError):
            stdout.flush()
        _divert()


def discard(stream: TextIO) -> None:
    """Drop what a stream could not write, so that closing it does not try again."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), stream.fileno())


def _is_standard(stream: TextIO) -> bool:
    try:
        return stream.fileno() == _STDOUT
    except (OSError, ValueError):
        return False


def _divert() -> None:
    """Make stdout another name of stderr, or of nothing if that is closed."""
    try:
        os.dup2(_STDERR, _STDOUT)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != _STDOUT:
            os.dup2(nowhere, _STDOUT)
            os.close(nowhere)
