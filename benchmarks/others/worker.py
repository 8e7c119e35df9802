"""One model of another package in a worker."""

from __future__ import annotations

import os

from benchmarks.real_runs.comparison import Row

QUIET_PACKAGES = {"YOLO_VERBOSE": "False", "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
"""Settings of ultralytics: it prints, installs packages and asks the network otherwise."""


def names() -> list[str]:
    """Names of the cases, in the order of their tables."""
    from benchmarks.others.cases import CASES

    return [*CASES]


def examine(name: str) -> Row:
    """What comes of a case."""
    from benchmarks.others.case import examine as examined
    from benchmarks.others.cases import CASES
    from graphflops.runtime.patches import QUIET

    os.environ |= QUIET_PACKAGES
    with QUIET.holding():
        return examined(CASES[name])
