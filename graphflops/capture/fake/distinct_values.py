"""Bounds on the number of distinct values in an integer tensor of unknown values.

A detector loops over the distinct classes of its boxes: at most the number of labels, not of boxes.
A router chooses among its experts, of which one-hot rows may have one more. A mask joined with its
negation, by which code sorts elements to the front, has as many true elements as the mask has in
all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import torch

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.tensor_map import TensorMap
from graphflops.capture.torch_internals.no_modes import no_modes

_ATEN = torch.ops.aten


class DistinctValues:
    """Bounds on the distinct values of fake tensors."""

    def __init__(self, value_of: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        """Start without bounds; tensors whose value ``value_of`` returns are counted exactly."""
        self._value_of = value_of
        self._bounds: TensorMap[tuple[int | None, int]] = TensorMap()
        self._negated: TensorMap[Any] = TensorMap()
        self._true_counts: TensorMap[tuple[int, int]] = TensorMap()

    @property
    def maps(self) -> tuple[TensorMap[Any], ...]:
        """Maps of the tensors of whose number of values something is known."""
        return self._bounds, self._negated, self._true_counts

    @staticmethod
    def concerns(func: Any, out: Any) -> bool:
        """Return True if a result may have a bound, whatever is known of the arguments."""
        if func not in _RULED:
            return False
        first = out[0] if isinstance(out, list | tuple) else out
        return func not in _PROPAGATING or _is_integer(first)

    def propagate(self, func: Any, args: Any, out: Any) -> None:
        """Record the bound of a result that is selected from elements, a remainder, or indices."""
        outs = out if isinstance(out, list | tuple) else (out,)
        if func not in _RULED or not _has_version(outs[0]):
            return
        if func in _NEGATIONS:
            self._negated[out] = ref(args[0]), (args[0]._version, out._version)
        elif func is _ATEN.cat.default and self._are_complements(args[0]):
            self._true_counts[out] = args[0][0].numel(), out._version
        if func in _CHOOSING:
            axis = args[_CHOOSING[func]] if len(args) > _CHOOSING[func] else -1
            if args[0].dim() and axis is not None and isinstance(size := args[0].shape[axis], int):
                self._bounds[outs[-1]] = size, outs[-1]._version
            return
        if func not in _PROPAGATING or not _is_integer(outs[0]):
            return
        if self._value_of(outs[0]) is not None:
            return
        bound: int | None
        if func is _ATEN.remainder.Scalar:
            bound = abs(args[1]) if isinstance(args[1], int) else None
        else:
            tensors = tensors_in(args[0])
            bounds = [bound for x in tensors if (bound := self.bound(x)) is not None]
            bound = sum(bounds) if len(bounds) == len(tensors) else None
        for tensor in outs:
            self._bounds[tensor] = bound, tensor._version

    def bound(self, tensor: torch.Tensor) -> int | None:
        """Return an upper bound on the number of distinct values in a tensor, if there is one."""
        if (value := self._value_of(tensor)) is not None:
            with no_modes():
                return int(torch.unique(value).numel())
        # The bound does not hold after an in-place write.
        bound, version = self._bounds.get(tensor) or (None, None)
        return None if version is None or version != tensor._version else bound

    def true_count(self, mask: torch.Tensor) -> int | None:
        """Return the number of true elements of a mask, if its making decides it."""
        count, version = self._true_counts.get(mask) or (None, None)
        return None if version is None or version != mask._version else count

    def _are_complements(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Return True if one of two masks is the negation of the other."""
        if len(tensors) != 2 or any(tensor.dtype != torch.bool for tensor in tensors):  # noqa: PLR2004 - a pair
            return False
        for mask, other in (tensors, tensors[::-1]):
            negated, versions = self._negated.get(other) or (lambda: None, ())
            if negated() is mask and versions == (mask._version, other._version):
                return True
        return False


def _has_version(out: Any) -> bool:
    """Return False for what is no tensor, and for an inference tensor: writes go unnoticed."""
    return isinstance(out, torch.Tensor) and not out.is_inference()


def _is_integer(out: Any) -> bool:
    return isinstance(out, torch.Tensor) and not (out.is_floating_point() or out.is_complex())


_NEGATIONS = {_ATEN.bitwise_not.default, _ATEN.logical_not.default}
_CHOOSING = {_ATEN.topk.default: 2, _ATEN.argmax.default: 1}
"""Operators that return indices along an axis, by the position of the axis."""
_PROPAGATING = {
    *(_ATEN.index.Tensor, _ATEN.gather.default, _ATEN.index_select.default, _ATEN.take.default),
    *(_ATEN.select.int, _ATEN.slice.Tensor, _ATEN.masked_select.default, _ATEN.cat.default),
    *(_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.clone.default, _ATEN._to_copy.default),
    *(_ATEN.expand.default, _ATEN.permute.default, _ATEN.t.default, _ATEN.transpose.int),
    *(
        _ATEN.remainder.Scalar,
        _ATEN.unsqueeze.default,
        _ATEN.squeeze.dim,
        _ATEN.squeeze.default,
        _ATEN.detach.default,
    ),
}
"""Operators whose results have only values of their first argument, or of few remainders."""
_RULED = frozenset({*_NEGATIONS, *_CHOOSING, *_PROPAGATING})
"""Operators whose results are looked at."""
