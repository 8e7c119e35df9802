"""Kernels that do two things at once, as the two calls they stand for.

The backward of a convolution makes the gradient of its input and that of its weight, which
are asked about apart. The backward of fused attention computes the scores again, which the
written-out form has kept, and gradients that nobody may want: model FLOPs are without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphflops.core.ir import ATTENTION_SCORES, OpCall, Phase

_ATTENTION = {
    *(
        f"aten::_scaled_dot_product_{kind}_backward"
        for kind in (
            *("flash_attention", "flash_attention_for_cpu", "efficient_attention"),
            *("cudnn_attention", "fused_attention_overrideable"),
        )
    ),
    *("aten::_flash_attention_backward", "aten::_efficient_attention_backward"),
    *("aten::_cudnn_attention_backward", "torch_attn::_varlen_attn_backward"),
}


_WEIGHTS = {"weight1", "weight2", "weight3", "weight4"}
_RECURRENT = ("input", *sorted(_WEIGHTS), "hx_", "cx_tmp")


def parts(call: OpCall, asked: Sequence[bool] = ()) -> tuple[OpCall, ...]:
    """A call as the calls it stands for, in order; most stand for themselves.

    Args:
        call: The call.
        asked: Of a backward call, for which inputs of the forward a gradient is asked; for all
            that are not mentioned.
    """
    if call.op == "aten::convolution_backward":
        return _convolution(call)
    if call.op == "aten::mkldnn_rnn_layer_backward":
        return _recurrent(call, asked)
    if call.op in _ATTENTION:
        inputs = zip(("query", "key", "value"), asked, strict=False)
        return _attention(
            replace(call, discarded_gradients=frozenset(n for n, wanted in inputs if not wanted))
        )
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


def _recurrent(call: OpCall, asked: Sequence[bool]) -> tuple[OpCall, ...]:
    """A layer's way back through the steps, and the gradients of its weights."""
    unused = {n for n, wanted in zip(_RECURRENT, asked, strict=False) if not wanted} - {"cx_tmp"}
    first, *weights, state, cell = call.outputs
    through = replace(
        call, discarded_gradients=frozenset(unused | _WEIGHTS), outputs=(first, state, cell)
    )
    of_weights = unused | (set(_RECURRENT) - _WEIGHTS)
    return through, replace(call, discarded_gradients=frozenset(of_weights), outputs=tuple(weights))


def _attention(call: OpCall) -> tuple[OpCall, ...]:
    again = replace(
        call,
        op=ATTENTION_SCORES,
        overload=call.op.removeprefix("aten::"),
        outputs=(),
        phase=Phase.RECOMPUTE,
    )
    return again, call
