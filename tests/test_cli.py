"""The command line, run as a user runs it: exit codes, streams, formats, bad input."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from commands import Run
from torch import nn

from graphflops.render import data


def test_count_prints_totals_the_tree_and_coverage(run: Run) -> None:
    code, out, err = run("count", "models.py:tiny")
    assert (code, err) == (0, "")
    # 3 x 4 times 4 x 2: 24 MACs, and 6 bias additions.
    assert "MACs              24 MACs (1 MAC = 2 FLOPs)" in out
    assert "FLOPs             54 FLOPs (54)" in out
    assert "(linear): Linear(10 = 100% Params" in out
    assert "1 calls: 1 counted, 0 free, 0 decomposed, 0 unsupported" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "name", ["models.py:Tiny", "models.py:instance", "models.py:tiny", "models.py:keyword"]
)
def test_a_model_from_a_file_in_every_form(run: Run, name: str) -> None:
    code, out, err = run("count", name, "--input", "x=3x4", "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    jsonschema.validate(found, data.schema())
    assert found["totals"]["macs"] == 24
    assert found["model"] == {
        "name": "Tiny",
        "inputs": {"x": {"shape": [3, 4], "dtype": "float32"}},
    }


def test_other_forms_of_a_model(run: Run, tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(4, 2), (torch.zeros(3, 4),))
    torch.export.save(program, tmp_path / "linear.pt2")
    for name in ("linear.pt2", "models.py:stubborn"):
        code, _, err = run("count", name)
        assert (code, err) == (0, "")
    code, out, _ = run("count", "torch.nn:Identity", "--input", "input=3x4")
    assert code == 0
    assert "0 calls" in out


@pytest.mark.parametrize(
    ("flag", "start"), [("table", "Model  "), ("csv", "path,class,"), ("md", "|")]
)
def test_formats(run: Run, flag: str, start: str, tmp_path: Path) -> None:
    code, out, _ = run("count", "models.py:tiny", "--format", flag)
    assert code == 0
    assert out.startswith(start)
    code, nothing, _ = run(
        "count", "models.py:tiny", "--format", flag, "--output", str(tmp_path / "out")
    )
    assert (code, nothing) == (0, "")
    written = (tmp_path / "out").read_text()
    assert written.splitlines()[0] == out.splitlines()[0]


def test_ops_lists_calls_the_most_expensive_first(run: Run) -> None:
    options = ("--set", "num_hidden_layers=1", "--seq-len", "16", "--sort", "flops", "--top", "3")
    code, out, _ = run("ops", "hf:llama", *options, "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["module"] for row in rows} == {
        f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    assert all(int(row["macs"]) == 16 * 4096 * 11008 for row in rows)
    assert all(row["source_line"].startswith("transformers/models/llama/") for row in rows)
    for style, start in (("table", "  #"), ("json", "["), ("md", "|")):
        code, out, _ = run("ops", "models.py:tiny", "--format", style)
        assert code == 0
        assert out.startswith(start)


def test_options_reach_the_model(run: Run) -> None:
    options = ("--batch-size", "2", "--seq-len", "7", "--dtype", "bfloat16")
    small = ("--set", "num_hidden_layers=1", "--set", "hidden_size=24")
    code, out, _ = run("count", "hf:bert", *options, *small, "--format", "json", "--ops")
    assert code == 0
    found = json.loads(out)
    assert found["model"]["inputs"]["input_ids"] == {"shape": [2, 7], "dtype": "int64"}
    linear = next(op for op in found["ops"] if op["operator"] == "aten::linear")
    embedded = {"name": "input", "shape": [2, 7, 24], "dtype": "bfloat16", "producer": "dropout"}
    assert linear["inputs"][0] == embedded


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("bert", {"input_ids": [1, 128]}),
        ("t5", {"input_ids": [1, 128], "decoder_input_ids": [1, 128]}),
        ("vit", {"pixel_values": [1, 3, 224, 224]}),
        ("clip", {"input_ids": [1, 77], "pixel_values": [1, 3, 224, 224]}),
    ],
)
def test_inputs_are_made_from_the_config(
    run: Run, model: str, inputs: dict[str, list[int]]
) -> None:
    code, out, _ = run("count", f"hf:{model}", "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert {n: m["shape"] for n, m in found["model"]["inputs"].items()} == inputs
    assert found["coverage"]["complete"]


def test_flags_reach_a_model_of_timm(run: Run) -> None:
    options = ("--image-size", "64", "--batch-size", "2", "--set", "num_classes=10")
    code, out, err = run("count", "timm:resnet18", *options, "--format", "json", "--ops")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["model"]["inputs"] == {"x": {"shape": [2, 3, 64, 64], "dtype": "float32"}}
    assert found["ops"][-1]["outputs"][0]["shape"] == [2, 10]


def test_models_lists_names_that_match(run: Run) -> None:
    code, out, err = run("models", "resnet152*")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["timm:resnet152", "resnet"] in rows
    assert ["torchvision:resnet152", "classification"] in rows
    assert run("models", "hf:bert")[1].splitlines()[0].split() == ["hf:bert", "BertModel"]


def test_models_mentions_an_extra_that_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    code, out, err = run("models", "resnet152")
    assert code == 0
    assert "torchvision:resnet152" in out
    assert err == "graphflops: timm: names need timm. Run: pip install 'graphflops[timm]'\n"


def test_a_convention_prices_the_same_calls(run: Run) -> None:
    for command, extra in (("count", ()), ("ops", ()), ("explain", ("linear",))):
        out = {
            name: run(command, "models.py:tiny", *extra, "--convention", name)[1]
            for name in ("exact", "calflops", "fvcore")
        }
        assert len(set(out.values())) == 3
    code, found, err = run("count", "models.py:tiny", "--convention", "fvcore", "--format", "json")
    assert (code, err) == (0, "")
    totals = json.loads(found)["totals"]
    assert (totals["flops"], totals["macs"]) == (24, 24)


def test_reconcile_says_where_two_conventions_part(run: Run) -> None:
    code, out, err = run("count", "models.py:tiny", "--compare-conventions", "calflops")
    assert (code, err) == (0, "")
    # 3 x 2 bias additions that calflops leaves out.
    assert "difference -6 FLOPs" in out
    assert "exact: Linear layer" in out
    code, out, _ = run(
        "count", "models.py:tiny", "--compare-conventions", "fvcore", "--format", "json"
    )
    assert json.loads(out)["totals"]["flops_difference"] == 24 - 54
    code, out, _ = run(
        "count", "models.py:tiny", "--compare-conventions", "torch", "--format", "csv"
    )
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["module"], row["operator"], row["flops_difference"]) == (
        "linear",
        "aten::linear",
        "-6",
    )
    assert run("count", "models.py:tiny", "--compare-conventions", "torch", "--format", "md")[
        1
    ].count("|")


def test_conventions_are_listed_with_what_they_count(run: Run) -> None:
    code, out, err = run("conventions")
    assert (code, err) == (0, "")
    for part in ("exact", "torch", "calflops", "fvcore", "multiply-accumulate", "leaves out"):
        assert part in out


UNPRICED = """
import torch

class Custom(torch.nn.Module):
    def forward(self, x):
        return unpriced(x)

@torch.library.custom_op("test_cli::unpriced", mutates_args=())
def unpriced(x: torch.Tensor) -> torch.Tensor:
    return x.clone()

unpriced.register_fake(torch.empty_like)

def model(): return Custom(), (torch.zeros(4, 4),)
"""


def test_strict_fails_on_an_operator_without_a_price(run: Run, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(UNPRICED)
    code, out, err = run("count", "custom.py:model", "--strict")
    assert (code, out) == (1, "")
    assert "test_cli::unpriced x 1" in err
    code, out, err = run("count", "custom.py:model")
    assert (code, err) == (0, "")
    assert "at least" in out


def test_explain_says_formula_numbers_and_source(run: Run) -> None:
    code, out, err = run("explain", "models.py:tiny", "linear")
    assert (code, err) == (0, "")
    for part in (
        "aten::linear.default",
        "models.py:10",
        "input float32[3, 4]",
        "54 = A*C*(2*B + 1)",
        "24 = A*B*C",
        "MACs = numel(out) * K",
        "exact convention, graphflops.handlers.matmul",
    ):
        assert part in out
    assert run("explain", "models.py:tiny", "0")[1] == out
    code, out, err = run("explain", "models.py:tiny", "lineer")
    assert (code, out) == (2, "")
    assert "makes no call 'lineer'. Did you mean" in err


BAD_INPUT = {
    # arguments: what the sentence says
    ("count", "nonsense"): "is no model name. Give hf:TYPE",
    ("count", "missing.pt2"): "missing.pt2 does not exist",
    ("count", "garbage.pt2"): "garbage.pt2 is text, and no program written by torch.export.save",
    ("count", "missing.py:x"): "missing.py does not exist",
    ("count", "broken.py:x"): "No module named 'nowhere_to_be_found'",
    ("count", "no_such_package:x"): "No module named 'no_such_package'",
    ("count", "models.py:Tinny"): "has no 'Tinny'. Did you mean Tiny",
    ("count", "models.py:number"): "gives a int, not a model",
    ("count", "models.py:letters"): "gives a str, not a model",
    ("count", "models.py:broken"): "RuntimeError: out of luck",
    ("count", "models.py:Tiny"): "Tiny needs inputs: x. Give --input x=SHAPE",
    ("count", "models.py:picky"): "ValueError: I want four columns (at models.py:15: raise",
    ("count", "models.py:branchy"): "only data can give u0",
    ("count", "models.py:tiny", "--seq-len", "4"): "--seq-len does not apply",
    ("count", "models.py:tiny", "--input", "y=3x4"): "takes no input named 'y'. Known: x, scale",
    ("count", "models.py:tiny", "--input", "x"): "is not NAME=SHAPE[:DTYPE]",
    ("count", "models.py:tiny", "--input", "x=3x5"): "(at models.py:10: return self.linear(x))",
    ("count", "models.py:tiny", "--input", "x=3x4:int64"): "gets float32 and int64 tensors (at",
    ("count", "models.py:tiny", "--input", "x=3x4:floaty"): "'floaty' is not a dtype",
    ("count", "models.py:tiny", "--dtype", "int8"): "not a floating-point type",
    ("count", "hf:lama"): "Did you mean hf:llama",
    ("count", "resnet50"): "no model name. Did you mean timm:resnet50, torchvision:resnet50?",
    ("count", "timm:resnet18", "--seq-len", "4"): "--seq-len does not apply to a timm model",
    ("count", "timm:vit_tiny_patch16_224", "--input", "x=1x3x96x96"): "Input height (96)",
    ("count", "hf:bert", "--convention", "calflop"): "is no convention. Did you mean calflops?",
    (
        "count",
        "hf:bert",
        "--compare-conventions",
        "deepspeed",
    ): "is no convention. Known: exact, causal, torch",
    ("ops", "hf:bert", "--convention", "FVcore"): "Did you mean fvcore?",
    ("models", "resnet5O"): "Did you mean timm:resnet50",
    ("models", "hf:qqqqq"): "Give a part of a name, or a glob",
    ("count", "hf:missing/config.json"): "missing/config.json does not exist",
    ("count", "hf:untyped.json"): "has no 'model_type'",
    ("count", "hf:garbage.json"): "garbage.json is not JSON",
    ("count", "hf:list.json"): "holds no JSON object",
    ("count", "hf:bert", "--set", "num_layers=1"): "Did you mean num_hidden_layers",
    ("count", "hf:bert", "--set", "a.b=1"): "has no part 'a'",
    ("count", "hf:bert", "--set", "hidden_size=7"): "transformers cannot build 'bert'",
    ("count", "hf:bert", "--input", "pixels=1x2"): "takes no input named 'pixels'",
    ("count", "hf:bert", "--input", "input_ids=1x2x3"): "modeling_bert.py:",
    ("count", "hf:bert", "--input", "input_ids=1x2:float32"): "Long, Int",
    ("count", "hf:sam2_video"): "Give --input inference_session=SHAPE",
    ("count", "hf:bert", "--seq-len", "513"): "--seq-len 513 is longer than the 512 positions",
    ("count", "hf:llava", "--seq-len", "100"): "576 tokens of the prompt stand for its image",
    ("count", "hf:vit", "--image-size", "100"): "--image-size 100 is not a multiple of 16",
    ("count", "hf:whisper", "--audio-seconds", "31"): "Ask for at most 30",
    ("count", "hf:bert", "--image-size", "224"): "--image-size does not apply to BertModel",
    ("count", "hf:vit", "--seq-len", "8"): "--seq-len does not apply to ViTModel",
}


@pytest.mark.parametrize("arguments", BAD_INPUT, ids=" ".join)
def test_bad_input_is_one_sentence_and_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert BAD_INPUT[arguments] in err
    assert err.startswith("graphflops: ")
    assert "Traceback" not in err
    assert err.count("\n") == 1
    # It ends in a sentence, not in the middle of one.
    assert err.rstrip().endswith((".", "?"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("count", "hf:bert", "--format", "xml"),
        ("count", "hf:bert", "--seq-len", "0"),
        ("count", "hf:bert", "--set", "novalue"),
        ("count",),
        ("ops", "hf:bert", "--sort", "beauty"),
        ("fly",),
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: graphflops" in err
    assert "Traceback" not in err


def test_help_and_import_do_not_load_torch() -> None:
    script = (
        "import sys, graphflops.cli\n"
        "try: graphflops.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_python_m_graphflops() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphflops", "--help"], check=True, capture_output=True, text=True
    )
    assert "count" in done.stdout
