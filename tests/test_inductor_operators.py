"""Operators that Inductor puts into graphs, as what they stand for."""

from __future__ import annotations

from typing import Any

import torch
import torch._inductor.inductor_prims
import torch.nn.functional as F
from calls import count, count_call, meta

prims: Any = torch.ops.prims
X = meta(6, 8)


def test_fused_multiply_add_is_a_product_and_a_sum() -> None:
    fused = count_call(prims.fma.default, X, X, X, out=X)
    assert fused.flops == count(lambda a, b: a * b + a, X, X).flops == 2 * 48
    complex_ = meta(6, 8, dtype=torch.complex64)
    fused = count_call(prims.fma.default, complex_, complex_, complex_, out=complex_)
    assert fused.flops == count(lambda a, b: a * b + a, complex_, complex_).flops == 8 * 48


def test_the_online_softmax_is_a_softmax_without_its_division() -> None:
    found = count_call(prims.prepare_softmax_online.default, X, -1, out=(meta(6, 1), meta(6, 1)))
    assert found.flops == count(lambda x: F.softmax(x, -1), X).flops - 48
    assert found.transcendentals == 48


def test_pooling_with_offsets_is_pooling() -> None:
    x, out = meta(1, 2, 8, 8), meta(1, 2, 4, 4)
    args = (x, [2, 2], [2, 2], [0, 0], [1, 1], False)
    op = prims._low_memory_max_pool_with_offsets.default
    found = count_call(op, *args, out=(out, meta(1, 2, 4, 4, dtype=torch.int8)))
    assert found.flops == count(lambda x: F.max_pool2d(x, 2), x).flops == 2 * 16 * 3


def test_what_computes_nothing() -> None:
    offsets = meta(1, 2, 4, 4, dtype=torch.int8)
    indices = meta(1, 2, 4, 4, dtype=torch.int64)
    op = prims._low_memory_max_pool_offsets_to_indices.default
    args = (offsets, [2, 2], [8, 8], [2, 2], [0, 0], [1, 1])
    assert count_call(op, *args, out=indices).flops == 0
    seeds, seed = meta(3, dtype=torch.int64), meta(1, dtype=torch.int64)[0]
    found = count_call(prims.inductor_lookup_seed.default, seeds, 1, out=seed)
    assert (found.flops, found.bytes_read, found.bytes_written) == (0, 8, 8)
    random = count_call(prims.inductor_random.default, [6, 8], seed, "rand", out=X)
    assert (random.flops, random.bytes_read, random.bytes_written) == (0, 0, 4 * 48)


def test_rows_that_are_written_in_place() -> None:
    index, rows = meta(2, dtype=torch.int64), meta(2, 8)
    op = prims._unsafe_index_put_.default
    assert count_call(op, X, [index], rows, True, out=X).flops == 16
    assert count_call(op, X, [index], rows, False, out=X).flops == 0


def test_a_number_may_come_first() -> None:
    aten: Any = torch.ops.aten
    for op in (aten.sub.Tensor, aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor):
        assert count_call(op, 1, X, out=X).flops == 48
    for op in (aten.maximum.default, aten.pow.Scalar, aten.remainder.Scalar_Tensor):
        assert count_call(op, 1, X, out=X).flops == 48
    assert count_call(aten.where.ScalarSelf, X > 0, 1, X, out=X).flops == 0
