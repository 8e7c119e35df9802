"""What the README shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/handlers.md",
        "docs/models.md",
        "docs/conventions.md",
        "docs/generation.md",
        "docs/training.md",
    ],
)
def test_the_python_examples_run(page: str) -> None:
    # One after the other in one namespace, as a reader would type them.
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert examples
    exec(compile("\n".join(examples), page, "exec"), {})  # noqa: S102 - our own pages


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
