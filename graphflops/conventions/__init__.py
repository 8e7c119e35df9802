"""Conventions: ways of counting, each a registry that prices the same calls.

In: calls. Out: their prices in the unit of exact, causal, torch, calflops or fvcore; each has a
module that documents its rules. May import ``pricing``, ``core``, ``runtime`` and ``errors``;
never torch.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches

from graphflops.conventions.convention import Convention
from graphflops.conventions.exact import PLUGINS, exact
from graphflops.errors import ModelSpecError
from graphflops.pricing.registry import Registry

__all__ = ["PLUGINS", "Convention", "describe", "exact", "get", "names"]


def names() -> tuple[str, ...]:
    """Return the names of all conventions, the default first.

    Example:
        >>> names()
        ('exact', 'causal', 'torch', 'calflops', 'fvcore')
    """
    return ("exact", "causal", "torch", "calflops", "fvcore")


def get(name: str) -> Registry:
    """Return the registry of a convention.

    Raises:
        ModelSpecError: There is no convention of that name.

    Example:
        >>> get("fvcore").flops_per_mac
        1
    """
    return describe(name).registry()


def describe(name: str) -> Convention:
    """Return the description of a convention.

    Raises:
        ModelSpecError: There is no convention of that name.

    Example:
        >>> describe("fvcore").unit
        'a multiply-accumulate, counted once'
    """
    if name not in names():
        close = get_close_matches(str(name).lower(), names(), n=2, cutoff=0.5)
        hint = f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(names())}."
        raise ModelSpecError(f"{name!r} is no convention. {hint} See graphflops conventions.")
    convention: Convention = importlib.import_module(f"{__name__}.{name}").CONVENTION
    return convention
