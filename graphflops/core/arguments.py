"""Arguments of the public functions: taken as they are meant, or refused in a sentence."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import __file__ as _contextlib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graphflops.errors import ModelSpecError

_OURS = (f"{Path(__file__).parents[1]}{os.sep}", _contextlib)
"""Files whose frames lie between the one who calls us and a warning of ours."""


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of any type that is one: Python's, numpy's, sympy's.

    Raises:
        ModelSpecError: It is none, or below ``least``.

    Example:
        >>> whole("steps", 3)
        3
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        msg = f"{name} is {value!r}. Give a whole number, {least} or more."
        raise ModelSpecError(msg)
    return number


def sizes(name: str, value: Any) -> dict[str, int]:
    """Whole numbers by name, 0 or more.

    Raises:
        ModelSpecError: It is something else.

    Example:
        >>> sizes("assume", {"u0": 10})
        {'u0': 10}
    """
    given = {} if value is None else value
    if not isinstance(given, Mapping):
        msg = f'{name} is of type {type(value).__name__}. Give sizes by name, such as {{"u0": 10}}.'
        raise ModelSpecError(msg)
    return {key: whole(f"{name}[{key!r}]", size, least=0) for key, size in given.items()}


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """Check a word against those that mean something.

    Raises:
        ModelSpecError: It is none of them.
    """
    known = list(known)
    if value not in known:
        close = get_close_matches(str(value).lower(), known, n=2, cutoff=0.5)
        hint = "Did you mean {}?" if close else "Give one of {}."
        named = ", ".join(map(repr, close or known))
        raise ModelSpecError(f"{name} is {value!r}. {hint.format(named)}")


def inputs(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of a model; one tensor alone is one input.

    Raises:
        ModelSpecError: They are in another form.
    """
    if hasattr(args, "shape") and hasattr(args, "dtype"):
        args = (args,)
    if isinstance(args, Mapping):
        raise ModelSpecError("args is a mapping of inputs by name. Give it as kwargs.")
    if not isinstance(args, tuple | list):
        msg = f"args is of type {type(args).__name__}. Give a tuple of the positional inputs."
        raise ModelSpecError(msg)
    return tuple(args), inputs_by_name("kwargs", {} if kwargs is None else kwargs)


def inputs_by_name(name: str, value: Any) -> dict[str, Any]:
    """Inputs in a mapping.

    Raises:
        ModelSpecError: It is none, or has keys that are no names.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        msg = (
            f"{name} is of type {type(value).__name__}. Give a mapping of inputs by name, such as "
            '{"input_ids": tokens}.'
        )
        raise ModelSpecError(msg)
    return dict(value)


def level_of_caller() -> int:
    """How many frames up, for ``warnings.warn`` in the caller, the code lies that called us."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    return level
