"""Plots, the timeline by category, snapshots, and the bound of freeing at last use."""

from __future__ import annotations

import importlib.util
import pickle
import pickletools
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, at_depth
from torch import nn
from torch.cuda import _memory_viz

import graphflops as gf
from graphflops.analysis.call_time import CallTime
from graphflops.core.storage_events import BEFORE
from graphflops.errors import ModelSpecError, OutputError, UnboundSymbolError
from graphflops.reports.memory import MemoryReport

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="the extra plots is not installed"
)
WIDTH, FLOAT = 64, 4
ROW = WIDTH * FLOAT


def rows(count: int) -> torch.Tensor:
    return torch.empty(count, WIDTH, device="meta")


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(WIDTH, WIDTH, device="meta") for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.second(self.first(x).tanh())
        return y


def layers() -> nn.Module:
    return nn.Sequential(*(Layer() for _ in range(3)))


@pytest.fixture(scope="module")
def step() -> gf.TrainingReport:
    return gf.count_training(layers(), (rows(8),), optimizer="adamw")


def architecture(name: str, *, trained: bool) -> MemoryReport:
    with at_depth(3):
        case = ARCHITECTURES[name]()
    if trained:
        return gf.count_training(case.model, (), case.inputs, optimizer="adamw").memory
    return gf.count(case.model, (), case.inputs).memory


class Held(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x + 1
        second = first + 1  # the last use of `first`, which stays until the end
        third = second + 1
        return third + 1


class Viewed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x + 1
        part = first.view(-1)[:1]  # uses all of it, until the last call
        second = x + 2
        third = second + 1
        return third + part


class Unused(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unused = x + 1
        y = x * 2
        del unused
        return y * 3


class Returned(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        first = x + 1
        second = x + 2
        return first, second, second * 2


@pytest.mark.parametrize(
    ("model", "peak", "bound"),
    [
        # The input, and all results; two at a time.
        (Held(), 5, 3),
        (Viewed(), 5, 4),
        (Unused(), 3, 3),
        (Returned(), 4, 4),
    ],
)
def test_freeing_at_last_use_by_hand(model: nn.Module, peak: int, bound: int) -> None:
    memory = gf.count(model, (rows(16),)).memory
    assert (memory.peak, memory.last_use_peak) == (peak * 16 * ROW, bound * 16 * ROW)


@pytest.mark.parametrize("name", ["llama", "bert", "resnet", "t5", "mamba"])
@pytest.mark.parametrize("trained", [False, True])
def test_by_category_and_bound_of_architectures(name: str, trained: bool) -> None:
    memory = architecture(name, trained=trained)
    assert memory.parameters < memory.last_use_peak <= memory.peak
    totals = dict(zip(memory.category_timeline.calls, memory.category_timeline.totals, strict=True))
    assert max(totals.values()) == memory.peak
    peaks: defaultdict[int, int] = defaultdict(int)
    for point in memory.timeline:
        peaks[point.call] = max(point.peak, peaks[point.call])
    calls = range(len(memory.calls))
    assert {call: totals[call] for call in calls if call in peaks} == {
        call: peak for call, peak in peaks.items() if call in calls
    }
    at_peak = {
        category.value: nbytes[memory.call - BEFORE]
        for category, nbytes in memory.category_timeline.nbytes.items()
    }
    assert at_peak == memory.by_category()


def live_bytes(snapshot: dict[str, Any]) -> list[int]:
    """Bytes that are allocated after each event of a trace, checked for overlaps."""
    level, levels = 0, []
    blocks: dict[int, int] = {}
    (trace,) = snapshot["device_traces"]
    for event in trace:
        if event["action"] == "alloc":
            start, end = event["addr"], event["addr"] + event["size"]
            assert not any(start < other + size and other < end for other, size in blocks.items())
            blocks[start] = event["size"]
            level += event["size"]
        elif event["action"] == "free_completed":
            level -= blocks.pop(event["addr"])
        levels.append(level)
    return levels


@pytest.mark.parametrize("name", ["llama", "resnet"])
@pytest.mark.parametrize("trained", [False, True])
def test_snapshots_have_the_timeline(name: str, trained: bool, tmp_path: Path) -> None:
    memory = architecture(name, trained=trained)
    memory.snapshot(tmp_path / "snapshot.pickle")
    snapshot = pickle.loads((tmp_path / "snapshot.pickle").read_bytes())  # noqa: S301 - written above
    levels = live_bytes(snapshot)
    assert max(levels) == memory.peak
    assert {point.after for point in memory.timeline} <= set(levels)
    (segment,) = snapshot["segments"]
    assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]
    assert segment["allocated_size"] == levels[-1]
    frames = [frame for event in snapshot["device_traces"][0] for frame in event["frames"]]
    assert any(frame["filename"].endswith(".py") and frame["line"] for frame in frames)


_VIEWED = {
    *("PROTO", "APPEND", "APPENDS", "NEWFALSE", "NEWTRUE", "NONE", "BINGET", "BININT", "BININT1"),
    *("BININT2", "EMPTY_DICT", "EMPTY_LIST", "FRAME", "LONG1", "LONG_BINGET", "MARK", "MEMOIZE"),
    *("SETITEM", "SETITEMS", "SHORT_BINUNICODE", "BINUNICODE", "STOP"),
}
"""Pickle opcodes that PyTorch's viewer in a browser reads."""


def test_pytorch_reads_snapshots(step: gf.TrainingReport, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pickle"
    step.memory.snapshot(path)
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(path.read_bytes())}
    assert opcodes <= _VIEWED
    snapshot = pickle.loads(path.read_bytes())  # noqa: S301 - written above
    assert snapshot["device_traces"][0][0]["category"] == "unknown"  # without it, the viewer fails
    viewer: Any = _memory_viz
    assert "Active Memory Timeline" in viewer.trace_plot(snapshot)
    assert "segments: 1" in viewer.segsum(snapshot)
    assert "aten::mm 0.first.weight 16384" in viewer.segments(snapshot, format_flamegraph=str)
    assert "cudaMalloc" in viewer.trace(snapshot)


def test_a_model_without_memory_has_an_empty_snapshot(tmp_path: Path) -> None:
    memory = gf.count(nn.Identity(), (torch.empty(0),)).memory
    memory.snapshot(tmp_path / "empty.pickle")
    snapshot = pickle.loads((tmp_path / "empty.pickle").read_bytes())  # noqa: S301 - written above
    assert snapshot == {"segments": [], "device_traces": [[]]}


Plot = Callable[[gf.TrainingReport, Path], None]
PLOTS: dict[str, Plot] = {
    "memory": lambda report, path: report.memory.plot(path),
    "roofline": lambda report, path: report.time("h100").plot_roofline(path),
    "icicle": lambda report, path: report.time("h100").plot_icicle(path),
}
IN_PLOTS = {
    "memory": ["peak", "parameters", "optimizer", "gradients", "activations", "backward", "KB"],
    "roofline": ["addmm", "float32: 66.9 TFLOP/s", "3.35 TB/s", "optimizer::adamw", "GFLOP/s"],
    "icicle": ["Sequential", "first", "second", "us,"],
}


@needs_matplotlib
@pytest.mark.parametrize("plot", PLOTS)
def test_plots_are_the_same_each_time(plot: str, step: gf.TrainingReport, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg", "one.png"):
        PLOTS[plot](step, tmp_path / name)
    svg = (tmp_path / "one.svg").read_text("utf-8")
    assert svg == (tmp_path / "two.svg").read_text("utf-8")
    assert "<dc:date>" not in svg
    texts = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert [word for word in IN_PLOTS[plot] if word not in texts] == []
    header = (tmp_path / "one.png").read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    assert header.startswith(b"\x89PNG")
    assert width > height > 400


@needs_matplotlib
@pytest.mark.parametrize("plot", PLOTS)
def test_plots_leave_matplotlib_as_it_is(
    plot: str, step: gf.TrainingReport, tmp_path: Path
) -> None:
    import matplotlib as mpl

    had_pyplot = "matplotlib.pyplot" in sys.modules
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black", "svg.hashsalt": "theirs"}):
        before = dict(mpl.rcParams.copy())
        PLOTS[plot](step, tmp_path / "styled.svg")
        assert dict(mpl.rcParams.copy()) == before
    PLOTS[plot](step, tmp_path / "plain.svg")
    assert (tmp_path / "styled.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()
    assert ("matplotlib.pyplot" in sys.modules) is had_pyplot


@needs_matplotlib
def test_names_are_no_formulas(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("a$b$<c>&", nn.Linear(WIDTH, WIDTH, device="meta"))
    gf.count(model, (rows(2),)).time("t4").plot_icicle(tmp_path / "icicle.svg")
    assert "a$b$&lt;c&gt;&amp;" in (tmp_path / "icicle.svg").read_text("utf-8")


@needs_matplotlib
def test_long_passes_keep_their_peak(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, device="meta") for _ in range(3000)))
    gf.count(model, (rows(2),)).memory.plot(tmp_path / "long.svg")
    assert (tmp_path / "long.svg").stat().st_size < 600_000


@needs_matplotlib
@pytest.mark.parametrize("plot", ["plot_roofline", "plot_icicle"])
def test_times_that_cannot_be_drawn(plot: str, tmp_path: Path) -> None:
    symbolic = gf.count(nn.Linear(2, 2), (torch.ones(3, 2),), dynamic_shapes=({0: "B"},))
    with pytest.raises(UnboundSymbolError, match="B are symbols"):
        getattr(symbolic.time("t4"), plot)(tmp_path / "x.svg")
    nothing = gf.count(nn.Identity(), (torch.ones(3, 2),))
    with pytest.raises(ModelSpecError, match="nothing to plot"):
        getattr(nothing.time("t4"), plot)(tmp_path / "x.svg")


@needs_matplotlib
@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("x.gif", ModelSpecError, "Let it end in .svg or .png"),
        ("nowhere/x.svg", OutputError, "there is no folder"),
    ],
)
def test_files_that_cannot_be_written(
    path: str, error: type[Exception], sentence: str, step: gf.TrainingReport, tmp_path: Path
) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        step.memory.plot(tmp_path / path)


def test_without_matplotlib(
    step: gf.TrainingReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OutputError, match=re.escape("pip install 'graphflops[plots]'")):
        step.memory.plot(tmp_path / "x.svg")


def test_points_add_up(step: gf.TrainingReport) -> None:
    time = step.time("h100")
    parts = [cost for part in time.passes.values() for cost in part.calls.values()]
    assert sum(parts, start=CallTime()).flops == time.total.flops
