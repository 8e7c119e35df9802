"""Other sizes in calls: numbers for symbols, or what symbols have turned out to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sympy

from graphflops.core.cost import Dim, substitute
from graphflops.core.ir import OpCall, OpRecord, SparseStorage, TensorMeta


class Substitution:
    """Puts sizes in for symbols; in equal expressions, of which there are thousands, once."""

    def __init__(self, values: Mapping[str, Dim]) -> None:
        """Put in what symbols of some names stand for."""
        self.dim = lru_cache(maxsize=None)(lambda value: substitute(value, values))

    def value(self, value: Any) -> Any:
        """An argument, a shape or a tensor."""
        if isinstance(value, sympy.Expr):
            return self.dim(value)
        if isinstance(value, TensorMeta):
            return self.tensor(value)
        return tuple(map(self.value, value)) if isinstance(value, tuple) else value

    def tensor(self, meta: TensorMeta) -> TensorMeta:
        """A tensor."""
        of = self.value
        sizes = {
            "shape": of(meta.shape),
            "strides": of(meta.strides),
            "masked_elements": of(meta.masked_elements),
        }
        if (sparse := meta.sparse) is None:
            return replace(meta, **sizes)
        elements, index_nbytes = of((sparse.elements, sparse.index_nbytes))
        return replace(meta, sparse=SparseStorage(elements, index_nbytes), **sizes)

    def call(self, call: OpCall) -> OpCall:
        """A call."""
        return replace(
            call,
            inputs={name: self.value(value) for name, value in call.inputs.items()},
            attrs={name: self.value(value) for name, value in call.attrs.items()},
            outputs=self.value(call.outputs),
            trip_count=self.value(call.trip_count),
            masked_scores=self.value(call.masked_scores),
        )

    def record(self, record: OpRecord) -> OpRecord:
        """A priced call."""
        return replace(
            record,
            call=self.call(record.call),
            cost=None if record.cost is None else record.cost.map(self.value),
            parts=tuple(map(self.record, record.parts)),
        )
