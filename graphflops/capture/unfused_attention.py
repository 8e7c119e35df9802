"""Masks in unfused attention: the masked share of the matrix products of a graph.

A fused operator takes the mask as an argument. In unfused attention, scores are a product, a
mask is added to them, and their softmax is a factor of another product; the backward pass has
four more products. The masked share of each is found by following the masked scores back to the
product that computes them, and forward to those that take their softmax.
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
"""Operators that mask scores, by an addend or a fill value."""
_PRODUCTS = frozenset(f"aten::{name}" for name in ("matmul", "bmm", "baddbmm", "mm", "einsum"))
# Operators that preserve the masked share: each element of the result depends on one element of
# the input, or on a row.
_SHARE_PRESERVING = frozenset(
    f"aten::{name}"
    for name in (
        *("softmax", "_softmax", "_safe_softmax", "mul", "mul_", "div", "div_", "tanh", "sub"),
        *("to", "_to_copy", "type_as", "clone", "contiguous", "detach", "alias", "copy_", "cat"),
        *("dropout", "native_dropout", "native_dropout_backward", "slice", "narrow", "nan_to_num"),
        *(
            "view",
            "reshape",
            "_unsafe_view",
            "expand",
            "transpose",
            "slice_backward",
            "permute",
            "t",
            "squeeze",
        ),
        *("unsqueeze", "add", "add_", "flatten", "unflatten", "split", "split_with_sizes"),
    )
)
_SOFTMAX_BACKWARD = "aten::_softmax_backward_data"
_MAX_DISTANCE = 12
"""Maximum number of operators between a product and the mask of its scores."""
Share = tuple[Dim, Dim]
"""Number of masked scores and number of all scores."""


def mark_masked_products(calls: CallSequence[OpCall]) -> CallSequence[OpCall]:
    """Return the calls with ``masked_scores`` set on products of unfused attention."""
    if not any(_masked_share(call) for call in calls.items if isinstance(call, OpCall)):
        return calls
    search = _ProductSearch()
    search.visit(calls.items)
    shares = search.shares
    return calls.map_items(
        lambda call: (
            replace(call, masked_scores=shares[i])
            if (i := call.template_index) in shares
            else call,
        )
    )


def _masked_share(call: OpCall) -> Share | None:
    """Return the share of its result that a call masks."""
    if call.op not in MASKING or not call.outputs or not call.outputs[0].masked_elements:
        return None
    return call.outputs[0].masked_elements, call.outputs[0].numel


class _ProductSearch:
    """Search for the products that compute masked scores, and those that take them.

    Attributes:
        shares: Masked shares of products, by index of the traced call.
    """

    def __init__(self) -> None:
        self.shares: dict[int, Share] = {}
        self._producers: dict[str, OpCall] = {}
        self._scores: dict[str, Share] = {}
        self._scores_of_block: dict[Block[OpCall], list[str]] = {}

    def visit(self, items: Iterable[OpCall | Repeat[OpCall]]) -> None:
        """Visit all calls in order, those of a repeated layer once."""
        for item in items:
            if isinstance(item, Repeat):
                self._visit_repeat(item)
                continue
            self._visit_call(item)
            for out in item.outputs:
                # A tensor that is written to in place keeps its first producer.
                self._producers.setdefault(out.name, item)

    def _visit_repeat(self, repeat: Repeat[OpCall]) -> None:
        """Add the scores of another instance of a layer, which its backward pass takes."""
        block = repeat.block
        if block not in self._scores_of_block:
            outputs = [out.name for call in expand(block.items) for out in call.outputs]
            self._scores_of_block[block] = [name for name in outputs if name in self._scores]
        for name in self._scores_of_block[block]:
            self._scores[repeat.relocation.map_name(name)] = self._scores[name]

    def _visit_call(self, call: OpCall) -> None:
        if (share := _masked_share(call)) is not None:
            self._mark_producers([tensor for _, tensor in call.tensors()], share)
        elif (share := self._input_share(call)) is None:
            return
        elif call.op in _PRODUCTS:
            self.shares[call.template_index] = share
            return
        elif call.op == _SOFTMAX_BACKWARD:
            self._mark_producers([tensor for _, tensor in call.tensors()], share)
        elif call.op not in _SHARE_PRESERVING:
            return
        for out in call.outputs:
            self._scores[out.name] = share

    def _input_share(self, call: OpCall) -> Share | None:
        """Return the masked share of the inputs of a call."""
        if not self._scores:
            return None
        for _, tensor in call.tensors():
            share = self._scores.get(tensor.name)
            if share is not None and (call.op not in _PRODUCTS or tensor.numel == share[1]):
                return share
        return None

    def _mark_producers(
        self, tensors: list[TensorMeta], share: Share, distance: int = _MAX_DISTANCE
    ) -> None:
        """Mark the products that compute some scores, up to a distance in operators."""
        for tensor in tensors:
            call = self._producers.get(tensor.name)
            if call is None:
                continue
            if call.op in _PRODUCTS:
                # Between a product and its softmax, columns may be added: attention sinks.
                if tensor.numel == share[1]:
                    self.shares[call.template_index] = share
            elif distance and call.op in _SHARE_PRESERVING and tensor.name not in self._scores:
                inputs = [meta for _, meta in call.tensors()]
                self._mark_producers(inputs, share, distance - 1)
