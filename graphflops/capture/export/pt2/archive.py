"""Zip archives that ``torch.export.save`` writes: members that are read, and their limits."""

from __future__ import annotations

import contextlib
import json
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from graphflops.capture.export.pt2.errors import UnreadableError, quote
from graphflops.capture.export.pt2.file_kinds import identify

MAX_DIRECTORY = 4 << 20
"""Maximum bytes of a zip directory: about 40,000 members, each of which becomes an object."""
MAX_JSON = 64 << 20
"""Maximum bytes of a JSON member; a call takes about 2,000, most of them its stack trace."""
MAX_PARSED = 128 << 20
"""Maximum bytes of the Python objects of a JSON member: about ten thousand calls."""

_FORMAT, _VERSION, _READABLE_VERSION = "archive_format", "archive_version", "0"
_PROGRAM, _OLD_PROGRAM = "models/{}.json", "serialized_exported_program.json"


class Archive:
    """Archive of an exported program; weights and inputs are never opened.

    Args:
        zip_file: Zip archive.

    Raises:
        UnreadableError: It is another kind of archive, or has no program to choose.

    Attributes:
        model: Name of the program in the archive.
        others: Names of the other programs in it.
        is_old: True if it has the layout of torch 2.7 and before.
    """

    def __init__(self, zip_file: zipfile.ZipFile) -> None:
        self._zip = zip_file
        names = Counter(zip_file.namelist())
        roots = _roots(names)
        self.is_old = not roots and _OLD_PROGRAM in names
        if len(roots) != 1 and not self.is_old:
            raise UnreadableError(*identify(b"PK", zip_file.namelist()))
        self._root = "" if self.is_old else roots[0]
        self._names = names
        self.model, self.others = self._choose()

    def program(self) -> Any:
        """Return the JSON of the program."""
        if self.is_old:
            return self._json(_OLD_PROGRAM)
        version = self._read(self._root + _VERSION, 16).decode("utf-8", "replace").strip()
        if version != _READABLE_VERSION:
            raise UnreadableError(
                f"has version {quote(version)} of the archive format, and version "
                f"{_READABLE_VERSION} is known here",
                "Update graphflops, or save the program again with this version of PyTorch.",
            )
        return self._json(self._root + _PROGRAM.format(self.model))

    def weights(self) -> Any:
        """Return the JSON that describes the weights; ``None`` if only a pickle does."""
        name = f"{self._root}data/weights/{self.model}_weights_config.json"
        return None if self.is_old or name not in self._names else self._json(name)

    def stored_bytes(self, weight: str) -> int:
        """Return the size of a file of weights by its name in their JSON; 0 if it is missing."""
        name = f"{self._root}data/weights/{weight}"
        return self._zip.getinfo(name).file_size if name in self._names else 0

    def _choose(self) -> tuple[str, tuple[str, ...]]:
        if self.is_old:
            return "model", ()
        start, end = (self._root + _PROGRAM).split("{}")
        programs = [
            name[len(start) : -len(end)]
            for name in self._names
            if name.startswith(start) and name.endswith(end)
        ]
        if not programs:
            raise UnreadableError(*identify(b"PK", list(self._names)))
        # The name that torch.export.load takes.
        model = programs[0] if len(programs) == 1 else "model"
        if model not in programs:
            listed = ", ".join(map(quote, sorted(programs)[:8]))
            raise UnreadableError(
                f"holds {len(programs)} programs ({listed})",
                "Save the one to count to a file of its own, with torch.export.save.",
            )
        return model, tuple(sorted(set(programs) - {model}))

    def _json(self, name: str) -> Any:
        raw = self._read(name, MAX_JSON)
        if _parsed_size(raw) > MAX_PARSED:
            raise UnreadableError("describes more than can be read in bounded memory", _TOO_LARGE)
        try:
            return json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"holds a graph that is not JSON ({_reason(error)})") from error

    def _read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a member, limited in number.

        Raises:
            UnreadableError: The member is missing, damaged, encrypted or larger than the limit.
        """
        if self._names[name] != 1:
            presence = "twice" if self._names[name] else "not"
            raise UnreadableError(f"has {quote(name)} {presence} in it")
        member = self._zip.getinfo(name)
        if member.file_size > limit:
            raise UnreadableError(f"has {limit:,} bytes or more in {quote(name)}", _TOO_LARGE)
        if member.flag_bits & _ENCRYPTED:
            raise UnreadableError("is encrypted", "Save the program without a password.")
        try:
            # The size in the directory may be wrong: the limit applies while unpacking too.
            with self._zip.open(member) as content:
                raw = content.read(limit + 1)
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError) as error:
            raise UnreadableError(f"is damaged ({_reason(error)})") from error
        if len(raw) > limit:
            raise UnreadableError(f"has more bytes in {quote(name)} than it says", _TOO_LARGE)
        return raw


_ENCRYPTED = 1
_TOO_LARGE = "If you trust its authors, load it yourself: gf.count(torch.export.load(path))."


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open the archive of an exported program until the block ends.

    Raises:
        UnreadableError: There is no such file, it is another kind of file, or it is damaged.
    """
    with _open(path) as file:
        start = file.read(_START)
        file.seek(0)
        if not start.startswith(b"PK"):
            raise UnreadableError(*identify(start))
        try:
            # The first reading raises if the directory is too large to be kept in memory.
            zipfile.ZipFile(cast("IO[bytes]", _DirectoryReader(file)))
            zip_file = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise UnreadableError(
                f"is a zip archive that is cut short or damaged ({_reason(error)})",
                "Copy or download it again, or save the program again with torch.export.save.",
            ) from error
        with zip_file:
            yield Archive(zip_file)


_START = 512
"""Number of first bytes that identify a file; the mark of a tar archive is at byte 257."""


def _open(path: Path) -> IO[bytes]:
    advice = "Give the path of a file written by torch.export.save."
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except FileNotFoundError as error:
        raise UnreadableError("does not exist", advice) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableError(f"cannot be opened ({_reason(error)})", advice) from error
    # Opening a pipe would block until another process writes to it.
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise UnreadableError(f"is {kind}", advice)


class _DirectoryReader:
    """File that limits the directory which ``zipfile`` reads into memory as a whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read bytes.

        Raises:
            UnreadableError: They are as many as the limit.
        """
        data = self._file.read(min(size, MAX_DIRECTORY) if size >= 0 else MAX_DIRECTORY)
        if len(data) == MAX_DIRECTORY:
            raise UnreadableError("has more members than can be listed", _TOO_LARGE)
        return data


def _roots(names: Counter[str]) -> list[str]:
    """Return the root folders of an archive of PyTorch, with a trailing slash."""
    folders = (name.removesuffix(_FORMAT) for name in names if name.endswith(f"/{_FORMAT}"))
    return [folder for folder in folders if folder.count("/") == 1]


# Bytes in 64-bit CPython of a dictionary with its first keys, of a list, and of a string or number
# with its slot in a container.
_DICT, _LIST, _VALUE = 232, 88, 64


def _parsed_size(raw: bytes) -> int:
    """Return an upper bound of the bytes of JSON as Python objects."""
    values = raw.count(b",") + raw.count(b":")
    return _DICT * raw.count(b"{") + _LIST * raw.count(b"[") + _VALUE * values + len(raw)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0][:200] if lines else type(error).__name__).rstrip(".")
