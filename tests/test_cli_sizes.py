"""Sizes that stay open, and generations, from the command line."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from commands import Run


def test_symbolic_sizes_give_formulas(run: Run) -> None:
    code, out, err = run("count", "hf:bert", "--set", "num_hidden_layers=1", "--symbolic", "batch")
    assert (code, err) == (0, "")
    assert "input_ids int64[B, 128]" in out
    assert re.search(r"pooler\.dense +589824\*B +1180416\*B", out)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("count", "hf:bert", "--symbolic", "width"), "no size 'width'. Known: batch, seq."),
        (("count", "timm:resnet18", "--symbolic", "seq"), "--seq-len does not apply|no tokens"),
        (("generate", "hf:vit", "--new-tokens", "3"), "no model of type 'vit' that continues"),
        (("generate", "hf:llama", "--new-tokens", "0"), "--new-tokens"),
        (
            ("generate", "hf:gpt2", "--new-tokens", "9", "--prompt-len", "1020"),
            "more than the 1024 positions",
        ),
        (("generate", "hf:llama@LlamaModel", "--new-tokens", "9"), "cannot generate"),
        (("generate", "hf:t5", "--new-tokens", "9", "--convention", "fvcor"), "fvcore"),
    ],
)
def test_bad_sizes(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.search(complaint, err)
    assert "Traceback" not in err


LITTLE = [
    *("--set", "num_hidden_layers=1", "--set", "hidden_size=64", "--set", "intermediate_size=96"),
    *("--set", "num_attention_heads=4", "--set", "num_key_value_heads=4"),
]


def test_generate_sums_prefill_and_steps(run: Run) -> None:
    call = ("generate", "hf:llama", *LITTLE, "--prompt-len", "7", "--new-tokens", "4")
    code, out, err = run(*call, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["sizes"] == {"B": 1, "P": 7, "K": 7, "M": 10, "N": 4}
    (decode,) = found["decode"]
    assert (decode["first_cached"], decode["last_cached"]) == (7, 9)
    assert found["totals"]["flops"] == found["prefill"]["flops"] + decode["total"]["flops"]
    code, out, _ = run(*call, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [int(row["flops"]) for row in rows if not row["path"]] == [found["totals"]["flops"]]
    code, out, _ = run(*call, "--compare-conventions", "calflops")
    assert code == 0
    assert "LlamaForCausalLM: exact and calflops" in out
    code, out, _ = run(*call, "--formula")
    assert code == 0
    assert "all N tokens" in out
    code, out, _ = run(*call)
    assert "(lm_head): Linear(" in out
    assert "1 x 7 prompt tokens, 4 new tokens each: 1 pass over the prompt, 3 steps" in out
