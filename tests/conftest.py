"""The command line in a folder with models in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Open, reader
from commands import Run
from playwright.sync_api import Browser

from benchmarks.browser import CHROMIUM, chromium
from graphflops.cli import main

MODELS = '''
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
    def forward(self, x, scale=None):
        return self.linear(x)

class Picky(nn.Module):
    def forward(self, x):
        if x.shape[1] != 4:
            raise ValueError("I want four columns")
        return x + 1

class Branchy(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1

class Stubborn(nn.Module):
    """Cannot be built on the meta device."""
    def __init__(self):
        super().__init__()
        self.scale = float(torch.ones(1))
    def forward(self, x):
        return x * self.scale

instance = Tiny().eval()
number = 3
def tiny(): return Tiny(), (torch.zeros(3, 4),)
def keyword(): return Tiny(), (), {"x": torch.zeros(3, 4)}
def picky(): return Picky(), (torch.zeros(3, 5),)
def branchy(): return Branchy(), (torch.zeros(3, 5),)
def stubborn(): return Stubborn(), (torch.zeros(3, 5),)
def broken(): raise RuntimeError("out of luck")
def letters(): return "abc"
'''


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no browser: apt-get install chromium")
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    with reader(browser, tmp_path) as open_page:
        yield open_page


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "untyped.json").write_text("{}")
    (tmp_path / "garbage.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "garbage.pt2").write_text("garbage")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # of workers it is set

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["graphflops", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        captured = capsys.readouterr()
        return int(code or 0), captured.out, captured.err

    return call
