"""Files of results: whole whatever happens, and never another's."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from commands import Run
from hypothesis import given
from hypothesis import strategies as st

import graphflops as gf
from graphflops.batch import record, table
from graphflops.batch.failures import Failure, FailureClass
from graphflops.batch.item import Item
from graphflops.batch.results import ResultsFile, read_records
from graphflops.errors import BatchError, OutputError

ITEMS = [Item(model=f"hf:model{i}", batch_size=i + 1, convention="exact") for i in range(4)]
RECORDS = [
    record.failed_record(item, Failure(failure_class=FailureClass.CRASH, message="é\n\x1b"))
    for item in ITEMS
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, resume=False) as results:
        for row in RECORDS:
            results.append(row)
    return path


def test_a_line_is_a_record(written: Path) -> None:
    lines = written.read_text().splitlines()
    assert [json.loads(line) for line in lines] == RECORDS
    for line in lines:
        jsonschema.validate(json.loads(line), record.schema())
    assert read_records(written) == RECORDS


def test_what_is_there_is_kept_and_known(written: Path) -> None:
    before = written.read_bytes()
    with ResultsFile(written, resume=True) as results:
        assert results.done == {item.key for item in ITEMS}
    assert written.read_bytes() == before


def test_another_item_of_the_same_key_takes_its_place(written: Path) -> None:
    changed = RECORDS[1] | {"failure": {"class": "timeout", "message": "later"}}
    with ResultsFile(written, resume=True) as results:
        results.append(changed)
    assert read_records(written) == [RECORDS[0], changed, *RECORDS[2:]]


@given(st.data())
def test_a_line_that_is_torn_anywhere_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = [json.dumps(row).encode() + b"\n" for row in RECORDS]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("torn") / "results.jsonl"
    path.write_bytes(content[:cut])
    with ResultsFile(path, resume=True) as results:
        left = [row for row in RECORDS if ITEMS[RECORDS.index(row)].key not in results.done]
        for row in left:
            results.append(row)
    assert path.read_bytes() == content


OTHERS = {
    "text": "my notes\n",
    "no end": "my notes",
    "json": "[1, 2]\n",
    "record without an item": '{"schema_version": 1}\n',
    "another tool's": '{"item": 3}\n',
    "a later schema": '{"schema_version": 2, "item": {"model": "hf:bert"}}\n',
    "an object without an end": '{"name": "hf:bert"',
    "binary": "\x00\x01\n",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_another_file_stays_as_it_is(tmp_path: Path, run: Run, content: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(content)
    (tmp_path / "spec.toml").write_text("models = 'hf:bert'")
    for arguments in (["--resume"], []):
        code, _, err = run("batch", "spec.toml", "--output", "notes.jsonl", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert "notes.jsonl" in err
    code, _, err = run("batch", "summary", "notes.jsonl")
    assert (code, err.count("\n")) == (2, 1)
    assert path.read_text() == content


def test_a_file_that_exists_is_not_written_over(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(BatchError, match=r"exists\. Add --resume to go on with it"):
        ResultsFile(written, resume=False)
    assert written.read_bytes() == before


def test_two_batches_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, resume=False), pytest.raises(BatchError, match="another batch writes"):
        ResultsFile(path, resume=True)


def test_a_file_without_a_record_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, resume=False):
        assert path.exists()
    assert not path.exists()


@contextlib.contextmanager
def _file_size(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 100, 300])
def test_a_record_that_there_is_no_room_for_is_taken_back(written: Path, room: int) -> None:
    before = written.read_bytes()
    more = record.failed_record(
        Item(model="hf:more"), Failure(failure_class=FailureClass.CRASH, message="x" * 500)
    )
    said = r"cannot be written: File too large. The 4 records in it are whole."
    with ResultsFile(written, resume=True) as results:
        with _file_size(len(before) + room), pytest.raises(OutputError, match=said):
            results.append(more)
        assert written.read_bytes() == before
        results.append(more)
    assert read_records(written)[-1] == more


def test_a_device_that_is_full() -> None:
    said = "cannot be written: No space left on device"
    with (
        ResultsFile(Path("/dev/full"), resume=False) as results,
        pytest.raises(OutputError, match=said),
    ):
        results.append(RECORDS[0])
    assert Path("/dev/full").exists()


@pytest.mark.parametrize("path", ["/sys/results.jsonl", "missing/results.jsonl", "."])
def test_a_place_that_cannot_be_written(run: Run, tmp_path: Path, path: str) -> None:
    (tmp_path / "spec.toml").write_text("models = 'hf:bert'")
    code, _, err = run("batch", "spec.toml", "--output", path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"graphflops: --output {path} cannot be written: " in err


def test_integers_beyond_64_bits_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    totals = dict.fromkeys(("flops", "macs", "params"), 2**70 + 1) | {"bytes_read": "4*u0"}
    row = record.failed_record(Item(model="hf:large"), _failure()) | {"totals": totals}
    with ResultsFile(path, resume=False) as results:
        results.append(row)
        results.append(RECORDS[0])
    frame = gf.read_batch(path)
    large = frame[frame.model == "hf:large"].iloc[0]
    assert large.flops == 2**70 + 1
    assert large.expressions == "bytes_read = 4*u0"
    assert pd.isna(large.bytes_read)
    stored = tmp_path / "results.parquet"
    stored.write_bytes(table.parquet(path))
    again = pd.read_parquet(stored)
    assert [int(value) for value in again.flops.dropna()] == [2**70 + 1]
    assert list(again.batch_size.dropna()) == [1]


def _failure() -> Failure:
    return Failure(failure_class=FailureClass.MEMORY, message="no room")


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_tables_need_their_packages(
    written: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BatchError, match=rf"needs {package}. Run: pip install 'graphflops\[pandas"):
        table.parquet(written)


def test_a_summary_has_what_was_counted_and_what_failed(run: Run, written: Path) -> None:
    code, out, _ = run("batch", "summary", written.name)
    assert code == 0
    assert out.startswith("4 items: 4 failed. Failures: crash 4.\n")
    assert r"\x1b" in out
    code, out, _ = run("batch", "summary", written.name, "--format", "csv")
    assert out.count("\n") >= 5
    code, out, _ = run("batch", "summary", written.name, "--format", "md")
    assert "| failure   | model     | message   |" in out
    code, _, err = run("batch", "summary", "nothing.jsonl")
    assert (code, err.count("\n")) == (2, 1)


def test_a_sync_follows_each_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    path = tmp_path / "results.jsonl"
    sizes = []
    with ResultsFile(path, resume=False) as results:
        for row in RECORDS:
            results.append(row)
            sizes.append(path.stat().st_size)
    assert synced == sizes
