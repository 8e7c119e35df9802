"""The ``causal`` convention: ``exact`` without what masks of attention hide.

Tables of MFU count attention in two ways: in full, as in PaLM, or without the upper half of
causal attention, as a kernel computes it that skips what the mask hides. Every operator costs
what it costs in ``exact``, with ``flops_masked`` taken off its FLOPs and half of that off its
MACs: the products of hidden scores, of windows and padding too where they are known. The softmax
counts in full.

Source: the handlers of ``exact``.
"""

from __future__ import annotations

from functools import cache

from graphflops.conventions.convention import Convention
from graphflops.conventions.exact import exact
from graphflops.pricing.registry import Registry


@cache
def causal() -> Registry:
    """Return the registry."""
    return exact().without_masked("causal")


CONVENTION = Convention(
    registry=causal,
    unit="a floating-point operation: half a multiply-accumulate",
    counts="as exact, without the products of scores that a mask hides",
    omits="those; integer arithmetic, copies, views",
    source="exact, flops - flops_masked",
)
