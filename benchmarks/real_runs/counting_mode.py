"""Contractions of a real run, by arithmetic on the shapes of what the kernels get.

An oracle of its own: it sees what the dispatcher hands to kernels below autograd, has one line of
arithmetic for each, and names a kernel that contracts and has none. ``FlopCounterMode`` runs
beside it, and where the two part, the operator and both numbers are kept.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

FLOPS_PER_MAC = 2
Arithmetic = Callable[..., int]


def _product(left: torch.Tensor, right: torch.Tensor, *_: Any, **__: Any) -> int:
    """(..., M, K) @ (..., K, N): each element of the left meets each column of the right."""
    columns = right.shape[-1] if right.dim() > 1 else 1
    return left.numel() * columns


def _sum_and_product(_: Any, left: torch.Tensor, right: torch.Tensor, *__: Any, **___: Any) -> int:
    return _product(left, right)


def _linear(rows: torch.Tensor, weight: torch.Tensor, *_: Any, **__: Any) -> int:
    return rows.numel() * weight.shape[0]


def _dot(left: torch.Tensor, _: torch.Tensor) -> int:
    return left.numel()


def _window(positions: torch.Tensor, weight: torch.Tensor) -> int:
    """The whole window at each position it is slid to, in each group."""
    return positions.numel() * prod(weight.shape[1:])


def _convolution(x: torch.Tensor, weight: torch.Tensor, *args: Any, out: torch.Tensor) -> int:
    transposed = args[4]
    return _window(x if transposed else out, weight)


def _convolution_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *args: Any, **_: Any
) -> int:
    """The forward's products again for each of the two gradients that is asked for."""
    transposed, mask = args[4], args[-1]
    return _window(x if transposed else grad, weight) * (int(mask[0]) + int(mask[1]))


def _grouped(left: torch.Tensor, right: torch.Tensor, *_: Any, **__: Any) -> int:
    """Groups of rows, of columns or of what is summed; each of batched ones is a product."""
    if left.dim() == 3 and right.dim() == 2:  # noqa: PLR2004 - columns in groups
        return left[0].numel() * right.shape[-1]
    return left.numel() * right.shape[-1]


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any) -> int:
    """Q K^T, and the weights times V."""
    return prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _attention_backward(
    _: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *__: Any, **___: Any
) -> int:
    """Q K^T again, and two products for each of Q K^T and the weights times V."""
    return prod(q.shape[:-1]) * k.shape[-2] * (3 * q.shape[-1] + 2 * v.shape[-1])


def _distances(left: torch.Tensor, right: torch.Tensor) -> int:
    """|x|^2 + |y|^2 - 2 x y as one product: two columns more than the vectors have."""
    return prod(left.shape[:-1]) * right.shape[-2] * (left.shape[-1] + 2)


def _trilinear(*args: Any, **_: Any) -> int:
    """The first two factors multiplied and summed as far as the third lets, then the third.

    A step that sums over no axis is an outer product: multiplications, no contraction.
    """
    tensors, expanded, summed = args[:3], args[3:6], set(args[6])
    rank = tensors[0].dim() + len(expanded[0])
    axes = [set(range(rank)) - set(missing) for missing in expanded]
    sizes: dict[int, int] = {}
    for tensor, own in zip(tensors, axes, strict=True):
        sizes |= dict(zip(sorted(own), tensor.shape, strict=True))
    pair = axes[0] | axes[1]
    at_once = (summed - axes[2]) & pair
    steps = [(pair, at_once), (pair - at_once | axes[2], summed & axes[2])]
    return sum(prod(map(sizes.__getitem__, step)) for step, sums in steps if sums)


ARITHMETIC: dict[str, Arithmetic] = {
    **dict.fromkeys(("mm", "bmm", "mv", "_int_mm"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "_addmm_activation", "addbmm"), _sum_and_product),
    **dict.fromkeys(("dot", "vdot"), _dot),
    "linear": _linear,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "_grouped_mm": _grouped,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_trilinear": _trilinear,
    "_euclidean_dist": _distances,
}
"""Multiply-accumulates by operator, from its arguments (and ``out`` for convolutions)."""

_NEEDS_OUTPUT = {"convolution"}
_CONTRACTS = re.compile(r"mm\b|mm_|attention|lstm|gru|rnn|conv|cdist|linear(?!g)|bilinear|qlinear")
_NO_CONTRACTION = re.compile(
    r"upsample|fused_(lstm|gru)_cell|conv_tbc_|grid_sampler|convert|packed_sequence|affine_grid"
)


@dataclass
class Contractions:
    """What ran: multiply-accumulates by operator, and kernels without arithmetic here."""

    macs: Counter[str] = field(default_factory=Counter)
    unpriced: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All multiply-accumulates."""
        return self.macs.total()


class CountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Adds up the contractions of all that runs under it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.found = Contractions()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator, and count it."""
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2].removesuffix("_")
        arithmetic = ARITHMETIC.get(name)
        if arithmetic is not None:
            more = {"out": out} if name in _NEEDS_OUTPUT else {}
            self.found.macs[name] += arithmetic(*args, **more)
        elif _CONTRACTS.search(name) and not _NO_CONTRACTION.search(name):
            self.found.unpriced[name] += 1
        return out


@contextlib.contextmanager
def composite_kernels() -> Iterator[None]:
    """Recurrent layers and encoder layers as products: the fused kernels hide theirs."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _NoModules:
    """In place of a tracker of modules, whose hooks break gradients taken inside a forward."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def flop_counter() -> FlopCounterMode:
    """``FlopCounterMode`` without its breakdown by module."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


KNOWN_GAPS = {
    "mv": "has no formula",
    "addmv": "has no formula",
    "dot": "has no formula",
    "vdot": "has no formula",
    "_int_mm": "has no formula",
    "_addmm_activation": "has no formula",
    "_trilinear": "has no formula",
    "_euclidean_dist": "has no formula",
    "_grouped_mm": "has no formula for the kernel of the CPU",
    "_scaled_dot_product_flash_attention_for_cpu": "has no formula for the kernel of the CPU",
    "_scaled_dot_product_flash_attention_for_cpu_backward": "likewise",
    "convolution_backward": (
        "counts the weight's gradient of g groups g times too large (pytorch#183405)"
    ),
}
"""Operators whose contractions ``FlopCounterMode`` has wrong or not at all, and how."""


def gaps(found: Contractions, counter: FlopCounterMode) -> dict[str, tuple[int, int]]:
    """Operators on which the arithmetic and ``FlopCounterMode`` part: FLOPs of either."""
    ours = {name: FLOPS_PER_MAC * macs for name, macs in found.macs.items()}
    theirs: Counter[str] = Counter()
    for packet, flops in counter.get_flop_counts().get("Global", {}).items():
        theirs[str(packet).rpartition(".")[2].removesuffix("_")] += flops
    both = {name: (ours.get(name, 0), theirs[name]) for name in {*ours, *theirs}}
    return {name: pair for name, pair in sorted(both.items()) if pair[0] != pair[1]}
