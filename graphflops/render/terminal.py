"""Colour, where a person looks at a terminal. The text itself stays the same."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.theme import Theme

from graphflops.render.escape import visible_lines


class _Figures(RegexHighlighter):
    base_style = "cost."
    highlights = [  # noqa: RUF012 - rich's own way to declare them
        r"(?P<name>\([\w.-]+\)): (?P<times>\d+ x )?(?P<class>\w+)\(",
        r"(?P<share>\d+(\.\d+)?%)",
        r"(?P<unsupported>\w+::\w+ x \d+|[1-9]\d* (calls )?unsupported|not called)",
        r"(?m)^(?P<label>[A-Z][\w ]+?)(?= {2,})",
    ]


_THEME = Theme(
    {
        "cost.name": "cyan",
        "cost.times": "bold",
        "cost.class": "bold",
        "cost.share": "green",
        "cost.unsupported": "bold red",
        "cost.label": "bold",
    }
)


def colored(text: str, terminal: TextIO) -> str:
    """Text in the colours of a terminal, lines unwrapped so that they copy as they are."""
    console = Console(file=terminal, theme=_THEME, highlighter=_Figures(), emoji=False)
    with console.capture() as capture:
        console.print(visible_lines(text), soft_wrap=True, markup=False, end="")
    return capture.get()
