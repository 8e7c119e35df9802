"""Two published calflops reports, to the last digit they print.

Both came from a ``generate`` run with weights. Here the same workloads are counted on meta, under
the convention ``calflops``: every row of both, and the totals.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

import graphflops as gf
from graphflops.core.cost import OpCost
from graphflops.render.units import parameters, percent, quantity

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"

# Where a module of a report is today: InternVL is built as it was then, LLaVA comes from
# transformers, which has flattened its vision tower and moved the head of the language model up.
MOVED = {
    "internvl2_1b": {},
    "llava_onevision_7b": {
        r"^vision_tower\.vision_model(?=\.|$)": "model.vision_tower",
        r"^language_model\.lm_head": "lm_head",
        r"^language_model\.model(?=\.|$)": "model.language_model",
        r"^(?=vision_tower|multi_modal_projector)": "model.",
    },
}
# A row of a report that is several modules today.
PARTS = {
    ("llava_onevision_7b", "language_model"): ("model.language_model", "lm_head"),
}
# Each attention had rotary positions of its own, which computed nothing; now the model has one.
GONE = re.compile(r"self_attn\.rotary_emb$")
# Classes with another name today.
RENAMED = {
    "SiLU": "SiLUActivation",
    "PytorchGELUTanh": "GELUTanh",
    "SiglipFlashAttention2": "SiglipAttention",
    "Qwen2FlashAttention2": "Qwen2Attention",
    "SiglipVisionTransformer": "SiglipVisionModel",
}
WORKLOADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "internvl2_1b": ("internvl_chat", "chat", {"max_new_tokens": 58, "logits_to_keep": 0}),
    "llava_onevision_7b": ("llava_onevision", "reported", {"max_new_tokens": 7}),
}


def published(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "golden" / f"{name}.json").read_text("utf-8"))
    return found


ROWS = [(name, row) for name in WORKLOADS for row in published(name)["rows"]]


@pytest.fixture(scope="module")
def reports() -> dict[str, gf.GenerationReport]:
    found = {}
    for name, (file, factory, options) in WORKLOADS.items():
        spec = importlib.util.spec_from_file_location(file, EXAMPLES / f"{file}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model, _, inputs = getattr(module, factory)()
        found[name] = gf.count_generation(model, inputs, convention="calflops", **options)
    return found


def paths(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """The modules of today that a row stands for, the first of each run of layers."""
    path = row["path"]
    if (name, path) in PARTS:
        return PARTS[name, path]
    for pattern, place in MOVED[name].items():
        moved = re.sub(pattern, place, path)
        if moved != path:
            path = moved
            break
    return (re.sub(r"\.(\d+)-\d+", r".\1", path),)


def test_all_rows_are_compared() -> None:
    assert sum("flops" in row for _, row in ROWS) == 87


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{n}:{row['path']}" for n, row in ROWS])
def test_every_figure_of_a_row(
    reports: dict[str, gf.GenerationReport], name: str, row: dict[str, Any]
) -> None:
    report = reports[name]
    nodes = {node.path: node for node in report.root.walk()}
    if "flops" not in row:  # a ModuleList, which is never called, has no figures
        assert nodes[paths(name, row)[0]].module_class == row["cls"]
        return
    if GONE.search(row["path"]):
        assert (row["params"], row["macs"], row["flops"]) == ("0", "0 MACs", "0 FLOPs")
        assert paths(name, row)[0] not in nodes
        return
    found = [nodes[path] for path in paths(name, row)]
    cost = sum((node.total for node in found), start=OpCost())
    params = sum(node.params_total for node in found)
    assert {
        "params": parameters(params),
        "params_pct": share(params, report.params),
        "macs": quantity(cost.macs, "MACs"),
        "macs_pct": share(cost.macs, report.macs),
        "flops": quantity(cost.flops, "FLOPs"),
        "flops_pct": share(cost.flops, report.flops),
    } == {key: row[key] for key in row if key not in {"path", "cls", "count"}}
    if len(found) == 1:
        assert found[0].module_class == RENAMED.get(row["cls"], row["cls"])
    if "count" in row:
        first, last = map(int, re.search(r"\.(\d+)-(\d+)$", row["path"]).groups())  # type: ignore[union-attr]  # it is there
        parent = paths(name, row)[0].rpartition(".")[0]
        layers = [nodes[f"{parent}.{index}"] for index in range(first, last + 1)]
        assert len(layers) == row["count"]
        assert {layer.total.flops for layer in layers} == {cost.flops}


@pytest.mark.parametrize("name", WORKLOADS)
def test_totals(reports: dict[str, gf.GenerationReport], name: str) -> None:
    report, totals = reports[name], published(name)["totals"]
    assert {
        "params": parameters(report.params),
        "macs": tera(report.macs, "MACs"),
        "flops": tera(report.flops, "FLOPs"),
        "fwd_bwd_macs": tera(3 * report.macs, "MACs"),
        "fwd_bwd_flops": tera(3 * report.flops, "FLOPs"),
    } == {key: value for key, value in totals.items() if key != "memory_usage"}


def share(part: Any, whole: Any) -> float:
    return float(percent(part, whole).removesuffix("%"))


def tera(value: Any, unit: str) -> str:
    """As the head of a report prints it: four decimals, of which a table keeps six digits."""
    return f"{round(value / 10**12, 4):g} T{unit}"
