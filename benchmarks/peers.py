"""The counters that are compared: one small function each, on the same terms."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from benchmarks.models import Model, Placement

FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class Figures:
    """What a counter answers, unconverted; ``None`` is what it does not report.

    Attributes:
        flops: What it calls FLOPs, whatever it means by that.
        macs: What it calls MACs.
        attention_macs: Those of the MACs that are fused attention; graphflops only.
    """

    flops: int | None = None
    macs: int | None = None
    attention_macs: int | None = None


@dataclass(frozen=True)
class Peer:
    """A counter.

    Attributes:
        title: What tables call it.
        package: The distribution that holds it.
        reports: What its numbers are.
        sees: What it looks at.
        count: One count of a model on keyword inputs.
        flops_per_mac: How many of its FLOPs it takes for one multiply-accumulate.
        placement: The only placement it is run on, for those that are about one.
    """

    title: str
    package: str
    reports: str
    sees: str
    count: Callable[[Any, dict[str, Any]], Figures]
    flops_per_mac: int = FLOPS_PER_MAC
    placement: Placement | None = None

    def placements(self, model: Model) -> tuple[Placement, ...]:
        """Where to try a model, in order, until a count succeeds."""
        if self.placement:
            return (self.placement,)
        # Most peers are written for real weights. Where these do not fit they get the next
        # best, and the help of fake tensors if they do not manage without.
        return ("cpu",) if model.weights_fit else ("meta", "fake")


def _graphflops(model: Any, inputs: dict[str, Any]) -> Figures:
    import graphflops

    report = graphflops.count(model, (), inputs)
    if not report.complete:
        raise RuntimeError(f"no price for {', '.join(report.unsupported_ops())}")
    attention = report.by_operator().get("aten::scaled_dot_product_attention")
    return Figures(int(report.flops), int(report.macs), int(attention.macs) if attention else 0)


def _flop_counter_mode(model: Any, inputs: dict[str, Any]) -> Figures:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    return Figures(flops=counter.get_total_flops())


def _fvcore(model: Any, inputs: dict[str, Any]) -> Figures:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, tuple(inputs.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return Figures(flops=int(analysis.total()))


def _calflops(model: Any, inputs: dict[str, Any]) -> Figures:
    from calflops import calculate_flops

    flops, macs, _ = calculate_flops(
        model, kwargs=dict(inputs), print_results=False, output_as_string=False
    )
    return Figures(int(flops), int(macs))


def _deepspeed(model: Any, inputs: dict[str, Any]) -> Figures:
    from deepspeed.profiling.flops_profiler import get_model_profile

    # Its own warm-up would run the model a second time.
    flops, macs, _ = get_model_profile(
        model, kwargs=inputs, print_profile=False, as_string=False, warm_up=0
    )
    return Figures(int(flops), int(macs))


def _ptflops(backend: str) -> Callable[[Any, dict[str, Any]], Figures]:
    def count(model: Any, inputs: dict[str, Any]) -> Figures:
        from ptflops import get_model_complexity_info

        with redirect_stdout(io.StringIO()) as printed:
            macs, _ = get_model_complexity_info(
                model,
                (1,),  # ignored, since the inputs are constructed
                input_constructor=lambda _: inputs,
                print_per_layer_stat=False,
                as_strings=False,
                backend=backend,
            )
        if macs is None:  # it catches what the model raises and prints "<class ...>: message"
            raise RuntimeError(printed.getvalue().strip().rpartition("'>: ")[2])
        return Figures(macs=int(macs))

    return count


def _thop(model: Any, inputs: dict[str, Any]) -> Figures:
    import thop

    macs, _ = thop.profile(model, tuple(inputs.values()), verbose=False)
    return Figures(macs=int(macs))


def _torchinfo(model: Any, inputs: dict[str, Any]) -> Figures:
    import torchinfo

    device = next(model.parameters()).device
    summary = torchinfo.summary(model, input_data=inputs, device=device, verbose=0)
    return Figures(macs=int(summary.total_mult_adds))


REFERENCE = "graphflops"
PEERS = {
    REFERENCE: Peer(
        title="graphflops",
        package="graphflops",
        reports="FLOPs of all operators; MACs of contractions",
        sees="ATen operators, above autograd",
        count=_graphflops,
        placement="meta",
    ),
    "flop_counter_meta": Peer(
        title="FlopCounterMode, meta",
        package="torch",
        reports="FLOPs of contractions",
        sees="ATen operators as they are dispatched",
        count=_flop_counter_mode,
        placement="fake",
    ),
    "flop_counter_cpu": Peer(
        title="FlopCounterMode, CPU",
        package="torch",
        reports="FLOPs of contractions",
        sees="the same, with no formula for the CPU's fused attention",
        count=_flop_counter_mode,
        placement="cpu",
    ),
    "fvcore": Peer(
        title="fvcore",
        package="fvcore",
        reports="FLOPs",
        sees="operators of a `torch.jit` trace, without `scaled_dot_product_attention`",
        count=_fvcore,
        flops_per_mac=1,
    ),
    "calflops": Peer(
        title="calflops",
        package="calflops",
        reports="FLOPs; MACs",
        sees="patched `torch.nn.functional`, without `scaled_dot_product_attention`",
        count=_calflops,
    ),
    "deepspeed": Peer(
        title="DeepSpeed profiler",
        package="deepspeed",
        reports="FLOPs; MACs",
        sees="patched `torch.nn.functional`, with `scaled_dot_product_attention`",
        count=_deepspeed,
    ),
    "ptflops_pytorch": Peer(
        title="ptflops, pytorch",
        package="ptflops",
        reports="MACs, called FLOPs in its name",
        sees="module hooks and patched functions, without `scaled_dot_product_attention`",
        count=_ptflops("pytorch"),
        flops_per_mac=1,
    ),
    "ptflops_aten": Peer(
        title="ptflops, aten",
        package="ptflops",
        reports="MACs, called FLOPs in its name",
        sees="ATen matrix products and convolutions as they are dispatched",
        count=_ptflops("aten"),
        flops_per_mac=1,
    ),
    "thop": Peer(
        title="thop",
        package="thop",
        reports="MACs, called operations in its API",
        sees="modules of known types",
        count=_thop,
        flops_per_mac=1,
    ),
    "torchinfo": Peer(
        title="torchinfo",
        package="torchinfo",
        reports="MACs, called mult-adds",
        sees="parameters of a module, times its batch (and, if it convolves, its positions)",
        count=_torchinfo,
        flops_per_mac=1,
    ),
}
