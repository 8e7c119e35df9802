"""Tables of a TOML file that a user writes, read with errors that name table and key."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graphflops.errors import ModelSpecError


def read_toml(path: Path, content: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        content: What it should have, for the error: ``"a budget"``.

    Raises:
        ModelSpecError: The file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}. Give the path of {content} in TOML."
        raise ModelSpecError(msg) from error
    except ValueError as error:
        raise ModelSpecError(f"{path} is no TOML: {error}. Correct it.") from error


@dataclass(frozen=True, slots=True)
class TomlTable:
    """A table of a TOML file.

    Attributes:
        name: Name of the table in the file, e.g. ``"devices.mine"``; empty for the file itself.
        values: Its values.
    """

    name: str
    values: Mapping[str, Any]

    def check_keys(self, known: Collection[str], required: Collection[str] = ()) -> None:
        """Check that all keys are known, and none is missing that is required.

        Raises:
            ModelSpecError: A key is unknown or missing.
        """
        for key in self.values:
            if key not in known:
                close = get_close_matches(key.lower(), known, n=2, cutoff=0.5)
                hint = f"Did you mean {' or '.join(close)}?" if close else "Remove it."
                msg = f"{self._key(key)} means nothing. {hint} Known: {', '.join(known)}."
                raise ModelSpecError(msg)
        if missing := [key for key in required if key not in self.values]:
            raise ModelSpecError(f"{self.name} lacks {' and '.join(missing)}. Add what is missing.")

    def table(self, key: str) -> TomlTable:
        """Return a table in this one, empty if it is absent.

        Raises:
            ModelSpecError: The value is no table.
        """
        value = self.values.get(key, {})
        if not isinstance(value, Mapping):
            raise ModelSpecError(f"{self._key(key)} is {value!r}. Give a table.")
        return TomlTable(self._key(key), value)

    def text(self, key: str, default: str = "") -> str:
        """Return a text.

        Raises:
            ModelSpecError: The value is no text.
        """
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise ModelSpecError(f'{self._key(key)} is {value!r}. Give a text: "...".')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty if it is absent.

        Raises:
            ModelSpecError: The value is no list of texts.
        """
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ModelSpecError(f'{self._key(key)} is {value!r}. Give a list of texts: ["..."].')
        return tuple(value)

    def number(self, key: str, default: float | None = None, *, limit: float) -> float:
        """Return a number above 0.

        Args:
            key: Its key.
            default: Number if the key is absent, which may be 0.
            limit: What is not below this was written in another unit.

        Raises:
            ModelSpecError: The value is no number above 0, or is too large for its unit.
        """
        if key not in self.values and default is not None:
            return default
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ModelSpecError(f"{self._key(key)} is {value!r}. Give a number above 0.")
        if value >= limit:
            msg = (
                f"{self._key(key)} is {value!r}, which is too large to be in that unit. Convert it."
            )
            raise ModelSpecError(msg)
        return value

    def _key(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
