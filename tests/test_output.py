"""Stdout and ``--output`` hold data and nothing else, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Run
from typer.testing import CliRunner

from graphflops.cli import app, files
from graphflops.render.escape import visible_lines

NOISY = """
import atexit, ctypes, os, subprocess, sys, threading, time
import torch

print("import prints")
os.write(1, b"import writes\\n")
atexit.register(print, "exit prints")
libc = ctypes.CDLL(None)

class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x):
        print("forward prints")
        os.write(1, b"forward writes\\n")
        libc.printf(b"C prints\\n")
        subprocess.run(["echo", "process prints"])
        sys.__stdout__.write("the old stdout prints\\n")
        return self.linear(x)

def make():
    print("factory prints")
    threading.Thread(target=lambda: (time.sleep(0.5), print("thread prints"))).start()
    return Noisy(), (torch.zeros(3, 4),)
"""
SAID = {
    *("import prints", "import writes", "factory prints", "forward prints", "forward writes"),
    *("C prints", "process prints", "the old stdout prints", "thread prints", "exit prints"),
}
GRAPHFLOPS = [sys.executable, "-m", "graphflops"]


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_model_prints_goes_to_stderr_at_whatever_level(noisy: Path) -> None:
    command = [*GRAPHFLOPS, "count", "noisy.py:make", "--format", "json"]
    done = subprocess.run(command, cwd=noisy, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["totals"]["macs"] == 3 * 4 * 2
    assert set(done.stderr.splitlines()) == SAID


def test_a_test_of_typers_gets_data_alone(noisy: Path) -> None:
    code = (noisy / "noisy.py").read_text("utf-8")
    (noisy / "noisy.py").write_text(code.replace("atexit.register", "print"))
    done = CliRunner().invoke(app, ["count", "noisy.py:make", "--format", "csv"])
    assert done.exit_code == 0
    assert done.stdout.startswith("path,class,")
    assert "prints" not in done.stdout
    assert "forward prints" in done.stderr


def test_stdout_is_given_back(run: Run) -> None:
    before = sys.stdout
    assert run("count", "models.py:tiny")[0] == 0
    assert run("count", "nonsense")[0] == 2
    assert sys.stdout is before


def test_counting_from_python_redirects_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    import graphflops as gf

    class Loud(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print("hello")  # noqa: T201 - what it is about
            return x + 1

    gf.count(Loud(), (torch.zeros(2),))
    assert set(capsys.readouterr().out.split()) == {"hello"}


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 2, "graphflops: stdout is closed. Give --output FILE.\n"),
        (">&- 2>&-", 2, ""),
        (">/dev/full", 2, "graphflops: stdout cannot be written: No space left on device.\n"),
        ("--output there.txt >&-", 0, ""),
    ],
)
def test_a_stdout_that_takes_nothing(
    tmp_path: Path, redirection: str, code: int, said: str
) -> None:
    line = f'exec "$0" -m graphflops conventions {redirection}'
    done = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_a_reader_who_goes_ends_it_as_the_signal_would() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*GRAPHFLOPS, "conventions"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + 13, "")


def test_an_encoding_without_the_characters_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [*GRAPHFLOPS, "conventions"], env=environment, capture_output=True, check=True
    )
    assert done.stdout.decode("ascii").startswith("+----")
    assert done.stderr == b""


HOSTILE = """
import torch

def make():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.add_module("\\x1b[31m:smile:", torch.nn.ReLU())
    return model, (torch.zeros(1, 2),)
"""


@pytest.mark.parametrize("shape", ["tree", "csv"])
def test_colours_where_somebody_reads_it(run: Run, tmp_path: Path, shape: str) -> None:
    (tmp_path / "named.py").write_text(HOSTILE)
    arguments = ("count", "named.py:make", "--format", shape, "--wide")
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([*GRAPHFLOPS, *arguments], stdout=follower, env=environment) as process:
        os.close(follower)
        shown = b"".join(iter(lambda: _read(leader), b"")).decode()
    os.close(leader)
    assert process.returncode == 0
    assert ("\x1b[" in shown) is (shape == "tree")
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r\n", "\n")
    _, expected, _ = run(*arguments)
    seconds = r"\d+\.\d+ s"
    # On a terminal names are visible in every format; in a file CSV has them as they are.
    assert re.sub(seconds, "", plain) == re.sub(seconds, "", visible_lines(expected))
    assert r"\x1b[31m:smile:" in plain


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere/report.json", "there is no folder .*/nowhere. Make it, or give another path."),
        (".", "is a folder. Give the path of a file in it."),
        ("", "is a folder. Give the path of a file in it."),
        ("models.py/report.json", "cannot be written: Not a directory. Give another path."),
        ("circle", "cannot be written: Too many levels of symbolic links. Give another path."),
        ("x" * 300, "cannot be written: File name too long. Give another path."),
        ("\x1b[2J/x", r"--output \\x1b\[2J/x: there is no folder"),
    ],
)
def test_output_to_nowhere_is_refused_before_the_count(
    run: Run, tmp_path: Path, path: str, said: str
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    before = sorted(tmp_path.iterdir())
    # A model that does not exist: it is not looked for.
    code, out, err = run("count", "nonsense", "--output", path)
    assert (code, out) == (2, "")
    assert re.search(said, err)
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_device_that_is_full(run: Run) -> None:
    code, out, err = run("count", "models.py:tiny", "--output", "/dev/full")
    assert (code, out) == (2, "")
    assert err == (
        "graphflops: --output /dev/full cannot be written: No space left on device. "
        "Give another path.\n"
    )


@pytest.mark.parametrize("readable", ["report.json", "."])
def test_what_may_not_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: str
) -> None:
    (tmp_path / "report.json").write_text("before")
    allowed = os.access  # as root everything is

    def access(path: os.PathLike[str], mode: int) -> bool:
        return Path(path).resolve() != (tmp_path / readable).resolve() and allowed(path, mode)

    monkeypatch.setattr(os, "access", access)
    code, _, err = run("count", "nonsense", "--output", "report.json")
    assert code == 2
    assert re.fullmatch(
        r"graphflops: --output report.json: no permission to write \S+. Give another path.\n", err
    )
    assert (tmp_path / "report.json").read_text() == "before"


@contextlib.contextmanager
def _failing_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: Exception) -> Iterator[None]:
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise error
        return write(descriptor, bytes(data)[:100])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        yield


@pytest.mark.parametrize("existing", [None, "before"])
def test_a_disk_that_fills_up_leaves_what_was_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: str | None
) -> None:
    if existing is not None:
        (tmp_path / "report.txt").write_text(existing)
    before = sorted(tmp_path.iterdir())
    with _failing_after(monkeypatch, 2, OSError(errno.ENOSPC, "No space left on device")):
        code, out, err = run("conventions", "--output", "report.txt")
    assert (code, out) == (2, "")
    assert "--output report.txt cannot be written: No space left on device." in err
    assert sorted(tmp_path.iterdir()) == before
    assert existing is None or (tmp_path / "report.txt").read_text() == existing


def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.txt").write_text("before")
    with (
        _failing_after(monkeypatch, 1, KeyboardInterrupt()),  # type: ignore[arg-type]  # raised alike
        pytest.raises(KeyboardInterrupt),
    ):
        files.write_file(tmp_path / "report.txt", "after" * 100)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_file_keeps_its_permissions_and_a_link_stays_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "real.txt"
    target.write_text("before")
    target.chmod(0o640)
    (tmp_path / "link.txt").symlink_to("folder/real.txt")
    (tmp_path / "new.txt").symlink_to("folder/new.txt")
    for name in ("link.txt", "new.txt"):
        assert run("conventions", "--output", name) == (0, "", "")
        assert (tmp_path / name).is_symlink()
        assert "calflops" in (tmp_path / name).read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "folder" / "new.txt").stat().st_mode) == 0o666 & ~mask
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"real.txt", "new.txt"}


def test_devices_and_pipes_are_written_to_as_they_are(run: Run, tmp_path: Path) -> None:
    assert run("conventions", "--output", "/dev/null") == (0, "", "")
    expected = run("conventions")[1]
    for stdout in ("/dev/stdout", "-"):
        assert run("conventions", "--output", stdout) == (0, expected, "")
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text("utf-8")))
    reader.start()
    assert run("conventions", "--output", "pipe") == (0, "", "")
    reader.join()
    assert read == [expected]


def test_halves_of_surrogate_pairs_are_written_as_escapes(tmp_path: Path) -> None:
    files.write_file(tmp_path / "names.csv", "a\ud83d\n")
    assert (tmp_path / "names.csv").read_bytes() == b"a\\ud83d\n"
