"""Shapes of the tensors that are alive at a peak, as the calls of the pass have them."""

from __future__ import annotations

from collections.abc import Iterable

from graphflops.analysis.live_tensors import LiveTensor
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall, TensorMeta


class TensorShapes:
    """Shapes of tensors by name.

    Args:
        calls: The calls of the pass.
    """

    def __init__(self, calls: Iterable[OpCall]) -> None:
        self._read: dict[str, TensorMeta] = {}
        self._made: dict[str, tuple[TensorMeta, ...]] = {}
        for call in calls:
            self._made[call.name] = call.outputs
            for _, tensor in call.tensors():
                self._read.setdefault(tensor.name, tensor)

    def of(self, tensor: LiveTensor) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor; ``None`` if no tensor of a call fills its memory."""
        read = self._read.get(tensor.name)
        candidates = (*self._made.get(tensor.name, ()), *([] if read is None else [read]))
        fitting = (
            meta.shape
            for meta in candidates
            if meta.nbytes == tensor.nbytes and meta.dtype == tensor.dtype
        )
        return next(fitting, None)
