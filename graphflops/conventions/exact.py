"""The ``exact`` convention, the default: every operator priced, or named as unknown.

It sees every operator of the graph. A multiply-accumulate is two FLOPs. Operators other than
contractions cost the same as PyTorch's reference decomposition into prims: one FLOP for each
element of each arithmetic prim, biases included. Integer arithmetic is 0.
``docs/counting/what_counts.md`` has the rules, the docstring of each handler its formula.

Source: the handlers that ship with graphflops, and installed plugins.
"""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from importlib.metadata import entry_points

from graphflops.conventions.convention import Convention
from graphflops.core.arguments import caller_stacklevel
from graphflops.errors import PluginWarning
from graphflops.pricing.registry import EXACT, Registry
from graphflops.runtime.interruption import raise_interruption

PLUGINS = "graphflops.handlers"
"""Entry-point group of packages with handlers for their own operators."""


@cache
def exact() -> Registry:
    """Return the default registry: the handlers that ship with graphflops, and plugins.

    A plugin that fails to load is named in a :class:`PluginWarning`; its operators are
    unknown then, and everything else is counted as before.

    Example:
        >>> exact().name
        'exact'
    """
    importlib.import_module("graphflops.handlers")
    for plugin in entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:  # noqa: BLE001 - a broken plugin must not break a count
            raise_interruption(error)
            warnings.warn(
                f"the handlers of plugin {plugin.name!r} ({plugin.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}. Their operators stay unknown; update or "
                "uninstall the plugin.",
                PluginWarning,
                stacklevel=caller_stacklevel(),
            )
    return EXACT


CONVENTION = Convention(
    registry=exact,
    unit="a floating-point operation: half a multiply-accumulate",
    counts="every operator, by its formula; what has no price is named as unknown",
    omits="integer arithmetic, copies, views",
    source="docs/counting/what_counts.md and docs/reference/operators.md",
)
