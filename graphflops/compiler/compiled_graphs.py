"""Counts of graphs while they are compiled: as Dynamo traces, and as AOTAutograd splits them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import fx

from graphflops.capture.diagnose import first_line
from graphflops.capture.torch_internals.compiler import (
    CompileContext,
    aot_autograd,
    without_autograd_cache,
)
from graphflops.counting.forward import count
from graphflops.reports.report import Report
from graphflops.reports.training import TrainingReport
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import Patches, patch_function

Compiler: TypeAlias = Callable[..., Any]
"""Function of a graph and its inputs that returns what runs in the place of the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledGraph:
    """Reports of one compiled graph.

    Attributes:
        compile_id: Dynamo's number of the function and of its compilation: ``"0/1"`` is the second
            compilation of the first function.
        traced: The graph as Dynamo traced it; ``None`` if it could not be counted.
        forward: The forward graph of AOTAutograd; the traced graph if the backend has none.
        training: Forward and backward graph, and what the backward graph computes again; ``None``
            for inference.
        graph_break: Reason why the graph ends before its function does; empty if it does not.
        problems: Sentences on graphs that could not be counted.
    """

    compile_id: str
    traced: Report | None
    forward: Report | None
    training: TrainingReport | None = None
    graph_break: str = ""
    problems: tuple[str, ...] = ()

    @property
    def backward(self) -> Report | None:
        """The backward graph, without what it computes again; ``None`` for inference."""
        return None if self.training is None else self.training.backward

    @property
    def recompute(self) -> Report | None:
        """Forward operators that the backward graph computes again; ``None`` for inference."""
        return None if self.training is None else self.training.recompute


@dataclass(slots=True)
class _Compilation:
    """Reports of one graph so far. AOTAutograd may compile its backward after its first run."""

    compile_id: str
    graph_break: str
    traced: Report | None = None
    forward: Report | None = None
    backward: Report | None = None
    problems: list[str] = field(default_factory=list)

    def count(self, module: fx.GraphModule, inputs: Sequence[Any] = ()) -> Report | None:
        """Count a graph. An error is noted: the compilation goes on."""
        try:
            return count(module, inputs, on_unknown="ignore")
        except Exception as error:  # noqa: BLE001 - whatever it is, the user's model must compile
            raise_interruption(error)
            self.problems.append(f"A graph could not be counted: {first_line(error)}")
            return None

    def result(self) -> CompiledGraph:
        """Return what is known by now."""
        training = None
        if self.forward is not None and self.backward is not None:
            split = TrainingReport.of(self.backward, loss="gradients of the graph's outputs, given")
            notes = (*self.forward.notes, *split.notes)
            training = replace(split, forward=self.forward, notes=tuple(dict.fromkeys(notes)))
        return CompiledGraph(
            compile_id=self.compile_id,
            traced=self.traced,
            forward=self.forward or self.traced,
            training=training,
            graph_break=self.graph_break,
            problems=tuple(self.problems),
        )


class Compilations:
    """Reports of the graphs that are compiled by functions of this object."""

    def __init__(self) -> None:
        self._compilations: list[_Compilation] = []

    @property
    def reports(self) -> tuple[CompiledGraph, ...]:
        """Reports by graph, in order of compilation."""
        return tuple(compilation.result() for compilation in self._compilations)

    def observe(self, compiler: Compiler) -> Compiler:
        """Return a compiler that counts its graph, and those that AOTAutograd makes of it."""

        @functools.wraps(compiler)
        def compile_counted(
            module: fx.GraphModule, inputs: Sequence[Any], *args: Any, **kwargs: Any
        ) -> Any:
            reason = getattr(module, "compile_subgraph_reason", None)
            compilation = _Compilation(
                compile_id=str(CompileContext.current_compile_id() or ""),
                graph_break=reason.reason if reason is not None and reason.graph_break else "",
            )
            self._compilations.append(compilation)
            compilation.traced = compilation.count(module, inputs)
            token = _CURRENT.set((*_CURRENT.get(), compilation))
            try:
                with _AOT_GRAPHS.holding(), without_autograd_cache():
                    return compiler(module, inputs, *args, **kwargs)
            finally:
                _CURRENT.reset(token)

        return compile_counted


_CURRENT: ContextVar[tuple[_Compilation, ...]] = ContextVar("compilations", default=())


def _compile_stage2(
    original: Compiler, state: Any, capture: Any, partition_fn: Compiler, *compilers: Any
) -> Any:
    """Let the compilers of AOTAutograd count the graphs that they are given."""
    compilations = _CURRENT.get()

    def counted(compiler: Compiler, attribute: str) -> Compiler:
        @functools.wraps(compiler)
        def compile_counted(module: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
            for compilation in compilations:
                setattr(compilation, attribute, compilation.count(module))
            return compiler(module, *args, **kwargs)

        return compile_counted

    forward, backward, inference = (*compilers, None, None)[:3]
    return original(
        state,
        capture,
        partition_fn,
        counted(forward, "forward"),
        counted(backward or forward, "backward"),
        counted(inference or forward, "forward"),
    )


_AOT_GRAPHS = Patches(patch_function(aot_autograd, "aot_stage2_compile", _compile_stage2))
