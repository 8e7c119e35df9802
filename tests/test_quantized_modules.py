"""Modules that torch.ao has quantized: dynamically, prepared, converted."""

from __future__ import annotations

import copy
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


def prepared(form: str) -> Any:
    if form == "fx":
        mapping = ao.get_default_qconfig_mapping("x86")
        return quantize_fx.prepare_fx(Model().eval(), mapping, (IMAGE,))
    model: Any = Model().eval()
    model.qconfig = ao.get_default_qconfig("x86")
    return ao.prepare(model)


@pytest.mark.parametrize("form", ["fx", "eager"])
def test_prepared_models_cost_what_they_cost_without_observers(form: str) -> None:
    model = prepared(form)
    report, expected = gf.count(model, (IMAGE,)), gf.count(Model().eval(), (IMAGE,))
    assert (report.macs, report.flops) == (MACS, expected.flops)
    assert report.by_module()["conv"].macs == 6 * 6 * 8 * 27
    assert any("Observers are left out" in note for note in report.capture.notes)


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
