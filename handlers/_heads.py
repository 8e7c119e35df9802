"""Sizes of an attention, in common terms."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from graphflops.core.cost import Dim

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


class Heads(NamedTuple):
    """The sizes of an attention: ``number`` query heads (of all sequences) of L x S scores."""

    number: Dim
    kv_number: Dim
    queries: Dim
    keys: Dim
    depth: Dim
    value_depth: Dim

    @property
    def rows(self) -> Dim:
        """Query rows of all heads."""
        return self.number * self.queries

    @property
    def scores(self) -> Dim:
        """Scores of all heads, those that a mask hides included."""
        return self.rows * self.keys

    @property
    def scaling(self) -> Dim:
        """Elements of Q, and of the K of every query head: each is scaled once."""
        return (self.rows + self.number * self.keys) * self.depth


def heads_of(query: TensorMeta, key: TensorMeta, value: TensorMeta) -> Heads:
    """Of Q (..., H, L, D), K (..., H_kv, S, D) and V (..., H_kv, S, D_v)."""
    return Heads(
        number=prod(query.shape[:-2]),
        kv_number=prod(key.shape[:-2]),
        queries=query.shape[-2],
        keys=key.shape[-2],
        depth=query.shape[-1],
        value_depth=value.shape[-1],
    )
