"""Text that others chose is shown as it is, in every format, whatever characters it has."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import torch
from hostile_names import HOSTILE, names, report_of
from hypothesis import example, given
from markdown_it import MarkdownIt
from torch import nn

import graphflops as gf
from graphflops.render import data, tables
from graphflops.render.escape import csv_cell, markdown, one_line, visible


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_text_is_visible_on_one_line(name: str) -> None:
    assert visible(name).isprintable()
    assert one_line(name).isprintable()


def test_what_escapes_look_like() -> None:
    assert visible("a\x1b\n\u202e\x9b") == r"a\x1b\n\u202e\x9b"
    assert visible("Überweg ✓ 数 |") == "Überweg ✓ 数 |"
    assert one_line("two\n  lines\x07") == r"two lines\x07"
    assert [csv_cell(cell) for cell in ("=1", "\r1", -1, None, "a=b")] == [
        *("'=1", "'\r1", -1, None, "a=b")
    ]


@given(names)
def test_plain_text_has_no_control_characters(name: str) -> None:
    report = report_of(name)
    (first, second) = report.records
    texts = [report.tree(), report.table(), report.to_text(), repr(report)]
    texts += [report.explain(first), report.explain(second), tables.call_table(report.records)]
    texts += [
        report.formula(),
        report.compare_conventions("calflops").table(),
        report._repr_html_(),
    ]
    for text in texts:
        assert all(line.isprintable() for line in text.split("\n"))
    # The model, what it costs, its module, and the end.
    assert len(report.tree().split("\n")) == 4
    # A header, a rule, and a row for each call.
    assert len(tables.call_table(report.records).split("\n")) == 2 + 2


def cells_of(text: str) -> list[list[list[str]]]:
    """Tables of a Markdown page as a renderer sees them; nothing in a cell is markup."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found:
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, token.content
            found[-1][-1].append("".join(child.content for child in children))
    return found


@given(names)
@example("a|b\\|c\\")
@example("`code` **bold** _it_ [link](x) <b> &lt; ~~s~~")
@example("\n|\r")
def test_markdown_shows_names_as_they_are(name: str) -> None:
    shown = visible(name).strip(" ")
    totals, modules, operators, coverage = cells_of(report_of(name).to_markdown())
    assert [row[0] for row in modules] == ["module", "(model)", shown]
    assert [row[1] for row in modules] == ["class", shown, shown]
    assert {row[0] for row in operators[1:]} == {"aten::relu", shown}
    for table in (totals, modules, operators, coverage):
        assert {len(row) for row in table} == {len(table[0])}
    assert [row for row in coverage if row[0] == "Note"] == [["Note", shown]]
    (calls,) = cells_of(tables.call_table(report_of(name).records, "github"))
    assert [row[1] for row in calls[1:]] == [shown, shown]
    assert [row[-1] for row in calls[1:]] == [shown, shown]


@given(names)
@example("\r=1")
@example("a\rb")
@example("a\nb")
@example('"')
def test_csv_parses_back_to_the_same_names(name: str) -> None:
    guarded = f"'{name}" if name[0] in "=+-@\t\r\n" else name
    report = report_of(name)
    for text, column, rows in (
        (report.to_csv(), "path", 2),
        (data.calls_csv(list(report.records)), "module", 2),
    ):
        parsed = list(csv.DictReader(io.StringIO(text, newline="")))
        assert len(parsed) == rows
        assert parsed[-1][column] == guarded
        assert parsed[-1]["flops"] in {"0", "6", ""}


@given(names)
def test_json_has_names_as_they_are(name: str) -> None:
    found = json.loads(report_of(name).to_json(ops=True).encode("ascii"))
    assert [module["path"] for module in found["modules"]] == ["", name]
    assert found["capture"]["notes"] == [name]


def test_words_with_underscores_stay_readable() -> None:
    assert markdown("self_attn.q_proj") == "self_attn.q_proj"
    assert markdown("_private_") == r"\_private\_"


class Named(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(4, 2))
        self.add_module(f"{name}unused", nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> Any:
        return self._modules[self.name](x)  # type: ignore[misc]  # it is one


def generation() -> gf.GenerationReport:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    config = LlamaConfig(num_hidden_layers=1, vocab_size=10, **sizes)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
        model.add_module(HOSTILE[0], nn.Identity())
        model.add_module(HOSTILE[8], nn.Identity())
        prompt = {"input_ids": torch.zeros(1, 3, dtype=torch.int64)}
    return gf.count_generation(model, prompt, max_new_tokens=2)


def test_a_generation_is_escaped_too() -> None:
    report = generation()
    texts = [report.tree(), report.table(), report.to_text(), report.formula()]
    for text in [*texts, report.compare_conventions("calflops").table()]:
        assert all(line.isprintable() for line in text.split("\n"))
        assert r"\x1b[31m" in texts[0]
    summary, modules, *_ = cells_of(report.to_markdown())
    assert summary[1][0] == "Model"
    assert modules[-1][0] == visible(HOSTILE[8])
    assert visible(HOSTILE[0]) in {row[0] for row in modules}


@pytest.mark.parametrize("name", [name for name in HOSTILE if "." not in name], ids=ascii)
def test_a_training_step_is_escaped_too(name: str) -> None:
    step = gf.count_training(Named(name), (torch.zeros(3, 4),))
    for text in (step.tree(), step.table(), step.to_text(), step._repr_html_()):
        assert all(line.isprintable() for line in text.split("\n"))
    _, modules, _ = cells_of(step.to_markdown())
    expected = ["(model)", visible(name).strip(), visible(f"{name}unused").strip(), "(loss)"]
    assert [row[0] for row in modules[1:]] == expected
    rows = list(csv.DictReader(io.StringIO(step.to_csv(), newline="")))
    assert [row["path"] for row in rows] == [
        *("", csv_cell(name), csv_cell(f"{name}unused")),
        "(loss)",
    ]
    assert "<script>" not in step._repr_html_()


def test_a_reconciliation_is_escaped_too() -> None:
    net = Named("=a|b\x1b")
    found = gf.count(net, (torch.zeros(3, 4),)).compare_conventions("calflops")
    assert r"=a|b\x1b" in found.table()
    operators, modules = cells_of(found.table("github"))
    assert operators[1][0] == "aten::linear"
    assert modules[1][0] == r"=a|b\x1b"
    (row,) = csv.DictReader(io.StringIO(found.to_csv()))
    assert row["module"] == "'=a|b\x1b"
    assert row["flops_difference"] == "-6"
    assert json.loads(found.to_json())["modules"][0]["module"] == "=a|b\x1b"
