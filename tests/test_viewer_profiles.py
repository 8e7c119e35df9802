"""Flame graphs and time lines: they follow the rules of their formats, and sum to the report."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hostile_names import HOSTILE, names, report_of
from hypothesis import example, given, settings
from viewer_reports import KINDS, Model, report_of_kind, tokens

import graphflops as gf
from graphflops.core.cost import OpCost
from graphflops.errors import UnboundSymbolError
from graphflops.saving.files import AnyReport
from graphflops.viewers.perfetto import perfetto
from graphflops.viewers.speedscope import speedscope

SCHEMA = json.loads((Path(__file__).parent / "golden/speedscope.schema.json").read_text("utf-8"))
DEVICE = "a100"
every_kind = pytest.mark.parametrize("kind", KINDS)
Stacks = list[tuple[tuple[str, ...], Any]]


def flame_graphs(report: AnyReport, *, timed: bool = False) -> dict[str, Stacks]:
    """Profiles by name, with the names of frames."""
    file = json.loads(speedscope(report, report.time(DEVICE) if timed else None))
    jsonschema.validate(file, SCHEMA)
    frames = [frame["name"] for frame in file["shared"]["frames"]]
    found = {}
    for profile in file["profiles"]:
        stacks = [tuple(frames[i] for i in sample) for sample in profile["samples"]]
        found[profile["name"]] = list(zip(stacks, profile["weights"], strict=True))
        assert profile["endValue"] == sum(profile["weights"])
        assert all(weight > 0 for weight in profile["weights"])
    return found


def total(costs: dict[str, OpCost]) -> OpCost:
    return sum(costs.values(), start=OpCost())


@every_kind
def test_flame_graphs_sum_to_the_report(kind: str) -> None:
    report = report_of_kind(kind)
    found = flame_graphs(report)
    cost = total(report.by_pass())
    assert {name: sum(weight for _, weight in stacks) for name, stacks in found.items()} == {
        "FLOPs": cost.flops,
        "MACs": cost.macs,
        "bytes read and written": cost.bytes_read + cost.bytes_written,
        "parameters": report.params,
    }
    if "training" not in kind:
        assert sum(weight for _, weight in found["FLOPs"]) == report.flops


def by_module(stacks: Stacks, passes: set[str]) -> Counter[str]:
    """Weights of the modules around each sample, by path."""
    found: Counter[str] = Counter()
    for (_, *labels), weight in stacks:
        places = [label.partition(": ")[0] for label in labels if label not in passes]
        for depth in range(len(places)):
            found[".".join(places[:depth])] += weight
    return found


@every_kind
def test_flame_graphs_agree_with_the_module_tree(kind: str) -> None:
    report = report_of_kind(kind)
    passes = set(report.passes_by_name) if len(report.by_pass()) > 1 else set()
    expected: Counter[str] = Counter()
    for part in report.passes_by_name.values():
        for node in part.report.root.walk():
            expected[node.path] += part.total_of(node.total).flops
    stacks = [s for s in flame_graphs(report)["FLOPs"] if "optimizer" not in s[0]]
    assert by_module(stacks, passes) == +expected


def test_a_pass_has_a_frame_of_its_own() -> None:
    report = report_of_kind("training")
    stacks = flame_graphs(report)["FLOPs"]
    found: Counter[str] = Counter()
    for (model, part, *_), weight in stacks:
        assert model == "Model"
        found[part] += weight
    assert found == {name: cost.flops for name, cost in report.by_pass().items()}
    assert set(found) == {"forward", "backward", "recompute", "optimizer"}


def test_layers_share_their_frames() -> None:
    stacks = [stack for stack, _ in flame_graphs(report_of_kind("forward"))["MACs"]]
    block = ("Model", "blocks: ModuleList", "0: Block")
    assert stacks[0] == (*block, "up: Linear", "aten::linear")
    frames = json.loads(speedscope(report_of_kind("forward")))["shared"]["frames"]
    assert len(frames) == len({frame["name"] for frame in frames})


@every_kind
def test_times_of_flame_graphs_are_those_of_the_report(kind: str) -> None:
    report = report_of_kind(kind)
    times = report.time(DEVICE)
    *_, bound, expected = flame_graphs(report, timed=True).items()
    assert bound[0] == f"time at the peak rates, {times.device.title}"
    assert sum(weight for _, weight in bound[1]) == pytest.approx(times.bound)
    assert sum(weight for _, weight in expected[1]) == pytest.approx(times.total.expected)


def events_of(report: AnyReport) -> list[dict[str, Any]]:
    """Events of a trace that keeps the rules of the Trace Event Format."""
    events: list[dict[str, Any]] = json.loads(perfetto(report, report.time(DEVICE)))["traceEvents"]
    open_slices: list[str] = []
    now = 0.0
    for event in events:
        assert event["pid"] == 1
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name"}
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= now
        now = event["ts"]
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
        elif event["ph"] == "B":
            open_slices.append(event["name"])
        else:
            assert event["ph"] == "E"
            assert open_slices.pop() == event["name"]
    assert open_slices == []
    return events


def slices(events: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], dict[str, Any], float]]:
    """Slices with the names of those around them, what is said of them, and their seconds."""
    opened: list[dict[str, Any]] = []
    for event in events:
        if event["ph"] == "B":
            opened.append(event)
        elif event["ph"] == "E":
            stack = tuple(one["name"] for one in opened)
            begin = opened.pop()
            yield stack, begin.get("args", {}), (event["ts"] - begin["ts"]) / 1e6


@every_kind
def test_a_time_line_is_as_long_as_is_expected(kind: str) -> None:
    report = report_of_kind(kind)
    times = report.time(DEVICE)
    events = events_of(report)
    outermost = [seconds for stack, _, seconds in slices(events) if len(stack) == 1]
    assert sum(outermost) == pytest.approx(times.expected, abs=1e-9 * len(outermost))
    assert events[-1]["ts"] / 1e6 == pytest.approx(times.expected, abs=1e-9)


def test_slices_of_operators_and_modules_are_as_long_as_they_are_expected_to_take() -> None:
    report = report_of_kind("forward")
    times = report.time(DEVICE)
    operators: defaultdict[str, float] = defaultdict(float)
    modules: defaultdict[str, float] = defaultdict(float)
    for stack, facts, seconds in slices(events_of(report)):
        if facts:
            operators[stack[-1]] += seconds
        elif len(stack) > 1:
            modules[".".join(label.partition(": ")[0] for label in stack[1:])] += seconds
    kernels = {op: time.expected for op, time in times.by_operator().items() if time.kernels}
    assert dict(operators) == pytest.approx(kernels, abs=1e-8)
    expected = {path: time.expected for path, time in times.by_module().items() if time.kernels}
    whole = expected.pop("")
    assert dict(modules) == pytest.approx(
        {path: seconds for path, seconds in expected.items() if path in modules}, abs=1e-8
    )
    assert sum(operators.values()) == pytest.approx(whole, abs=1e-8)


@every_kind
def test_the_most_live_bytes_are_the_peak(kind: str) -> None:
    report = report_of_kind(kind)
    counters = [event for event in events_of(report) if event["ph"] == "C"]
    whole = [event["args"]["all"] for event in counters if event["name"] == "live bytes"]
    parts = [sum(event["args"].values()) for event in counters if event["name"] != "live bytes"]
    assert max(whole) == report.memory.peak
    assert whole == parts


def test_runs_that_repeat_are_one_slice() -> None:
    events = events_of(report_of_kind("generation"))
    assert [stack[0] for stack, _, _ in slices(events) if len(stack) == 1] == [
        "prefill",
        "prefill: waiting for the host",
        "decode, run 1 of 11",
        "decode, runs 2 to 10",
        "decode, run 11 of 11",
        "decode: waiting for the host",
    ]
    events = events_of(report_of_kind("training"))
    assert [stack[0] for stack, _, _ in slices(events) if len(stack) == 1] == [
        "pass, run 1 of 6",
        "pass, runs 2 to 5",
        "pass, run 6 of 6",
        "pass: waiting for the host",
        "optimizer",
    ]
    phases = [stack[1] for stack, _, _ in slices(events) if len(stack) == 2]
    # Each block but the first is computed again before its backward.
    assert phases[: len(phases) // 2] == ["forward", *(3 * ["backward", "recompute"]), "backward"]


def test_a_graph_without_memory_says_so() -> None:
    program = torch.export.export(Model().eval(), (tokens(),))
    report = gf.count(program)
    trace = json.loads(perfetto(report, report.time(DEVICE)))
    assert not [event for event in trace["traceEvents"] if event["ph"] == "C"]
    assert "seen where the model runs as Python" in trace["otherData"]["memory"]


def test_formulas_are_refused() -> None:
    model, axes = torch.nn.Linear(3, 4), ({0: "B"},)
    report = gf.count(model, (torch.empty(2, 3),), dynamic_shapes=axes)
    with pytest.raises(UnboundSymbolError, match=r"formulas in B: bind them by subs\(\)"):
        speedscope(report)
    with pytest.raises(UnboundSymbolError, match="formulas in B"):
        perfetto(report, report.time(DEVICE))
    bound = report.subs(B=5)
    assert sum(weight for _, weight in flame_graphs(bound)["FLOPs"]) == bound.flops


@given(names)
@settings(deadline=None)  # the first example imports
@example(HOSTILE[7])
@example("<script>alert(1)</script>")
@example('"}],"\\')
def test_names_come_back_as_they_are(name: str) -> None:
    report = report_of(name)
    (model, *stack), _ = flame_graphs(report)["FLOPs"][0]
    assert (model, stack) == (name, [f"{name}: {name}", "aten::relu"])
    operators = [(stack, facts) for stack, facts, _ in slices(events_of(report)) if facts]
    assert operators[0][0] == ("forward", f"{name}: {name}", "aten::relu")
    assert operators[0][1]["module"] == name
