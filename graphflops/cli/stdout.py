"""Stdout for data alone: all other prints during a command go to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO | None]:
    """Reserve stdout for data.

    Prints of a model's code go to stderr at every level: ``print``, ``printf`` in C, and
    processes that it starts.

    Yields:
        Stream for data; ``None`` if stdout is closed.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        if stdout is None or not _is_standard(stdout):
            # Closed, or replaced by a caller that runs the command from Python.
            yield stdout
            return
        stdout.flush()
        with open(  # noqa: PTH123 - a descriptor, no path
            os.dup(_STDOUT), "w", encoding=stdout.encoding, errors=stdout.errors
        ) as data:
            _redirect_to_stderr()
            try:
                yield data
            finally:
                stdout.flush()
                os.dup2(data.fileno(), _STDOUT)


def claim_stdout() -> None:
    """Occupy the descriptor of a closed stdout, so that no file is opened as stdout."""
    try:
        os.fstat(_STDOUT)
    except OSError:
        _redirect_to_stderr()


def retire_stdout() -> None:
    """Redirect prints at process exit to stderr, as they are not data."""
    stdout: TextIO | None = sys.stdout
    if stdout is sys.__stdout__ and stdout is not None and _is_standard(stdout):
        with contextlib.suppress(OSError):
            stdout.flush()
        _redirect_to_stderr()


def discard(stream: TextIO) -> None:
    """Discard the unwritten buffer of a stream, so that closing it does not write again."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as devnull:  # noqa: PTH123 - a device
        os.dup2(devnull.fileno(), stream.fileno())


def _is_standard(stream: TextIO) -> bool:
    try:
        return stream.fileno() == _STDOUT
    except (OSError, ValueError):
        return False


def _redirect_to_stderr() -> None:
    """Duplicate stderr's descriptor as stdout's, or the null device's if stderr is closed."""
    try:
        os.dup2(_STDERR, _STDOUT)
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        if devnull != _STDOUT:
            os.dup2(devnull, _STDOUT)
            os.close(devnull)
