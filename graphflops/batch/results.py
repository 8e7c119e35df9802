"""File of results: a record on each line, appended and synced, and whole whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from graphflops.batch.item import item_key
from graphflops.batch.record import SCHEMA_VERSION
from graphflops.errors import BatchError, OutputError

Record = Mapping[str, Any]
_BEGINNING = json.dumps({"schema_version": SCHEMA_VERSION})[:-1].encode()
"""What every line begins with."""


class ResultsFile:
    """File that records are appended to, by one batch at a time.

    A line is written at once and synced before the next. A line that a killed batch left torn is
    cut off; one that the disk has no room for is taken back.

    Args:
        path: The file.
        resume: True to go on with the records in it.

    Raises:
        OutputError: The file cannot be written.
        BatchError: It exists and is not to be gone on with, is of another schema, or another
            batch writes it.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._file = self._open()
        try:
            self._lock()
            self.done = self._read_done(resume=resume)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; one that is empty is removed."""
        with contextlib.suppress(OSError):
            if self._path.is_file() and not os.fstat(self._file).st_size:
                self._path.unlink()
        os.close(self._file)

    def append(self, record: Record) -> None:
        """Append a record, and return when it is on the disk.

        Raises:
            OutputError: It cannot be written; the records before it are whole.
        """
        line = json.dumps(record).encode() + b"\n"
        try:
            self._write(line)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            msg = (
                f"--output {self._path} cannot be written: {error.strerror}. The "
                f"{len(self.done):,} records in it are whole. Make room, and go on with --resume."
            )
            raise OutputError(msg) from error
        self._size += len(line)
        self.done.add(item_key(record["item"]))

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(self._file, left) :]
        if self._path.is_file():  # a device has nothing to sync
            os.fsync(self._file)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            msg = (
                f"--output {self._path} cannot be written: {error.strerror}. Give the path of a "
                "file in a folder that exists and that you may write to."
            )
            raise OutputError(msg) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another batch writes {self._path}. Wait for it, or give another --output."
            raise BatchError(msg) from error
        except OSError:
            pass  # some file systems have no locks

    def _read_done(self, *, resume: bool) -> set[str]:
        """Return the keys of the items that have a record, and cut off a torn line."""
        self._size = 0
        if not self._path.is_file():
            return set()
        content = self._path.read_bytes()
        if content and not resume:
            msg = (
                f"--output {self._path} exists. Add --resume to go on with it, or give another "
                "path."
            )
            raise BatchError(msg)
        whole = content[: content.rfind(b"\n") + 1]
        torn = content[len(whole) :]
        found = {item_key(record["item"]) for record in parse_records(self._path, whole)}
        if torn and not _may_begin_a_record(torn):
            raise _not_a_record(self._path, whole.count(b"\n") + 1)
        if torn:
            os.ftruncate(self._file, len(whole))
        self._size = len(whole)
        return found


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file, one for each item, sorted; a torn last line is left out.

    Raises:
        BatchError: The file cannot be read, or is of another schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}. Give the file that `batch` wrote."
        raise BatchError(msg) from error
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        raise BatchError(f"{path} has no record. Give the file that `batch` wrote.")
    records = parse_records(path, whole)
    by_item = {item_key(record["item"]): record for record in records}
    return sorted(by_item.values(), key=_order)


def _order(record: Record) -> list[tuple[bool, Any]]:
    """Return a key that sorts by model, mode and sizes; what an item does not have comes first."""
    axes = record["item"] | {"set": item_key(record["item"]["set"])}
    return [(value is not None, value) for value in axes.values()]


def parse_records(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the records of whole lines.

    Args:
        path: File that they are of.
        content: The lines.

    Raises:
        BatchError: A line is no record of this schema.
    """
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("item"), dict):
            raise _not_a_record(path, number)
        if record.get("schema_version") != SCHEMA_VERSION:
            msg = (
                f"{path}: line {number} is of schema {record.get('schema_version')}, and this "
                f"version of graphflops has {SCHEMA_VERSION}. Begin another file."
            )
            raise BatchError(msg)
        yield record


def _not_a_record(path: Path, number: int) -> BatchError:
    msg = f"{path}: line {number} is no record of a batch. Give the file that `batch` wrote."
    return BatchError(msg)


def _may_begin_a_record(torn: bytes) -> bool:
    """Return True if a line without an end is one that was being written."""
    return torn[: len(_BEGINNING)] == _BEGINNING[: len(torn)]
