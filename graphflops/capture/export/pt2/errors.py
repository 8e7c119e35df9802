"""The one exception inside of this package."""

from __future__ import annotations

_AGAIN = "Save the program again with torch.export.save under this version of PyTorch."


class UnreadableError(Exception):
    """Something in a file that is not read.

    Args:
        what: What is wrong with the file, to follow its name: ``"is encrypted"``.
        advice: What to do next.
    """

    def __init__(self, what: str, advice: str = _AGAIN) -> None:
        super().__init__(f"{what}. {advice}")


_SHOWN = 80


def shown(value: object) -> str:
    """A value of a file as an error quotes it: short, on one line."""
    quoted = printable(repr(value))
    return quoted if len(quoted) <= _SHOWN else f"{quoted[:_SHOWN]}..."


def printable(text: str) -> str:
    """A text with its control characters written out, which would move a terminal's cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
