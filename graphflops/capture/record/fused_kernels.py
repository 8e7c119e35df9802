"""Fused kernels of the backward pass, each split into the calls that it combines.

The backward of a convolution computes the gradient of its input and that of its weight, which
are reported separately. The backward of fused attention recomputes the scores, which the unfused
form has saved, and may compute gradients that are discarded: neither is part of model FLOPs.
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


def split_fused(call: OpCall, needs_input_grad: Sequence[bool] = ()) -> tuple[OpCall, ...]:
    """Split a fused call into the calls it combines, in order; most calls are not fused.

    Args:
        call: The call.
        needs_input_grad: For the inputs of the forward of a backward call, True if they need a
            gradient; missing ones do.
    """
    if call.op == "aten::convolution_backward":
        return _convolution(call)
    if call.op == "aten::mkldnn_rnn_layer_backward":
        return _recurrent(call, needs_input_grad)
    if call.op in _ATTENTION:
        inputs = zip(("query", "key", "value"), needs_input_grad, strict=False)
        return _attention(
            replace(call, discarded_gradients=frozenset(n for n, needed in inputs if not needed))
        )
    return (call,)


def _convolution(call: OpCall) -> tuple[OpCall, ...]:
    mask = call.attrs["output_mask"]
    if not isinstance(mask, tuple) or not (mask[0] and any(mask[1:])):
        return (call,)
    first, *rest = call.outputs
    halves = (((True, False, False), (first,)), ((False, *mask[1:]), tuple(rest)))
    return tuple(
        replace(call, attrs={**call.attrs, "output_mask": half_mask}, outputs=outputs)
        for half_mask, outputs in halves
    )


def _recurrent(call: OpCall, needs_input_grad: Sequence[bool]) -> tuple[OpCall, ...]:
    """Split the backward of a recurrent layer: through the steps, and gradients of its weights."""
    unneeded = {
        n for n, needed in zip(_RECURRENT, needs_input_grad, strict=False) if not needed
    } - {"cx_tmp"}
    first, *weights, state, cell = call.outputs
    through = replace(
        call, discarded_gradients=frozenset(unneeded | _WEIGHTS), outputs=(first, state, cell)
    )
    not_weights = unneeded | (set(_RECURRENT) - _WEIGHTS)
    return through, replace(
        call, discarded_gradients=frozenset(not_weights), outputs=tuple(weights)
    )


def _attention(call: OpCall) -> tuple[OpCall, ...]:
    recompute = replace(
        call,
        op=ATTENTION_SCORES,
        overload=call.op.removeprefix("aten::"),
        outputs=(),
        phase=Phase.RECOMPUTE,
    )
    return recompute, call


_FUSED = {
    *_ATTENTION,
    *(ATTENTION_SCORES, "aten::convolution_backward", "aten::mkldnn_rnn_layer_backward"),
}


def is_part_of_fused(call: OpCall) -> bool:
    """Return True for a call of a kernel that may be split."""
    return call.op in _FUSED


def merge_fused(parts: Sequence[OpCall]) -> OpCall:
    """Return the fused call of its parts: what :func:`split_fused` has split."""
    *others, last = parts
    if not others or others[0].op == ATTENTION_SCORES:
        return last
    first = others[0]
    if first.op == "aten::convolution_backward":
        masks = [part.attrs["output_mask"] for part in parts]
        mask = tuple(map(any, zip(*masks, strict=True)))
        outputs = (*first.outputs, *last.outputs)
        return replace(first, attrs={**first.attrs, "output_mask": mask}, outputs=outputs)
    out, *states = first.outputs
    return replace(first, outputs=(out, *last.outputs, *states))
