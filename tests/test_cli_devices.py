"""``graphflops devices``, and a user's own file of devices."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from commands import Run

import graphflops as gf
from graphflops.analysis.devices import known_devices

OWN = """
[devices.mine]
family = "nvidia"
matrix_tflops = { bfloat16 = 10.5 }
vector_tflops = { float32 = 2 }
bandwidth_gb_per_second = 100
memory_gb = 4
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def test_the_table_has_every_device(run: Run) -> None:
    code, out, err = run("devices")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.partition("---\n")[2].splitlines()]
    assert names == [*known_devices()]
    (line,) = [line for line in out.splitlines() if line.startswith("h100-sxm ")]
    assert line.split()[1:8] == ["1978.9", "989.4", "989.4", "494.7", "66.9", "3350", "80"]
    assert "NVIDIA H100 architecture white paper" in line


def test_the_table_fits_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for arguments in ((), ("mi250",)):
        code, out, _ = run("devices", *arguments)
        assert code == 0
        assert max(map(len, out.splitlines())) <= 60


def test_one_device_in_full(run: Run) -> None:
    code, out, err = run("devices", "MI250")
    assert (code, err) == (0, "")
    assert "Matrix units      float64 45.25, float32 45.25, float16 181.05, bfloat16 181.05" in out
    assert "Ordinary units    float64 22.65, float32 22.65 TFLOP/s, dense" in out
    assert "Bandwidth         1638.4 GB/s\nMemory            64 GB\nOn chip           8 MiB" in out
    assert "the maker's figures are of 2 such devices" in out
    assert "AMD Instinct MI200 series data sheet" in out
    assert "none, or no rate is published" in run("devices", "p4")[1]
    assert "Also called       a100, a100-sxm" in run("devices", "a100")[1]
    assert "not published" in run("devices", "m4")[1]


def test_json_and_csv(run: Run) -> None:
    every = json.loads(run("devices", "--format", "json")[1])
    assert [found["name"] for found in every] == [*known_devices()]
    one = json.loads(run("devices", "l4", "--format", "json")[1])
    assert (one["matrix"]["float8"], one["vector"]) == (242_500_000_000_000, {"float32": 30.3e12})
    assert (one["bandwidth"], one["memory"], one["cache"]) == (300e9, 24 * 10**9, 48 * 2**20)
    rows = [*csv.DictReader(io.StringIO(run("devices", "--format", "csv")[1]))]
    (row,) = [row for row in rows if row["name"] == "a100-sxm-80gb"]
    assert (row["matrix_float64"], row["vector_float64"]) == ("19500000000000", "9700000000000")
    assert (row["matrix_float8"], row["aliases"]) == ("", "a100 a100-sxm")
    assert row["date"] == "2021"


def test_columns(run: Run) -> None:
    _, out, _ = run("devices", "--columns", "device,GB/s")
    assert out.splitlines()[-1].split() == ["cpu", "51.2"]
    code, _, err = run("devices", "--columns", "colour")
    assert (code, "no column 'colour'" in err) == (2, True)
    code, _, err = run("devices", "t4", "--columns", "GB")
    assert (code, "Leave out NAME" in err) == (2, True)


def test_an_unknown_device(run: Run) -> None:
    code, out, err = run("devices", "h300")
    assert (code, out) == (2, "")
    assert "'h300' is no device known here. Did you mean" in err


def test_own_devices_go_first(run: Run, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run("devices", "--devices", str(own))
    assert (code, err) == (0, "")
    assert out.partition("---\n")[2].split()[:4] == ["mine", "10.5", "2", "100"]
    found = gf.device("mine", own)
    assert (found.title, found.source, found.date) == ("mine", "own.toml", "")
    assert (found.matrix, found.vector) == ({"bfloat16": 10.5e12}, {"float32": 2e12})
    assert (found.bandwidth, found.memory, found.cache) == (100e9, 4 * 10**9, 0)
    assert found.launch == gf.device("h100-sxm").launch
    assert gf.load_devices(str(own)) == (found,)
    with pytest.raises(gf.ModelSpecError, match="'mine' is no device"):
        gf.device("mine")
    monkeypatch.setenv("GRAPHFLOPS_DEVICES", str(own))
    assert gf.device("mine") == found
    assert gf.peak_flops("mine") == 10_500_000_000_000
    assert run("devices", "mine")[1].endswith("Source            own.toml\n")


def test_own_devices_replace_ours(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace("mine", "T4") + 'aliases = ["h100-sxm"]\n')
    assert gf.device("t4", path).bandwidth == gf.device("h100-sxm", path).bandwidth == 100e9
    assert len(known_devices(path)) == len(known_devices())


def test_own_families_packages_and_launch(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    families = "[families]\nmine = { launch_microseconds = 7 }\n"
    path.write_text(families + OWN.replace('"nvidia"', '"mine"') + "devices_per_package = 2\n")
    found = gf.device("mine", path)
    assert (found.family, found.launch, found.matrix["bfloat16"]) == ("mine", 7e-6, 5.25e12)
    assert (found.bandwidth, found.memory) == (50e9, 2 * 10**9)
    assert gf.peak_flops("mine", devices=path) == 10_500_000_000_000
    path.write_text(OWN + "launch_microseconds = 0.5\ncache_mib = 3\n")
    assert (gf.device("mine", path).launch, gf.device("mine", path).cache) == (0.5e-6, 3 * 2**20)


def test_utilization_on_a_device_of_ones_own(run: Run, own: Path) -> None:
    options = ("--step-time", "1", "--accelerator", "mine", "--devices", str(own))
    code, out, _ = run("train", "models.py:tiny", *options)
    assert code == 0
    assert "of 2 TFLOP/s mine (float32)" in out


@pytest.mark.parametrize(
    ("replaced", "by", "message"),
    [
        ("memory_gb = 4", "", "devices.mine lacks memory_gb. Add"),
        (
            "memory_gb = 4",
            "memory_gib = 4",
            "devices.mine.memory_gib means nothing. Did you mean mem",
        ),
        ("bfloat16 =", "bf16 =", "matrix_tflops.bf16 means nothing. Did you mean bfloat16"),
        ("10.5", "-1", "devices.mine.matrix_tflops.bfloat16 is -1. Give a number above 0."),
        ("10.5", "true", "bfloat16 is True. Give a number above 0."),
        ("10.5", "nan", "bfloat16 is nan. Give a number above 0."),
        ("10.5", "10.5e12", "too large to be in that unit"),
        ("10.5", "inf", "too large to be in that unit"),
        ("= 100", '= "100 GB/s"', "bandwidth_gb_per_second is '100 GB/s'. Give a number"),
        ("{ bfloat16 = 10.5 }", "10.5", "devices.mine.matrix_tflops is 10.5. Give a table."),
        ('"nvidia"', '"nvida"', "devices.mine.family is 'nvida'. Give one of nvidia, nvidia-64"),
        ('"nvidia"', "1", "devices.mine.family is 1. Give a text"),
        ("memory_gb = 4", 'memory_gb = 4\naliases = "x"', "aliases is 'x'. Give a list of texts"),
        ("memory_gb = 4", 'memory_gb = 4\naliases = ["MINE"]', "'mine' names several devices"),
        ("memory_gb = 4", "memory_gb = 4\ndevices_per_package = 1.5", "Give a whole number."),
        ("[devices.mine]", "[device.mine]", "device means nothing. Did you mean devices"),
        ("[devices.mine]", "[devices.mine", "is no TOML"),
        (OWN, "", "there is no device"),
        (OWN, "[families.x]\n[devices]", "families.x lacks launch_microseconds"),
        (OWN, "devices = 1", "devices is 1. Give a table."),
    ],
)
def test_a_bad_file_is_a_sentence(
    run: Run, own: Path, replaced: str, by: str, message: str
) -> None:
    own.write_text(OWN.replace(replaced, by))
    code, out, err = run("devices", "--devices", str(own))
    assert (code, out) == (2, "")
    assert err.startswith(f"graphflops: {own}")
    assert message in err
    assert err.count("\n") == 1


def test_without_any_rates(own: Path) -> None:
    lines = [line for line in OWN.splitlines() if "tflops" not in line]
    own.write_text("\n".join(lines))
    with pytest.raises(gf.ModelSpecError, match=r"devices\.mine has no rates"):
        gf.load_devices(own)


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        code, _, err = run("devices", "--devices", str(path))
        assert (code, "cannot be read" in err) == (2, True)
