"""Batches as users run them: killed, stopped, out of room, on a cluster; nothing is lost."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from batch_models import FAILURES, MODELS

from graphflops.batch.record import schema

pytestmark = pytest.mark.slow
SPEC = """
models = ["models.py:nap"]
modes = ["count", "memory", "time"]
device = ["a100", "h100-sxm", "l4"]
convention = ["exact", "torch", "causal", "calflops", "fvcore"]
"""
ITEMS = 5 + 1 + 15
CLUSTER = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # packages that are missing
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        pids = [worker.process.pid for worker in cluster.workers.values()]
        print(cluster.scheduler_address, *pids, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "graphflops", "batch", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _run(folder: Path, *arguments: str, code: int = 0) -> str:
    process = _start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert out == ""
    return err


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        jsonschema.validate(row, schema())
    return rows


def _lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a file has so many lines, or the process ends."""
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)


def test_twenty_kills_leave_what_one_undisturbed_run_does(folder: Path) -> None:
    whole, killed = folder / "whole.jsonl", folder / "killed.jsonl"
    _run(folder, "spec.toml", "-o", whole.name)
    assert len(_rows(whole)) == ITEMS
    moments = random.Random(3)  # noqa: S311 - of moments
    kills = 0
    for _ in range(20):
        if killed.exists() and len(_lines(killed)) > ITEMS - 3:
            killed.unlink()
        process = _start(folder, "spec.toml", "-o", killed.name, "--resume", "--workers", "2")
        lines = killed.read_bytes().count(b"\n") if killed.exists() else 0
        _wait_for_lines(killed, lines + moments.randint(0, 2), process)
        time.sleep(moments.uniform(0, 0.3))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills == 20
    _run(folder, "spec.toml", "-o", killed.name, "--resume")
    assert _lines(killed) == _lines(whole)


def test_each_way_to_fail_is_a_record(folder: Path) -> None:
    spec = {"models": [*FAILURES, "models.py:tiny", "models.py:killed_once"]}
    (folder / "all.yaml").write_text(json.dumps(spec))
    # Long enough to fail for a reason on a machine that is busy.
    err = _run(folder, "all.yaml", "-o", "all.jsonl", "--timeout", "20", "--memory-limit", "4")
    rows = _rows(folder / "all.jsonl")
    classes = {row["item"]["model"]: (row["failure"] or {}).get("class") for row in rows}
    assert len(rows) == len(classes)
    # The second process of the last one lives.
    assert classes == FAILURES | {"models.py:tiny": None, "models.py:killed_once": None}
    assert f"{len(FAILURES) + 2} items: 2 ok, {len(FAILURES)} failed (" in err
    assert (folder / "ran").exists()
    assert err.count("\n") == 1


def test_a_signal_stops_a_batch_between_two_records(folder: Path) -> None:
    path = folder / "results.jsonl"
    for number, resume in ((signal.SIGINT, ()), (signal.SIGTERM, ("--resume",))):
        process = _start(folder, "spec.toml", "-o", path.name, "--workers", "1", *resume)
        lines = path.read_bytes().count(b"\n") if path.exists() else 0
        _wait_for_lines(path, lines + 2, process)
        # A terminal sends it to all processes of the batch.
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (128 + number, "")
        done = len(_rows(path))
        assert 2 <= done < ITEMS
        assert err == (
            f"graphflops: stopped. The {done} records in results.jsonl are whole. Go on with: "
            "graphflops batch spec.toml -o results.jsonl --workers 1 --resume\n"
        )
    _run(folder, "spec.toml", "-o", path.name, "--resume")
    assert len(_rows(path)) == ITEMS


def test_a_full_disk_ends_a_batch_with_a_sentence(folder: Path) -> None:
    def limited(*arguments: str, code: int) -> str:
        (folder / "limited.sh").write_text('ulimit -f 8; exec "$@"')  # blocks of 512 bytes
        shell = ["/bin/sh", "limited.sh"]
        command = [*shell, sys.executable, "-m", "graphflops", "batch", "spec.toml", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True)
        assert done.returncode == code, done.stderr
        return done.stderr

    path = folder / "results.jsonl"
    err = limited("-o", path.name, code=2)
    done = len(_rows(path))
    assert 0 < done < ITEMS
    assert err == (
        f"graphflops: --output results.jsonl cannot be written: File too large. The {done} records "
        "in it are whole. Make room, and go on with --resume.\n"
    )
    _run(folder, "spec.toml", "-o", path.name, "--resume")
    assert len(_rows(path)) == ITEMS
    assert "No space left on device" in _run(folder, "spec.toml", "-o", "/dev/full", code=2)


def test_what_stops_a_batch_before_it_begins(folder: Path) -> None:
    (folder / "nothing.toml").write_text("models = 'timm:resnett*'")
    (folder / "dtype.toml").write_text("models = 'hf:bert'\ndtype = 'bfloat17'")
    for spec, said in (
        ("nothing", "no known model name matches 'timm:resnett*'. Did you mean"),
        ("dtype", "'bfloat17' is not a dtype. Did you mean bfloat16"),
    ):
        err = _run(folder, f"{spec}.toml", "-o", "results.jsonl", code=2)
        assert err.startswith(f"graphflops: {said}")
        assert err.count("\n") == 1
        assert not (folder / "results.jsonl").exists()


def test_the_example_of_the_docs_is_what_its_spec_gives(folder: Path) -> None:
    examples = Path(__file__).parents[1] / "examples"
    _run(folder, str(examples / "batch.toml"), "-o", "results.jsonl")
    shown, counted = (
        sorted(
            (row["item"]["model"], str(row["item"]), row["totals"], row.get("time"))
            for row in _rows(path)
        )
        for path in (examples / "batch.jsonl", folder / "results.jsonl")
    )
    assert shown == counted


def test_failures_are_exit_status_1_on_request(folder: Path) -> None:
    (folder / "one.toml").write_text("models = 'models.py:broken'")
    _run(folder, "one.toml", "-o", "results.jsonl", "--strict", code=1)


@contextmanager
def _cluster(folder: Path, *missing: str) -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    (folder / "cluster.py").write_text(CLUSTER)
    cluster = subprocess.Popen(
        [sys.executable, "cluster.py", *missing],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert cluster.stdout is not None
    address, *pids = cluster.stdout.readline().split()
    try:
        yield cluster, address, [*map(int, pids)]
    finally:
        cluster.communicate("")


def test_a_worker_of_a_cluster_that_is_killed_loses_nothing(folder: Path) -> None:
    whole, path = folder / "whole.jsonl", folder / "results.jsonl"
    _run(folder, "spec.toml", "-o", whole.name)
    with _cluster(folder) as (_, address, pids):
        process = _start(
            folder, "spec.toml", "-o", path.name, "--executor", "dask", "--address", address
        )
        _wait_for_lines(path, 3, process)
        assert process.poll() is None
        os.kill(pids[0], signal.SIGKILL)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err.startswith(f"{ITEMS} items: {ITEMS} ok, 0 failed; ")
    assert _lines(path) == _lines(whole)


def test_workers_that_lack_a_package_are_told_in_a_sentence(folder: Path) -> None:
    with _cluster(folder, "pebble") as (_, address, _):
        arguments = ("-o", "results.jsonl", "--executor", "dask", "--address", address)
        err = _run(folder, "spec.toml", *arguments, code=2)
    assert err == (
        f"graphflops: the workers of {address} cannot count: BatchError: a batch needs pebble. Run: "
        "pip install 'graphflops[batch]'. Install this version of 'graphflops[batch]' where they "
        "run.\n"
    )
    assert not (folder / "results.jsonl").exists()


def test_a_scheduler_that_goes_away_is_told_in_a_sentence(folder: Path) -> None:
    path = folder / "results.jsonl"
    with _cluster(folder) as (cluster, address, pids):
        process = _start(
            folder, "spec.toml", "-o", path.name, "--executor", "dask", "--address", address
        )
        _wait_for_lines(path, 2, process)
        cluster.kill()
        _, err = process.communicate(timeout=100)
        for pid in pids:  # nobody else ends them for certain
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert process.returncode == 2
    assert err == (
        f"graphflops: the Dask scheduler at {address} is gone. What is done is written: start it "
        "again, and go on with --resume.\n"
    )
    assert 2 <= len(_rows(path)) < ITEMS
    err = _run(folder, "spec.toml", *("-o", path.name), *("--executor", "dask"), "--resume", code=2)
    assert re.search("--executor dask and --address go together. Give both", " ".join(err.split()))
    arguments = ("-o", path.name, "--executor", "dask", "--address", address, "--resume")
    err = _run(folder, "spec.toml", *arguments, code=2)
    assert err.startswith(f"graphflops: no Dask scheduler answers at {address}. ")
    assert err.count("\n") == 1
    _run(folder, "spec.toml", "-o", path.name, "--resume")
    assert len(_rows(path)) == ITEMS
