"""Arithmetic on shapes that several families share. It never branches on a symbolic size."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import sympy

from graphflops.core.cost import FLOPS_PER_MAC, Dim, OpCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphflops.core.ir import TensorMeta

# Real operations in one complex operation: (a+bi)(c+di) is 4 multiplications and 2 additions.
COMPLEX_FLOPS_PER_MAC = 8


def contraction(macs: Dim, tensor: TensorMeta) -> OpCost:
    """The cost of ``macs`` multiply-accumulates on elements like those of ``tensor``."""
    per_mac = COMPLEX_FLOPS_PER_MAC if tensor.is_complex else FLOPS_PER_MAC
    return OpCost(flops=per_mac * macs, macs=macs)


def of_stored(macs: Dim, *factors: TensorMeta) -> Dim:
    """Return those of the multiply-accumulates of a product that a sparse factor leaves.

    Each element of a factor takes part in as many, and of a sparse one those that are stored do.
    """
    for factor in factors:
        if factor.sparse is not None and macs != 0:
            each = macs // factor.numel if isinstance(macs, int) else macs / factor.numel
            macs = each * factor.stored
    return macs


def dims_of(dim: object, rank: int) -> tuple[int, ...]:
    """Normalize a ``dim`` argument: ``None`` or empty means every axis."""
    if dim is None or dim == ():
        return tuple(range(rank))
    dims = dim if isinstance(dim, tuple) else (dim,)
    return tuple(d % rank if rank else 0 for d in dims)


def lanes(tensor: TensorMeta, dim: object) -> Dim:
    """Number of reductions along ``dim``: the product of all other axes."""
    dims = dims_of(dim, len(tensor.shape))
    return prod(size for axis, size in enumerate(tensor.shape) if axis not in dims)


def smaller(a: Dim, b: Dim) -> Dim:
    """Minimum, symbolic where it must be."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return sympy.Min(a, b)


def broadcast_numel(*shapes: Sequence[Dim]) -> Dim:
    """Elements of what shapes broadcast to: along each axis the size that is not 1."""
    total: Dim = 1
    for axis in range(1, max(map(len, shapes), default=0) + 1):
        sizes = [shape[-axis] for shape in shapes if len(shape) >= axis]
        total *= next((size for size in sizes if size != 1), 1)
    return total


def reduced(elements: Dim, outputs: Dim) -> Dim:
    """Operations that combine n elements into m outputs: n - m, and none if there are none."""
    if isinstance(elements, int) and isinstance(outputs, int):
        return max(elements - outputs, 0)
    return elements - outputs


def summed(tensor: TensorMeta, outputs: Dim) -> OpCost:
    """Additions that sum the elements of a tensor to m outputs; a complex one is two."""
    return OpCost(flops=(2 if tensor.is_complex else 1) * reduced(tensor.numel, outputs))


def log2_ceil(value: Dim) -> Dim:
    """Ceiling of the base-2 logarithm, 0 for 1."""
    if isinstance(value, int):
        return max(value - 1, 0).bit_length()
    return sympy.ceiling(sympy.log(value, 2))


def larger(a: Dim, b: Dim) -> Dim:
    """Maximum, symbolic where it must be."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return sympy.Max(a, b)


def per_axis(value: object, rank: int) -> tuple[Dim, ...]:
    """A per-axis option such as ``kernel_size``: one number stands for every axis."""
    values: Sequence[Dim] = value if isinstance(value, tuple) else (value,)
    return tuple(values) * rank if len(values) == 1 else tuple(values)
