"""Modules of a model under all their names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

from torch import nn

from graphflops.errors import ModelSpecError

Modules: TypeAlias = Sequence[tuple[str, nn.Module]]
"""Every module of a model under every name it has, the model itself first."""


MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"training"} | {"_call_impl"}
"""Names of the attributes that every module has, but for its mode."""


@cache
def own_attributes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a module's attributes that not every module has."""
    return tuple(name for name in names if name not in MODULE_INTERNALS)


def modules_in(model: nn.Module) -> Modules:
    """Return the modules of a model.

    Raises:
        ModelSpecError: A module contains itself.
    """
    try:
        return list(model.named_modules(remove_duplicate=False))
    except RecursionError as error:
        path = _cycle(model)
        if path is None:
            raise
        msg = (
            f"module {path!r} is one of the modules that contain it, so it has no end of names. "
            "Keep a reference to it outside of the submodules, in a tuple or a weakref."
        )
        raise ModelSpecError(msg) from error


def _cycle(model: nn.Module) -> str | None:
    """Return the path of a module that is one of its own parents."""
    done: set[nn.Module] = set()

    def search(
        module: nn.Module, path: tuple[str, ...], parents: frozenset[nn.Module]
    ) -> str | None:
        if module in parents:
            return ".".join(path)
        if module in done:
            return None
        done.add(module)
        children = (
            search(c, (*path, name), parents | {module}) for name, c in module.named_children()
        )
        return next(filter(None, children), None)

    return search(model, (), frozenset())
