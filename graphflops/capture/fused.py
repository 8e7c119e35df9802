"""Kernels that do two things at once, as the two calls they stand for.

The backward of a convolution makes the gradient of its input and that of its weight, which
are asked about apart. The backward of fused attention computes the scores again, which the
written-out form has kept: they are recomputation, and model FLOPs are without them.
"""

from __future__ import annotations

from dataclasses import replace

from graphflops.ir import OpCall, Phase

_SCORES = "graphflops::attention_scores"
_PACKED_SCORES = "graphflops::attention_scores_packed"
_ATTENTION = {
    **{
        f"aten::_scaled_dot_product_{kind}_backward": _SCORES
        for kind in (
            *("flash_attention", "flash_attention_for_cpu", "efficient_attention"),
            *("cudnn_attention", "fused_attention_overrideable"),
        )
    },
    "aten::_flash_attention_backward": _PACKED_SCORES,
    "aten::_efficient_attention_backward": _PACKED_SCORES,
}


def parts(call: OpCall) -> tuple[OpCall, ...]:
    """A call as the calls it stands for, in order; most stand for themselves."""
    if call.op == "aten::convolution_backward":
        return _convolution(call)
    if call.op in _ATTENTION:
        return _attention(call, _ATTENTION[call.op]), call
    return (call,)


def _convolution(call: OpCall) -> tuple[OpCall, ...]:
    mask = call.attrs["output_mask"]
    if not isinstance(mask, tuple) or not (mask[0] and any(mask[1:])):
        return (call,)
    first, *rest = call.outputs
    halves = (((True, False, False), (first,)), ((False, *mask[1:]), tuple(rest)))
    return tuple(
        replace(call, attrs={**call.attrs, "output_mask": asked}, outputs=outputs)
        for asked, outputs in halves
    )


def _attention(call: OpCall, scores: str) -> OpCall:
    """The scores that the backward of an attention computes again, nothing of which it keeps."""
    bias = next(
        (call.inputs[n] for n in ("attn_bias", "attn_mask", "bias") if n in call.inputs), None
    )
    return replace(
        call,
        op=scores,
        overload="default",
        inputs={name: call.inputs[name] for name in ("query", "key")},
        attrs={**call.attrs, "attn_bias": bias},
        outputs=(),
        phase=Phase.RECOMPUTE,
    )
