"""Files that are written as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from graphflops.errors import OutputError


def check_writable(path: Path) -> None:
    """See whether a file can be written, before the work whose result it is to hold.

    Raises:
        OutputError: It cannot.
    """
    with _one_sentence(path):
        folder = _target(path).parent
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # a name too long, links in a circle
        if path.is_dir():
            raise OutputError(f"--output {path} is a folder. Give the path of a file in it.")
        if not folder.is_dir():
            msg = f"--output {path}: there is no folder {folder}. Make it, or give another path."
            raise OutputError(msg)
        needed = [path] if path.exists() else []
        needed += [folder] if _is_replaced(path) else []
        for place in needed:
            if not os.access(place, os.W_OK):
                msg = f"--output {path}: no permission to write {place}. Give another path."
                raise OutputError(msg)


def write_file(path: Path, text: str) -> None:
    """Write text to a file, as a whole or not at all.

    A file that exists keeps its permissions; a device or a pipe is written to as it is.

    Raises:
        OutputError: It cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    with _one_sentence(path):
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
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _target(path: Path) -> Path:
    """The file that a path leads to, through links."""
    return Path(os.path.realpath(path))


def _is_replaced(path: Path) -> bool:
    """Whether a new file takes the place of what is there: of a file, not of a device."""
    return not path.exists() or path.is_file()


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        msg = f"--output {path} cannot be written: {reason}. Give another path."
        raise OutputError(msg) from error
