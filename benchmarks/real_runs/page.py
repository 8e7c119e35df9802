"""The page about counts and real runs: every figure comes from the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.real_runs.comparison import VERDICTS, Row
from benchmarks.real_runs.counting_mode import KNOWN_GAPS
from benchmarks.results import rows_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evidence" / "real_runs.md"
RESULTS = {
    kind: ROOT / "benchmarks" / "results" / f"real_{kind}.jsonl"
    for kind in ("training", "generation", "forward")
}
_LONGEST = 200
COMPARED = ("equal", "gap")
NOT_COMPARED = {
    *("run fails", "not built", "oracle", "too large", "no class", "not captured"),
    *("inputs do not fit", "too slow", "out of memory"),
}
OUTCOMES = VERDICTS | {
    "not built": "transformers does not build it so",
    "too slow": "no answer in time",
    "out of memory": "more memory than allowed",
    "crashed": "the process ended",
    "too large": "not run: more than 400 million parameters with four layers",
    "no class": "no class: a config that no model is built from alone",
    "not captured": "cannot be captured as a graph",
    "inputs do not fit": "its own forward fails on the inputs made",
}

_PAGE = """\
# Against real runs

<!-- Written by `python -m benchmarks.real_runs`; edit the script, not this page. -->

Models with random weights really run on the CPU, forward and backward or token by token, under a
counting mode of a few lines: it sees what the dispatcher hands to kernels, and has one line of
arithmetic for each kernel that contracts. `FlopCounterMode` runs beside it. The count of the same
model must come to the same multiply-accumulates, not in all alone but for each pass, and for each
token of a generation; for training, the optimizer's parameters must be those that got a gradient.
{sections}

## What `FlopCounterMode` does not see

Where it parts from the arithmetic, it is in these operators, and by nothing else:

{gaps}
"""

_TITLES = {
    "training": (
        "Training steps",
        (
            "`count_training` against `loss.backward()`: layers, checkpoints in every form, "
            "functions with a backward of their own, hooks, gradients of gradients, frozen parts, "
            "autocast, models of libraries, adapters."
        ),
    ),
    "generation": (
        "Generations",
        (
            "`count_generation` against `model.generate`, tiny configs whose sliding windows are "
            "8 tokens: batch 1 of 6 + 5 tokens, batch 3 of 7 + 4 and of 12 + 3, the same padded on "
            "the left, and 12 + 3 with a static cache. The outcome of a type is the worst of five."
        ),
    ),
    "forward": (
        "Forward passes",
        "`count` against the forward, types and architectures by name with four layers.",
    ),
}


def render() -> str:
    """The whole page."""
    there = {kind: rows_of(path) for kind, path in RESULTS.items() if path.exists()}
    sections = [_section(kind, where, rows) for kind, (where, rows) in there.items()]
    gaps = [(f"`{name}`", said) for name, said in KNOWN_GAPS.items()]
    return _PAGE.format(
        sections="\n".join(sections),
        gaps=tabulate(gaps, ("operator", "`FlopCounterMode`"), tablefmt="github"),
    )


def _section(kind: str, where: Row, rows: list[Row]) -> str:
    title, said = _TITLES[kind]
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    return "\n\n".join(
        (
            f"\n## {title}",
            said,
            _share(rows),
            _tally(rows),
            _runs(rows),
            differences(rows),
            f"{packages}, Python {where['python']}, {where['date']}.",
        )
    ).replace("\n\n\n\n", "\n\n")


def _share(rows: list[Row]) -> str:
    compared = [row for row in rows if row["outcome"] not in NOT_COMPARED]
    equal = sum(row["outcome"] in COMPARED for row in compared)
    share = f" ({equal / len(compared):.1%})" if compared else ""
    return f"Equal to the last digit: **{equal} of {len(compared)}{share}** that run."


def _tally(rows: list[Row]) -> str:
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        groups.setdefault(_group(row), Counter())[row["outcome"]] += 1
    everything = sum(groups.values(), Counter[str]())
    lines = [
        (OUTCOMES.get(outcome, outcome), *(n[outcome] or "" for n in groups.values()), number)
        for outcome, number in everything.most_common()
    ]
    sums = ("**all**", *(count.total() for count in groups.values()), everything.total())
    return tabulate([*lines, sums], ("", *groups, "all"), tablefmt="github")


def _group(row: Row) -> str:
    return str(row["name"]).partition("/")[0]


def _runs(rows: list[Row]) -> str:
    """Outcomes of the single runs, where a case has several."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for run, found in row.get("runs", {}).items():
            counts.setdefault(run, Counter())[found["outcome"]] += 1
    if not counts:
        return ""
    outcomes = [name for name in OUTCOMES if any(count[name] for count in counts.values())]
    lines = [(run, *(count[name] or "" for name in outcomes)) for run, count in counts.items()]
    return tabulate(lines, ("run", *outcomes), tablefmt="github")


def differences(rows: list[Row]) -> str:
    """A table of the cases that are not equal, and what they say."""
    lines = [
        (f"`{row['name']}`", *line)
        for row in rows
        if row["outcome"] not in COMPARED
        for line in _told(row)
    ]
    if not lines:
        return "Nothing differs."
    return tabulate(lines, ("case", "outcome", "what"), tablefmt="github")


def _told(row: Row) -> Iterator[tuple[str, str]]:
    """One line for each way in which a case is not equal."""
    if "runs" not in row:
        yield row["outcome"], text(_what(row))
        return
    causes: dict[tuple[str, str], list[str]] = {}
    for run, found in row["runs"].items():
        if found["outcome"] not in COMPARED:
            causes.setdefault((found["outcome"], text(_what(found))), []).append(run)
    for (outcome, what), runs in causes.items():
        yield outcome, f"{'; '.join(runs)}: {what}"


def _what(row: Row) -> str:
    if "reason" in row:
        return str(row["reason"])
    if "unsupported" in row:
        return f"without a price: {', '.join(row['unsupported'])}"
    if "unpriced" in row:
        return f"without arithmetic: {', '.join(row['unpriced'])}"
    if "differences" in row:
        return "; ".join(_pair(name, *pair) for name, pair in row["differences"].items())
    ours, theirs = row["steps"]
    return "; ".join(
        _pair(f"token {token}", *pair)
        for token, pair in enumerate(_unequal(ours, theirs), start=1)
        if pair
    )


def _unequal(ours: list[Any], theirs: list[Any]) -> Iterable[tuple[Any, Any] | None]:
    padded = [*theirs, *([0] * (len(ours) - len(theirs)))]
    return [None if str(a) == str(b) else (a, b) for a, b in zip(ours, padded, strict=False)]


def _pair(name: str, ours: Any, theirs: Any) -> str:
    return f"{name}: counted {ours}, run {theirs}"


def text(said: str) -> str:
    """What was said, short and safe in a table."""
    said = said if len(said) <= _LONGEST else said[:_LONGEST].rstrip() + " ..."
    return said.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
