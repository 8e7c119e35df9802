"""Canaries of what torch's compilers tell and let be hooked: see ``test_torch_internals.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch.distributed import pipelining

from graphflops.capture.torch_internals import compiler

X = torch.ones(2, 3)


def compiled(run: Callable[..., Any], **options: Any) -> None:
    torch._dynamo.reset()
    torch.compile(run, **options)(X)


def dynamo_graph() -> bool:
    reasons: list[str] = []
    original: Any = compiler.OutputGraph.call_user_compiler

    def call(self: Any, graph: Any, inputs: Any) -> Any:
        reasons.append(graph.compile_subgraph_reason.reason)
        assert callable(self.compiler_fn)
        return original(self, graph, inputs)

    with mock.patch.object(compiler.OutputGraph, "call_user_compiler", call):
        compiled(lambda x: x + 1, backend="eager")
    return reasons == ["return_value"]


def metrics() -> bool:
    compiled(lambda x: x + 1, backend="eager")
    last = compiler.get_compilation_metrics()[-1]
    fields = (last.recompile_reason, last.fail_type, last.fail_reason, last.restart_reasons)
    return (
        last.compile_id == "0/0" and last.graph_op_count == 1 and fields == (None,) * 3 + (set(),)
    )


def compile_id() -> bool:
    ids: list[str] = []

    def backend(graph: Any, _: Any) -> Any:
        ids.append(str(compiler.CompileContext.current_compile_id()))
        return graph

    compiled(lambda x: x + 1, backend=backend)
    return ids == ["0/0"]


def breaks() -> bool:
    def run(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x + 1

    compiled(run, backend="eager")
    (reason,) = compiler.graph_break_reasons
    return reason.graph_break and reason.user_stack[-1].name == "run"


def no_backend() -> bool:
    try:
        compiler.lookup_backend("no such backend")
    except compiler.InvalidBackend:
        return True
    return False


def stage2() -> bool:
    module: Any = compiler.aot_autograd
    parameters = inspect.signature(module.aot_stage2_compile).parameters
    compilers = ["partition_fn", "fw_compiler", "bw_compiler", "inference_compiler"]
    return list(parameters) == ["aot_state", "aot_graph_capture", *compilers]


def uncached() -> bool:
    with compiler.without_autograd_cache():
        inside = compiler.functorch_config.enable_autograd_cache
    return not inside and bool(compiler.functorch_config.enable_autograd_cache)


class _Estimator(compiler.CustomRuntimeEstimator):
    def __call__(self, _: Any) -> float:
        return 1.0

    def uuid(self) -> str:
        return "canary"


def estimator() -> bool:
    name = "activation_memory_budget_runtime_estimator"
    with compiler.functorch_config.patch({name: _Estimator()}):
        inside = getattr(compiler.functorch_config, name)
    return isinstance(inside, _Estimator) and getattr(compiler.functorch_config, name) == "flops"


def inductor() -> bool:
    names = ("post_grad_custom_pre_pass", "post_grad_custom_post_pass")
    overlap = compiler.inductor_config.aten_distributed_optimizations
    return (
        all(getattr(compiler.inductor_config, name) is None for name in names)
        and overlap.custom_runtime_estimation is None
    )


class _Pass(compiler.CustomGraphPass):
    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, _: torch.fx.Graph) -> None:
        self.graphs += 1

    def uuid(self) -> None:
        return None


def graph_pass() -> bool:
    counting = _Pass()
    with compiler.inductor_config.patch(post_grad_custom_pre_pass=[counting]):
        compiled(lambda x: x + 1)
    return counting.graphs == 1


def pipe_split() -> bool:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.sin()
            split: Any = pipelining.pipe_split
            split()
            return x.cos()

    graph = torch.export.export(Net(), (X,)).graph
    return len(graph.find_nodes(op="call_function", target=compiler.pipe_split_operator())) == 1


COMPILER: dict[str, Callable[[], bool]] = {
    "compiler.OutputGraph": dynamo_graph,
    "compiler.CompileContext": compile_id,
    "compiler.graph_break_reasons": breaks,
    "compiler.get_compilation_metrics": metrics,
    "compiler.lookup_backend": lambda: callable(compiler.lookup_backend("inductor")),
    "compiler.InvalidBackend": no_backend,
    "compiler.aot_autograd": stage2,
    "compiler.functorch_config": estimator,
    "compiler.CustomRuntimeEstimator": estimator,
    "compiler.pipe_split_operator": pipe_split,
    "compiler.without_autograd_cache": uncached,
    "compiler.inductor_config": inductor,
    "compiler.CustomGraphPass": graph_pass,
}
