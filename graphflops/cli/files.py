"""Atomic writes of output files."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from graphflops.errors import OutputError
from graphflops.plots.files import text_bytes


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose result goes there.

    Raises:
        OutputError: It cannot be written.
    """
    with _translate_os_errors(path):
        folder = _target(path).parent
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # fails for a name that is too long and for circular links
        if path.is_dir():
            raise OutputError(f"--output {path} is a folder. Give the path of a file in it.")
        if not folder.is_dir():
            msg = f"--output {path}: there is no folder {folder}. Make it, or give another path."
            raise OutputError(msg)
        required_paths = [path] if path.exists() else []
        required_paths += [folder] if _is_replaced(path) else []
        for required_path in required_paths:
            if not os.access(required_path, os.W_OK):
                msg = f"--output {path}: no permission to write {required_path}. Give another path."
                raise OutputError(msg)


def write_file(path: Path, text: str) -> None:
    """Write text to a file atomically.

    A file that exists keeps its permissions; a device or a pipe is written in place. The text is
    compressed if the name ends in ``.gz``.

    Raises:
        OutputError: It cannot be written.
    """
    data = text_bytes(path, text)
    with _translate_os_errors(path):
        if not _is_replaced(path):
            with path.open("wb", buffering=0) as device:
                _write_all(device.fileno(), data)
            return
        target = _target(path)
        scratch = target.with_name(f".graphflops-{secrets.token_hex(8)}")
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
            if target.exists():
                scratch.chmod(stat.S_IMODE(target.stat().st_mode))
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def _target(path: Path) -> Path:
    """Return the file that a path refers to, with links resolved."""
    return Path(os.path.realpath(path))


def _is_replaced(path: Path) -> bool:
    """Return True if writing replaces the file, rather than write to a device or a pipe."""
    return not path.exists() or path.is_file()


@contextlib.contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        msg = f"--output {path} cannot be written: {reason}. Give another path."
        raise OutputError(msg) from error
