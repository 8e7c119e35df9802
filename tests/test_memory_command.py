"""``graphflops memory`` as it is typed, and the flags that it shares with ``time``."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Run
from test_generate_loop import TEXT, built

import graphflops as gf

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(64, 64, bias=False))
    def forward(self, x):
        return self.rest(self.first(x))

class Plain(nn.Module):
    def forward(self, x):
        return x + 1

class Chosen(nn.Module):
    def forward(self, x):
        return x.new_zeros(x.reshape(-1).to(torch.int64).tolist()[0]) + 1

def net(): return Net(), (torch.zeros(8, 64),)
def plain(): return Plain(), (torch.zeros(8, 64),)
def chosen(): return Chosen(), (torch.zeros(8, 64),)
"""
WEIGHT, ROWS = 64 * 64 * 4, 8 * 64 * 4
LLAMA = (
    *("hf:llama", "--set", "num_hidden_layers=2", "--set", "hidden_size=64"),
    *("--set", "intermediate_size=128", "--set", "num_attention_heads=4"),
    *("--set", "num_key_value_heads=4", "--set", "vocab_size=100"),
)


@pytest.fixture
def net(run: Run) -> Run:
    Path("nets.py").write_text(MODELS)
    return run


def test_the_peak_and_what_is_alive(net: Run) -> None:
    code, out, _ = net("memory", "nets.py:net", "--depth", "2")
    assert code == 0
    # Both weights, the input and all three results: the caller of `rest` holds the first one.
    assert f"Peak              {(2 * WEIGHT + 4 * ROWS) / 1000:.2f} KB" in out
    assert f"Freed at last use {(2 * WEIGHT + 3 * ROWS) / 1000:.2f} KB" in out
    assert "  reached         in call 2 of 3, forward: aten::linear in rest.1 (nets.py:" in out
    assert "  parameters      32.77 KB, 80.0%" in out
    assert "gradients" not in out
    rows = {line.split()[0]: line.split()[1:3] for line in out.splitlines() if "%" in line}
    assert rows["rest"] == ["20.48", "KB"]
    assert rows["rest.1"] == ["18.43", "KB"]
    assert rows["aten::linear"] == ["4.1", "KB"]
    (first,) = [line for line in out.splitlines() if line.startswith("first.weight")]
    assert first.split() == ["first.weight", "parameters", "16.38", "KB", "64x64", "float32"]
    (relu,) = [line for line in out.splitlines() if line.startswith("relu ")]
    assert relu.split()[1:8] == [
        *("activations", "2.05", "KB", "8x64", "float32", "aten::relu", "rest.0"),
    ]


def test_data(net: Run) -> None:
    _, out, _ = net("memory", "nets.py:net", "--train", "--optimizer", "sgd", "--format", "json")
    found = json.loads(out)
    assert found["kind"] == "training step"
    assert sum(found["categories"].values()) == found["peak"] == found["modules"][""]
    assert sum(tensor["bytes"] for tensor in found["tensors"]) == found["peak"]
    assert max(point["peak"] for point in found["timeline"]) == found["peak"]
    assert found["categories"]["gradients"] > 0
    assert found["last_use_peak"] <= found["peak"]
    shapes = {tensor["name"]: tensor["shape"] for tensor in found["tensors"]}
    assert shapes["first.weight"] == [64, 64]


def test_a_saved_report(net: Run) -> None:
    x = torch.empty(8, 64)
    gf.save(gf.count(torch.nn.Linear(64, 64), (x,)), "saved.json")
    gf.save(gf.count_training(torch.nn.Linear(64, 64), (x,), optimizer="adamw"), "step.json")
    assert "Peak              20.74 KB (20,736 bytes)" in net("memory", "saved.json")[1]
    code, out, _ = net("memory", "step.json")
    assert code == 0
    assert "  optimizer       33.29 KB" in out


def test_markdown(net: Run) -> None:
    _, out, _ = net("memory", "nets.py:net", "--format", "markdown")
    assert "| module   |" in out


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training(net: Run, optimizer: str) -> None:
    _, out, _ = net("memory", "nets.py:net", "--train", "--optimizer", optimizer)
    assert ("  optimizer       65.54 KB" in out) is (optimizer == "adamw")
    assert "  gradients       " in out


def test_generation(run: Run) -> None:
    options = ("--generate", "--prompt-len", "8", "--new-tokens", "5")
    code, out, _ = run("memory", *LLAMA, *options)
    assert code == 0
    assert "generation, " in out
    code, out, _ = run("time", *LLAMA, *options)
    assert code == 0
    assert "prefill" in out
    assert "decode" in out


def test_time_of_a_training_step(net: Run) -> None:
    code, out, _ = net("time", "nets.py:net", "--train", "--optimizer", "adamw")
    assert code == 0
    passes = [line.partition(" ")[0] for line in out.splitlines()]
    assert {"forward", "backward", "optimizer"} <= set(passes)


def test_a_snapshot(net: Run, tmp_path: Path) -> None:
    code, _, _ = net("memory", "nets.py:net", "--snapshot", "net.pickle")
    assert code == 0
    found = pickle.loads((tmp_path / "net.pickle").read_bytes())  # noqa: S301 - written above
    assert found["device_traces"][0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nets.py:plain", "--train"], "Plain has no parameters: there is nothing to train"),
        (["nets.py:net", "--train", "--optimizer", "adamv"], "Did you mean adam or adamw"),
        (["nets.py:chosen"], "are symbols: bind them by subs()"),
        (["nets.py:net", "--optimizer", "sgd"], "--optimizer is an option of --train"),
        (["nets.py:net", "--eval"], "--eval is an option of --train"),
        (["nets.py:net", "--cache", "static"], "--cache is an option of --generate"),
        (["nets.py:net", "--new-tokens", "3"], "--new-tokens is an option of --generate"),
        (["nets.py:net", "--generate"], "Add --new-tokens N"),
        (["nets.py:net", "--train", "--generate"], "Give one of them"),
        (["nets.py:net", "--generate", "--new-tokens", "3", "--assume", "u0=1"], "Leave it out"),
        (["saved.json"], "Count the nn.Module"),
        (["saved.json", "--train"], "Leave out --train"),
        (["nets.py:net", "--plot", "net.gif"], "Let it end in .svg or .png"),
        (["nets.py:net", "--snapshot", "nowhere/net.pickle"], "there is no folder nowhere"),
        (["nets.py:net", "--snapshot", "."], ". is a folder"),
        (["nets.py:net", "--context", "5"], "add --allocator"),
    ],
)
def test_bad_input(net: Run, arguments: list[str], sentence: str) -> None:
    if "saved.json" in arguments:
        exported = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
        gf.save(gf.count(exported), "saved.json")
    code, _, err = net("memory", *arguments)
    assert code == 2
    assert sentence in " ".join(err.replace("│", " ").split())


def peak(run: Run, *arguments: str) -> dict[str, Any]:
    code, out, _ = run("memory", *arguments, "--format", "json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_largest_batch(run: Run) -> None:
    model = (*LLAMA, "--seq-len", "16")
    found = peak(run, *model, "--fits", "5MB")
    (largest,) = found["largest"].values()
    assert found["peak"] == peak(run, *model, "--batch-size", str(largest))["peak"] <= 5 * 10**6
    assert peak(run, *model, "--batch-size", str(largest + 1))["peak"] > 5 * 10**6
    code, out, _ = run("memory", *model, "--symbolic", "batch")
    assert (code, out) == (0, f"Peak in closed form {found['peak_expression']} bytes\n")


def test_what_fits_of_a_saved_report(net: Run) -> None:
    x = torch.empty(8, 64)
    gf.save(gf.count(torch.nn.ReLU(), (x,), dynamic_shapes=({0: "B"},)), "open.json")
    assert peak(net, "open.json", "--fits", "1MB")["largest"] == {"B": 10**6 // (2 * 64 * 4)}
    gf.save(gf.count(torch.nn.ReLU(), (x,)), "closed.json")
    code, _, err = net("memory", "closed.json", "--fits", "1MB")
    assert (code, "is no function of 'B'" in " ".join(err.replace("│", " ").split())) == (2, True)
    inputs = {"input_ids": torch.zeros(1, 8, dtype=torch.int64)}
    generation = gf.count_generation(built("LlamaForCausalLM", **TEXT), inputs, max_new_tokens=3)
    gf.save(generation, "generation.json")
    found = peak(net, "generation.json", "--fits", "1GB")
    assert (found["peak"], {*found["largest"]}) == (generation.memory.peak, {"B", "P", "N"})


@pytest.mark.parametrize("extra", [(), ("--fits", "1GB")])
def test_the_allocator(run: Run, extra: tuple[str, ...]) -> None:
    arguments = ("--allocator", "cuda", "--context", "1000000", "--train", "--optimizer", "sgd")
    found = peak(run, *LLAMA, "--seq-len", "16", *arguments, *extra)
    assert found["peak"] <= found["allocated"] <= found["reserved"]
    assert found["process"] == found["reserved"] + 10**6


def test_symbolic_training(run: Run) -> None:
    model = (*LLAMA, "--seq-len", "16")
    code, out, _ = run("train", *model, "--symbolic", "batch")
    assert code == 0
    _, once, _ = run("train", *model, "--batch-size", "1", "--format", "json")
    macs = json.loads(once)["phases"]["forward"]["macs"]
    assert f"{macs}*B" in out
    code, out, _ = run("time", *model, "--train", "--symbolic", "batch")
    assert (code, "B" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--generate", "--new-tokens", "3", "--symbolic", "batch"), "Leave out --symbolic"),
        (("--fits", "h101"), "'h101' is no device known here"),
        (("--fits", "3kB"), "with B = 1 the peak is 0.00 GB"),
    ],
)
def test_what_cannot_fit(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    code, _, err = run("memory", *LLAMA, *arguments)
    assert code == 2
    assert sentence in " ".join(err.replace("│", " ").split())


def test_sizes_of_a_file_are_its_own(net: Run) -> None:
    code, _, err = net("memory", "nets.py:net", "--fits", "1GB")
    assert code == 2
    assert "give dynamic_shapes in Python" in " ".join(err.split())
