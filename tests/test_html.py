"""Pages of reports: what is in the files, and the HTML of notebooks."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from html_reports import HOSTILE, Stack, generated, named, stack, symbolic, trained

import graphflops as gf
import graphflops.html
from graphflops.errors import OutputError
from graphflops.html.content import in_javascript
from graphflops.render.escape import visible

REPORTS: dict[str, Callable[[], Any]] = {
    "forward": stack,
    "training": trained,
    "generation": generated,
    "symbolic": symbolic,
    "hostile names": named,
}

PAGE = Path(graphflops.html.__file__).parent / "page"


class Markup(HTMLParser):
    """Elements of a document with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(report: Any, folder: Path, **options: Any) -> str:
    report.to_html(folder / "report.html", **options)
    return (folder / "report.html").read_text("utf-8")


def data_of(page: str) -> Any:
    found = re.search(r'id="data">([^<]*)<', page)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_of_a_page_is_elsewhere(name: str, tmp_path: Path) -> None:
    markup = Markup(written(REPORTS[name](), tmp_path, device="h100-sxm"))
    for tag, attributes in markup.elements:
        assert not {"src", "action", "data", "background", "poster"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert not any(attribute.startswith("on") for attribute in attributes), tag
    assert "link" not in markup.texts


def test_the_policy_forbids_all_but_the_scripts_of_the_page(tmp_path: Path) -> None:
    page = written(named(), tmp_path)
    markup = Markup(page)
    policies = [m for m in markup.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in (policies[0]["content"] or "").split("; "))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in str(rules)

    def sum_of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = re.findall(
        r'<script(?: type="text/plain" id="(\w+)")?>(.*?)</script>', page, re.DOTALL
    )
    libraries = [
        gzip.decompress(base64.b64decode(text)).decode()
        for kind, text in scripts
        if kind and kind != "data"
    ]
    own = [text for kind, text in scripts if not kind]
    assert len(own) == 1
    assert set(rules["script-src"].split()) == set(map(sum_of, [*own, *libraries]))
    assert rules["style-src"] == sum_of(markup.texts["style"][0])


@pytest.mark.parametrize("show", [lambda r, path: written(r, path), lambda r, _: r._repr_html_()])
def test_names_are_no_markup(show: Callable[[Any, Path], str], tmp_path: Path) -> None:
    plain, hostile = (Markup(show(report, tmp_path)) for report in (stack(), named()))
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in plain.elements}
    assert len(hostile.all("script")) == len(plain.all("script"))


def test_names_are_in_the_page_as_they_are(tmp_path: Path) -> None:
    page = written(named(), tmp_path)
    markup = Markup(page)
    assert markup.texts["h1"] == ["<b>bold</b>"]
    names = set(map(visible, HOSTILE))
    assert names <= set(markup.texts["th"])
    assert names <= set(data_of(page)["reports"][0]["modules"]["path"])


def test_libraries_are_those_that_were_bundled() -> None:
    folder = resources.files("graphflops.html").joinpath("vendor")
    sums = dict(
        line.split()[::-1] for line in folder.joinpath("SHA256SUMS").read_text().splitlines()
    )
    assert set(sums) == {"charts.min.js", "tables.min.js", "LICENSES.txt"}
    for name, expected in sums.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == expected, name


def test_licences_of_the_libraries_are_in_the_page(tmp_path: Path) -> None:
    licences = Markup(written(stack(), tmp_path)).texts["pre"][0]
    lock = json.loads((Path(__file__).parents[1] / "vendor/package-lock.json").read_text())
    versions = {
        name.removeprefix("node_modules/"): p["version"]
        for name, p in lock["packages"].items()
        if name
    }
    for name in ("vega", "vega-interpreter", "@tanstack/table-core", "d3-hierarchy"):
        assert f"{name} {versions[name]} (" in licences
    for holder in ("Mike Bostock", "Tanner Linsley", "University of Washington"):
        assert holder in licences


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.stem)
def test_scripts_take_no_markup_and_make_no_code(path: Path) -> None:
    text = path.read_text("utf-8")
    for word in ("HTML", "document.write", "eval(", "Function(", "setTimeout(", "javascript:"):
        assert word not in text
    assert len(text.splitlines()) <= 400


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2**53 - 1, 2**53 - 1), (2**53, "9007199254740992"), (-(2**60), str(-(2**60)))],
)
def test_integers_are_exact_in_javascript(value: int, shown: Any) -> None:
    assert in_javascript({"a": [(value,)]}) == {"a": [[shown]]}


def test_a_repeated_layer_stands_once(tmp_path: Path) -> None:
    few, many = (data_of(written(stack(stages), tmp_path))["reports"][0] for stages in (2, 9))
    calls = [report["passes"][0] for report in (few, many)]
    assert len(calls[0]["records"]) == len(calls[1]["records"])
    assert len(many["explanations"]) == len(few["explanations"]) < len(calls[0]["records"])
    # The number of calls is in the data nowhere: 9 stages of 5 layers and a head.
    layer = len([r for r in stack(1).records if r.call.module_path.startswith("stages.0.layers.0")])
    assert len(stack(9).records) == 9 * (5 * layer + 1)


def test_what_cannot_be_shown_says_why(tmp_path: Path) -> None:
    shown = data_of(written(symbolic(), tmp_path, device="h100-sxm"))["reports"][0]
    assert "B are symbols" in shown["memory"]["why"]
    assert str(symbolic().memory.peak) in shown["memory"]["why"]
    assert "B are symbols" in shown["time"]["why"]
    shown = data_of(written(stack(), tmp_path))["reports"][0]
    assert 'device="h100-sxm"' in shown["time"]["why"]
    exported = gf.count(torch.export.export(Stack().to_empty(device="cpu"), (torch.zeros(3, 16),)))
    assert "runs as Python" in data_of(written(exported, tmp_path))["reports"][0]["memory"]["why"]


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        stack().to_html(tmp_path / "nowhere" / "report.html")
    with pytest.raises(OutputError, match="is a folder"):
        stack().to_html(tmp_path)
    with pytest.raises(gf.ModelSpecError, match="no device known"):
        stack().to_html(tmp_path / "report.html", device="abacus")
    with pytest.raises(gf.ModelSpecError, match="different kinds"):
        stack().to_html(tmp_path / "report.html", compare=trained())
    assert not list(tmp_path.iterdir())


def test_a_saved_report_needs_no_torch(tmp_path: Path) -> None:
    gf.save(trained(), tmp_path / "report.json")
    trained().to_html(tmp_path / "whole.html", device="a100")
    code = (
        "import sys, graphflops as gf; gf.load('report.json').to_html('loaded.html', device='a100'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    whole, loaded = ((tmp_path / f"{name}.html").read_text() for name in ("whole", "loaded"))
    assert data_of(loaded) == data_of(whole)


@pytest.mark.parametrize("name", ["forward", "training", "generation"])
def test_a_notebook_shows_an_icicle_and_a_table(name: str) -> None:
    markup = Markup(REPORTS[name]()._repr_html_())
    [frame] = markup.all("iframe")
    assert frame["sandbox"] == "allow-scripts"
    assert len(frame["srcdoc"] or "") < 400_000
    assert "table" in markup.texts
    assert "details" in markup.texts


def test_a_notebook_shows_no_icicle_of_expressions() -> None:
    assert "iframe" not in Markup(symbolic()._repr_html_()).texts
    assert "B" in symbolic()._repr_html_()
