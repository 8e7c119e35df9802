"""What flows between the rooms."""

import pytest
import sympy
import torch

from graphflops.ir import DTYPE_BITS, OpCall, TensorMeta


def test_every_torch_dtype_has_its_size() -> None:
    for name, dtype in vars(torch).items():
        if not isinstance(dtype, torch.dtype) or str(dtype) != f"torch.{name}":
            continue
        # Torch reports one byte for anything smaller.
        assert max(1, DTYPE_BITS[name] // 8) == dtype.itemsize, name


@pytest.mark.parametrize(
    ("meta", "nbytes"),
    [
        (TensorMeta((2, 3), "float32"), 2 * 3 * 4),
        (TensorMeta((2, 3), "bfloat16"), 2 * 3 * 2),
        (TensorMeta((), "int64"), 8),
        (TensorMeta((5,), "uint4"), 3),  # 20 bits take three bytes
        (TensorMeta((4, 1000), "float32", strides=(0, 1)), 1000 * 4),  # expanded: one row exists
        (TensorMeta((4, 1000), "float32", strides=(1000, 1)), 4 * 1000 * 4),
    ],
)
def test_bytes(meta: TensorMeta, nbytes: int) -> None:
    assert meta.nbytes == nbytes


def test_symbolic_bytes() -> None:
    s = sympy.Symbol("S", positive=True, integer=True)
    assert TensorMeta((s, 8), "float16").nbytes == 16 * s


@pytest.mark.parametrize(
    ("dtypes", "floating"),
    [
        (("float32", "float32"), True),
        (("float32", "bool"), True),  # a comparison of floats
        (("int64", "float32"), True),  # a division of integers
        (("complex64", "complex64"), True),
        (("int64", "int64"), False),
        (("bool", "bool"), False),
    ],
)
def test_arithmetic_is_floating_if_any_tensor_is(dtypes: tuple[str, str], floating: bool) -> None:
    call = OpCall(
        op="aten::x",
        inputs={"self": TensorMeta((1,), dtypes[0])},
        outputs=(TensorMeta((1,), dtypes[1]),),
    )
    assert call.is_floating is floating
