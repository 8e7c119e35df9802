"""Conventions: ways of counting, each a registry that prices the same calls."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from importlib.metadata import entry_points

from graphflops.errors import PluginWarning
from graphflops.registry import EXACT, Registry

PLUGINS = "graphflops.handlers"
"""Entry-point group of packages that bring handlers for their own operators."""


@cache
def exact() -> Registry:
    """The default convention: the handlers that ship with graphflops, and installed plugins.

    A plugin that fails to load is named in a :class:`PluginWarning`; its operators are
    unknown then, and everything else counts as before.

    Example:
        >>> exact().name
        'exact'
    """
    importlib.import_module("graphflops.handlers")
    for plugin in entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:  # noqa: BLE001, PERF203 - a plugin's fault must stay its own
            warnings.warn(
                f"the handlers of plugin {plugin.name!r} ({plugin.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}. Their operators stay unknown; update or "
                "uninstall the plugin.",
                PluginWarning,
                stacklevel=2,
            )
    return EXACT
