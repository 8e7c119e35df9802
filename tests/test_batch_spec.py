"""Specs of batches: what they ask for, and what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import Run
from hypothesis import given
from hypothesis import strategies as st

from graphflops.batch.item import Item, Mode
from graphflops.batch.spec import Spec, read_spec
from graphflops.errors import ModelSpecError

TOML = """
models = ["hf:bert", "timm:*"]
modes = ["count", "time", "generate"]
batch_size = [1, 8]
dtype = "bfloat16"
device = ["a100", "h100-sxm"]
new_tokens = 16
set = [{ num_hidden_layers = 2 }, {}]
"""
YAML = """
models: [hf:bert, "timm:*"]
modes: [count, time, generate]
batch_size: [1, 8]
dtype: bfloat16
device: [a100, h100-sxm]
new_tokens: 16
set: [{num_hidden_layers: 2}, {}]
"""


def _spec(tmp_path: Path, text: str, name: str = "spec.toml") -> Spec:
    path = tmp_path / name
    path.write_text(text)
    return read_spec(path)


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    assert _spec(tmp_path, TOML) == _spec(tmp_path, YAML, "spec.yaml")
    assert _spec(tmp_path, TOML) == _spec(tmp_path, YAML, "spec.yml")


def test_each_mode_takes_the_axes_that_it_depends_on(tmp_path: Path) -> None:
    items = _spec(tmp_path, TOML).items(["hf:bert"])
    # Two batch sizes and two configs; two devices, which only time depends on.
    assert [sum(item.mode is mode for item in items) for mode in Mode] == [4, 0, 4, 0, 8]
    assert {item.new_tokens for item in items if item.mode is Mode.GENERATE} == {16}
    assert {item.new_tokens for item in items if item.mode is not Mode.GENERATE} == {None}
    assert {item.device for item in items if item.mode is Mode.COUNT} == {None}
    assert {item.dtype for item in items} == {"bfloat16"}


def test_one_model_is_the_least_that_a_spec_says(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "models = 'hf:bert'")
    assert spec.items(spec.models) == (Item(model="hf:bert", convention="exact"),)


def test_two_names_of_a_device_are_one(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "models = 'hf:bert'\nmodes = 'time'\ndevice = ['A100', 'a100']")
    assert len(spec.items(spec.models)) == 1


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(SIZES, SIZES, st.lists(st.sampled_from(Mode), min_size=1, max_size=6))
def test_the_product_has_each_item_once(
    batch: list[int], length: list[int], modes: list[Mode]
) -> None:
    axes = {"batch_size": tuple(batch), "seq_len": tuple(length), "new_tokens": (2,)}
    spec = Spec(models=("a", "b"), modes=tuple(modes), axes=axes)
    items = spec.items(("a", "b", "a"))
    expected = 2 * len(set(modes)) * len(set(batch)) * len(set(length))
    assert len(items) == len({item.key for item in items}) == expected


INVALID = {
    "batchsize = 3\nmodels = 'hf:bert'": "batchsize means nothing. Did you mean batch_size",
    "modes = 'count'": "lacks models. Add what is missing.",
    "models = []": "models is an empty list. Give a value, or leave it out.",
    "models = 3": "models is 3. Give a text, or a list of texts.",
    "models = 'hf:bert'\nbatch_size = 0": "batch_size is 0. Give a whole number, 1 or more.",
    "models = 'hf:bert'\nbatch_size = true": "batch_size is True. Give a whole number",
    "models = 'hf:bert'\nseq_len = '9'": "seq_len is '9'. Give a whole number, 1 or more.",
    "models = 'hf:bert'\nmodes = 'trian'": "modes is 'trian'. Did you mean 'train'?",
    "models = 'hf:bert'\nconvention = 'exakt'": "'exakt' is no convention. Did you mean exact?",
    "models = 'hf:bert'\ndevice = 'h101'": "'h101' is no device known here. Did you mean",
    "models = 'hf:bert'\nset = 3": "set is 3. Give a table of config keys",
    "models = 'hf:bert'\nset = { a = 2020-01-01 }": "set holds what JSON cannot: Object of type date",
    "models = 'hf:bert'\nset = { a = nan }": "set holds what JSON cannot: Out of range float",
    "models = 'hf:bert'\nmodes = 'generate'": "needs a number of tokens. Add new_tokens.",
    "models = ": "is no TOML: Invalid value",
}


@pytest.mark.parametrize(("text", "said"), INVALID.items())
def test_a_spec_that_makes_no_sense(run: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "spec.toml").write_text(text)
    code, out, err = run("batch", "spec.toml", "--output", "results.jsonl")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "spec.toml" in err or "is no" in err
    assert said in err
    assert not (tmp_path / "results.jsonl").exists()


YAML_INVALID = {
    "models: [": "is no YAML",
    "- hf:bert": "holds no keys. Write e.g. models: hf:bert.",
    "1: 2": "holds no keys",
    "": "holds no keys",
}


@pytest.mark.parametrize(("text", "said"), YAML_INVALID.items())
def test_yaml_that_makes_no_sense(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ModelSpecError, match=said):
        _spec(tmp_path, text, "spec.yaml")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.toml", "cannot be read: No such file or directory"),
        ("nothing.yaml", "cannot be read: No such file or directory"),
        ("models.py", "models.py is no spec of a batch. Give a file in TOML or YAML"),
    ],
)
def test_a_file_that_is_no_spec(run: Run, name: str, said: str) -> None:
    code, _, err = run("batch", name, "--output", "results.jsonl")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_yaml_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ModelSpecError, match=r"pip install 'graphflops\[batch\]'"):
        _spec(tmp_path, YAML, "spec.yaml")
