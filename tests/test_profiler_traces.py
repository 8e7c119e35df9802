"""Costs on the operators and kernels of a profiler's trace."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import Run
from torch import nn
from torch.profiler import ProfilerActivity, profile

import graphflops as gf
from graphflops.analysis.devices import device
from graphflops.integrations.profiler_trace import read_trace
from graphflops.integrations.recorded_calls import CallPricer, Recorded
from graphflops.integrations.trace_annotation import KEY, annotate_trace

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.down = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(self.norm(F.gelu(self.up(x))))
        return y


def recorded(folder: Path, run: Any, *, shapes: bool = True) -> Path:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=shapes) as profiler:
        run()
    path = folder / "trace.json"
    profiler.export_chrome_trace(str(path))
    return path


def entries(trace: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [
        event["args"][KEY]
        for event in trace["traceEvents"]
        if event.get("name") == name and KEY in event.get("args", {})
    ]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model, x = MLP(), torch.zeros(5, 8)
    path = recorded(tmp_path_factory.mktemp("trace"), lambda: model(x).sum().backward())
    return read_trace(path)


def test_operators_cost_what_a_count_says(training: dict[str, Any]) -> None:
    trace, summary = annotate_trace(training)
    step = gf.count_training(MLP(), (torch.zeros(5, 8),))
    assert summary.macs == step.forward.macs + step.backward.macs
    for name in ("aten::gelu", "aten::native_layer_norm_backward", "aten::gelu_backward"):
        (entry,) = entries(trace, name)
        (record,) = [r for r in step.records if r.call.op == name]
        assert record.cost is not None
        assert entry["flops"] == record.cost.flops
        assert entry["bytes"] == record.cost.bytes_read + record.cost.bytes_written
    assert [entry["macs"] for entry in entries(trace, "aten::linear")] == [5 * 8 * 16, 5 * 16 * 4]
    assert summary.priced == summary.operators
    assert summary.unpriced == {}
    # The copy is annotated, not what was given.
    assert entries(training, "aten::gelu") == []


def test_bound_and_achieved_percentage(training: dict[str, Any]) -> None:
    trace, _ = annotate_trace(training, device="cpu")
    (entry,) = entries(trace, "aten::gelu")
    (event,) = [e for e in trace["traceEvents"] if e.get("name") == "aten::gelu"]
    assert entry["bound_seconds"] == pytest.approx(2 * 5 * 16 * 4 / device("cpu").bandwidth)
    expected = 100 * entry["bound_seconds"] / (event["dur"] / 1e6)
    assert entry["achieved_percent"] == round(expected, 2)


def test_a_model_tells_modules_in_forward_and_backward(training: dict[str, Any]) -> None:
    report = gf.count(MLP(), (torch.zeros(5, 8),))
    trace, summary = annotate_trace(training, records=report.records)
    assert summary.model_share == 1
    assert [e["module"] for e in entries(trace, "aten::linear")] == ["up", "down"]
    assert [e["module"] for e in entries(trace, "aten::addmm")] == ["up", "down"]
    modules = [entry["module"] for entry in entries(trace, "aten::mm")]
    assert modules == ["down", "down", "up"]


def test_several_steps_repeat_the_modules(tmp_path: Path) -> None:
    model, x = MLP(), torch.zeros(5, 8)
    path = recorded(tmp_path, lambda: [model(x) for _ in range(3)])
    report = gf.count(model, (x,))
    trace, _ = annotate_trace(read_trace(path), records=report.records)
    assert [e["module"] for e in entries(trace, "aten::linear")] == ["up", "down"] * 3


def test_a_trace_of_another_model_is_refused(training: dict[str, Any]) -> None:
    report = gf.count(nn.Linear(3, 4), (torch.zeros(2, 3),))
    with pytest.raises(gf.ModelSpecError, match="the trace has 0% of the multiply-accumulates"):
        annotate_trace(training, records=report.records)


def test_a_trace_without_shapes_is_refused(tmp_path: Path) -> None:
    path = recorded(tmp_path, lambda: MLP()(torch.zeros(5, 8)), shapes=False)
    with pytest.raises(gf.ModelSpecError, match=r"profile\(record_shapes=True\)"):
        annotate_trace(read_trace(path))


def attention() -> None:
    query = torch.zeros(2, 3, 5, 8)
    F.scaled_dot_product_attention(query, query, query, is_causal=True)


def differentiated_conv() -> None:
    x, weight = torch.zeros(1, 3, 8, 8).requires_grad_(), torch.zeros(4, 3, 3, 3).requires_grad_()
    F.conv2d(x, weight).sum().backward()  # type: ignore[no-untyped-call]  # torch's gap


def differentiated_attention() -> None:
    query, key, value = (torch.zeros(2, 3, 5, 8).requires_grad_() for _ in range(3))
    F.scaled_dot_product_attention(query, key, value).sum().backward()  # type: ignore[no-untyped-call]  # likewise


CASES: dict[str, tuple[Any, str, int]] = {
    "conv": (
        lambda: F.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3)),
        "aten::conv2d",
        36 * 4 * 27,
    ),
    "strided product": (lambda: torch.zeros(8, 5).t() @ torch.zeros(8, 3), "aten::mm", 5 * 8 * 3),
    "batched": (lambda: torch.zeros(2, 5, 8) @ torch.zeros(2, 8, 3), "aten::bmm", 2 * 5 * 8 * 3),
    "attention": (attention, "aten::scaled_dot_product_attention", 2 * 3 * 25 * 16),
    "conv, backward": (differentiated_conv, "aten::convolution_backward", 2 * 36 * 4 * 27),
    # Four products, and the scores again.
    "attention, backward": (
        differentiated_attention,
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
        5 * 2 * 3 * 25 * 8,
    ),
    "half": (lambda: torch.zeros(5, 8).bfloat16() @ torch.zeros(8, 3).bfloat16(), "aten::mm", 120),
}


@pytest.mark.parametrize("name", CASES)
def test_contractions(name: str, tmp_path: Path) -> None:
    run, operator, macs = CASES[name]
    trace, _ = annotate_trace(read_trace(recorded(tmp_path, run)))
    assert entries(trace, operator)[0]["macs"] == macs


OPERATORS: dict[str, tuple[Any, str, int, int]] = {
    # FLOPs, and bytes read and written
    "scalar": (lambda: torch.zeros(6) + 2, "aten::add", 6, 2 * 24),
    "cast": (lambda: torch.zeros(6).to(torch.bfloat16), "aten::_to_copy", 0, 24 + 12),
    "list": (lambda: torch.cat([torch.zeros(2, 3), torch.zeros(4, 3)]), "aten::cat", 0, 2 * 72),
    "view": (lambda: torch.zeros(2, 3).view(6), "aten::view", 0, 0),
    "in place": (lambda: torch.zeros(6).mul_(torch.ones(6)), "aten::mul_", 6, 3 * 24),
    "cast and device": (lambda: torch.zeros(6).to("cpu", torch.bfloat16), "aten::_to_copy", 0, 36),
    "composite": (lambda: torch.zeros(6).to("cpu", torch.bfloat16), "aten::to", 0, 36),
    "format": (lambda: torch.zeros(2, 3).t().contiguous(), "aten::contiguous", 0, 48),
    "number": (lambda: torch.zeros(1).item(), "aten::_local_scalar_dense", 0, 0),
    "foreach": (
        lambda: torch._foreach_mul([torch.zeros(6), torch.zeros(2)], 3.0),
        "aten::_foreach_mul",
        8,
        64,
    ),
    "mean": (lambda: torch.zeros(2, 3).mean(dim=1), "aten::mean", 2 * 2 + 2, 24 + 8),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_other_operators(name: str, tmp_path: Path) -> None:
    run, operator, flops, nbytes = OPERATORS[name]
    trace, _ = annotate_trace(read_trace(recorded(tmp_path, run)))
    entry = entries(trace, operator)[-1]
    assert (entry["flops"], entry["bytes"]) == (flops, nbytes)


def operator(name: str, ts: float, dur: float, dims: list[Any], number: int) -> dict[str, Any]:
    args = {
        "External id": number,
        "Input type": ["c10::BFloat16" for _ in dims],
        "Input Dims": dims,
        "Concrete Inputs": ["" for _ in dims],
    }
    return {
        "ph": "X",
        "cat": "cpu_op",
        "name": name,
        "pid": 1,
        "tid": 1,
        "ts": ts,
        "dur": dur,
        "args": args,
    }


def kernel(name: str, dur: float, **args: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": "kernel",
        "name": name,
        "pid": 0,
        "tid": 7,
        "ts": 50.0,
        "dur": dur,
        "args": args,
    }


def cuda_trace(gpu: str = "NVIDIA H100 80GB HBM3") -> dict[str, Any]:
    launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1}
    return {
        "deviceProperties": [{"id": 0, "name": gpu}],
        "traceEvents": [
            operator("aten::linear", 0, 30, [[4096, 8192], [8192, 8192], []], 1)
            | {"args": {
                "External id": 1,
                "Input type": ["c10::BFloat16", "c10::BFloat16", ""],
                "Input Dims": [[4096, 8192], [8192, 8192], []],
                "Concrete Inputs": ["", "", ""],
            }},
            operator("aten::mm", 5, 20, [[4096, 8192], [8192, 8192]], 2),
            operator("aten::mul", 40, 5, [[4096, 8192], [4096, 8192]], 3),
            {**launch, "ts": 41.0, "dur": 2.0, "args": {"correlation": 12}},
            kernel("sm90_gemm", 900.0, **{"External id": 2, "correlation": 11}),
            kernel("splitk_reduce", 100.0, **{"External id": 2, "correlation": 13}),
            kernel("mul_kernel", 80.0, correlation=12),
            kernel("triton_fused", 10.0, **{"External id": 99, "correlation": 14}),
        ],
    }  # fmt: skip


def test_kernels_have_the_costs_of_their_operators() -> None:
    trace, summary = annotate_trace(cuda_trace())
    flops = 2 * 4096 * 8192 * 8192
    h100 = device("h100-sxm")
    bound = flops / h100.rate("bfloat16", matrix=True)
    (gemm,), (reduce,), (mul,) = (
        entries(trace, name) for name in ("sm90_gemm", "splitk_reduce", "mul_kernel")
    )
    assert gemm == reduce
    assert (gemm["operator"], gemm["kernels"], gemm["flops"]) == ("aten::mm", 2, flops)
    assert gemm["bound_seconds"] == pytest.approx(bound)
    assert gemm["achieved_percent"] == round(100 * bound / 1e-3, 2)
    # The composite operator has the time of all kernels below it.
    assert entries(trace, "aten::linear")[0]["achieved_percent"] == gemm["achieved_percent"]
    assert (mul["operator"], mul["flops"], mul["bytes"]) == (
        "aten::mul",
        4096 * 8192,
        3 * 2 * 4096 * 8192,
    )
    assert entries(trace, "triton_fused") == []
    assert (summary.device.name, summary.kernels, summary.matched_kernels) == ("h100-sxm", 4, 3)
    assert summary.flops == flops + 4096 * 8192
    assert summary.seconds == pytest.approx(1090e-6)


def test_a_gpu_that_is_not_known_is_asked_for() -> None:
    with pytest.raises(gf.ModelSpecError, match="its GPU, NVIDIA Unheard-of, are known"):
        annotate_trace(cuda_trace("NVIDIA Unheard-of"))
    _, summary = annotate_trace(cuda_trace("NVIDIA Unheard-of"), device="a100")
    assert summary.device == device("a100")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("aten::nothing_of_the_kind", {"Input type": [], "Input Dims": []}),
        ("aten::mm", {"Input type": ["float"], "Input Dims": [[2, 3]]}),
        ("aten::mm", {"Input type": ["float", "float"], "Input Dims": [[2, 3], [7, 3]]}),
        ("aten::nonzero", {"Input type": ["float"], "Input Dims": [[2, 3]]}),
        ("aten::einsum", {"Input type": ["", "TensorList", ""], "Input Dims": [[], [[2, 3]], []]}),
    ],
)
def test_what_cannot_be_told_has_no_cost(name: str, args: dict[str, Any]) -> None:
    from graphflops import conventions

    found = Recorded.of(name, args)
    assert found is not None
    assert CallPricer(conventions.exact()).price(found) is None


def test_the_command(run: Run, tmp_path: Path) -> None:
    path, out = tmp_path / "trace.json.gz", tmp_path / "annotated.json.gz"
    path.write_bytes(gzip.compress(json.dumps(cuda_trace()).encode()))
    code, stdout, err = run("annotate-trace", str(path), "-o", str(out))
    assert (code, stdout) == (0, "")
    assert "3 of 3 have costs" in err
    assert "3 of 4 have their operator's" in err
    assert entries(json.loads(gzip.decompress(out.read_bytes())), "sm90_gemm")
    assert entries(json.loads(run("annotate-trace", str(path), "--device", "a100")[1]), "sm90_gemm")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("{", (), "is no trace"),
        ("[1]", (), "it has no list traceEvents"),
        ("{}", (), "it has no list traceEvents"),
        ("[]", (), "record_shapes=True"),
        (json.dumps(cuda_trace()), ("--device", "abacus"), "abacus"),
        (json.dumps(cuda_trace()), ("--model", "models.py:tiny"), "of another model"),
        (json.dumps(cuda_trace("NVIDIA Unheard-of")), (), "Give the device"),
    ],
)
def test_bad_input_is_a_sentence(
    content: str, arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    code, stdout, err = run("annotate-trace", str(path), *arguments)
    assert (code, stdout) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_missing_file_is_a_sentence(run: Run, tmp_path: Path) -> None:
    code, _, err = run("annotate-trace", str(tmp_path / "none.json"))
    assert code == 2
    assert "cannot be read" in err
