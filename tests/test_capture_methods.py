"""Both methods of a capture: eager, and by torch.export."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from architectures import ARCHITECTURES
from torch import fx, nn

import graphflops as gf
from graphflops.core.module_tree import ModuleNode
from graphflops.errors import CaptureError, ModelSpecError

BUILDS_MASKS = {
    *("opt", "bert", "roberta", "distilbert", "albert", "electra", "t5", "bart"),
    *("vit", "deit", "dinov2", "clip", "wav2vec2", "whisper"),
    *("gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "phi3"),
    *("qwen2", "qwen3", "qwen3_moe"),
}
"""Architectures that build a mask only if they are exported: a real run drops one that hides
nothing, or leaves a causal one to the kernel."""
QUICK = ("llama", "mixtral", "mamba", "bert", "t5", "convnext", "clip")
X = torch.ones(2, 3)


def macs(node: ModuleNode) -> dict[str, gf.Dim]:
    return {part.path: part.own.macs for part in node.walk()}


@pytest.mark.parametrize("name", QUICK)
def test_both_methods_agree_on_a_few(name: str) -> None:
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - {*QUICK}))
def test_both_methods_agree(name: str) -> None:
    _check(name)


def _check(name: str) -> None:
    case = ARCHITECTURES[name]()
    eager = gf.count(case.model, kwargs=case.inputs, capture="eager")
    exported = gf.count(case.model, kwargs=case.inputs, capture="export")
    assert macs(eager.root) == macs(exported.root)
    assert (eager.total == exported.total) == (name not in BUILDS_MASKS)
    assert eager.capture.method.startswith("eager tracing")
    assert exported.capture.method.startswith("torch.export")


def test_symbolic_sizes() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    axes = {"input": {0: "B"}}
    eager, exported = (
        gf.count(model, (X,), dynamic_shapes=axes, capture=method) for method in ("eager", "export")
    )
    assert str(exported.flops) == "32*B"
    assert eager.total == exported.total


class Loop(nn.Module):
    """A loop, which eager tracing leaves to torch.export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results: tuple[torch.Tensor] = torch.ops.higher_order.while_loop(
            lambda x: x.sum() < 10, lambda x: (x + 1,), (x,), ()
        )
        return results[0]


def test_auto_names_what_was_used() -> None:
    assert gf.count(nn.Linear(3, 4), (X,)).capture.method == "eager tracing"
    assert gf.count(Loop(), (X,)).capture.method == "torch.export"
    with pytest.raises(CaptureError):
        gf.count(Loop(), (X,), capture="eager")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (fx.symbolic_trace(nn.Linear(3, 4)), "Linear"),
        (torch.export.export(nn.Linear(3, 4), (X,)), "ExportedProgram"),
        ("model.pt2", "file"),
    ],
)
def test_a_graph_is_captured_already(model: object, kind: str) -> None:
    message = f"capture='export' is a way of capturing an nn.Module, and a {kind} is captured"
    with pytest.raises(ModelSpecError, match=re.escape(message)):
        gf.count(model, (X,), capture="export")


EXPORTED_FIRST = """
import graphflops as gf, torch
from torch import nn

class Reads(nn.Module):
    def forward(self, x):
        if torch.compiler.is_exporting() or x.sum() > 0:
            return x[: min(x.shape[0], max(2, 1))] @ x.T

report = gf.count(Reads(), (torch.empty(3, 4, device="meta"),))
print(report.capture.method, report.macs, sep=": ")
"""


def test_a_model_that_is_told_it_is_exported_before_anything_was_exported() -> None:
    run = subprocess.run(
        [sys.executable, "-c", EXPORTED_FIRST],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout == f"eager tracing, told that it is exported: {2 * 4 * 3}\n"


class Split(nn.Module):
    """A forward that fails on any input but one of two columns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.split_with_sizes(x, [1, 1], dim=-1)[0]


def test_an_error_of_another_type_at_the_same_line_is_the_models() -> None:
    # PyTorch's shape rule raises a ValueError, its kernel a RuntimeError.
    with pytest.raises(RuntimeError, match="sum exactly"):
        Split()(X)
    with pytest.raises(gf.ForwardError, match="the forward of Split fails on these inputs"):
        gf.count(Split(), (X,))


def test_an_unknown_method() -> None:
    with pytest.raises(ModelSpecError, match=r"capture.*'jit'"):
        gf.count(nn.Linear(3, 4), (X,), capture="jit")  # type: ignore[arg-type]  # on purpose
