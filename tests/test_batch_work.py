"""The work of an item: figures as the commands have them, in records that follow their schema."""

from __future__ import annotations

import json
import sys
from typing import Any

import jsonschema
import pytest
from commands import Run

from graphflops.batch.dask_cluster import DaskCluster
from graphflops.batch.executor import Limits
from graphflops.batch.failures import Stage, failure_of, lost_process
from graphflops.batch.item import Item, Mode
from graphflops.batch.local import LocalProcesses
from graphflops.batch.record import schema
from graphflops.batch.work import count_item, match_names
from graphflops.errors import (
    BatchError,
    CaptureError,
    ForwardError,
    HandlerError,
    InputError,
    ModelNameError,
    ModelSpecError,
)

SIZES: dict[str, Any] = {"batch_size": 2, "seq_len": 9, "overrides": {"n_layer": 1}}
FLAGS = ("--batch-size", "2", "--seq-len", "9", "--set", "n_layer=1")


def _record(mode: Mode, model: str = "hf:gpt2", **axes: Any) -> dict[str, Any]:
    item = Item(model=model, mode=mode, **(SIZES | axes))
    row = json.loads(json.dumps(count_item(item)))
    jsonschema.validate(row, schema())
    assert row["status"] == "ok", row["failure"]
    assert row["item"] == item.to_dict()
    return dict(row)


def _printed(run: Run, *arguments: str) -> dict[str, Any]:
    command, *options = arguments
    code, out, _ = run(command, "hf:gpt2", *FLAGS, *options, "--format", "json")
    assert code == 0
    return dict(json.loads(out))


def test_a_count_is_that_of_the_command(run: Run) -> None:
    row, printed = _record(Mode.COUNT, convention="exact"), _printed(run, "count")
    assert row["totals"] == printed["totals"]
    assert row["inputs"] == printed["model"]["inputs"]
    assert row["calls"] == printed["coverage"]["calls"]
    assert row["environment"] == printed["environment"]


def test_a_training_step_is_that_of_the_command(run: Run) -> None:
    row, printed = _record(Mode.TRAIN, convention="exact"), _printed(run, "train")
    assert row["totals"] == printed["totals"]
    assert row["training"] == {"loss": printed["loss"], **printed["phases"]}


def test_a_generation_is_that_of_the_command(run: Run) -> None:
    row = _record(Mode.GENERATE, convention="exact", new_tokens=5)
    printed = _printed(run, "generate", "--new-tokens", "5")
    assert row["totals"] == printed["totals"]
    generation = row["generation"]
    assert generation["prefill"] == printed["prefill"]
    decoded = sum(segment["total"]["flops"] for segment in printed["decode"])
    assert generation["decode"]["flops"] == decoded
    assert generation["prompt_tokens"] == 9
    # Keys and values of one layer of width 768, in float32, for 2 x (9 + 5 - 1) tokens.
    assert generation["kv_cache_bytes"] == 2 * 768 * 4 * 2 * 13


def test_memory_is_that_of_the_command(run: Run) -> None:
    row, printed = _record(Mode.MEMORY), _printed(run, "memory")
    for key in ("peak", "last_use_peak", "categories"):
        assert row["memory"][key] == printed[key]


def test_time_is_that_of_the_command(run: Run) -> None:
    row = _record(Mode.TIME, device="a100", convention="exact", dtype="bfloat16")
    printed = _printed(run, "time", "--device", "a100", "--dtype", "bfloat16")
    assert row["time"] == {key: printed[key] for key in ("bound", "expected")}


def test_a_convention_prices_it() -> None:
    exact, fvcore = (_record(Mode.COUNT, convention=name)["totals"] for name in ("exact", "fvcore"))
    assert fvcore["macs"] <= exact["macs"]
    assert fvcore["flops"] < exact["flops"]


@pytest.mark.parametrize(
    ("model", "axes", "failure"),
    [
        ("timm:resnet18", {"seq_len": 4}, "inputs"),
        ("timm:resnet18", {"overrides": {"nonsense": 1}}, "build"),
        ("hf:gpt2", {"overrides": {"n_layers": 1}}, "build"),
        ("hf:gpt2", {"seq_len": 100_000}, "inputs"),
        ("hf:gpt2", {"dtype": "int8"}, "inputs"),
        ("hf:gpt2", {"mode": Mode.TRAIN, "convention": "fvcore"}, "inputs"),
        ("hf:gpt2", {"mode": Mode.TIME, "device": "nothing"}, "inputs"),
        ("hf:vit", {"image_size": 225}, "inputs"),
        ("hf:vit", {"mode": Mode.GENERATE, "new_tokens": 2}, "name"),
        ("hf:bert@Nothing", {}, "name"),
        ("hf:missing/config.json", {}, "name"),
    ],
)
def test_the_class_of_a_failure_is_where_it_happens(
    model: str, axes: dict[str, Any], failure: str
) -> None:
    row = count_item(Item(model=model, **({"convention": "exact"} | axes)))
    jsonschema.validate(row, schema())
    assert (row["status"], row["totals"]) == ("failed", None)
    assert row["failure"]["class"] == failure, row["failure"]
    assert "\n" not in row["failure"]["message"]


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "stage", "failure"),
    [
        (ModelNameError("no"), Stage.BUILD, "name"),
        (InputError("no"), Stage.BUILD, "inputs"),
        (ModelSpecError("no"), Stage.BUILD, "build"),
        (ValueError("no"), Stage.BUILD, "build"),
        (ForwardError("no"), Stage.COUNT, "inputs"),
        (ModelSpecError("no"), Stage.COUNT, "inputs"),
        (CaptureError("no"), Stage.COUNT, "capture"),
        (HandlerError("no"), Stage.COUNT, "capture"),
        (ValueError("no"), Stage.COUNT, "capture"),
        (SystemExit(3), Stage.COUNT, "capture"),
        (MemoryError(), Stage.BUILD, "memory"),
        (_caused(CaptureError("no"), MemoryError()), Stage.COUNT, "memory"),
        (_caused(ModelNameError("no"), MemoryError()), Stage.BUILD, "memory"),
        (lost_process(-9), Stage.COUNT, "crash"),
        (lost_process(3), Stage.COUNT, "crash"),
        (lost_process(None), Stage.COUNT, "crash"),
    ],
)
def test_the_class_of_a_failure_is_that_of_its_exception(
    error: BaseException, stage: Stage, failure: str
) -> None:
    assert failure_of(error, stage).failure_class == failure


def test_a_message_is_the_same_in_every_run() -> None:
    first, second = (failure_of(ValueError(f"{object()}\n "), Stage.COUNT) for _ in range(2))
    assert first == second
    assert first.message == "ValueError: <object object at 0x...>"


def test_engines_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pebble", "distributed"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BatchError, match=r"needs pebble. Run: pip install 'graphflops\[batch\]'"):
        LocalProcesses(1, Limits())
    with pytest.raises(BatchError, match=r"needs Dask. Run: pip install 'graphflops\[dask\]'"):
        DaskCluster("tcp://127.0.0.1:1", Limits())


@pytest.mark.parametrize("address", ["nonsense", "foo://x:1", "tcp://127.0.0.1", "tcp://a.b:x"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(BatchError, match=r"is no address of a Dask scheduler: .* Give e.g. tcp://"):
        DaskCluster(address, Limits())


def test_patterns_are_matched_by_names() -> None:
    names, problems = match_names(["torchvision:raft_*", "hf:bert", "torchvision:raft_small"], [])
    assert names == ["torchvision:raft_large", "torchvision:raft_small", "hf:bert"]
    assert problems == []


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(ModelNameError, match=r"no known model name matches 'timm:resnett\*'"):
        match_names(["timm:resnett*"], [])


def test_a_dtype_that_is_none() -> None:
    with pytest.raises(InputError, match=r"'bfloat17' is not a dtype. Did you mean bfloat16"):
        match_names(["hf:bert"], ["bfloat17"])


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflops.models import schemes

    def require(package: str, extra: str, *_: object) -> None:
        raise ModelNameError(f"{extra}: names need {package}.")

    monkeypatch.setattr(schemes, "require", require)
    with pytest.raises(ModelNameError, match="names need timm"):
        match_names(["timm:*"], [])
