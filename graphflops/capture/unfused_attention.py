"""Attention written out: which products of a graph a mask hides.

A fused operator takes the mask. Written out, scores are a product, a mask is added to them, and
their softmax is a factor of another product; the backward pass has four more. What the mask hides
of each is found by going from the masked scores back to the product they come from, and on to
those that take their softmax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from graphflops.core.call_sequence import Block, CallSequence, Repeat, expand
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall, TensorMeta

MASKING = frozenset(
    f"aten::{name}" for name in ("add", "add_", "where", "masked_fill", "masked_fill_")
)
"""Operators that mask scores: their result is hidden where an addend or a filler is."""
_PRODUCTS = frozenset(f"aten::{name}" for name in ("matmul", "bmm", "baddbmm", "mm", "einsum"))
# Where one element of the result comes of one, or of a row of them.
_KEPT = frozenset(
    f"aten::{name}"
    for name in (
        *("softmax", "_softmax", "_safe_softmax", "mul", "mul_", "div", "div_", "tanh", "sub"),
        *("to", "_to_copy", "type_as", "clone", "contiguous", "detach", "alias", "copy_", "cat"),
        *("dropout", "native_dropout", "native_dropout_backward", "slice", "narrow", "nan_to_num"),
        *("view", "reshape", "_unsafe_view", "expand", "transpose", "permute", "t", "squeeze"),
        *("unsqueeze", "add", "add_", "flatten", "unflatten", "split", "split_with_sizes"),
    )
)
_SOFTMAX_BACKWARD = "aten::_softmax_backward_data"
_FAR = 12
"""Operators between a product and the mask of its scores, beyond which it is not looked for."""
Share = tuple[Dim, Dim]
"""How many of some scores are hidden, and how many there are."""


def mark_hidden(calls: CallSequence[OpCall]) -> CallSequence[OpCall]:
    """Say of products how much of them the masks of attention hide."""
    if not any(_masked(call) for call in calls.items if isinstance(call, OpCall)):
        return calls
    walk = _Walk()
    walk.through(calls.items)
    shares = walk.shares
    return calls.map_items(
        lambda call: (
            replace(call, masked_scores=shares[i])
            if (i := call.template_index) in shares
            else call,
        )
    )


def _masked(call: OpCall) -> Share | None:
    """The share of its result that a call masks."""
    if call.op not in MASKING or not call.outputs or not call.outputs[0].masked_elements:
        return None
    return call.outputs[0].masked_elements, call.outputs[0].numel


class _Walk:
    """Finds the products that masked scores come from and go to.

    Attributes:
        shares: What is hidden of them, by the index of the call that was traced.
    """

    def __init__(self) -> None:
        self.shares: dict[int, Share] = {}
        self._made: dict[str, OpCall] = {}
        self._scores: dict[str, Share] = {}
        self._repeated: dict[Block[OpCall], list[str]] = {}

    def through(self, items: Iterable[OpCall | Repeat[OpCall]]) -> None:
        """Look at all calls in order, at those that are repeated once."""
        for item in items:
            if isinstance(item, Repeat):
                self._again(item)
                continue
            self._look(item)
            for out in item.outputs:
                # What is written to in place comes from where it came from.
                self._made.setdefault(out.name, item)

    def _again(self, repetition: Repeat[OpCall]) -> None:
        """Know the scores of another instance of a layer: its backward pass takes them."""
        block = repetition.block
        if block not in self._repeated:
            outputs = [out.name for call in expand(block.items) for out in call.outputs]
            self._repeated[block] = [name for name in outputs if name in self._scores]
        for name in self._repeated[block]:
            self._scores[repetition.relocation.map_name(name)] = self._scores[name]

    def _look(self, call: OpCall) -> None:
        if (share := _masked(call)) is not None:
            self._back([tensor for _, tensor in call.tensors()], share)
        elif (share := self._of_inputs(call)) is None:
            return
        elif call.op in _PRODUCTS:
            self.shares[call.template_index] = share
            return
        elif call.op == _SOFTMAX_BACKWARD:
            self._back([tensor for _, tensor in call.tensors()], share)
        elif call.op not in _KEPT:
            return
        for out in call.outputs:
            self._scores[out.name] = share

    def _of_inputs(self, call: OpCall) -> Share | None:
        """The share of a call's inputs that is hidden."""
        if not self._scores:
            return None
        for _, tensor in call.tensors():
            share = self._scores.get(tensor.name)
            if share is not None and (call.op not in _PRODUCTS or tensor.numel == share[1]):
                return share
        return None

    def _back(self, tensors: list[TensorMeta], share: Share, far: int = _FAR) -> None:
        """Find the product that masked scores come from."""
        for tensor in tensors:
            call = self._made.get(tensor.name)
            if call is None or tensor.numel != share[1]:
                continue
            if call.op in _PRODUCTS:
                self.shares[call.template_index] = share
            elif far and call.op in _KEPT and tensor.name not in self._scores:
                self._back([given for _, given in call.tensors()], share, far - 1)
