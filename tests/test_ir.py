"""What flows between the rooms."""

import pytest
import sympy
import torch

from graphflops.core.ir import OpCall, TensorMeta, dtype_bits
from graphflops.errors import GraphFlopsError

DTYPES = {str(d)[len("torch.") :]: d for d in vars(torch).values() if isinstance(d, torch.dtype)}


@pytest.mark.parametrize("name", DTYPES)
def test_a_torch_dtype_has_the_size_that_torch_says(name: str) -> None:
    # Torch reports one byte for anything smaller.
    assert max(1, dtype_bits(name) // 8) == DTYPES[name].itemsize


@pytest.mark.parametrize("name", DTYPES)
def test_a_torch_dtype_is_of_the_kind_that_torch_says(name: str) -> None:
    dtype, meta = DTYPES[name], TensorMeta((1,), name)
    assert meta.is_complex == dtype.is_complex
    assert meta.is_floating == (dtype.is_floating_point or dtype.is_complex)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("bcomplex32", 32), ("uint3", 3), ("quint2x4", 2), ("float6_e3m2fn_x4", 24), ("posit16", 16)],
)
def test_a_dtype_that_this_torch_may_lack_has_the_size_in_its_name(name: str, bits: int) -> None:
    assert dtype_bits(name) == bits


def test_a_dtype_without_a_size_is_named() -> None:
    with pytest.raises(GraphFlopsError, match="an element of dtype 'opaque' takes"):
        dtype_bits("opaque")


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
