"""Files of strangers: nothing of them runs, and what is not read is named in a sentence."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Run
from hostile_files import MACS, PROGRAM, WEIGHTS, members, packed
from hostile_table import HOSTILE
from torch import nn
from torch.export import Dim

import graphflops as gf


def _count(path: Path) -> gf.Report:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gf.UnknownOpWarning)
        return gf.count(path)


def _refusal(path: Path) -> str:
    """What is said of a file: a sentence or two, and nothing that a terminal would obey."""
    with pytest.raises(gf.ModelSpecError) as refused:
        _count(path)
    message = str(refused.value)
    assert message.startswith(f"{path} ")
    said = message.removeprefix(str(path))
    assert said.isprintable()
    assert said.endswith(".")
    assert len(said) < 420
    return said


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_file_runs(name: str, tmp_path: Path) -> None:
    hostile = HOSTILE[name]
    path = tmp_path / "in" / "file.pt2"
    path.parent.mkdir()
    path.write_bytes(hostile.make(path.parent / "MARK"))
    if hostile.said is None:
        report = _count(path)
        assert report.macs == MACS
        assert report.params == 4 * 3 + 3
        assert report.complete is not hostile.unknown
    else:
        assert hostile.said in _refusal(path)
    # What the payloads would have made.
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "file.pt2"]


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt2")
    (tmp_path / "folder.pt2").mkdir()
    assert "is a pipe" in _refusal(tmp_path / "pipe.pt2")
    assert "is a folder" in _refusal(tmp_path / "folder.pt2")
    assert "a device" in _refusal(Path("/dev/zero"))
    assert "does not exist" in _refusal(tmp_path / "missing.pt2")
    assert "cannot be opened" in _refusal(tmp_path / "missing\0.pt2")


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "file.pt2").write_bytes(packed(members()))
    (tmp_path / "link.pt2").symlink_to(tmp_path / "file.pt2")
    assert _count(tmp_path / "link.pt2").macs == MACS


@pytest.mark.parametrize(
    "name", ["os.system", "a state dict by torch.save", "the first half", "a graph that nests"]
)
def test_the_command_line_refuses_in_a_line(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.pt2").write_bytes(HOSTILE[name].make(tmp_path / "MARK"))
    code, out, err = run("count", "bad.pt2")
    assert (code, out) == (2, "")
    assert err.startswith("graphflops: bad.pt2 ")
    assert err.count("\n") == 1
    assert not (tmp_path / "MARK").exists()


_MEASURE = """
import resource, sys, warnings
import graphflops as gf
warnings.simplefilter("ignore")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
gf.count(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    try:
        gf.count(path)
    except gf.GraphFlopsError:
        pass
print(peak() - before)
"""


@pytest.mark.slow
def test_no_file_takes_much_memory(tmp_path: Path) -> None:
    paths = [tmp_path / "good.pt2"]
    paths[0].write_bytes(packed(members()))
    for at, hostile in enumerate(HOSTILE.values()):
        paths.append(tmp_path / f"{at}.pt2")
        paths[-1].write_bytes(hostile.make(tmp_path / "MARK"))
    command = [sys.executable, "-c", _MEASURE, *map(str, paths)]
    found = subprocess.run(command, capture_output=True, check=True, text=True)
    assert float(found.stdout) < 200, found.stdout  # MiB


class Tied(nn.Module):
    """Two layers over one weight, one frozen, a buffer that is written, one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> Any:
        self.get_buffer("seen").add_(x.sum(0))
        y = self.norm(self.frozen(self.second(self.first(x))))
        return nn.functional.dropout(self.first(y), training=False).reshape(-1, 2).t()


class Nested(nn.Module):
    """Graphs within the graph, with views inside of them."""

    def forward(self, x: torch.Tensor) -> Any:
        with torch.no_grad():
            y = torch.mm(x, x.t()).reshape(64)
        return torch.cond(
            y.sum() > 0, lambda z: z.view(32, 2) + 1, lambda z: z.view(32, 2) * 2, (y,)
        )


class Mapped(nn.Module):
    """A layer under ``vmap``, which leaves no view behind that is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.vmap(lambda row: self.layer(row).relu())(x)


class Grown(nn.Module):
    """Sizes that follow from others and from values."""

    def forward(self, x: torch.Tensor, at: torch.Tensor) -> Any:
        rows: Any = at.max().item()
        check: Any = torch._check
        check(rows >= 0)
        check(rows < 10)
        halves = x.reshape(-1, 2)[: x.shape[0] // 2].repeat(2, 1)
        return halves, torch.cat([x, x]), torch.zeros(rows, 3) + 1


class Several(nn.Module):
    """Operators that return several tensors, and lists of them."""

    def forward(self, x: torch.Tensor) -> Any:
        values, indices = x.topk(2)
        left, right = torch.split(x, 2, dim=1)
        return (values, indices, torch.stack([left, right]).max(), x.unbind(0))


_ROWS = torch.zeros(8, 4)
_DYNAMIC = {"x": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, "at": None}
PROGRAMS: dict[str, tuple[nn.Module, tuple[Any, ...], Any]] = {
    "tied, training": (Tied(), (_ROWS,), None),
    "tied": (Tied().eval(), (_ROWS,), None),
    "bfloat16": (nn.Linear(4, 3).to(torch.bfloat16), (_ROWS.to(torch.bfloat16),), None),
    "graphs in it": (Nested(), (_ROWS,), None),
    "vmap": (Mapped(), (_ROWS,), None),
    "symbolic": (Grown(), (_ROWS, torch.ones(3, dtype=torch.int64)), _DYNAMIC),
    "several outputs": (Several(), (_ROWS,), None),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16).eval(), (torch.zeros(3, 2, 8),), None),
    "recurrent": (nn.LSTM(4, 3), (torch.zeros(3, 2, 4),), None),
    "expanded": (nn.Embedding(7, 4), (torch.zeros(2, 3, dtype=torch.int64),), None),
}


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_file_counts_as_the_program_in_it(name: str, tmp_path: Path, *, decomposed: bool) -> None:
    model, args, shapes = PROGRAMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an LSTM warns of the list that its weights are in
        program = torch.export.export(model, args, dynamic_shapes=shapes)
        if decomposed:
            program = program.run_decompositions()
        torch.export.save(program, tmp_path / "model.pt2")
        expected, found = gf.count(program), gf.count(tmp_path / "model.pt2")
    # Torch reads Max as that of sympy, which prints alike and is not equal.
    assert str(found.records) == str(expected.records)
    assert found.capture.inputs == expected.capture.inputs
    assert found.params == expected.params
    assert _parameters(found) == _parameters(expected)
    assert found.capture.notes == expected.capture.notes


def _parameters(report: gf.Report) -> list[Any]:
    """Every parameter, with the first of the names of what it is tied to."""
    held = [(m.path, p) for m in report.capture.modules for p in m.parameters]
    first: dict[int, str] = {}
    for path, parameter in held:
        first.setdefault(parameter.identity, f"{path}.{parameter.name}")
    return [(path, first[p.identity], p._replace(identity=0)) for path, p in held]


def test_files_are_counted_in_threads_while_others_load_them(tmp_path: Path) -> None:
    path = tmp_path / "file.pt2"
    path.write_bytes(packed(members()))
    expected = str(gf.count(path).records)
    with ThreadPoolExecutor(4) as threads:
        counted = [threads.submit(gf.count, path) for _ in range(16)]
        loaded = [torch.export.load(path) for _ in range(4)]
        assert [str(found.result().records) for found in counted] == [expected] * 16
    assert len(loaded) == 4


def test_weights_without_data_are_not_all_tied(tmp_path: Path) -> None:
    with torch._subclasses.FakeTensorMode(), torch.device("cpu"):
        program = torch.export.export(
            nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), (torch.zeros(2, 4),)
        )
        torch.export.save(program, tmp_path / "fake.pt2")
    report = gf.count(tmp_path / "fake.pt2")
    assert report.params == 2 * (4 * 4 + 4)
    assert "does not say which are tied" in report.capture.notes[0]


def test_of_several_programs_one_is_counted_and_the_others_are_named(tmp_path: Path) -> None:
    (tmp_path / "two.pt2").write_bytes(packed(members() | {"models/draft.json": b"no matter"}))
    report = _count(tmp_path / "two.pt2")
    assert report.macs == MACS
    assert report.capture.notes == ("not counted: draft, which the file also holds",)


_EVIL = {"AutoModelForCausalLM": "evil.Evil", "AutoModel": "evil.Evil"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["AutoModelForCausalLM"], "auto_map": _EVIL}, "cannot build 'vit'"),
        ({"attn_implementation": "evil/kernel"}, "--trust-remote-code"),
        ({"parts": [{"_attn_implementation": "evil/kernel"}]}, "--trust-remote-code"),
        ({"part": json.loads("[" * 300 + "]" * 300)}, "nests too deeply"),
        ({"part": 3}, ""),
    ],
    ids=["code", "a kernel", "a kernel of a part", "a nest", "nothing"],
)
def test_a_config_runs_no_code_whatever_the_terminal_answers(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    said: str,
) -> None:
    whole = {"model_type": "vit", "name_or_path": str(tmp_path), **config}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'MARK')!r}, 'w')")
    asked: list[str] = []

    def agree(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    code, _, err = run("count", f"hf:{tmp_path}", "--set", "num_hidden_layers=1")
    assert code == (2 if said else 0)
    assert said in err
    assert not asked
    assert not (tmp_path / "MARK").exists()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in some JSON: what holds it, and the key or index."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS])
@pytest.mark.parametrize("seed", range(4))
def test_a_file_changed_anywhere_is_counted_or_refused(
    name: str, seed: int, tmp_path: Path
) -> None:
    path, chance = tmp_path / "file.pt2", random.Random(seed)  # noqa: S311 - nothing is kept secret
    odd = [None, True, -1, 0, 3, 2**70, 1.5, "", "x", "linear", [], {}, [0], {"as_int": 7}]
    counted = refused = 0
    for _ in range(60):
        found = members()
        content = json.loads(found[name])
        places = list(_places(content))
        holder, key = chance.choice(places)
        other, at = chance.choice(places)
        holder[key] = copy.deepcopy(chance.choice([*odd, other[at]]))
        path.write_bytes(packed(found | {name: json.dumps(content).encode()}))
        try:
            str(_count(path))
        except gf.GraphFlopsError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017 - it may as well be counted
        else:
            counted += 1
    assert counted + refused == 60
    assert refused > 0
