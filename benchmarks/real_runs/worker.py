"""One case in a worker: found by its name, run and counted."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.real_runs.comparison import Row

KINDS = ("training", "generation", "forward")


def names(kind: str) -> list[str]:
    """Names of the cases of a kind, in the order of their tables."""
    return [*_cases(kind)]


def examine(kind: str, name: str) -> Row:
    """What comes of a case."""
    from graphflops.runtime.patches import QUIET

    harness: Any = import_module(f"benchmarks.real_runs.{kind}")
    with QUIET.holding():
        found: Row = harness.examine(_cases(kind)[name])
    return found


def _cases(kind: str) -> dict[str, Callable[..., Any]]:
    tables: Any = import_module(f"benchmarks.real_runs.{kind}_cases")
    cases: dict[str, Callable[..., Any]] = tables.CASES
    return cases
