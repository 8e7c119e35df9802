"""Errors for argument names of earlier versions: each names the argument that replaced it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from graphflops.errors import ModelSpecError

_P = ParamSpec("_P")
_R = TypeVar("_R")

ARGUMENTS = {"regions": "reuse_layers", "accumulation": "gradient_accumulation_steps"}
"""Keyword arguments of version 0.1 with their present names."""


def refuse_renamed(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a public function refuse arguments by their earlier names.

    Raises:
        ModelSpecError: An argument goes by its earlier name.
    """

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name in kwargs.keys() & ARGUMENTS.keys():
            raise ModelSpecError(f"{name}= is called {ARGUMENTS[name]}= now. Give it by that name.")
        return function(*args, **kwargs)

    return checked
