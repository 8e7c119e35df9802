"""Prices where torch asks for them: its counter, the partitioner, the overlap scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._functorch import config as functorch_config
from torch._inductor import config as inductor_config
from torch._inductor.custom_graph_pass import CustomRuntimeEstimator
from torch._inductor.fx_passes import overlap_scheduling
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import graphflops as gf
from graphflops.compiler import FlopsEstimator, OverlapEstimator, Roofline, TimeEstimator

BUDGET = "activation_memory_budget_runtime_estimator"


def state() -> tuple[Any, ...]:
    overlap = inductor_config.aten_distributed_optimizations
    estimators = getattr(functorch_config, BUDGET), overlap.custom_runtime_estimation
    return (*estimators, {packet: id(formula) for packet, formula in flop_registry.items()})


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = state()
    yield
    gf.uninstall()
    assert state() == before


def flops(run: Any, *args: Any) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        run(*args)
    counts = counter.get_flop_counts().get("Global", {})
    return {str(packet): count for packet, count in counts.items() if count}


def net(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x @ w, -1).exp_().sum(0)


X, W = torch.randn(2, 3), torch.randn(3, 4)
PRODUCT = 2 * 2 * 3 * 4


def test_the_counter_sees_every_operator() -> None:
    assert flops(net, X, W) == {"aten.mm": PRODUCT}
    gf.install()
    softmax = 2 * (2 * 3) + 3 * 8  # maxima and sums of 3 each; subtract, exp, divide
    expected = {
        "aten.mm": PRODUCT,
        "aten._softmax": softmax,
        "aten.exp_": 8,
        "aten.sum": 4,
    }
    assert flops(net, X, W) == expected
    with torch._subclasses.FakeTensorMode() as mode:
        assert flops(net, mode.from_tensor(X), mode.from_tensor(W)) == expected
    gf.uninstall()
    assert flops(net, X, W) == {"aten.mm": PRODUCT}


def test_the_counter_agrees_with_a_count_but_for_biases() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    gf.install()
    by_operator = flops(lambda: model(x).sum().backward())
    step = gf.count_training(model, (x,))
    # The first projection adds its own by itself.
    biases = 10 * (8 + 16 + 8)
    # Q and K scaled; of each row of 5 scores maximum and sum, a test for hidden ones, subtraction,
    # exp and division.
    rows, scaling = 2 * 2 * 5, 2 * (2 * 2 * 5 * 4)
    attention = 2 * (2 * rows * 5 * 4) + scaling + rows * (2 * (5 - 1) + 4 * 5)
    assert by_operator["aten._scaled_dot_product_flash_attention_for_cpu"] == attention
    assert step.hardware_flops - biases == sum(by_operator.values())


def test_twice_and_back() -> None:
    before = state()
    gf.install()
    gf.install(accelerator="a100", bytes_per_second=2.039e12)
    estimator = getattr(functorch_config, BUDGET)
    assert isinstance(estimator, CustomRuntimeEstimator)
    assert estimator.uuid() == FlopsEstimator().uuid()
    assert "a100" in TimeEstimator(Roofline(accelerator="a100")).uuid()
    gf.uninstall()
    assert state() == before
    gf.uninstall()
    gf.install(flop_counter=False)
    assert state()[2] == before[2]
    with pytest.raises(gf.ModelSpecError, match="'abacus' is no device"):
        gf.install(accelerator="abacus")
    with pytest.raises(gf.ModelSpecError, match="a bandwidth above 0"):
        gf.install(bytes_per_second=0)


def test_what_others_set_in_the_meantime_stays() -> None:
    def mine(*_: Any, **__: Any) -> int:
        return 7

    gf.install()
    with functorch_config.patch({BUDGET: "testing"}):
        flop_registry[torch.ops.aten.exp] = mine
        gf.uninstall()
        assert getattr(functorch_config, BUDGET) == "testing"
        assert flop_registry.pop(torch.ops.aten.exp) is mine
    # The patch has put the estimator back: the next call removes it.
    gf.uninstall()
    assert getattr(functorch_config, BUDGET) == "flops"


def nodes(run: Any, *args: Any) -> dict[str, fx.Node]:
    return {node.name: node for node in make_fx(run)(*args).graph.nodes}


def test_time_is_that_of_the_slower_of_arithmetic_and_memory() -> None:
    estimate = TimeEstimator(Roofline(accelerator="a100", bytes_per_second=2e12))
    size = 1024
    x = torch.empty(size, size, device="meta")
    named = nodes(lambda x: (x @ x).relu().t(), x)
    assert estimate(named["mm"]) == pytest.approx(1000 * 2 * size**3 / 19.5e12)
    assert estimate(named["relu"]) == pytest.approx(1000 * 2 * 4 * size**2 / 2e12)
    assert estimate(named["t"]) == 0
    half = nodes(lambda x: x @ x, x.half())
    assert estimate(half["mm"]) == pytest.approx(1000 * 2 * size**3 / 312e12)


def test_bandwidth_and_rates_are_those_of_the_accelerator() -> None:
    named = nodes(lambda x: x.relu(), torch.empty(1024, 1024, device="meta"))
    for accelerator, bandwidth in (("l4", 300e9), ("h100-sxm", 3.35e12), ("mi250x", 1.6384e12)):
        estimate = TimeEstimator(Roofline(accelerator=accelerator))
        assert estimate(named["relu"]) == pytest.approx(1000 * 2 * 4 * 1024**2 / bandwidth)
    assert TimeEstimator(Roofline()).uuid() != TimeEstimator(Roofline(bytes_per_second=1e9)).uuid()


def test_flops_of_a_node_are_those_of_the_operator() -> None:
    named = nodes(lambda x, w: torch.softmax(x @ w, -1).t(), X, W)
    flops_of = {name: FlopsEstimator()(node) for name, node in named.items()}
    softmax = 2 * (2 * 3) + 3 * 8
    assert flops_of["mm"] == PRODUCT
    assert flops_of["_softmax"] == softmax
    assert flops_of["t"] == flops_of["x_1"] == flops_of["output"] == 0


def test_symbolic_sizes_have_torchs_hints() -> None:
    estimate = TimeEstimator(Roofline())
    graph = make_fx(lambda x, w: x @ w, tracing_mode="symbolic")(X, W)
    (product,) = (node for node in graph.graph.nodes if node.name == "mm")
    assert estimate(product) == estimate(nodes(torch.mm, X, W)["mm"])


def test_an_operator_without_a_price_takes_the_time_of_its_bytes() -> None:
    library: Any = torch.library
    lib = library.Library("graphflops_test_install", "DEF")
    lib.define("mystery(Tensor x) -> Tensor")
    lib.impl("mystery", lambda x: x.clone(), "CompositeExplicitAutograd")
    op = torch.ops.graphflops_test_install.mystery.default
    graph = nodes(lambda x: op(x), torch.ones(1000))
    roofline = Roofline(bytes_per_second=1e9)
    assert TimeEstimator(roofline)(graph["mystery"]) == pytest.approx(1000 * 8000 / 1e9)


def test_the_overlap_scheduler_asks_for_compute_alone() -> None:
    estimate = OverlapEstimator(Roofline())
    named = nodes(lambda x, w: (x @ w).t(), X, W)
    assert estimate(named["mm"], None) == TimeEstimator(Roofline())(named["mm"])
    assert estimate(named["mm"], 1024) is None
    assert estimate(named["t"]) is None
    gf.install(flop_counter=False)
    custom: Any = inductor_config.aten_distributed_optimizations.custom_runtime_estimation
    found = overlap_scheduling.get_custom_estimation(named["mm"], custom)
    assert found == estimate(named["mm"])


def test_the_partitioner_saves_what_costs_most_to_compute_again() -> None:
    def recomputed(*columns: int) -> int:
        def run(*numbers: torch.Tensor) -> torch.Tensor:
            first, second = (
                (number * torch.arange(64 * n).view(64, n)).sum(-1).sin()
                for number, n in zip(numbers, columns, strict=True)
            )
            return first * second

        torch._dynamo.reset()
        args = [torch.ones(1, requires_grad=True) for _ in columns]
        with functorch_config.patch(activation_memory_budget=0.6), gf.watch() as watched:
            compiled: Any = torch.compile(run, backend="aot_eager_decomp_partition")
            compiled(*args).sum().backward()
        (graph,) = watched.reports
        assert graph.recompute is not None
        return int(graph.recompute.by_operator()["aten::sum"].flops)

    def both_orders() -> list[int]:
        return [recomputed(8, 100), recomputed(100, 8)]

    # For torch either sum is 1 FLOP; one of both is saved.
    assert sorted(both_orders()) == [64 * 7, 64 * 99]
    gf.install()
    assert both_orders() == [64 * 7, 64 * 7]
