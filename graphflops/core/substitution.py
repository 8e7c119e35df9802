"""Substitution of values for the symbolic sizes of calls and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sympy

from graphflops.core.cost import Dim, substitute
from graphflops.core.ir import OpCall, OpRecord, SparseStorage, TensorMeta


class Substitution:
    """Substitution of values for symbols.

    A capture has thousands of equal expressions: each distinct one is computed once.

    Args:
        values: Values by symbol name.
    """

    def __init__(self, values: Mapping[str, Dim]) -> None:
        self.dim = lru_cache(maxsize=None)(lambda value: substitute(value, values))

    def value(self, value: Any) -> Any:
        """Apply to an argument, a shape or a tensor."""
        if isinstance(value, sympy.Expr):
            return self.dim(value)
        if isinstance(value, TensorMeta):
            return self.tensor(value)
        return tuple(map(self.value, value)) if isinstance(value, tuple) else value

    def tensor(self, meta: TensorMeta) -> TensorMeta:
        """Apply to a tensor."""
        sizes = {
            "shape": self.value(meta.shape),
            "strides": self.value(meta.strides),
            "masked_elements": self.value(meta.masked_elements),
        }
        if (sparse := meta.sparse) is None:
            return replace(meta, **sizes)
        elements, index_nbytes = self.value((sparse.elements, sparse.index_nbytes))
        return replace(meta, sparse=SparseStorage(elements, index_nbytes), **sizes)

    def call(self, call: OpCall) -> OpCall:
        """Apply to a call."""
        return replace(
            call,
            inputs={name: self.value(value) for name, value in call.inputs.items()},
            attrs={name: self.value(value) for name, value in call.attrs.items()},
            outputs=self.value(call.outputs),
            trip_count=self.value(call.trip_count),
            masked_scores=self.value(call.masked_scores),
        )

    def record(self, record: OpRecord) -> OpRecord:
        """Apply to a record."""
        return replace(
            record,
            call=self.call(record.call),
            cost=None if record.cost is None else record.cost.map(self.value),
            parts=tuple(map(self.record, record.parts)),
        )
