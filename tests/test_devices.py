"""The table of devices says what makers publish; a user's own file is read, or a sentence names it."""

from __future__ import annotations

import pickle

import pytest

import graphflops as gf
from graphflops.analysis.devices import DTYPES, known_devices
from graphflops.errors import ModelSpecError

DEVICES = known_devices()
ALL = pytest.mark.parametrize("found", DEVICES.values(), ids=DEVICES)

# What peak_flops has answered since 0.1, in TFLOP/s.
PEAKS = """
v100-sxm2 float16=125 float32=15.7
t4 float16=65 float32=8.1
a100 bfloat16=312 float16=312 tf32=156 float32=19.5 float64=19.5
a10 bfloat16=125 float16=125 tf32=62.5 float32=31.2
l4 bfloat16=121 float16=121 float8=242.5 tf32=60 float32=30.3
l40s bfloat16=362.05 float16=362.05 float8=733 tf32=183 float32=91.6
h100-sxm bfloat16=989.4 float16=989.4 float8=1978.9 tf32=494.7 float32=66.9
h100-pcie bfloat16=756 float16=756 float8=1513 tf32=378 float32=51
h200 bfloat16=989.4 float16=989.4 float8=1978.9 tf32=494.7 float32=66.9
b200 bfloat16=2250 float16=2250 float8=4500 float4=9000 tf32=1125
mi250x bfloat16=383 float16=383
mi300x bfloat16=1307.4 float16=1307.4 float8=2614.9 tf32=653.7 float32=163.4
tpu-v4 bfloat16=275
tpu-v5e bfloat16=197
tpu-v5p bfloat16=459
tpu-v6e bfloat16=918
"""


def _rates(text: str) -> dict[str, float]:
    return {dtype: float(tera) for dtype, tera in (rate.split("=") for rate in text.split())}


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        (name, dtype, tera)
        for name, _, rates in (line.partition(" ") for line in PEAKS.strip().splitlines())
        for dtype, tera in _rates(rates).items()
    ],
)
def test_peak_rates_stay_what_they_were(name: str, dtype: str, tera: float) -> None:
    assert gf.peak_flops(name, dtype) == round(tera * 10**12)


# Name; matrix and vector TFLOP/s; GB/s; GB; MiB of cache: from the makers' sheets.
SHEETS = [
    ("p4", "", "float32=5.5 int8=22", 192, 8, 2),
    ("p100-pcie-16gb", "", "float64=4.7 float32=9.3 float16=18.7", 732, 16, 4),
    ("v100-pcie-32gb", "float16=112", "float64=7 float32=14", 900, 32, 6),
    ("t4", "float16=65 int8=130 int4=260", "float32=8.1", 320, 16, 4),
    ("l4", "bfloat16=121 float16=121 float8=242.5 tf32=60 int8=242.5", "float32=30.3", 300, 24, 48),
    (
        "a100-pcie-40gb",
        "bfloat16=312 float16=312 tf32=156 float64=19.5 int8=624 int4=1248",
        "float64=9.7 float32=19.5 float16=78 bfloat16=39",
        1555,
        40,
        40,
    ),
    (
        "h100-sxm",
        "bfloat16=989.4 float16=989.4 float8=1978.9 tf32=494.7 float64=66.9 int8=1978.9",
        "float64=33.5 float32=66.9 float16=133.8 bfloat16=133.8",
        3350,
        80,
        50,
    ),
    (
        "mi100",
        "float32=46.1 float16=184.6 bfloat16=92.3 int8=184.6",
        "float64=11.5 float32=23.1",
        1228.8,
        32,
        8,
    ),
    (
        "mi210",
        "float64=45.3 float32=45.3 float16=181 bfloat16=181 int8=181",
        "float64=22.6 float32=22.6",
        1638.4,
        64,
        8,
    ),
    # One of two dies: half of 362.1, 90.5 and 45.3 TFLOP/s, of 3276.8 GB/s, of 128 GB.
    (
        "mi250",
        "float64=45.25 float32=45.25 float16=181.05 bfloat16=181.05 int8=181.05",
        "float64=22.65 float32=22.65",
        1638.4,
        64,
        8,
    ),
    (
        "rtx-4090",
        "bfloat16=165.2 float16=165.2 float8=330.3 tf32=82.6 int8=660.6 int4=1321.2",
        "float32=82.6 float16=82.6 bfloat16=82.6",
        1008,
        24,
        72,
    ),
    ("trainium2", "bfloat16=667 float16=667 float8=1299 tf32=667 float32=181", "", 2900, 96, 224),
    ("gaudi3", "bfloat16=1835 float8=1835", "bfloat16=28.7", 3700, 128, 96),
    ("tpu-v5p", "bfloat16=459 int8=918", "", 2765, 95, 128),
]


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet[0])
def test_figures_are_those_of_the_sheets(
    sheet: tuple[str, str, str, float, int, int],
) -> None:
    name, matrix, vector, bandwidth, memory, cache = sheet
    found = gf.device(name)
    for rates, expected in ((found.matrix, matrix), (found.vector, vector)):
        assert rates == {dtype: round(tera * 10**12) for dtype, tera in _rates(expected).items()}
    assert found.bandwidth == bandwidth * 1e9
    assert (found.memory, found.cache) == (memory * 10**9, cache * 2**20)


def test_there_are_enough_and_each_is_found_by_every_name() -> None:
    assert len(DEVICES) >= 40
    names = [name for found in DEVICES.values() for name in (found.name, *found.aliases)]
    assert len(names) == len(set(names)) == len({name.lower() for name in names})
    for found in DEVICES.values():
        for name in (found.name, *found.aliases):
            assert gf.device(name) == gf.device(name.upper()) == found


@ALL
def test_every_device_is_whole(found: gf.Device) -> None:
    assert found.matrix or found.vector
    assert all(rate > 0 for rate in [*found.matrix.values(), *found.vector.values()])
    assert set(found.matrix) | set(found.vector) <= set(DTYPES)
    assert found.bandwidth > 0
    assert found.memory > found.cache >= 0
    assert 0 < found.launch < 1e-4
    assert found.title
    assert found.vendor
    assert found.source
    assert 2016 <= int(found.date[:4]) <= 2026
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301  # what was just written


@ALL
def test_rates_grow_as_numbers_shrink(found: gf.Device) -> None:
    # A matrix unit is no slower than ordinary units, or it would not be used.
    assert all(found.matrix[dtype] >= found.vector.get(dtype, 0) for dtype in found.matrix)
    order = [d for d in ("float64", "float32", "tf32", "float16", "float8") if d in found.matrix]
    rates = [found.matrix[dtype] for dtype in order]
    assert rates == sorted(rates)
    # No ratio of the roofline is absurd: figures are in the units that they are said to be in.
    peak = max([*found.matrix.values(), *found.vector.values()])
    assert 5 < peak / found.bandwidth < 3000


NVIDIA = [found for found in DEVICES.values() if found.vendor == "NVIDIA"]
WITH_FLOAT8 = [found for found in NVIDIA if "float8" in found.matrix]
WITH_BFLOAT16 = [found for found in NVIDIA if "bfloat16" in found.matrix]


@pytest.mark.parametrize("found", WITH_FLOAT8, ids=lambda found: found.name)
def test_float8_doubles_bfloat16(found: gf.Device) -> None:
    # 2% for what sheets round: 733 of 2 x 362.05 on the L40S.
    assert found.matrix["float8"] == pytest.approx(2 * found.matrix["bfloat16"], rel=0.02)


@pytest.mark.parametrize("found", WITH_BFLOAT16, ids=lambda found: found.name)
def test_halves_of_either_kind_cost_the_same(found: gf.Device) -> None:
    assert found.matrix["bfloat16"] == found.matrix["float16"]
    # GeForce computes with float32 accumulation at half of the rate.
    assert found.matrix["bfloat16"] == pytest.approx(2 * found.matrix["tf32"], rel=0.02)


@pytest.mark.parametrize(
    ("name", "dtype", "matrix", "tera"),
    [
        ("h100-sxm", "float32", True, 66.9),
        ("h100-sxm", "float16", False, 133.8),
        ("h100-sxm", "float8_e4m3fn", True, 1978.9),
        ("h100-sxm", "float8_e5m2", True, 1978.9),
        ("b200", "float4_e2m1fn_x2", True, 9000),
        ("mi100", "float32", True, 46.1),
        ("mi100", "float32", False, 23.1),
        ("a100", "uint8", True, 624),
        ("p100", "float16", True, 18.7),
    ],
)
def test_the_matrix_unit_computes_where_there_is_one(
    name: str, dtype: str, matrix: bool, tera: float
) -> None:
    assert gf.device(name).rate(dtype, matrix=matrix) == round(tera * 10**12)


def test_a_rate_that_nobody_publishes_is_an_error() -> None:
    with pytest.raises(ModelSpecError, match=r"a100-sxm-80gb for float8 is known\. There is one f"):
        gf.device("a100").rate("float8", matrix=True)
    with pytest.raises(ModelSpecError, match=r"ordinary units of tpu-v4 for float32 .* no dtype"):
        gf.device("tpu-v4").rate("float32", matrix=False)
    with pytest.raises(ModelSpecError, match="for bf16 is known"):
        gf.peak_flops("h100-sxm", "bf16")


def test_an_unknown_name_gets_near_ones() -> None:
    with pytest.raises(ModelSpecError, match=r"'h100-sxn' is no device .* mean h100-sxm, .*--dev"):
        gf.device("h100-sxn")
    with pytest.raises(ModelSpecError, match=r"no device known here\. Known: p4, "):
        gf.device("~")
