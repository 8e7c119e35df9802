"""Against fvcore, operator by operator, and both against the architectures by hand.

fvcore calls a multiply-accumulate one flop, so what it counts for a contraction is
graphflops' MACs. Every expected value is written out from the architecture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from fvcore.nn import FlopCountAnalysis
from transformers.initialization import no_init_weights

import graphflops as gf


class Case(NamedTuple):
    """A model and what it costs by hand.

    ``contractions`` are multiply-accumulates by fvcore's operator names, ``skipped`` those of
    the attention that fvcore leaves out. ``fvcore_extra`` is what fvcore adds that is no
    contraction, ``extra`` the FLOPs that graphflops counts beyond two for each MAC.
    ``parameters`` is published; it tells that the model is the one the literature means.
    """

    build: Callable[[], torch.nn.Module]
    inputs: torch.Tensor
    parameters: int
    contractions: dict[str, int]
    skipped: int
    fvcore_extra: dict[str, int]
    extra: dict[str, int]

    @property
    def macs(self) -> int:
        return sum(self.contractions.values()) + self.skipped


class Conv(NamedTuple):
    """A square convolution: side of its output, channels in and out, side of its kernel."""

    side: int
    before: int
    after: int
    kernel: int

    @property
    def macs(self) -> int:
        return self.side**2 * self.before * self.after * self.kernel**2

    @property
    def elements(self) -> int:
        return self.side**2 * self.after


def _stage(blocks: int, width: int, side: int, before: int, side_before: int) -> list[Conv]:
    """Bottlenecks of 1x1, 3x3 and 1x1; the first has a shortcut, and its stride in the 3x3."""
    wide = 4 * width
    shortcut = Conv(side, before, wide, 1)
    tail = [Conv(side, width, width, 3), Conv(side, width, wide, 1)]
    first = [shortcut, Conv(side_before, before, width, 1), *tail]
    return first + (blocks - 1) * [Conv(side, wide, width, 1), *tail]


STEM = Conv(112, 3, 64, 7)
# v1.5, as torchvision and transformers have it by default.
RESNET50 = [
    STEM,
    *_stage(3, 64, 56, 64, 56),
    *_stage(4, 128, 28, 256, 56),
    *_stage(6, 256, 14, 512, 28),
    *_stage(3, 512, 7, 1024, 14),
]
# v1, the paper's: the stride is in the first 1x1, which so sees the smaller map already.
RESNET50_V1 = [
    STEM,
    *_stage(3, 64, 56, 64, 56),
    *_stage(4, 128, 28, 256, 28),
    *_stage(6, 256, 14, 512, 14),
    *_stage(3, 512, 7, 1024, 7),
]
RESNET_SHORTCUTS = 56**2 * 256 + 28**2 * 512 + 14**2 * 1024 + 7**2 * 2048
RESNET_SUMS = 3 * 56**2 * 256 + 4 * 28**2 * 512 + 6 * 14**2 * 1024 + 3 * 7**2 * 2048
CLASSIFIER = {"linear": 2048 * 1000}


def _resnet50(class_name: str, head: dict[str, int]) -> Case:
    normalized = sum(conv.elements for conv in RESNET50)
    return Case(
        build=lambda: _model(class_name, transformers.ResNetConfig(num_labels=1000), "eager"),
        inputs=torch.zeros(1, 3, 224, 224),
        parameters=25_557_032 - (0 if head else 2048 * 1000 + 1000),
        contractions={"conv": sum(conv.macs for conv in RESNET50), **head},
        skipped=0,
        fvcore_extra={"batch_norm": 2 * normalized, "adaptive_avg_pool2d": 2048 * 7 * 7},
        extra={
            # Subtract, multiply, scale, shift; per channel add eps, sqrt, invert, times 1.
            "aten::batch_norm": 4 * normalized + 4 * sum(conv.after for conv in RESNET50),
            # After the stem and three times a block: every convolution but the shortcuts.
            "aten::relu": normalized - RESNET_SHORTCUTS,
            "aten::max_pool2d": 64 * 56 * 56 * (3 * 3 - 1),
            "aten::add_": RESNET_SUMS,
            # 48 additions and a division for each channel.
            "aten::adaptive_avg_pool2d": 2048 * (48 + 1),
            **({"aten::linear": 1000} if head else {}),
        },
    )


class Encoder(NamedTuple):
    """Twelve layers of width 768, twelve heads of 64: BERT-base and ViT-B at their lengths."""

    length: int

    @property
    def linear(self) -> int:
        return 12 * self.length * (4 * 768 * 768 + 2 * 768 * 3072)

    @property
    def bias(self) -> int:
        return 12 * self.length * (4 * 768 + 3072 + 768)

    @property
    def attention(self) -> int:
        """Q K^T and its product with V."""
        return 12 * 2 * 12 * self.length * self.length * 64

    @property
    def tokens(self) -> int:
        return self.length * 768

    @property
    def scores(self) -> int:
        return 12 * 12 * self.length * self.length

    @property
    def rows(self) -> int:
        return 12 * 12 * self.length

    def beside_attention(self) -> dict[str, int]:
        # A norm before all layers or after them, and two in each. Of n elements in m rows: mean
        # (n - m) + m, variance 4 n, add eps and rsqrt 2 m, subtract, multiply, scale, shift 4 n.
        # gelu is mul, mul, erf, add, mul.
        return {
            "aten::layer_norm": 25 * ((1 + 4 + 4) * self.tokens + 2 * self.length),
            "aten::gelu": 12 * 5 * self.length * 3072,
        }

    def fused(self, sums: int) -> dict[str, int]:
        """Of one operator. Q and K are scaled; the rest is per score, as below."""
        scaled = 12 * 2 * self.tokens
        softmax = 6 * self.scores - 2 * self.rows
        return {
            "aten::scaled_dot_product_attention": scaled + softmax,
            "aten::add": sums * self.tokens,
        }

    def eager(self, sums: int) -> dict[str, int]:
        """Of operators of their own: scores are scaled and normalized.

        softmax is max, sub, exp, sum, div; the fused one also tests rows for being masked.
        """
        return {
            "aten::mul": self.scores,
            "aten::softmax": 5 * self.scores - 2 * self.rows,
            "aten::add": sums * self.tokens,
        }


def _vit(implementation: str) -> Case:
    # 14 x 14 patches and the class token.
    encoder = Encoder(14 * 14 + 1)
    fused = implementation == "sdpa"
    linear = encoder.linear + 768 * 1000
    conv = 14 * 14 * 768 * 3 * 16 * 16
    # The position embedding, and two residuals in each layer.
    sums = 1 + 12 * 2
    return Case(
        build=lambda: _model(
            "ViTForImageClassification", transformers.ViTConfig(num_labels=1000), implementation
        ),
        inputs=torch.zeros(1, 3, 224, 224),
        parameters=86_567_656,
        contractions={"conv": conv, "linear": linear}
        | ({} if fused else {"matmul": encoder.attention}),
        skipped=encoder.attention if fused else 0,
        fvcore_extra={"layer_norm": 5 * 25 * encoder.tokens},
        extra=encoder.beside_attention()
        | (encoder.fused(sums) if fused else encoder.eager(sums))
        | {"aten::conv2d": 14 * 14 * 768, "aten::linear": encoder.bias + 1000},
    )


def _bert(implementation: str) -> Case:
    encoder = Encoder(128)
    fused = implementation == "sdpa"
    # Three embeddings are added up, and two residuals in each layer.
    sums = 2 + 12 * 2
    return Case(
        build=lambda: _model("BertModel", transformers.BertConfig(), implementation),
        inputs=torch.zeros(1, 128, dtype=torch.int64),
        parameters=109_482_240,
        # The pooler sees the first token only.
        contractions={"linear": encoder.linear + 768 * 768}
        | ({} if fused else {"matmul": encoder.attention}),
        skipped=encoder.attention if fused else 0,
        fvcore_extra={"layer_norm": 5 * 25 * encoder.tokens},
        extra=encoder.beside_attention()
        | (encoder.fused(sums) if fused else encoder.eager(sums))
        | {"aten::linear": encoder.bias + 768, "aten::tanh": 768},
    )


def _model(class_name: str, config: Any, implementation: str) -> torch.nn.Module:
    # Real tensors of any values: neither counter looks at them, and drawing them takes seconds.
    with no_init_weights():
        model: torch.nn.Module = getattr(transformers, class_name)._from_config(
            config, attn_implementation=implementation
        )
    return model.eval()


CASES = {
    "resnet50": _resnet50("ResNetModel", head={}),
    "resnet50-classifier": _resnet50("ResNetForImageClassification", head=CLASSIFIER),
    "vit-b16-classifier": _vit("sdpa"),
    "vit-b16-classifier-eager": _vit("eager"),
    "bert-base": _bert("sdpa"),
    "bert-base-eager": _bert("eager"),
}
# fvcore names a convolution for itself, all else after ATen.
FVCORE_NAMES = {"aten::conv2d": "conv", "aten::linear": "linear", "aten::matmul": "matmul"}
ATTENTION = "aten::scaled_dot_product_attention"


class Counted(NamedTuple):
    """What fvcore and graphflops found; the model itself is let go."""

    fvcore: dict[str, int]
    fvcore_total: int
    fvcore_unsupported: dict[str, int]
    report: gf.Report

    def macs(self) -> dict[str, int]:
        costs = self.report.by_operator()
        return {op: int(cost.macs) for op, cost in costs.items() if cost.macs}


@functools.cache
def _counted(name: str) -> Counted:
    case = CASES[name]
    model = case.build()
    analysis = FlopCountAnalysis(model, (case.inputs,))
    analysis.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
    return Counted(
        fvcore=dict(analysis.by_operator()),
        fvcore_total=analysis.total(),
        fvcore_unsupported=dict(analysis.unsupported_ops()),
        report=gf.count(model, (case.inputs,)),
    )


@pytest.mark.parametrize("name", CASES, scope="module")
def test_contractions_are_fvcores_and_those_by_hand(name: str) -> None:
    counted = _counted(name)
    theirs = {op: n for op, n in counted.fvcore.items() if op in FVCORE_NAMES.values()}
    ours = {FVCORE_NAMES[op]: macs for op, macs in counted.macs().items() if op != ATTENTION}
    assert ours == theirs == CASES[name].contractions


@pytest.mark.parametrize("name", CASES, scope="module")
def test_totals_differ_by_what_is_no_contraction_and_by_attention(name: str) -> None:
    counted = _counted(name)
    case = CASES[name]
    extra = sum(case.fvcore_extra.values())
    assert counted.report.complete
    assert counted.report.macs == counted.fvcore_total - extra + case.skipped
    assert counted.report.macs == case.macs
    assert counted.report.params == case.parameters
    assert counted.macs().get(ATTENTION, 0) == case.skipped
    assert counted.fvcore_unsupported.get(ATTENTION, 0) == (12 if case.skipped else 0)


@pytest.mark.parametrize("name", CASES, scope="module")
def test_the_rest_is_by_hand_on_both_sides(name: str) -> None:
    counted = _counted(name)
    case = CASES[name]
    theirs = {op: n for op, n in counted.fvcore.items() if op not in case.contractions}
    assert theirs == case.fvcore_extra
    costs = counted.report.by_operator()
    beyond = {op: cost.flops - 2 * cost.macs for op, cost in costs.items()}
    assert {op: flops for op, flops in beyond.items() if flops} == case.extra
    assert counted.report.flops == 2 * counted.report.macs + sum(case.extra.values())


# The literature states what the arithmetic by hand comes to, and so what graphflops counts.


def test_torchvision_documents_the_macs_of_resnet_and_vit() -> None:
    # ResNet50_Weights and ViT_B_16_Weights: 4.09 and 17.56 "GFLOPS", in the source ("_ops") with
    # the digits below.
    assert round(CASES["resnet50-classifier"].macs / 1e9, 3) == 4.089
    assert round(CASES["vit-b16-classifier"].macs / 1e9, 3) == 17.564


def test_timm_documents_vit_without_attention() -> None:
    # Model card of vit_base_patch16_224.augreg2_in21k_ft_in1k: 16.9 GMACs.
    case = CASES["vit-b16-classifier"]
    fvcore_total = case.macs - case.skipped + sum(case.fvcore_extra.values())
    assert round(fvcore_total / 1e9, 1) == 16.9


def test_flops_profiler_documents_the_macs_of_bert() -> None:
    # README of cli99/flops-profiler, batch 1, 128 tokens: 11.17 GMACs and 22.36 G flops, which
    # are 2 for each MAC and 5 for each element of a layer norm.
    macs = CASES["bert-base"].macs
    assert round(macs / 1e9, 2) == 11.17
    assert round((2 * macs + 5 * 25 * 128 * 768) / 1e9, 2) == 22.36


def test_the_resnet_of_the_paper() -> None:
    config = transformers.ResNetConfig(num_labels=1000, downsample_in_bottleneck=True)
    with torch.device("meta"):
        model = _model("ResNetForImageClassification", config, "eager")
        report = gf.count(model, (torch.zeros(1, 3, 224, 224),))
    assert report.macs == sum(conv.macs for conv in RESNET50_V1) + 2048 * 1000
    # He et al. (2015), table 1: 3.8e9 multiply-adds, the third digit cut off.
    assert report.macs // 10**8 == 38
