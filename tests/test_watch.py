"""What torch.compile compiles: the cost of each graph, graph breaks, recompilations."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd as aot_autograd_backend
from torch._dynamo.output_graph import OutputGraph
from torch._functorch import aot_autograd
from torch._functorch import config as functorch_config
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from graphflops.compiler import compiled_graphs
from graphflops.core.ir import Phase

X = torch.randn(2, 8)
FORWARD, BACKWARD = 2 * 8 * (8 + 4), 2 * 8 * (8 + 4 + 4)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    hooks: Any = OutputGraph.call_user_compiler, vars(aot_autograd)["aot_stage2_compile"]
    yield
    assert hooks == (OutputGraph.call_user_compiler, vars(aot_autograd)["aot_stage2_compile"])
    assert functorch_config.enable_autograd_cache


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def run(model: Any, x: torch.Tensor, **options: Any) -> Any:
    compiled: Any = torch.compile(model, **options)
    return compiled(x)


@pytest.mark.parametrize("name", ["inductor", "aot_eager"])
def test_forward_and_backward_of_a_training_step(name: str) -> None:
    with gf.watch() as watched:
        run(model(), X, backend=name).sum().backward()
    (graph,) = watched.reports
    assert graph.traced is not None
    assert graph.traced.macs == FORWARD
    assert graph.forward is not None
    assert graph.forward.macs == FORWARD
    assert graph.backward is not None
    assert graph.backward.macs == BACKWARD
    assert {record.call.phase for record in graph.backward.records} == {Phase.BACKWARD}
    assert graph.training is not None
    assert graph.training.macs == FORWARD + BACKWARD
    assert graph.training.by_module()["2"].macs == 3 * 2 * 8 * 4
    assert graph.compile_id == "0/0"
    assert (watched.graph_breaks, watched.recompiles, watched.uncompiled) == ((), (), ())


def test_inference_has_a_forward_alone() -> None:
    with torch.no_grad(), gf.watch() as watched:
        run(model(), X)
    (graph,) = watched.reports
    assert graph.forward is not None
    assert graph.forward.capture.method == "graph module"
    assert graph.forward.macs == FORWARD
    assert (graph.backward, graph.recompute, graph.training) == (None, None, None)


@pytest.mark.parametrize("budget", [0, 0.3, 1])
def test_what_is_recomputed_is_what_runs_twice(budget: float) -> None:
    seen: list[int] = []

    def compiler(graph: fx.GraphModule, _: Any) -> Any:
        def run(args: Any) -> Any:
            with FlopCounterMode(display=False) as counter:
                outputs = graph(*args)
            seen.append(counter.get_total_flops())
            return outputs

        return make_boxed_func(lambda *args: run(args))

    backend = aot_autograd_backend(
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table,
    )
    net = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, 0.0) for _ in range(2)))
    of_budget = functorch_config.patch(activation_memory_budget=budget)
    # The counter has no formula for the fused attention of the CPU.
    with of_budget, sdpa_kernel(SDPBackend.MATH), gf.watch() as watched:
        run(net, torch.randn(5, 3, 8), backend=backend).sum().backward()
    (graph,) = watched.reports
    assert graph.training is not None
    assert graph.training.complete
    forward, backward, recompute = graph.training.parts
    assert seen == [2 * forward.macs, 2 * (backward.macs + recompute.macs)]
    assert (recompute.macs > 0) == (budget < 1)


def broken(x: torch.Tensor) -> torch.Tensor:
    x = (x @ x).relu()
    torch._dynamo.graph_break()
    return x @ x


def test_graph_breaks() -> None:
    with gf.watch() as watched:
        run(broken, torch.randn(8, 8), backend="eager")
    assert [graph.forward.macs for graph in watched.reports if graph.forward] == [8**3, 8**3]
    assert "graph_break" in watched.reports[0].graph_break
    assert watched.reports[1].graph_break == ""
    (event,) = watched.graph_breaks
    assert event.function == "broken"
    line = f"tests/test_watch.py:{broken.__code__.co_firstlineno + 2}"
    assert event.source_line == line
    assert str(event) == f"broken at {line}: Call to `torch._dynamo.graph_break()`"


def test_recompilations() -> None:
    compiled = torch.compile(model(), backend="eager", dynamic=False)
    with gf.watch() as watched:
        compiled(X)
        compiled(torch.randn(3, 8))
        compiled(X)
    macs = [graph.forward.macs for graph in watched.reports if graph.forward]
    assert macs == [FORWARD, FORWARD * 3 // 2]
    assert [graph.compile_id for graph in watched.reports] == ["0/0", "0/1"]
    (event,) = watched.recompiles
    assert event.compile_id == "0/1"
    assert "size mismatch at index 0. expected 2, actual 3" in event.reason


def test_sizes_that_stay_open() -> None:
    with gf.watch() as watched:
        compiled = torch.compile(model(), backend="aot_eager", dynamic=True)
        compiled(torch.randn(5, 8)).sum().backward()
    (graph,) = watched.reports
    assert graph.training is not None
    (symbol,) = graph.training.symbols
    assert graph.training.subs(**{symbol: 2}).macs == FORWARD + BACKWARD
    assert graph.traced is not None
    assert graph.traced.macs == FORWARD * 5 // 2


def given_up(x: torch.Tensor) -> torch.Tensor:
    try:
        with open(__file__, encoding="utf-8"):  # noqa: PTH123 - Dynamo does not trace it
            return x @ x
    finally:
        pass


def test_functions_that_are_left_to_python() -> None:
    logging.getLogger("torch._dynamo").setLevel(logging.CRITICAL)
    with gf.watch() as watched:
        run(given_up, torch.randn(8, 8), backend="eager")
    assert watched.reports == ()
    (event,) = watched.uncompiled
    assert event.function == "given_up"
    assert "open" in event.reason


def test_two_watches_and_a_counting_backend_see_the_same() -> None:
    counting = gf.backend("aot_eager")
    with gf.watch() as outer, gf.watch() as inner:
        run(model(), X, backend=counting).sum().backward()
    for (graph,) in (outer.reports, inner.reports, counting.reports):
        assert graph.training is not None
        assert graph.training.macs == FORWARD + BACKWARD


def test_what_was_compiled_before_is_not_seen_and_what_comes_after_neither() -> None:
    compiled = torch.compile(model(), backend="eager", dynamic=False)
    compiled(X)
    with gf.watch() as watched:
        compiled(X)
    compiled(torch.randn(3, 8))
    assert watched.reports == ()
    assert watched.recompiles == ()


def test_the_result_is_that_of_the_inner_backend() -> None:
    net = model()
    counting = gf.backend()
    with torch.no_grad():
        torch.testing.assert_close(run(net, X, backend=counting), net(X))
    (graph,) = counting.reports
    assert graph.forward is not None
    assert graph.forward.macs == FORWARD


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(gf.ModelSpecError, match="no backend 'nothing'"):
        gf.backend("nothing")


def test_a_graph_that_cannot_be_counted_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise gf.CaptureError("no number\nand more")

    monkeypatch.setattr(compiled_graphs, "count", fail)
    with gf.watch() as watched:
        assert run(model(), X, backend="aot_eager").shape == (2, 4)
    (graph,) = watched.reports
    assert (graph.traced, graph.forward, graph.training) == (None, None, None)
    sentence = "A graph could not be counted: CaptureError: no number"
    assert set(graph.problems) == {sentence}
