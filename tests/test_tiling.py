"""Tiles of matrix products: by hand, and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflops.analysis.tiling import Product, product_of, time_of_tiles
from graphflops.core.ir import OpCall, TensorMeta

sizes = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("op", "shape", "macs", "product"),
    [
        ("aten::mm", (6, 5), 6 * 5 * 7, (1, 6, 5, 7)),
        ("aten::linear", (2, 3, 5), 2 * 3 * 5 * 7, (1, 6, 5, 7)),
        ("aten::bmm", (4, 6, 5), 4 * 6 * 5 * 7, (4, 6, 5, 7)),
        ("aten::matmul", (2, 4, 6, 5), 8 * 6 * 5 * 7, (8, 6, 5, 7)),
        # 2 images of 56 x 56, 256 filters of 64 channels of 3 x 3.
        ("aten::convolution", (2, 256, 56, 56), 2 * 56 * 56 * 256 * 576, (1, 6272, 256, 576)),
        # Gradients of both: as much work again, on the result of the input's gradient.
        ("aten::convolution_backward", (2, 64, 7, 7), 2 * 49 * 64 * 576, (1, 98, 64, 576)),
        ("aten::mm", (0, 5), 0, None),
        ("aten::dot", (), 7, None),
    ],
)
def test_products(
    op: str, shape: tuple[int, ...], macs: int, product: tuple[int, ...] | None
) -> None:
    assert product_of(OpCall(op=op, outputs=(TensorMeta(shape),)), macs) == product


@pytest.mark.parametrize(
    ("product", "units", "time"),
    [
        # 16 x 32 tiles of 256 x 128 in 4 waves of 128.
        (Product(1, 4096, 4096, 4096), 128, 1),
        # One more multiprocessor than tiles: it is idle.
        (Product(1, 256, 128, 64), 2, 1.5 / 1.375),
        # A row of a product takes a tile of 64 rows, which loads 2 / 1.375 as much.
        (Product(1, 1, 64, 64), 1, 64 * 2 / 1.375),
    ],
)
def test_times_by_hand(product: Product, units: int, time: float) -> None:
    assert time_of_tiles(product, units) == pytest.approx(time)


@given(st.builds(Product, st.integers(1, 100), sizes, sizes, sizes), st.integers(1, 200))
def test_tiles_never_make_a_product_faster(product: Product, units: int) -> None:
    assert time_of_tiles(product, units) >= 1


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200))
def test_more_multiprocessors_are_never_slower(rows: int, columns: int, units: int) -> None:
    product = Product(1, 64 * rows, 64 * columns, 4096)
    seconds = [time_of_tiles(product, n) / n for n in (units, 2 * units)]
    assert seconds[1] <= seconds[0] * (1 + 1e-9)
