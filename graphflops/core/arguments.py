"""Checks and conversions of arguments of the public functions."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import __file__ as _contextlib_file
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graphflops.errors import ModelSpecError

_INTERNAL = (f"{Path(__file__).parents[1]}{os.sep}", _contextlib_file)
"""Prefixes of files whose frames lie between the user's code and a warning of this package."""


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return an integer of any type (Python's, numpy's, sympy's) as an ``int``.

    Raises:
        ModelSpecError: ``value`` is no integer, or is below ``least``.

    Example:
        >>> whole_number("steps", 3)
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


def sizes_by_name(name: str, value: Any) -> dict[str, int]:
    """Return a mapping of sizes, 0 or more, as a dictionary; ``None`` is an empty one.

    Raises:
        ModelSpecError: ``value`` is something else.

    Example:
        >>> sizes_by_name("assume", {"u0": 10})
        {'u0': 10}
    """
    sizes = {} if value is None else value
    if not isinstance(sizes, Mapping):
        msg = f'{name} is of type {type(value).__name__}. Give sizes by name, such as {{"u0": 10}}.'
        raise ModelSpecError(msg)
    return {key: whole_number(f"{name}[{key!r}]", size, least=0) for key, size in sizes.items()}


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Check that an argument is one of some choices.

    Raises:
        ModelSpecError: It is none of them.
    """
    choices = list(choices)
    if value not in choices:
        close = get_close_matches(str(value).lower(), choices, n=2, cutoff=0.5)
        hint = "Did you mean {}?" if close else "Give one of {}."
        listed = ", ".join(map(repr, close or choices))
        raise ModelSpecError(f"{name} is {value!r}. {hint.format(listed)}")


def model_inputs(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword inputs of a model; a single tensor is one input.

    Raises:
        ModelSpecError: ``args`` is no tuple, list or tensor, or ``kwargs`` is no mapping.
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
    """Return a mapping of inputs as a dictionary.

    Raises:
        ModelSpecError: ``value`` is no mapping, or has keys that are no strings.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        msg = (
            f"{name} is of type {type(value).__name__}. Give a mapping of inputs by name, such as "
            '{"input_ids": tokens}.'
        )
        raise ModelSpecError(msg)
    return dict(value)


def caller_stacklevel() -> int:
    """Return the ``stacklevel`` with which ``warnings.warn`` points at the user's code."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        level, frame = level + 1, frame.f_back
    return level
