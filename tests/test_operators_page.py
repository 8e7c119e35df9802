"""The operator reference is what the handlers say."""

from __future__ import annotations

from benchmarks.operators import PAGE, page


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m benchmarks.operators"
