"""Pipeline stages of equal FLOPs: the model's output, the balance, and where no cut may be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.distributed.pipelining import pipeline
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from benchmarks.capture import LLAMA
from benchmarks.scaling import llama
from graphflops.models import Options, resolve

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore")


class Residual(nn.Module):
    """Layers that write in place to what a skip connection reads later."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            y = layer(x)
            view = y.view(-1)
            y.relu_()
            x = x + view.view_as(x) * mask
        return x


class Chunks(nn.Module):
    """Operators with several results."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 8) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            a, b = layer(x).chunk(2, -1)
            x = a * b.max(-1, keepdim=True)[0]
        return x


def encoder() -> nn.Module:
    layers = (nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(6))
    return nn.Sequential(*layers)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "encoder": (encoder, (torch.randn(2, 5, 16),)),
    "writes in place": (Residual, (torch.randn(4, 8), torch.rand(4, 8))),
    "several results": (Chunks, (torch.randn(3, 4),)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_compute_what_the_model_computes(name: str, stages: int) -> None:
    build, inputs = MODELS[name]
    model = build()
    pipe = pipeline(model, inputs, split_policy=gf.split_policy(stages))
    assert pipe.num_stages == stages
    graph = pipe.split_gm.graph
    placeholders = graph.find_nodes(op="placeholder")
    values: dict[Any, Any] = dict(zip(placeholders, inputs, strict=True))
    flops = []
    for node in graph.nodes:
        if node.op == "call_module":
            # As ranks have them: copies, the first with the model's inputs in their order.
            assert (list(node.args) == placeholders) == (node.target == "submod_pp_0")
            with FlopCounterMode(display=False) as counter:
                stage = pipe.split_gm.get_submodule(str(node.target))
                values[node] = stage(*(values[source].clone() for source in node.args))
            flops.append(counter.get_total_flops())
        elif node.op == "call_function":
            values[node] = values[node.args[0]][node.args[1]]
    outputs: Any = graph.output_node().args
    ((output,),) = outputs
    torch.testing.assert_close(values[output], model(*inputs))
    assert max(flops) <= 1.05 * sum(flops) / stages


def parts(module: fx.GraphModule, stages: int) -> list[int]:
    """FLOPs of the stages of a graph that a policy cuts."""
    flops = [0]
    for node in gf.split_policy(stages)(module).graph.nodes:
        if "pipe_split" in str(node.target):
            flops.append(0)
        elif "graphflops" in node.meta:
            flops[-1] += node.meta["graphflops"].cost.flops
    return flops


@pytest.mark.parametrize(
    ("name", "options"),
    [(LLAMA, {"seq_len": 2048}), llama(num_hidden_layers=126)],
    ids=["8B", "126 layers"],
)
def test_large_models_are_within_a_twentieth_of_ideal(name: str, options: dict[str, Any]) -> None:
    model = resolve(name, Options(**options))
    report = gf.count(model.model, model.args, model.kwargs)
    flops = parts(report.graph.to_fx(), 4)
    assert sum(flops) == report.flops
    assert max(flops) <= 1.05 * report.flops / 4


def test_the_cut_across_which_the_fewest_bytes_pass() -> None:
    def run(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        narrow = x @ w
        return (narrow @ v) @ v.T

    # Products of 2 x 64 x 8, 2 x 8 x 64 and 2 x 64 x 8: either cut is as good for FLOPs.
    graph = make_fx(run)(torch.ones(2, 64), torch.ones(64, 8), torch.ones(8, 64))
    names = [n.name for n in gf.split_policy(2)(graph).graph.nodes]
    assert names.index("mm") < names.index("_pipe_split_default") < names.index("mm_1")


def test_branches_count_in_the_stage_of_their_node() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> Any:
            x = torch.cond(x.sum() > 0, lambda x, w: x @ w @ w, lambda x, w: x @ w, (x, w))
            return x @ w @ w

    x = torch.ones(8, 8)
    graph: Any = torch.export.export(Net(), (x, x)).module(check_guards=False)
    names = [n.name for n in gf.split_policy(2)(graph).graph.nodes]
    assert names.index("cond") < names.index("_pipe_split_default") < names.index("matmul")


def test_no_cut_before_the_last_use_of_what_is_written_in_place() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        base = x @ x
        view = base.view(-1)
        other = base @ x @ x
        view.relu_()
        return other + base

    module = make_fx(run)(torch.ones(8, 8))
    with pytest.raises(gf.ModelSpecError, match=r"can be cut in 0 places.*Ask for fewer"):
        gf.split_policy(2)(module)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(gf.ModelSpecError, match="can be cut in 0 places, too few for 2 stages"):
        pipeline(nn.Linear(2, 2), (torch.ones(2, 2),), split_policy=gf.split_policy(2))
    rows = {0: torch.export.Dim("rows", min=2)}
    open_: Any = torch.export.export(encoder(), (torch.ones(4, 5, 16),), dynamic_shapes=(rows,))
    with pytest.raises(gf.ModelSpecError, match="Trace the model without dynamic shapes"):
        gf.split_policy(2)(open_.module(check_guards=False))


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "pipeline_ranks.py"), str(tmp_path / "init")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "0:True" in result.stdout, result.stderr
    assert "1:True" in result.stdout, result.stderr
