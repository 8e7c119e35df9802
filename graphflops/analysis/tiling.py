"""Tiles of matrix products: what a product that does not fill a device loses."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, prod
from typing import NamedTuple

from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall

_TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
"""Rows and columns of a result that a multiprocessor computes at a time, of which one is chosen."""
_SPLITS = (1, 2, 4)
_LEAST_DEPTH = 256
_OVERHEAD = 32
"""Rows and columns of a tile at whose product loading takes as long as multiplying."""


class Product(NamedTuple):
    """Matrices that are multiplied: ``batch`` times rows x depth by depth x columns."""

    batch: int
    rows: int
    columns: int
    depth: int


def product_of(call: OpCall, macs: Dim) -> Product | None:
    """Return the matrices that a contraction multiplies; ``None`` if sizes are symbolic.

    A convolution is the product of its patches and its filters, and so are its gradients.

    Args:
        call: Call of a contraction.
        macs: Its multiply-accumulates.

    Example:
        >>> from graphflops.core.ir import TensorMeta
        >>> product_of(OpCall(op="aten::mm", outputs=(TensorMeta((2, 3)),)), 24)
        Product(batch=1, rows=2, columns=3, depth=4)
    """
    shape = call.outputs[0].shape if call.outputs else ()
    if len(shape) < _MATRIX or not isinstance(macs, int):
        return None
    if not all(isinstance(size, int) and size for size in shape):
        return None
    batch, rows, columns = _result_matrix(call.op, tuple(map(int, shape)))
    return Product(batch, rows, columns, max(1, macs // (batch * rows * columns)))


_MATRIX = 2
_BATCHED = ("bmm", "baddbmm", "matmul")


def _result_matrix(op: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the number of matrices in the result of a contraction, their rows and columns."""
    name = op.rpartition("::")[2]
    if "conv" in name:
        return 1, prod(shape) // shape[1], shape[1]
    if name in _BATCHED:
        return prod(shape[:-2]), shape[-2], shape[-1]
    return 1, prod(shape[:-1]), shape[-1]


@lru_cache(maxsize=2**16)
def time_of_tiles(product: Product, units: int) -> float:
    """Return the time of a product over that of one whose tiles fill all multiprocessors.

    A result is computed in tiles, as many at a time as there are multiprocessors; the last of
    these waves is not full, nor are tiles at the edges (NVIDIA, "Matrix multiplication background
    user's guide", on tile and wave quantization). Small tiles fill more multiprocessors, and load
    more for what they multiply. A deep product may be split among several. Of all these ways a
    library chooses the fastest.

    Args:
        product: The product.
        units: Number of multiprocessors.

    Example:
        >>> time_of_tiles(Product(1, 4096, 4096, 4096), 128)  # 4 waves of 256 x 128
        1.0
        >>> round(time_of_tiles(Product(1, 1024, 1280, 1280), 108), 2)
        1.1
    """
    return min(
        _time(product, units, rows, columns, split)
        for rows, columns in _TILES
        for split in _SPLITS
        if split == 1 or product.depth >= split * _LEAST_DEPTH
    )


def _time(product: Product, units: int, rows: int, columns: int, split: int) -> float:
    tiles = product.batch * ceil(product.rows / rows) * ceil(product.columns / columns) * split
    work = product.batch * product.rows * product.columns
    full = ceil(tiles / units) * units * rows * columns / split / work
    return full * _loading(rows, columns) / _loading(*_TILES[0])


def _loading(rows: int, columns: int) -> float:
    return 1 + _OVERHEAD * (1 / rows + 1 / columns)
