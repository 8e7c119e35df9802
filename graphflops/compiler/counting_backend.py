"""A backend of ``torch.compile`` that counts each graph before another backend compiles it."""

from __future__ import annotations

from typing import Any

from graphflops.capture.torch_internals.compiler import InvalidBackend, lookup_backend
from graphflops.compiler.compiled_graphs import Compilations, CompiledGraph, Compiler
from graphflops.errors import ModelSpecError


class CountingBackend:
    """Backend that counts each graph and hands it to another backend.

    Args:
        inner: The other backend.
    """

    def __init__(self, inner: Compiler) -> None:
        self._compilations = Compilations()
        self._compile = self._compilations.observe(inner)
        self.__name__ = f"graphflops, {getattr(inner, '__name__', type(inner).__name__)}"

    @property
    def reports(self) -> tuple[CompiledGraph, ...]:
        """Reports of the graphs that this backend has compiled, in order."""
        return self._compilations.reports

    def __call__(self, module: Any, inputs: Any, **options: Any) -> Any:
        """Count a graph, compile it, and return what the inner backend returns."""
        return self._compile(module, inputs, **options)


def backend(inner: str | Compiler = "inductor") -> CountingBackend:
    """Return a backend for ``torch.compile`` that counts each graph it compiles.

    Args:
        inner: Backend that compiles the graphs, by name or as a function of a graph and its inputs.

    Returns:
        The backend; ``reports`` has a :class:`~graphflops.compiler.compiled_graphs.CompiledGraph`
        for each graph, with its forward and, in training, its backward.

    Raises:
        ModelSpecError: torch has no backend of that name.

    Example:
        >>> import torch
        >>> counting = backend(inner="eager")
        >>> compiled = torch.compile(torch.nn.Linear(3, 4), backend=counting)
        >>> _ = compiled(torch.ones(2, 3))
        >>> [graph.forward.macs for graph in counting.reports]
        [24]
    """
    try:
        return CountingBackend(lookup_backend(inner))
    except InvalidBackend as error:
        msg = (
            f"torch.compile has no backend {inner!r}. torch.compiler.list_backends() names those "
            "there are; a function of a graph and its inputs is one too."
        )
        raise ModelSpecError(msg) from error
