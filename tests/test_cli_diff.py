"""``graphflops diff`` and ``check``: forms of models, thresholds, formats, exit codes, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import Run
from torch import nn

import graphflops as gf

MODEL = """
import torch
from torch import nn
def model(): return nn.Linear(4, {width}), (torch.zeros(3, 4),)
"""
NARROW, WIDE, HUGE = "narrow.py:model", "wide.py:model", "huge.py:model"


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Run:
    # 3 rows: 12 MACs, 3 bias additions and 5 parameters for each column.
    for name, width in (("narrow", 4), ("wide", 5), ("huge", 8)):
        (tmp_path / f"{name}.py").write_text(MODEL.format(width=width))
    return run


def _flat(text: str) -> str:
    """Return text with single spaces, so that columns may be of any width."""
    return " ".join(text.split())


def test_two_models(here: Run) -> None:
    code, out, err = here("diff", NARROW, WIDE)
    assert (code, err) == (0, "")
    assert out.startswith("narrow.py:model -> wide.py:model: forward pass, exact convention")
    # 27 FLOPs a column: 2 x 12 and 3.
    assert "FLOPs 108 135 +27 +25%" in _flat(out)
    assert "aten::linear.default 3x4, 4x4, 4 -> 3x4 => 3x4, 5x4, 5 -> 3x5" in _flat(out)
    code, out, _ = here("diff", NARROW, NARROW)
    assert code == 0
    assert out.endswith("There is no difference.\n")


def test_saved_reports(here: Run, tmp_path: Path) -> None:
    gf.save(gf.count(nn.Linear(4, 4), (torch.zeros(3, 4),)), tmp_path / "before.json")
    gf.save(gf.count_training(nn.Linear(4, 4), (torch.zeros(3, 4),)), tmp_path / "step.json")
    code, out, _ = here("diff", "before.json", WIDE)
    assert code == 0
    assert "108 135" in _flat(out)
    code, out, _ = here("diff", "before.json", "before.json")
    assert "There is no difference." in out
    code, out, err = here("diff", "before.json", NARROW, "--convention", "fvcore")
    assert (code, out) == (2, "")
    assert "different conventions: exact and fvcore. Count both in one convention." in err
    code, out, err = here("diff", "before.json", "step.json")
    assert (code, out) == (2, "")
    assert "different kinds: forward pass and training step" in err


THRESHOLDS = {
    # 108 FLOPs become 135, 48 MACs 60, 20 parameters 25
    "flops>25%": None,
    "flops>+25%": None,
    "flops>=25%": "flops changes by +27 = +25%, from 108 to 135: fails flops>=25%.",
    "flops > +0.5%": "fails flops > +0.5%",
    "macs>12": None,
    "macs>=12 MACs": "macs changes by +12 = +25%, from 48 to 60: fails macs>=12 MACs.",
    "macs>0.011K": "fails macs>0.011K",
    "params>4.5": "params changes by +5 = +25%, from 20 to 25",
    "bytes>1KiB": None,
    "transcendentals>0": None,
    "transcendentals>=0%": "transcendentals changes by +0, from 0 to 0: fails transcendentals>=0%",
    "unsupported>0": None,
}


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_thresholds(here: Run, threshold: str) -> None:
    code, out, err = here("diff", NARROW, WIDE, "--fail-on", threshold)
    failure = THRESHOLDS[threshold]
    assert code == (0 if failure is None else 1)
    assert "wide.py:model: forward pass" in out
    assert (failure or "") in err
    assert err.count("\n") == (failure is not None)


def test_every_threshold_that_fails_is_named(here: Run) -> None:
    checks = [("--fail-on", figure) for figure in ("flops>0", "macs>1G", "params>=5")]
    code, _, err = here("diff", NARROW, WIDE, *(word for check in checks for word in check))
    assert code == 1
    assert err.count("\n") == 2
    assert "flops changes" in err
    assert "params changes" in err
    # What falls does not fail.
    assert here("diff", WIDE, NARROW, "--fail-on", "flops>0%")[0] == 0
    assert here("diff", WIDE, NARROW, "--fail-on", "flops>-30%")[0] == 1


def test_github_writes_to_the_summary(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    code, out, _ = here("diff", NARROW, WIDE, "--format", "github")
    assert code == 0
    assert out == here("diff", NARROW, WIDE, "--format", "markdown")[1]
    assert "| FLOPs | 108 | 135 |" in _flat(out)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, nothing, err = here("diff", NARROW, WIDE, "--format", "github", "--fail-on", "macs>0")
    assert (code, nothing) == (1, "")
    assert "fails macs>0" in err
    assert summary.read_text() == f"before\n{out}\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, nothing, err = here("diff", NARROW, WIDE, "--format", "github")
    assert (code, nothing) == (2, "")
    assert "cannot be written: Is a directory." in err


BUDGET = """
["narrow.py:model"]
macs = "0.048 KMAC"

[budget]
flops = 120
unsupported = 0

[Linear]
params = "20"
"""


def test_a_budget(here: Run, tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text(BUDGET)
    code, out, err = here("check", NARROW, "--budget", "budget.toml")
    assert (code, err) == (0, "")
    assert out.startswith("narrow.py:model: 4 limits, all kept")
    assert "ok (model) macs 48 48 0" in _flat(out)
    code, out, err = here("check", WIDE, "--budget", "budget.toml")
    assert code == 1
    assert out.startswith("wide.py:model: 3 limits, 2 exceeded")
    assert "EXCEEDED (model) flops 120 135 -15" in _flat(out)
    assert "flops of the model is 135, 15 over its limit of 120." in err
    code, out, _ = here("check", WIDE, "--budget", "budget.toml", "--format", "json")
    assert code == 1
    rows = json.loads(out)["limits"]
    assert [(row["figure"], row["margin"], row["ok"]) for row in rows] == [
        ("flops", -15, False),
        ("unsupported", 0, True),
        ("params", -5, False),
    ]


def test_a_pattern_stands_for_names_of_one_level() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    report = gf.count(nn.Sequential(inner, nn.Linear(4, 4)), (torch.zeros(3, 4),))
    for pattern, paths in {"*": ["0", "1"], "*.*": ["0.0", "0.1"], "0.[1-9]": ["0.1"]}.items():
        check = gf.check(report, {"modules": {pattern: {"macs": 100}}})
        assert [limit.path for limit in check.limits] == paths


BAD_INPUT = {
    ("diff", NARROW, "missing.json"): "missing.json cannot be read: No such file",
    ("diff", "list.json", NARROW): "list.json is no saved report",
    ("diff", "garbage.json", NARROW): "garbage.json is no JSON",
    ("diff", NARROW, "nonsense"): "'nonsense' is no model name",
    ("diff", "hf:bert", NARROW): "input input_ids is [1, 128] in the first and input",
    ("diff", NARROW, WIDE, "--fail-on", "flops"): "'flops' is no threshold. Write a figure",
    ("diff", NARROW, WIDE, "--fail-on", "flops<1%"): "'flops<1%' is no threshold",
    ("diff", NARROW, WIDE, "--fail-on", "flop>1%"): "figure is 'flop'. Did you mean 'flops'",
    ("diff", NARROW, WIDE, "--fail-on", "flops>1 GMAC"): "is in no unit of flops: 'GMAC'",
    ("diff", NARROW, WIDE, "--fail-on", "flops>many"): "flops = 'many' is no number",
    ("diff", NARROW, WIDE, "--seq-len", "4"): "--seq-len does not apply",
    ("check", NARROW, "--budget", "missing.toml"): "missing.toml cannot be read: No such file",
    ("check", NARROW, "--budget", "broken.toml"): "broken.toml is no TOML",
    (
        "check",
        NARROW,
        "--budget",
        "other.toml",
    ): "no limits for narrow.py:model. Its tables: [hf:t5]",
    ("check", NARROW, "--budget", "key.toml"): "budget has no figure 'flop'. Did you mean flops?",
    ("check", NARROW, "--budget", "unit.toml"): "flops = '3 parsecs' is in no unit of flops",
    ("check", NARROW, "--budget", "pattern.toml"): "no module has a path that matches 'layers.*'",
    ("check", NARROW, "--budget", "top.toml"): "flops is 3. Give a table of limits",
    ("check", NARROW, "--budget", "negative.toml"): "params = -1 in budget is below 0",
    ("check", NARROW, "--budget", "empty.toml"): "the budget has no limits",
}
FILES = {
    "broken": "[",
    "other": '["hf:t5"]\nflops = 1',
    "key": "[budget]\nflop = 1",
    "unit": '[budget]\nflops = "3 parsecs"',
    "pattern": '[modules."layers.*"]\nflops = 1',
    "top": "flops = 3",
    "negative": "[budget]\nparams = -1",
    "empty": "[budget]",
}


@pytest.mark.parametrize("arguments", BAD_INPUT, ids=" ".join)
def test_bad_input_is_one_sentence(here: Run, arguments: tuple[str, ...], tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / f"{name}.toml").write_text(text)
    code, out, err = here(*arguments)
    assert (code, out) == (2, "")
    assert BAD_INPUT[arguments] in err
    assert err.startswith("graphflops: ")
    assert err.count("\n") == 1
    assert err.rstrip().endswith((".", "?"))


def test_flags_of_a_model_do_not_apply_to_saved_reports(here: Run, tmp_path: Path) -> None:
    gf.save(gf.count(nn.Linear(4, 4), (torch.zeros(3, 4),)), tmp_path / "a.json")
    for words in (("diff", "a.json", "a.json"), ("check", "a.json", "--budget", "b.toml")):
        (tmp_path / "b.toml").write_text("[budget]\nflops = 1000")
        assert here(*words)[0] == 0
        code, _, err = here(*words, "--batch-size", "2")
        assert code == 2
        assert "--batch-size does not apply to a saved report" in err


UNPRICED = """
import torch

class Custom(torch.nn.Module):
    def forward(self, x):
        return unpriced(x)

@torch.library.custom_op("test_cli_diff::unpriced", mutates_args=())
def unpriced(x: torch.Tensor) -> torch.Tensor:
    return x.clone()

unpriced.register_fake(torch.empty_like)

def model(): return Custom(), (torch.zeros(3, 4),)
"""


def test_calls_without_a_price_are_said(here: Run, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(UNPRICED)
    code, out, err = here("diff", NARROW, "custom.py:model", "--fail-on", "flops>0")
    assert code == 0
    assert "unsupported calls 0 1 +1" in _flat(out)
    said = "graphflops: custom.py:model: calls have no price: test_cli_diff::unpriced x 1. Its "
    assert err.startswith(said)
    assert here("diff", NARROW, "custom.py:model", "--fail-on", "unsupported>0")[0] == 1
    (tmp_path / "budget.toml").write_text("[budget]\nunsupported = 0")
    code, _, err = here("check", "custom.py:model", "--budget", "budget.toml")
    assert code == 1
    assert err.startswith(said)
