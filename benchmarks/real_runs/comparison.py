"""The class of each difference between a count, the arithmetic and ``FlopCounterMode``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from benchmarks.real_runs.counting_mode import KNOWN_GAPS, Contractions

Row = dict[str, Any]

_OF_VALUES = re.compile(r"up to the weights|values of the inputs|[Rr]andom numbers|only data can")

VERDICTS = {
    "equal": "equal to the arithmetic and to `FlopCounterMode`",
    "gap": "equal to the arithmetic; `FlopCounterMode` has a known gap, to the last digit",
    "split": "equal in all, not in each part: by pass or by step",
    "assumed": "different, and the report says what it takes for granted of values",
    "differs": "**different from the arithmetic: a fault of the count**",
    "incomplete": "a call has no price: the count says that it is a lower bound",
    "oracle": "not compared: a kernel contracts for which the oracle has no arithmetic",
    "refused": "refused with a sentence although it runs",
    "failed": "**the count ends in an error that is not one of ours**",
    "run fails": "the real run fails",
}
"""Outcomes, in the words of the page."""


def verdict(
    found: Contractions,
    gaps: dict[str, tuple[int, int]],
    *,
    equal: bool,
    complete: bool,
    notes: Iterable[str] = (),
) -> str:
    """Class of a count that has a number.

    Args:
        found: What the real run did.
        gaps: Operators on which ``FlopCounterMode`` has another number.
        equal: Whether the count is what the arithmetic comes to.
        complete: Whether every call of the count has a price.
        notes: Notes of the report: some say that values decide what runs.
    """
    if found.unpriced or not gaps.keys() <= KNOWN_GAPS.keys():
        return "oracle"
    if not equal:
        if any(map(_OF_VALUES.search, notes)):
            return "assumed"
        return "differs" if complete else "incomplete"
    return "gap" if gaps else "equal"
