"""Errors for argument names of earlier versions: each names the argument that replaced it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from graphflops.errors import ModelSpecError

_P = ParamSpec("_P")
_R = TypeVar("_R")

ARGUMENTS = {"regions": "reuse_layers", "accumulation": "gradient_accumulation_steps"}
"""Present names of keyword arguments by their names in version 0.1."""


def refuse_renamed(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that refuses arguments by their earlier names.

    Raises:
        ModelSpecError: An argument has its earlier name.
    """

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name in kwargs.keys() & ARGUMENTS.keys():
            raise ModelSpecError(f"{name}= is called {ARGUMENTS[name]}= now. Give it by that name.")
        return function(*args, **kwargs)

    return wrapper
