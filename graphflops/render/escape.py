"""Text that others chose, such as names of modules and notes, made safe for where it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable

# What Markdown gives a meaning; an underscore inside a word has none.
_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula."""


def visible(text: str) -> str:
    r"""Text on one line in which everything can be seen, in the terms of ``repr``.

    Control characters, line breaks, marks that turn the direction of writing, spaces without
    width and halves of surrogate pairs are written as escapes.

    Example:
        >>> visible("a\x1b[2Jb\n")
        'a\\x1b[2Jb\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def visible_lines(text: str) -> str:
    """The same, line by line."""
    return "\n".join(map(visible, text.split("\n")))


def one_line(text: str) -> str:
    """A message as one visible line, whatever it quotes."""
    return visible(" ".join(text.split()))


def markdown(text: str) -> str:
    r"""Text that a Markdown renderer shows as it is, in a cell of a table too.

    Example:
        >>> markdown("a|b <i> 2*B*S self_attn")
        'a\\|b \\<i\\> 2\\*B\\*S self_attn'
    """
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet runs as a formula; numbers stay numbers.

    Example:
        >>> csv_cell("=1+1"), csv_cell(-1), csv_cell("linear")
        ("'=1+1", -1, 'linear')
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def escape_for(tablefmt: str) -> Callable[[str], str]:
    """The function that escapes the text of a cell in a table of tabulate's formats."""
    # tabulate itself escapes what HTML gives a meaning.
    return markdown if tablefmt == "github" else visible


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
