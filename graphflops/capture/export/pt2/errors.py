"""Exception for unreadable files, and quotation of their values in messages."""

from __future__ import annotations

_DEFAULT_ADVICE = "Save the program again with torch.export.save under this version of PyTorch."


class UnreadableError(Exception):
    """File, or a part of it, that cannot be read.

    Args:
        problem: Problem as a predicate that follows the name of the file: ``"is encrypted"``.
        advice: Sentence on what to do next.
    """

    def __init__(self, problem: str, advice: str = _DEFAULT_ADVICE) -> None:
        super().__init__(f"{problem}. {advice}")


_MAX_QUOTED = 80


def quote(value: object) -> str:
    """Return a value of a file as quoted in an error: short, on one line."""
    text = escape_controls(repr(value))
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def escape_controls(text: str) -> str:
    """Escape control characters, which would move the cursor of a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
