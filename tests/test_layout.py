"""Output fits the columns that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import Run
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import graphflops as gf
from graphflops.render.layout import aligned, labelled, shortened


class Block(nn.Module):
    """A layer with a long path and a part that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.a_projection_with_a_long_name = nn.Linear(8, 8)
        self.dropout = nn.Dropout()
        self.never_called = nn.ModuleList(nn.Linear(8, 8 + i) for i in range(20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.dropout(self.a_projection_with_a_long_name(x))
        return out


@pytest.fixture(scope="module")
def reports() -> list[gf.Report | gf.TrainingReport]:
    model, x = nn.Sequential(*[Block() for _ in range(3)]), torch.empty(5, 8)
    return [gf.count(model, (x,)), gf.count_training(model, (x,), optimizer="adamw")]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_trees_and_tables_fit(width: int, reports: list[gf.Report | gf.TrainingReport]) -> None:
    for report in reports:
        for text in (report.to_text(width=width), report.table(3, width)):
            assert max(map(len, text.splitlines())) <= width
            assert "FLOPs" in text


def test_without_a_width_lines_are_whole(reports: list[gf.Report | gf.TrainingReport]) -> None:
    count = reports[0]
    assert "in_features=8, out_features=8, bias=True" not in count.to_text(width=80)
    assert "= 100% FLOPs" in count.to_text(width=80)
    assert max(map(len, count.to_text().splitlines())) > 100


def test_what_was_never_called_is_folded(reports: list[gf.Report | gf.TrainingReport]) -> None:
    (line,) = [line for line in reports[0].to_text().splitlines() if "Never called" in line]
    assert len(line) < 400
    assert len(reports[0].uncalled_modules()) == 3 * 21


def test_columns_are_picked(reports: list[gf.Report | gf.TrainingReport]) -> None:
    table = reports[0].table(1, columns=("FLOPs", "module"))
    assert table.split("\n\n")[1].splitlines()[0].split() == ["FLOPs", "module"]
    with pytest.raises(gf.ModelSpecError, match=r"no column 'flops'\. Its columns: module, class"):
        reports[0].table(1, columns=("flops",))


def test_the_command_fits_columns_where_they_are_known(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    call = ("count", "models.py:tiny")
    piped = run(*call)[1]
    monkeypatch.setenv("COLUMNS", "60")
    fitted, wide = run(*call)[1], run(*call, "--wide")[1]
    assert max(map(len, fitted.splitlines())) <= 60 < max(map(len, piped.splitlines()))
    assert [*map(len, wide.splitlines()[:5])] == [*map(len, piped.splitlines()[:5])]
    table = run(*call, "--format", "table", "--columns", "module,MACs")[1]
    assert "module      MACs" in table
    monkeypatch.setenv("COLUMNS", "200")
    code, _, err = run(*call, "--columns", "module")
    assert code == 2
    assert "Add --format table." in err
    code, _, err = run(*call, "--format", "table", "--columns", "colour")
    assert code == 2
    assert "no column 'colour'" in err


def test_a_file_has_whole_lines(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    run("count", "models.py:tiny", "--output", str(tmp_path / "tree.txt"))
    lines = (tmp_path / "tree.txt").read_text("utf-8").splitlines()
    assert max(map(len, lines)) > 60


cells = st.text("abc.0 ", max_size=30)


@given(st.lists(st.tuples(cells, cells, st.just("12.5 G")), min_size=1), st.integers(40, 120))
def test_any_table_fits(rows: list[tuple[str, str, str]], width: int) -> None:
    table = aligned(["module", "class", "FLOPs"], rows, "simple", width)
    assert max(map(len, table.splitlines())) <= width


@given(st.text("ab c", max_size=200), st.integers(40, 120))
def test_labelled_lines_keep_their_words(text: str, width: int) -> None:
    words = labelled([("Note", text)], width).split()
    assert words == ["Note", *text.split()]


@given(st.text(max_size=60), st.integers(8, 40))
def test_a_shortened_text_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert len(short) == min(len(text), width)
    assert short[0:1] == text[0:1]
    assert short[-1:] == text[-1:]
