"""Sizes and numbers that only data can give: named, explained, and set by the user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from calls import meta
from commands import Run
from torch import nn
from torch.utils.checkpoint import checkpoint

import graphflops as gf
from graphflops import models
from graphflops.render import data

ROWS, WIDE = 64, 8


class Layer(nn.Module):
    """A layer, and what a forward does with it."""

    def __init__(self, run: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDE, WIDE)
        self.run = run
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def _masked(own: Any, x: torch.Tensor) -> Any:
    return own.linear(x[x.sum(-1) > 0])


def _sorted_to_the_front(own: Any, x: torch.Tensor) -> Any:
    chosen = x.sum(-1) > 0
    rows = torch.arange(ROWS, device=x.device)
    order = torch.cat([rows, torch.full_like(rows, 0)])[torch.cat([chosen, ~chosen])]
    return own.linear(x[order].view(ROWS, WIDE))


def _twice(own: Any, x: torch.Tensor) -> Any:
    mask = x.sum(-1) > 0
    return own.linear(x[mask]) + x[mask]


def _unique(own: Any, x: torch.Tensor) -> Any:
    return own.linear(x[torch.unique(x.argmax(-1))])


def _selected(own: Any, x: torch.Tensor) -> Any:
    return own.linear(torch.masked_select(x, x > 0)[: 3 * WIDE].view(-1, WIDE))


def _compared(own: Any, x: torch.Tensor) -> Any:
    keep = torch.where(x.sum(-1) > 0)[0]
    if keep.numel() == 0:
        return own.linear(x)
    return own.linear(x[keep[: min(len(keep), 5)]])


def _sliced(own: Any, x: torch.Tensor) -> Any:
    n: Any = x.argmax().item()
    return own.linear(x[:n])


def _checked(own: Any, x: torch.Tensor) -> Any:
    n: Any = x.argmax().item()
    check: Any = torch._check
    check(n >= 0)
    check(n <= 30)
    return own.linear(torch.zeros(n, WIDE, device=x.device) + x[0])


def _allocated(own: Any, x: torch.Tensor) -> Any:
    n: Any = x.argmax().item()
    return own.linear(torch.zeros(n, WIDE, device=x.device) + x[0])


def _repeated(own: Any, x: torch.Tensor) -> Any:
    return own.linear(x.repeat_interleave(x.argmax(-1), 0))


def _looped(own: Any, x: torch.Tensor) -> Any:
    for _ in range(int(x.argmax())):
        x = own.linear(x)
    return x


def _asked(own: Any, x: torch.Tensor) -> Any:
    return own.linear(x) if (x > 0).any() else own.linear(x[:3])


def _logged(own: Any, x: torch.Tensor) -> Any:
    y = own.linear(x)
    own.seen += [int(y.max()), int(y.argmax()), float(y.max().item()), f"{y.mean():.3f}"]
    own.seen.append(f"{y.max().item():.3f}")
    return y


def _recomputed(own: Any, x: torch.Tensor) -> Any:
    y = own.linear(x)
    return checkpoint(lambda y: _masked(own, y).exp(), y, use_reentrant=False)


def _count(run: Callable[[Any, torch.Tensor], Any], **how: Any) -> gf.Report:
    return gf.count(Layer(run).to("meta"), (meta(ROWS, WIDE),), **how)


@pytest.mark.parametrize(
    ("run", "operator", "largest", "rows"),
    [
        (_masked, "aten::nonzero", ROWS, ROWS),
        (_twice, "aten::nonzero", ROWS, ROWS),
        (_unique, "aten::unique", WIDE, WIDE),  # argmax of so many columns
        (_selected, "aten::masked_select", ROWS * WIDE, 3),
        (_compared, "aten::nonzero", ROWS, 5),
        (_sliced, "aten::slice", ROWS, ROWS),
        (_checked, "aten::item", 30, 30),
    ],
)
def test_a_size_stands_at_its_largest(
    run: Callable[[Any, torch.Tensor], Any], operator: str, largest: int, rows: int
) -> None:
    report = _count(run)
    assert report.macs == rows * WIDE * WIDE
    *_, size = report.capture.data_sizes
    assert (size.operator, size.largest, size.value) == (operator, largest, largest)
    assert size.source.startswith("test_data_sizes.py:") or "/test_data_sizes.py:" in size.source
    assert f"= {largest}, the largest it can be: {operator} at {size.source}." in str(report)
    step = gf.count_training(Layer(run).to("meta"), (meta(ROWS, WIDE),))
    assert (step.forward.macs, step.backward.macs) == (report.macs, report.macs)
    assert f"= {largest}, the largest it can be: {operator}" in str(step)


@pytest.mark.parametrize(
    ("run", "assume", "rows"),
    [
        (_masked, {"u0": 10}, 10),
        (_twice, {"u0": 10}, 10),
        (_unique, {"u0": 7}, 7),
        (_compared, {"u0": 2}, 2),
        (_compared, {"u0": 0}, ROWS),  # it goes the other way
        (_sliced, {"u0": 3}, 3),
        (_checked, {"u0": 3}, 3),
        (_allocated, {"u0": 12}, 12),
        (_repeated, {"u0": 100}, 100),
        (_looped, {"u0": 3}, 3 * ROWS),
        (_asked, {"u0": 1}, ROWS),
        (_asked, {"u0": 0}, 3),
    ],
)
def test_a_size_is_what_the_user_says(
    run: Callable[[Any, torch.Tensor], Any], assume: dict[str, int], rows: int
) -> None:
    report = _count(run, assume=assume)
    assert report.macs == rows * WIDE * WIDE
    assert f"u0 = {assume['u0']}, as assumed" in str(report)
    step = gf.count_training(Layer(run).to("meta"), (meta(ROWS, WIDE),), assume=assume)
    assert step.forward.macs == report.macs


@pytest.mark.parametrize("run", [_allocated, _repeated])
def test_a_size_that_nothing_bounds_stays_a_symbol(
    run: Callable[[Any, torch.Tensor], Any],
) -> None:
    report = _count(run)
    assert str(report.macs) == f"{WIDE * WIDE}*u0"
    assert report.subs(u0=12).macs == 12 * WIDE * WIDE
    assert "u0 is open, for nothing bounds it: aten::" in str(report)
    step = gf.count_training(Layer(run).to("meta"), (meta(ROWS, WIDE),))
    assert str(step.macs) == f"{2 * WIDE * WIDE}*u0"
    assert all("u0" in text for text in (str(step), step.tree(), step.to_json(), step.to_csv()))
    assert step.dtype == "float32"
    assert step.by_module_and_phase()[""].ratio is None
    with pytest.raises(gf.UnboundSymbolError, match="Count with assume= for them"):
        step.mfu(step_time=1.0, peak_flops=1e12)


def test_a_checkpoint_that_runs_again_has_the_sizes_of_the_first_time() -> None:
    step = gf.count_training(Layer(_recomputed).to("meta"), (meta(ROWS, WIDE),), assume={"u0": 10})
    (size,) = step.forward.capture.data_sizes
    assert (size.name, size.value, size.count) == ("u0", 10, 2)
    assert step.forward.macs == (ROWS + 10) * WIDE * WIDE
    assert step.recompute.macs == 10 * WIDE * WIDE


def test_a_number_that_decides_nothing_may_be_any() -> None:
    model = Layer(_logged).to("meta")
    report = gf.count(model, (meta(ROWS, WIDE),))
    assert report.macs == ROWS * WIDE * WIDE
    assert model.seen == []
    assert str(report).count("and another number comes to the same calls: int at ") == 1
    step = gf.count_training(model, (meta(ROWS, WIDE),))
    assert step.macs == 2 * report.macs


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
@pytest.mark.parametrize(
    ("run", "message"),
    [
        (_looped, r'depends on numbers that only data can give: u0 \(int at .*assume=\{"u0": 10\}'),
        (_asked, r'only data can give u0 \(aten::item at .*assume=\{"u0": 1\}'),
    ],
)
def test_a_number_that_decides_what_runs_is_asked_for(
    count: Any, run: Callable[[Any, torch.Tensor], Any], message: str
) -> None:
    with pytest.raises(gf.CaptureError, match=message):
        count(Layer(run).to("meta"), (meta(ROWS, WIDE),))


@pytest.mark.parametrize(
    ("assume", "message"),
    [
        ({"u1": 3}, r"no size 'u1' follows from data. Those that do are u0 \(aten::nonzero at "),
        ({"u0": ROWS + 1}, f"u0 is {ROWS + 1}, and aten::nonzero at .* gives {ROWS} at most"),
        ({"u0": -1}, r"assume\['u0'\] is -1. Give a whole number, 0 or more"),
        ([3], "assume is of type list"),
    ],
)
@pytest.mark.parametrize("count", [gf.count, gf.count_training])
def test_what_cannot_be_assumed(count: Any, assume: Any, message: str) -> None:
    with pytest.raises(gf.ModelSpecError, match=message):
        count(Layer(_masked).to("meta"), (meta(ROWS, WIDE),), assume=assume)


def test_a_size_that_is_a_number_already_is_not_put_in_later() -> None:
    with pytest.raises(gf.ModelSpecError, match="count again with assume="):
        _count(_masked).subs(u0=3)


def test_a_size_that_follows_from_a_symbolic_one() -> None:
    report = _count(_masked, dynamic_shapes=({0: "B"},))
    assert str(report.macs) == f"{WIDE * WIDE}*B"
    assert report.subs(B=5).macs == 5 * WIDE * WIDE


def test_sizes_of_a_graph(tmp_path: Path) -> None:
    program = torch.export.export(Layer(_masked), (torch.zeros(ROWS, WIDE),))
    torch.export.save(program, path := tmp_path / "masked.pt2")
    for form in (program, program.module(), path):
        report = gf.count(form)
        assert report.macs == ROWS * WIDE * WIDE
        (size,) = report.capture.data_sizes
        assert "test_data_sizes.py:" in size.source
        assert gf.count(form, assume={size.name: 10}).macs == 10 * WIDE * WIDE
        with pytest.raises(gf.ModelSpecError, match="no size 'u9' follows from data"):
            gf.count(form, assume={"u9": 1})


def test_a_mask_joined_with_its_negation_is_half_true() -> None:
    x = torch.randn(ROWS, WIDE)
    assert _sorted_to_the_front(Layer(_sorted_to_the_front), x).shape == x.shape
    report = _count(_sorted_to_the_front)
    assert report.macs == ROWS * WIDE * WIDE
    assert not report.capture.data_sizes


def test_a_difference_of_numbers_that_one_line_reads_is_refused() -> None:
    def between(own: Any, x: torch.Tensor) -> Any:
        first, last = x.argmin(), x.argmax()
        arange: Any = torch.arange
        return own.linear(x[arange(first, last)])

    with pytest.raises(gf.CaptureError, match="the difference of numbers that only data can give"):
        _count(between)


def test_the_command_line(run: Run) -> None:
    Path("selects.py").write_text(
        "import torch\n"
        "class Selects(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(8, 8)\n"
        "    def forward(self, x):\n"
        "        y = self.linear(x)\n"
        "        return self.linear(y[y.sum(-1) > 0])\n",
        encoding="utf-8",
    )
    command = ("selects.py:Selects", "--input", "x=64x8", "--format", "json")
    for name in ("count", "train"):
        code, out, err = run(name, *command, "--assume", "u0=10")
        assert (code, err) == (0, "")
        found = json.loads(out)
        (size,) = found["capture"]["data_sizes"]
        assert (size["name"], size["largest"], size["value"]) == ("u0", ROWS, 10)
        assert size["source_line"] == "selects.py:8"
        jsonschema.validate(found, data.schema("forward" if name == "count" else "training"))
    assert found["phases"]["forward"]["macs"] == (ROWS + 10) * WIDE * WIDE
    code, _, err = run("count", *command, "--assume", "u3=10")
    assert code != 0
    assert "Those that do are u0 (aten::nonzero at selects.py:8)" in " ".join(err.split())
    code, _, err = run("count", *command, "--assume", "u0:10")
    assert code != 0
    assert "--assume 'u0:10' is not NAME=SIZE" in " ".join(err.split())


def _labelled(own: Any, x: torch.Tensor) -> Any:
    labels = torch.arange(5, device=x.device).repeat(20)[x.argsort(0)[:, 0]]
    for label in torch.unique(torch.cat([labels, x.argmax(-1) % 7])):
        own.linear(x[:2] * label)
    return x


def _dropped(own: Any, x: torch.Tensor) -> Any:
    for p in (0.1, 0.9):
        if torch.rand(1).item() >= p:
            x = own.linear(x)
    return x


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
def test_a_layer_that_is_dropped_at_random_follows_one_draw(count: Any) -> None:
    report = count(Layer(_dropped).to("meta"), (meta(ROWS, WIDE),))
    passes = 1 if count is gf.count else 2  # the weight's gradient
    assert report.macs == passes * ROWS * WIDE * WIDE
    assert "Random numbers that decide what runs are taken to be 0.5" in str(report)


def test_values_are_as_many_as_those_that_they_are_picked_from() -> None:
    report = _count(_labelled)
    (size,) = report.capture.data_sizes
    assert (size.operator, size.largest) == ("aten::unique", 5 + 7)
    assert report.macs == (5 + 7) * 2 * WIDE * WIDE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("retinanet_resnet50_fpn", 303_080_874_496),
        ("fcos_resnet50_fpn", 256_414_105_600),
        ("ssdlite320_mobilenet_v3_large", 1_166_343_808),
    ],
)
def test_detectors(name: str, flops: int) -> None:
    # As counted on the CPU with random weights: what is detected has no part in the contractions.
    workload = models.resolve(f"torchvision:{name}", models.Options(image_size=320))
    report = gf.count(workload.model, (), workload.kwargs, on_unknown="ignore")
    assert 2 * report.macs == flops
    assert report.unsupported_ops().keys() <= {"torchvision::nms"}
