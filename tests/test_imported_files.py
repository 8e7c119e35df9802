"""Files that a model imports: what its forward writes to their attributes stays as it was."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflops as gf

FILES = {
    "written_state": "last, calls, seen, table = None, 0, [], {}\ndef keep(x): seen.append(x)\n",
    "written_package/__init__": "from written_package import inner\n",
    "written_package/inner": "last = None\ndef twice(x): return x + x\n",
    "written_by": """
import torch
import written_package
import written_package.inner
import written_state
import written_state as other


class Writes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x):
        x = self.layer(x)
        written_state.last = x
        written_state.new = x
        other.calls += 1
        other.seen.append(x)
        written_state.table["x"] = x
        written_state.keep(written_state.last)
        written_package.inner.last = x
        del written_state.new
        assert other.calls == 1 and len(written_state.seen) == 2
        return written_state.seen[-1] + written_package.inner.last


class Reads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(*[Layer() for _ in range(4)])

    def forward(self, x):
        return self.layers(x)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(10)])

    def forward(self, x):
        return written_package.inner.twice(self.layers(x))
""",
}


@pytest.fixture
def written_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file with a model that writes to attributes of files that it imports."""
    (tmp_path / "written_package").mkdir()
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("written_by")
    for name in FILES:
        sys.modules.pop(name.replace("/", ".").removesuffix(".__init__"), None)


def test_attributes_of_imported_files(written_by: Any) -> None:
    state, inner = sys.modules["written_state"], sys.modules["written_package.inner"]
    before = dict(vars(state)), dict(vars(inner))
    assert gf.count(written_by.Writes(), (torch.zeros(2, 4),)).macs == 2 * 4 * 4
    assert (vars(state), vars(inner)) == before
    assert (state.seen, state.table) == ([], {})


def test_layers_that_call_what_is_in_files_are_reused(written_by: Any) -> None:
    report = gf.count(written_by.Reads(), (torch.zeros(2, 4),))
    assert report.macs == 4 * 10 * 2 * 4 * 4
    assert report.capture.layer_reuse.layers > 0
