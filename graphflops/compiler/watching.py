"""Watches over ``torch.compile``: the cost of each graph, and why there is more than one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from graphflops.capture.source_lines import short_path
from graphflops.capture.torch_internals.compiler import (
    OutputGraph,
    get_compilation_metrics,
    graph_break_reasons,
)
from graphflops.compiler.compiled_graphs import Compilations, CompiledGraph
from graphflops.runtime.patches import Patches, patch_function


class Event(NamedTuple):
    """Graph break, recompilation, or function that Dynamo left to Python.

    Attributes:
        function: Name of the function that was compiled.
        source_line: ``file:line`` of the break, or of the function.
        reason: Reason that Dynamo gives.
        compile_id: Number of the function and of its compilation; empty for a graph break.
    """

    function: str
    source_line: str
    reason: str
    compile_id: str = ""

    def __str__(self) -> str:
        return f"{self.function} at {self.source_line}: {self.reason.partition(chr(10))[0]}"


class Watch:
    """Compilations while a watch lasts. Reports of graphs may grow a backward after it."""

    def __init__(self) -> None:
        self._compilations = Compilations()
        # Kept, so that their ids are not given to other objects.
        self._earlier_breaks = list(graph_break_reasons)
        self._seen_metrics = get_compilation_metrics()
        self._metrics: list[Any] = []
        self._breaks: list[Any] = []

    @property
    def reports(self) -> tuple[CompiledGraph, ...]:
        """Reports of the graphs, in order of compilation."""
        return self._compilations.reports

    @property
    def graph_breaks(self) -> tuple[Event, ...]:
        """Places where a graph had to end, with Dynamo's reasons."""
        return tuple(
            Event(
                reason.user_stack[-1].name if reason.user_stack else "",
                _location(reason.user_stack[-1]) if reason.user_stack else "",
                reason.reason,
            )
            for reason in self._breaks
        )

    @property
    def recompiles(self) -> tuple[Event, ...]:
        """Functions that were compiled again, with the guard that failed."""
        return tuple(_event(m, m.recompile_reason) for m in self._metrics if m.recompile_reason)

    @property
    def uncompiled(self) -> tuple[Event, ...]:
        """Functions that Dynamo gave up: all of their operators run outside of any graph."""
        return tuple(_event(m, m.fail_reason or "") for m in self._metrics if m.fail_type)

    def observe(self, output_graph: Any, compile_graph: Any, *args: Any) -> Any:
        """Count a graph while Dynamo compiles it."""
        self.update()
        compiler = output_graph.compiler_fn
        output_graph.compiler_fn = self._compilations.observe(compiler)
        try:
            return compile_graph(output_graph, *args)
        finally:
            output_graph.compiler_fn = compiler

    def update(self) -> None:
        """Take what Dynamo has recorded since the last update; it keeps the last 64 only."""
        seen = {id(metrics) for metrics in self._seen_metrics}
        new = [metrics for metrics in get_compilation_metrics() if id(metrics) not in seen]
        self._seen_metrics += new
        self._metrics += [metrics for metrics in new if metrics.co_name]
        seen = {id(reason) for reason in (*self._earlier_breaks, *self._breaks)}
        self._breaks += [reason for reason in graph_break_reasons if id(reason) not in seen]


def _event(metrics: Any, reason: str) -> Event:
    line = f"{short_path(metrics.co_filename)}:{metrics.co_firstlineno}"
    return Event(metrics.co_name, line, reason, metrics.compile_id or "")


def _location(frame: Any) -> str:
    return f"{short_path(frame.filename)}:{frame.lineno}"


_WATCHES: ContextVar[tuple[Watch, ...]] = ContextVar("watches", default=())


def _call_user_compiler(original: Any, output_graph: Any, *args: Any) -> Any:
    call = original
    for watch_ in _WATCHES.get():
        call = _nested(watch_, call)
    return call(output_graph, *args)


def _nested(watch_: Watch, call: Any) -> Any:
    return lambda output_graph, *args: watch_.observe(output_graph, call, *args)


_DYNAMO_GRAPHS = Patches(patch_function(OutputGraph, "call_user_compiler", _call_user_compiler))


@contextmanager
def watch() -> Iterator[Watch]:
    """Watch what ``torch.compile`` compiles in this thread while the block lasts.

    Every backend is watched. AOTAutograd's cache of compiled graphs is not used meanwhile; graphs
    that Dynamo compiled before are not compiled again, and not seen.

    Yields:
        The watch: ``reports`` of the graphs, ``graph_breaks``, ``recompiles`` and ``uncompiled``
        functions.

    Example:
        >>> import torch
        >>> model = torch.compile(torch.nn.Linear(3, 4), backend="eager", dynamic=False)
        >>> with watch() as watched:
        ...     _ = model(torch.ones(2, 3)), model(torch.ones(5, 3))
        >>> [graph.forward.macs for graph in watched.reports]
        [24, 60]
        >>> watched.recompiles[-1].reason[-23:]
        '0. expected 2, actual 5'
    """
    watched = Watch()
    token = _WATCHES.set((*_WATCHES.get(), watched))
    try:
        with _DYNAMO_GRAPHS.holding():
            yield watched
    finally:
        _WATCHES.reset(token)
        watched.update()
