"""Hooks of Dynamo, AOTAutograd and Inductor, and what they tell of a compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.exc import InvalidBackend
from torch._dynamo.output_graph import OutputGraph
from torch._dynamo.utils import get_compilation_metrics, graph_break_reasons
from torch._functorch import aot_autograd
from torch._functorch import config as functorch_config
from torch._guards import CompileContext
from torch._inductor import config as inductor_config
from torch._inductor.custom_graph_pass import CustomGraphPass, CustomRuntimeEstimator

__all__ = [
    "CompileContext",
    "CustomGraphPass",
    "CustomRuntimeEstimator",
    "InvalidBackend",
    "OutputGraph",
    "aot_autograd",
    "functorch_config",
    "get_compilation_metrics",
    "graph_break_reasons",
    "inductor_config",
    "lookup_backend",
    "pipe_split_operator",
    "without_autograd_cache",
]


@contextmanager
def without_autograd_cache() -> Iterator[None]:
    """Let AOTAutograd trace and partition graphs that it would find in its cache."""
    with functorch_config.patch(enable_autograd_cache=False):
        yield


def pipe_split_operator() -> Any:
    """Return the operator whose calls end the stages of a pipeline."""
    # Imports much of torch.distributed.
    from torch.distributed.pipelining._IR import aten_pipe_split_alias

    return aten_pipe_split_alias


PIECES = {
    "OutputGraph": "Class of what Dynamo traces a graph with; ``call_user_compiler`` hands the "
    "graph, which has its ``compile_subgraph_reason``, to ``compiler_fn``.",
    "CompileContext": "Class of the context of a compilation, which has its id.",
    "graph_break_reasons": "List of the reasons of all graph breaks, with the Python stack.",
    "get_compilation_metrics": "Return what Dynamo records of the last compilations.",
    "lookup_backend": "Return the backend of ``torch.compile`` with a name.",
    "InvalidBackend": "Error of a name that no backend has.",
    "aot_autograd": "Module whose ``aot_stage2_compile`` partitions a joint graph and hands the "
    "graphs to their compilers.",
    "functorch_config": "Options of AOTAutograd and its partitioner.",
    "pipe_split_operator": "Return the operator whose calls end the stages of a pipeline.",
    "without_autograd_cache": "Let AOTAutograd trace and partition graphs in its cache again.",
    "inductor_config": "Options of Inductor.",
    "CustomGraphPass": "Class of passes that Inductor calls with a graph.",
    "CustomRuntimeEstimator": "Class of estimators that the partitioner calls with a node.",
}
"""What each name is, as the test of it says when torch has changed it."""
