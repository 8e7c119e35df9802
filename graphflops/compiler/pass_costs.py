"""Costs of graphs before and after the passes of Inductor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import fx

from graphflops.capture.diagnose import first_line
from graphflops.capture.torch_internals.compiler import CustomGraphPass, inductor_config
from graphflops.counting.forward import count
from graphflops.reports.report import Report
from graphflops.runtime.interruption import raise_interruption

_LOGGER = logging.getLogger("graphflops.compiler")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """Cost of a graph before and after the post-grad passes of Inductor.

    Attributes:
        before: Report of the graph as the passes get it; ``None`` if it could not be counted.
        after: Report of the graph that they leave, likewise.
    """

    before: Report | None
    after: Report | None

    def __str__(self) -> str:
        return f"post-grad passes: {_describe(self.before)} before, {_describe(self.after)} after"


def _describe(report: Report | None) -> str:
    if report is None:
        return "a graph that could not be counted"
    nbytes = report.bytes_read + report.bytes_written
    return f"{len(report.records)} calls, {report.flops} FLOPs, {nbytes} bytes"


class PassLog:
    """Costs of the graphs that Inductor has compiled, in order.

    Attributes:
        costs: Cost of each graph before and after the passes.
    """

    def __init__(self) -> None:
        self.costs: list[PassCost] = []
        self._before: Report | None = None

    def begin(self, graph: fx.Graph) -> None:
        """Count a graph before the passes."""
        self._before = _count(graph)

    def end(self, graph: fx.Graph) -> None:
        """Count it after the passes, and log both."""
        cost = PassCost(before=self._before, after=_count(graph))
        self.costs.append(cost)
        _LOGGER.info("%s", cost)


class _CountingPass(CustomGraphPass):
    """Pass that hands a graph to a function and changes nothing."""

    def __init__(self, inspect: Any) -> None:
        self._inspect = inspect

    def __call__(self, graph: fx.Graph) -> None:
        self._inspect(graph)

    def uuid(self) -> None:
        """Return no key: a graph that Inductor finds in its cache does not go through passes."""


def _count(graph: fx.Graph) -> Report | None:
    module = graph.owning_module or fx.GraphModule({}, graph)
    try:
        return count(module, on_unknown="ignore")
    except Exception as error:  # noqa: BLE001 - whatever it is, the user's model must compile
        raise_interruption(error)
        _LOGGER.warning("A graph could not be counted: %s", first_line(error))
        return None


@contextmanager
def log_passes() -> Iterator[PassLog]:
    """Log the cost of each graph before and after Inductor's post-grad passes.

    Your own passes in ``torch._inductor.config`` stay, between the two. The sentences go to the
    logger ``graphflops.compiler`` at level INFO. Inductor's cache of graphs is not used meanwhile.

    Yields:
        The log, whose ``costs`` have a report before and after for each graph.

    Example:
        >>> import torch
        >>> model = torch.compile(torch.nn.Linear(3, 4))
        >>> with torch.no_grad(), log_passes() as log:
        ...     _ = model(torch.ones(2, 3))
        >>> [(cost.before.macs, cost.after.macs) for cost in log.costs]
        [(24, 24)]
    """
    log = PassLog()
    before, after = _CountingPass(log.begin), _CountingPass(log.end)
    options = {
        "post_grad_custom_pre_pass": [before, *_passes("post_grad_custom_pre_pass")],
        "post_grad_custom_post_pass": [*_passes("post_grad_custom_post_pass"), after],
    }
    with inductor_config.patch(options):
        yield log


def _passes(name: str) -> list[Any]:
    value = getattr(inductor_config, name)
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
