"""Published TFLOP/s and MFU: within their rounding, or what their sources count differently."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import utilization

ROWS: list[dict[str, Any]] = [
    row
    for source in json.loads(utilization.MEASURED.read_text("utf-8"))["utilization"]
    for row in source["rows"]
]
RESULTS = json.loads(utilization.RESULTS.read_text("utf-8"))
FOUND: list[dict[str, Any]] = [row for source in RESULTS["sources"] for row in source["rows"]]
FAST = {"Llama2-7B", "GPT-OSS 20B"}


def test_every_published_row_is_reproduced_or_explained() -> None:
    assert [row["model"] for row in FOUND] == [row["model"] for row in ROWS]
    assert [row["model"] for row in FOUND if not row["within_rounding"]] == []
    # Rows of NeMo 24.12 need no explanation.
    assert [row["model"] for row in FOUND[:8] if row["terms"]] == []


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row["model"], marks=() if row["model"] in FAST else pytest.mark.slow)
        for row in ROWS
    ],
)
def test_a_count_today_is_the_one_of_the_results(row: dict[str, Any]) -> None:
    macs = utilization.contractions(utilization.model_of(row), row["sequence"])
    assert utilization.reproduced(row, macs) in FOUND


@pytest.mark.parametrize(
    ("value", "published", "rate", "expected"),
    [
        (780.49, 780, 16934.0, True),
        (780.6, 780, 1e9, False),
        (58.26, 58.2, 1e9, False),
        (58.24, 58.2, 1e9, True),
        # 231.51 of 7,626 tokens per second may be 231.495 of 7,625.5.
        (231.508, 231, 7626, True),
        (231.53, 231, 7626, False),
    ],
)
def test_rounding(value: float, published: float, rate: float, expected: bool) -> None:
    assert utilization.is_within_rounding(value, published, rate) is expected


def test_the_page_is_what_the_script_writes() -> None:
    assert utilization.PAGE.read_text("utf-8") == utilization.page(RESULTS)
