"""``graphflops train`` as it is typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from commands import Run

LOSSES = """
def halved(output): return output.sum() / 2
def whole(output): return output
number = 3
"""


def test_a_model_of_ones_own(run: Run) -> None:
    code, out, _ = run("train", "models.py:tiny")
    assert code == 0
    # 3 x 4 x 2 MACs forward, and for the weight; the input has no gradient.
    assert "Forward           24 MACs" in out
    assert "Backward          24 MACs" in out
    assert "  input gradient  0 MACs" in out
    assert (
        "(linear): Linear(10 Params, forward 54 FLOPs, backward 52 FLOPs (input 0, weights 52)"
        in out
    )
    assert "(loss): Loss(" in out
    assert "Recomputed        nothing" in out


def test_formats(run: Run) -> None:
    _, out, _ = run("train", "models.py:tiny", "--format", "json", "--ops", "--optimizer", "sgd")
    found = json.loads(out)
    assert found["phases"]["forward"]["macs"] == found["phases"]["backward"]["macs"] == 24
    assert found["model_flops"] == found["hardware_flops"] == found["totals"]["flops"]
    assert found["optimizer"] == {
        **found["optimizer"],
        "name": "sgd",
        "flops": 2 * 10,
        "state_bytes": 0,
    }
    assert found["unattributed"]["flops"] == 0
    assert {op["phase"] for op in found["ops"]} == {"forward", "backward"}
    assert any(op["is_weight_gradient"] for op in found["ops"])
    assert found["utilization"] is None
    _, out, _ = run("train", "models.py:tiny", "--format", "csv")
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(out))}
    assert rows["linear"]["weight_gradient_macs"] == "24"
    for style in ("table", "md"):
        _, out, _ = run("train", "models.py:tiny", "--format", style)
        assert "weight gradient" in out


def test_steps_multiply(run: Run) -> None:
    arguments = ("train", "models.py:tiny", "--format", "json", "--optimizer", "adamw")
    _, once, _ = run(*arguments)
    _, often, _ = run(*arguments, "--gradient-accumulation-steps", "4", "--steps", "3")
    one, many = json.loads(once), json.loads(often)
    assert many["model_flops"] == 12 * one["model_flops"]
    # Three steps, and before each three sums of 10 gradients.
    assert many["optimizer"]["flops"] == 3 * (one["optimizer"]["flops"] + 3 * 10)
    assert many["phases"] == one["phases"]


def test_utilization(run: Run) -> None:
    options = ("--step-time", "1", "--accelerator", "a100", "--accelerators", "2")
    code, out, _ = run("train", "models.py:tiny", *options)
    assert code == 0
    assert "of 39 TFLOP/s a100 (float32)" in out
    _, out, _ = run("train", "models.py:tiny", *options, "--format", "json")
    found = json.loads(out)
    share = found["model_flops"] / (2 * 19.5e12)
    assert found["utilization"]["mfu"] == pytest.approx(share)


def test_frozen_by_pattern(run: Run) -> None:
    _, out, _ = run("train", "models.py:tiny", "--freeze", "*.weight")
    assert "8 of them frozen" in out
    assert "Backward          0 MACs" in out
    _, out, _ = run("train", "models.py:tiny", "--train-only", "*.weight")
    assert "2 of them frozen" in out


def test_a_loss_of_ones_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(LOSSES)
    code, out, _ = run("train", "models.py:tiny", "--loss", "losses.py:halved")
    assert code == 0
    assert "Loss              halved(output)" in out


def test_checkpoints_and_labels(run: Run) -> None:
    model = ("hf:llama", "--set", "num_hidden_layers=2", "--seq-len", "16")
    code, out, _ = run("train", *model, "--checkpoint", "--depth", "1")
    assert code == 0
    assert "Recomputed        nothing" not in out
    causal = ("hf:llama@LlamaForCausalLM", *model[1:], "--input", "labels=1x16:int64")
    _, out, _ = run("train", *causal, "--depth", "1")
    assert "Loss              the model's own loss" in out


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (
        ("models.py:tiny", "--freeze", "nothing*"),
        "--freeze 'nothing*' matches no parameter of Tiny",
    ),
    (("models.py:tiny", "--freeze", "*"), "all 2 parameters of Tiny are frozen"),
    (("models.py:tiny", "--checkpoint"), "Tiny offers no checkpoints of its own"),
    (("models.py:tiny", "--optimizer", "lion"), "'lion' is no optimizer known here"),
    (("models.py:tiny", "--step-time", "1", "--accelerator", "h300"), "'h300' is no device"),
    (("models.py:tiny", "--convention", "fvcore"), "fvcore has no backward of its own"),
    (("models.py:tiny", "--loss", "losses.py:number"), "loss is of type int, no function"),
    (("models.py:tiny", "--loss", "losses.py:nothing"), "losses.py has no 'nothing'"),
    (("models.py:tiny", "--loss", "losses.py:whole"), "of shape [3, 2], no scalar"),
    (("models.py:tiny", "--loss", "losses"), "'losses' names nothing in Python"),
    (("models.py:picky",), "Picky has no parameters: there is nothing to train"),
    (("models.py:letters",), "str"),
    (("hf:llama", "--seq-len", "0"), "Invalid value for '--seq-len'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_refusals(run: Run, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "losses.py").write_text(LOSSES)
    code, out, err = run("train", *arguments)
    assert code == 2
    assert out == ""
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err


def test_a_graph_cannot_be_trained(run: Run, tmp_path: Path) -> None:
    import torch

    program = torch.export.export(torch.nn.Linear(2, 2), (torch.empty(1, 2),))
    torch.export.save(program, tmp_path / "linear.pt2")
    code, _, err = run("train", "linear.pt2")
    assert code == 2
    assert "is an exported graph, which autograd cannot run" in " ".join(err.split())
