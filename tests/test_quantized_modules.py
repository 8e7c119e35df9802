"""Modules that torch.ao has quantized: dynamically, prepared, converted."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

import graphflops as gf

IMAGE = torch.randn(1, 3, 8, 8)
MACS = 6 * 6 * 8 * 27 + 288 * 4
pytestmark = pytest.mark.filterwarnings("ignore")
ao: Any = quantization


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
        self.conv, self.relu, self.linear = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(288, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.relu(self.conv(self.quant(x))).flatten(1)
        return self.dequant(self.linear(x))


class Plain(Model):
    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(self.relu(self.conv(x)).flatten(1))


def prepared(form: str) -> Any:
    if form == "pt2e":
        pytest.importorskip("torchao", reason="no torchao")
        prepare: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        x86: Any = importlib.import_module(
            "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"
        )
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        return prepare.prepare_pt2e(
            torch.export.export(Plain().eval(), (IMAGE,)).module(), quantizer
        )
    if form == "fx":
        mapping = ao.get_default_qconfig_mapping("x86")
        return quantize_fx.prepare_fx(Model().eval(), mapping, (IMAGE,))
    model: Any = Model().eval()
    model.qconfig = ao.get_default_qconfig("x86")
    return ao.prepare(model)


@pytest.mark.parametrize("count", [gf.count, gf.annotate])
@pytest.mark.parametrize("form", ["fx", "pt2e"])
def test_prepared_graphs_count_the_same_before_and_after_calibration(form: str, count: Any) -> None:
    model = prepared(form)
    before = count(model, (IMAGE,))
    model(IMAGE)
    assert count(model, (IMAGE,)).flops == before.flops == 2 * MACS + 8 * 36 * 2 + 4


@pytest.mark.parametrize("form", ["fx", "eager", "pt2e"])
def test_prepared_models_cost_what_they_cost_without_observers(form: str) -> None:
    model = prepared(form)
    report, expected = gf.count(model, (IMAGE,)), gf.count(Model().eval(), (IMAGE,))
    assert (report.macs, report.flops) == (MACS, expected.flops)
    assert report.by_module()["conv"].macs == 6 * 6 * 8 * 27
    assert any("Observers are left out" in note for note in report.capture.notes)


def for_training(version: int) -> Any:
    """A model prepared for training with fake quantization; version 1 is one fused operator."""
    model: Any = nn.Sequential(nn.Linear(8, 4))
    model.qconfig = ao.get_default_qat_qconfig("x86", version=version)
    return ao.prepare_qat(model.train())


# Quantized and back: the output by one scale, the weight by one for each of 4 channels.
FAKE_QUANTIZED = 9 * 8 + 1 + 9 * 32 + 4
# And what was in range, extrema, moving averages, scales and zero points.
FUSED = 11 * 8 + 1 + 2 * 7 + (6 + 7) + 11 * 32 + 4 + 2 * 28 + 4 * (6 + 6)


@pytest.mark.parametrize(("version", "flops"), [(0, FAKE_QUANTIZED), (1, FUSED)])
def test_fake_quantization_in_training(version: int, flops: int) -> None:
    x, plain = torch.randn(2, 8), gf.count(nn.Linear(8, 4), (torch.randn(2, 8),))
    model = for_training(version)
    for _ in range(2):
        report = gf.count(model, (x,))
        assert report.complete
        assert (report.macs, report.flops) == (plain.macs, plain.flops + flops)
        model(x)  # gives the weight its scales
    assert gf.count_training(model, (x,)).forward.macs == plain.macs


def test_switched_off_fake_quantization() -> None:
    model, x = for_training(version=0), torch.randn(2, 8)
    model(x)
    model.apply(ao.disable_observer)
    plain = gf.count(nn.Linear(8, 4), (x,)).flops
    assert gf.count(model, (x,)).flops == plain + FAKE_QUANTIZED
    model.apply(ao.disable_fake_quant)
    assert gf.count(model, (x,)).flops == plain
    on_meta = gf.count(model.to("meta"), (x,))
    assert on_meta.flops == plain + FAKE_QUANTIZED
    assert any("switched on: the model is on meta" in note for note in on_meta.capture.notes)


@pytest.mark.parametrize("form", ["fx", "eager"])
def test_converted_models_are_refused_with_what_to_count(form: str) -> None:
    model = prepared(form)
    model(IMAGE)
    converted = quantize_fx.convert_fx(model) if form == "fx" else ao.convert(model)
    with pytest.raises(gf.CaptureError, match=r"quantized::conv2d\S* takes quantized tensors"):
        gf.count(converted, (IMAGE,))


@pytest.mark.parametrize(("dtype", "flops"), [(torch.qint8, 0), (torch.float16, 2)])
def test_dynamically_quantized_linears(dtype: torch.dtype, flops: int) -> None:
    model = ao.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear}, dtype=dtype)
    before = copy.deepcopy(model)
    report = gf.count(model, (torch.randn(2, 8),))
    assert report.complete
    assert (report.macs, report.flops) == (2 * 8 * 4, flops * 2 * 8 * 4)
    assert gf.count(model, (torch.randn(2, 8),)).flops == report.flops
    (record,) = (r for r in report.records if r.call.op.startswith("quantized::"))
    assert record.cost is not None
    assert record.cost.bytes_written == 2 * 4 * 4
    # The input, and the weight as it is unpacked: of half precision into floats.
    assert record.cost.bytes_read == 2 * 8 * 4 + 8 * 4 * (1 if dtype is torch.qint8 else 4)
    x = torch.randn(2, 8)
    assert torch.equal(model(x), before(x))
