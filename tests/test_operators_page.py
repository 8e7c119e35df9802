"""The operator reference is what the handlers say."""

from __future__ import annotations

import graphflops as gf
from benchmarks.operators import PAGE, page


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m benchmarks.operators"


def test_the_page_is_about_our_own_handlers_only() -> None:
    @gf.register("graphflops_test::elsewhere")
    def handler() -> gf.OpCost:
        """Not from handlers/."""
        return gf.OpCost()

    assert "graphflops_test" not in page()
