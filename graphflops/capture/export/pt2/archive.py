"""The zip archive that ``torch.export.save`` writes: which members are read, and how large."""

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

from graphflops.capture.export.pt2.errors import UnreadableError, shown
from graphflops.capture.export.pt2.file_kinds import kind_of

MAX_DIRECTORY = 4 << 20
"""Bytes of a zip directory: 40,000 members or so, each of which becomes a Python object."""
MAX_JSON = 64 << 20
"""Bytes of a JSON member; a call takes 2,000 of them, most of it its stack trace."""
MAX_PARSED = 128 << 20
"""Bytes that the objects of a JSON member take at most: ten thousand calls or so."""

_FORMAT, _VERSION, _READABLE_VERSION = "archive_format", "archive_version", "0"
_PROGRAM, _OLD_PROGRAM = "models/{}.json", "serialized_exported_program.json"


class Archive:
    """An exported program as it lies in its file; weights and inputs are never opened.

    Args:
        members: The zip archive.

    Raises:
        UnreadableError: It is another kind of archive, or holds no one program.

    Attributes:
        model: The name of the program in the archive.
        others: Names of the other programs in it.
        is_old: Whether it has the layout of torch 2.7 and before.
    """

    def __init__(self, members: zipfile.ZipFile) -> None:
        self._zip = members
        names = Counter(members.namelist())
        roots = _roots(names)
        self.is_old = not roots and _OLD_PROGRAM in names
        if len(roots) != 1 and not self.is_old:
            raise UnreadableError(*kind_of(b"PK", members.namelist()))
        self._root = "" if self.is_old else roots[0]
        self._names = names
        self.model, self.others = self._choose()

    def program(self) -> Any:
        """The JSON of the program."""
        if self.is_old:
            return self._json(_OLD_PROGRAM)
        version = self._read(self._root + _VERSION, 16).decode("utf-8", "replace").strip()
        if version != _READABLE_VERSION:
            raise UnreadableError(
                f"has version {shown(version)} of the archive format, and version "
                f"{_READABLE_VERSION} is known here",
                "Update graphflops, or save the program again with this version of PyTorch.",
            )
        return self._json(self._root + _PROGRAM.format(self.model))

    def weights(self) -> Any:
        """The JSON that describes the weights; ``None`` where only a pickle does."""
        name = f"{self._root}data/weights/{self.model}_weights_config.json"
        return None if self.is_old or name not in self._names else self._json(name)

    def stored_bytes(self, weight: str) -> int:
        """Size of a file of weights, by its name in their description; 0 if it is not there."""
        name = f"{self._root}data/weights/{weight}"
        return self._zip.getinfo(name).file_size if name in self._names else 0

    def _choose(self) -> tuple[str, tuple[str, ...]]:
        if self.is_old:
            return "model", ()
        start, end = (self._root + _PROGRAM).split("{}")
        found = [
            name[len(start) : -len(end)]
            for name in self._names
            if name.startswith(start) and name.endswith(end)
        ]
        if not found:
            raise UnreadableError(*kind_of(b"PK", list(self._names)))
        # torch.export.load takes the one of this name.
        chosen = found[0] if len(found) == 1 else "model"
        if chosen not in found:
            listed = ", ".join(map(shown, sorted(found)[:8]))
            raise UnreadableError(
                f"holds {len(found)} programs ({listed})",
                "Save the one to count to a file of its own, with torch.export.save.",
            )
        return chosen, tuple(sorted(set(found) - {chosen}))

    def _json(self, name: str) -> Any:
        raw = self._read(name, MAX_JSON)
        if _parsed_size(raw) > MAX_PARSED:
            raise UnreadableError("describes more than can be read in bounded memory", _TOO_LARGE)
        try:
            return json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"holds a graph that is not JSON ({_reason(error)})") from error

    def _read(self, name: str, limit: int) -> bytes:
        """The bytes of a member, if they are no more than a limit."""
        if self._names[name] != 1:
            found = "twice" if self._names[name] else "not"
            raise UnreadableError(f"has {shown(name)} {found} in it")
        member = self._zip.getinfo(name)
        if member.file_size > limit:
            raise UnreadableError(f"has {limit:,} bytes or more in {shown(name)}", _TOO_LARGE)
        if member.flag_bits & _ENCRYPTED:
            raise UnreadableError("is encrypted", "Save the program without a password.")
        try:
            # What the directory says of sizes may be wrong: the limit holds while unpacking.
            with self._zip.open(member) as content:
                raw = content.read(limit + 1)
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError) as error:
            raise UnreadableError(f"is damaged ({_reason(error)})") from error
        if len(raw) > limit:
            raise UnreadableError(f"has more bytes in {shown(name)} than it says", _TOO_LARGE)
        return raw


_ENCRYPTED = 1
_TOO_LARGE = "If you trust its authors, load it yourself: gf.count(torch.export.load(path))."


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An exported program in a file, until the block ends.

    Raises:
        UnreadableError: There is no such file, it is something else, or it is damaged.
    """
    with _open(path) as file:
        start = file.read(_START)
        file.seek(0)
        if not start.startswith(b"PK"):
            raise UnreadableError(*kind_of(start))
        try:
            # Of a directory that is too large, nothing is kept.
            zipfile.ZipFile(cast("IO[bytes]", _Directory(file)))
            members = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise UnreadableError(
                f"is a zip archive that is cut short or damaged ({_reason(error)})",
                "Copy or download it again, or save the program again with torch.export.save.",
            ) from error
        with members:
            yield Archive(members)


_START = 512
"""Bytes that tell what a file is; the mark of a tar archive stands at 257."""


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
    # Opening a pipe would wait for somebody to write to it.
    what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise UnreadableError(f"is {what}", advice)


class _Directory:
    """A file that ``zipfile`` reads a directory from, which it takes into memory whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Some bytes."""
        data = self._file.read(min(size, MAX_DIRECTORY) if size >= 0 else MAX_DIRECTORY)
        if len(data) == MAX_DIRECTORY:
            raise UnreadableError("has more members than can be listed", _TOO_LARGE)
        return data


def _roots(names: Counter[str]) -> list[str]:
    """The folder that an archive of PyTorch has all members in, with its slash."""
    found = (name.removesuffix(_FORMAT) for name in names if name.endswith(f"/{_FORMAT}"))
    return [folder for folder in found if folder.count("/") == 1]


# Of CPython, 64 bits: a dictionary with its first keys, a list, a text or a number and its place.
_DICT, _LIST, _VALUE = 232, 88, 64


def _parsed_size(raw: bytes) -> int:
    """Bytes that JSON takes as Python objects, at most."""
    values = raw.count(b",") + raw.count(b":")
    return _DICT * raw.count(b"{") + _LIST * raw.count(b"[") + _VALUE * values + len(raw)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0][:200] if lines else type(error).__name__).rstrip(".")
