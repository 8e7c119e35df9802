"""``graphflops view``: files for viewers, and what is wrong with a request for one."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
import torch
from commands import Run
from viewer_reports import report_of_kind

import graphflops as gf
from graphflops.errors import OutputError
from graphflops.viewers.formats import FORMATS


@pytest.fixture
def saved(tmp_path: Path) -> str:
    gf.save(report_of_kind("training"), tmp_path / "training.json")
    return str(tmp_path / "training.json")


def test_a_model_goes_to_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tiny.graphml"
    assert run("view", "models.py:tiny", "--to", "graphml", "--output", str(file)) == (0, "", "")
    graph = nx.read_graphml(file)
    assert {name for name, kind in graph.nodes(data="kind") if kind == "call"} == {"linear"}


def test_text_goes_to_stdout(run: Run) -> None:
    code, out, err = run("view", "models.py:tiny", "--to", "speedscope")
    assert (code, err) == (0, "")
    # 3 rows, 4 features to 2, and the bias.
    assert json.loads(out)["profiles"][0]["weights"] == [2 * 3 * 4 * 2 + 3 * 2]


def test_a_file_may_be_compressed(run: Run, saved: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.json.gz"
    options = ("--to", "perfetto", "--device", "a100", "--precision", "bfloat16")
    assert run("view", saved, *options, "--output", str(file))[0] == 0
    assert json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]


def test_node_data_lie_beside_the_graph(run: Run, saved: str, tmp_path: Path) -> None:
    options = ("--to", "model-explorer", "--output", str(tmp_path / "graph.json"))
    assert run("view", saved, *options, "--device", "a100")[0] == 0
    names = ("flops", "macs", "bytes", "bound_us", "expected_us")
    files = {path.name for path in tmp_path.glob("graph*.json")}
    assert files == {"graph.json", *(f"graph.{name}.json" for name in names)}
    flops = json.loads((tmp_path / "graph.flops.json").read_text("utf-8"))
    assert list(flops) == ["pass"]
    assert flops["pass"]["name"] == "flops"


def test_a_report_writes_the_same_files(run: Run, saved: str, tmp_path: Path) -> None:
    (tmp_path / "command").mkdir()
    (tmp_path / "method").mkdir()
    for to in FORMATS:
        end = "json" if to == "model-explorer" else "gz"
        command, method = (tmp_path / way / f"{to}.{end}" for way in ("command", "method"))
        run("view", saved, "--to", to, "--device", "a100", "-o", str(command))
        paths = gf.load(saved).view(method, to=to, device="a100")
        assert method in paths
        for path in paths:
            texts = [
                (folder / path.name).read_bytes() for folder in (command.parent, method.parent)
            ]
            if end == "gz":
                texts = [gzip.decompress(text) for text in texts]
            assert texts[0].strip() == texts[1].strip()


def test_torch_is_not_needed(saved: str, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import graphflops as gf; report = gf.load(sys.argv[1])\n"
        f"for to in {list(FORMATS)}: report.view(sys.argv[2], to=to, device='a100')"
    )
    command = [sys.executable, "-c", script, saved, str(tmp_path / "x.json")]
    subprocess.run(command, check=True, timeout=100)


REQUESTS = {
    "near format": (("--to", "speedscop"), "to is 'speedscop'. Did you mean 'speedscope'?"),
    "other format": (("--to", "svg"), "to is 'svg'. Give one of 'speedscope', 'perfetto',"),
    "nothing to write": ((), "--html FILE, or --to speedscope or another format."),
    "no page": (("--to", "dot", "--compare", "x.json"), "--compare is shown on a page. Add --html"),
    "nothing to compare": (
        ("--html", "x.html", "--any-workload"),
        "--any-workload is of --compare",
    ),
    "no folder of a page": (("--html", "nowhere/x.html"), "there is no folder nowhere"),
    "no device": (("--to", "perfetto"), "perfetto shows times, on a device such as h100-sxm."),
    "near device": (("--to", "perfetto", "--device", "h100-sxn"), "h100-sxm"),
    "no device of a dtype": (("--to", "dot", "--precision", "float8"), "Add --device, or leave it"),
    "no file": (("--to", "model-explorer"), "model-explorer is several files, which lie side by"),
    "other file": (("--to", "model-explorer", "-o", "x.json.gz"), "Give a file that ends in .json"),
    "no folder": (("--to", "dot", "--output", "nowhere/x.dot"), "there is no folder"),
    "two kinds": (("--to", "dot", "--train"), "a saved report is of one kind. Leave out --train."),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_what_is_wrong_is_said_in_a_sentence(run: Run, saved: str, case: str) -> None:
    arguments, sentence = REQUESTS[case]
    code, out, err = run("view", saved, *arguments)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.replace("│", " ").split())


def test_a_page(run: Run, saved: str, tmp_path: Path) -> None:
    page, compared = tmp_path / "page.html", tmp_path / "compared.html"
    code, out, _ = run("view", saved, "--html", str(page), "--device", "a100")
    assert (code, out) == (0, "")
    run("view", saved, "--html", str(compared), "--compare", saved)
    expected = tmp_path / "expected.html"
    gf.load(saved).to_html(expected, device="a100")
    assert page.read_bytes() == expected.read_bytes()
    gf.load(saved).to_html(expected, compare=gf.load(saved))
    assert compared.read_bytes() == expected.read_bytes()


def test_no_permission(
    run: Run, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: str(path) != str(tmp_path))
    code, _, err = run("view", saved, "--to", "dot", "--output", str(tmp_path / "x.dot"))
    assert code == 2
    assert f"no permission to write {tmp_path}" in err


def test_a_file_beside_that_cannot_be_written(run: Run, saved: str, tmp_path: Path) -> None:
    (tmp_path / "x.macs.json").mkdir()
    options = ("--to", "model-explorer", "--output", str(tmp_path / "x.json"))
    code, _, err = run("view", saved, *options)
    assert code == 2
    assert "x.macs.json is a folder. Give the path of a file in it." in err
    assert not list(tmp_path.glob("x.flops*"))
    with pytest.raises(OutputError, match=r"x\.macs\.json is a folder"):
        gf.load(saved).view(tmp_path / "x.json", to="model-explorer")


def test_formulas_are_refused(run: Run, tmp_path: Path) -> None:
    axes = ({0: "B"},)
    report = gf.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),), dynamic_shapes=axes)
    gf.save(report, tmp_path / "open.json")
    code, _, err = run("view", str(tmp_path / "open.json"), "--to", "speedscope")
    assert code == 2
    assert "costs are formulas in B: bind them by subs(), or count with concrete sizes." in err
    assert run("view", str(tmp_path / "open.json"), "--to", "graphml")[0] == 0


def test_a_missing_extra(run: Run, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pydot" else find(name)
    )
    code, _, err = run("view", saved, "--to", "dot")
    assert code == 2
    assert "DOT needs pydot, which is not installed: pip install 'graphflops[viewers]'." in err
    assert run("view", saved, "--to", "graphml")[0] == 0


@pytest.mark.parametrize("name", ["path", "stages", "waste"])
def test_questions_to_a_graph_have_moved(run: Run, saved: str, name: str) -> None:
    code, _, err = run("view", name, saved)
    assert code == 2
    assert f"`view {name}` is called `graph {name}` now." in err
    assert run("graph", name, saved)[0] == 0
