"""What a call of the command line comes back with."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""Exit status, stdout and stderr of the command line, called with these arguments."""
