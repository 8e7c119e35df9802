"""A command imports what it needs: no compiler, no process groups, and no torch to read a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import graphflops as gf
from graphflops.models import Options, resolve

HEAVY = ("torch._dynamo.eval_frame", "torch._inductor", "torch.onnx", "torch.distributed.tensor")
"""Modules that a count does without; of Dynamo's, the options and errors are imported."""
OTHERS = ("torch.distributed.fsdp", "torch.export._trace", "networkx", "scipy", "torchvision")
LISTED = "\nimport sys, json; json.dump(sorted(sys.modules), sys.__stderr__)"
COUNT = """
import torch, graphflops
from torch import nn
with torch.device("meta"):
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
    x = torch.empty(2, 4)
graphflops.count(model, (x,))
"""
COMMAND = """
import sys
from graphflops.cli import main
sys.argv = ["graphflops", *{arguments}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def imported_by(program: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", program + LISTED],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return set(json.loads(run.stderr.splitlines()[-1]))


def command(*arguments: str) -> str:
    return COMMAND.format(arguments=arguments)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "report.json"
    workload = resolve("hf:bert", Options(overrides={"num_hidden_layers": 1}))
    gf.save(gf.count(workload.model, workload.args, workload.kwargs), path)
    return path


@pytest.mark.parametrize("names", [("devices",), ("--help",), ("conventions",)])
def test_no_torch_is_imported(names: tuple[str, ...]) -> None:
    assert "torch" not in imported_by(command(*names))


def test_saved_reports_are_read_without_torch(report: Path) -> None:
    assert "torch" not in imported_by(command("diff", str(report), str(report)))


@pytest.mark.parametrize(
    "program",
    [
        COUNT,
        *(
            command("count", f"hf:{name}", "--set", f"{layers}=2")
            for name, layers in (
                ("llama", "num_hidden_layers"),
                ("bert", "num_hidden_layers"),
                ("t5", "num_layers"),
                ("mamba", "num_hidden_layers"),
            )
        ),
    ],
)
def test_a_count_imports_no_compiler(program: str) -> None:
    alone = imported_by("import torch")
    found = imported_by(program) - alone
    assert not found & {*HEAVY, *OTHERS}


def test_dynamo_that_a_model_imports_during_a_count_knows_torchs_own_functions() -> None:
    program = """
import builtins, torch, graphflops
from torch import nn

class Compiles(nn.Module):
    def forward(self, x):
        torch._dynamo.graph_break()
        return max(x.relu(), x.relu(), key=id)

assert graphflops.count(Compiles(), (torch.ones(2, 3),)).flops == 12
from torch._dynamo import trace_rules
assert id(torch.compiler.is_compiling) in map(id, trace_rules.get_torch_obj_rule_map())
compiled = torch.compile(lambda x: max(x.shape[0], 1) + x, backend="eager", fullgraph=True)
assert compiled(torch.ones(2)).tolist() == [3.0, 3.0]
"""
    assert "torch._dynamo.eval_frame" in imported_by(program)


def test_a_name_that_dynamo_lacks_is_an_attribute_error() -> None:
    program = """
import graphflops.capture, torch
from graphflops.capture.torch_internals.deferred_dynamo import DEFERRED
DEFERRED.defer()
assert torch._dynamo.config.cache_size_limit
assert not DEFERRED.is_loaded()
assert not hasattr(torch._dynamo, "nothing")
assert DEFERRED.is_loaded() and torch._dynamo.disable.__module__ == "torch._dynamo.decorators"
"""
    imported_by(program)
