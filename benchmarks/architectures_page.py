"""The page about a sweep over architectures: all numbers on it come from the results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tabulate import tabulate

Row = dict[str, Any]
_LONGEST = 160

_OUTCOMES = {
    "counted": "counted",
    "no class": "no class in `AutoModel`: a part of other models, or a head without a base",
    "no inputs yet": "inputs are not made up from the config yet",
    "needs timm": "need timm, which is not installed",
    "not built": "transformers does not build it from its default config",
    "inputs do not fit": "the forward itself fails on the inputs made up",
    "mixes devices": "makes tensors on the CPU while its weights are on meta",
    "not captured": "cannot be captured as a graph",
    "failed": "the count failed",
    "too slow": "no answer in time",
    "crashed": "the process ended",
}
_VERDICTS = {
    "equal": "equal to the last digit",
    "equal as exported": "equal once the model knows it is exported: it then computes otherwise",
    "explained": "different by operators without a formula in FlopCounterMode, to the last digit",
    "unexplained": "different for no known reason",
    "symbolic": "not compared: the count has symbols for sizes that depend on values",
    "fails": "FlopCounterMode cannot run the model",
}

_PAGE = """\
# Architectures

<!-- Written by `python -m benchmarks.architectures`; edit the script, not this page. -->

{tried} of the {types} model types of transformers {transformers} (torch {torch}, Python {python},
{date}), built on meta by `AutoModel` from the default config, cut to {depth} layers wherever the
config has such a number, and counted in eval mode: {seq_len} tokens, or one image. The others were
not tried: a run stops after 12 minutes, and `--resume` goes on where it stopped. `--render-only`
writes this page again from `benchmarks/results/architectures.jsonl`.

{outcomes}

## What was counted

{complete} of {counted} models have no call without a price. {calls:,} calls in all: {statuses}.
{unknown}

2 x MACs against `FlopCounterMode`, run on meta tensors under
`FakeTensorMode(allow_non_fake_inputs=True)`, experts as batched products (its shape rule of
grouped ones takes nothing but bfloat16):

{verdicts}

{reasons}

Models are cut in depth unless marked *full*: these do not take the cut.

{table}

## What was not counted

{failures}
"""


def render(where: dict[str, Any], rows: list[Row]) -> str:
    """The whole page."""
    counted = [row for row in rows if row["outcome"] == "counted"]
    statuses: Counter[str] = Counter()
    for row in counted:
        statuses.update(row["statuses"])
    packages = where["packages"]
    return _PAGE.format(
        **{key: where[key] for key in ("types", "python", "date", "depth", "seq_len")},
        tried=len(rows),
        torch=packages["torch"],
        transformers=packages["transformers"],
        outcomes=_tally((row["outcome"] for row in rows), _OUTCOMES, "tried"),
        complete=sum(not row["unknown"] for row in counted),
        counted=len(counted),
        calls=sum(row["calls"] for row in counted),
        statuses=", ".join(f"{calls:,} {status}" for status, calls in statuses.most_common()),
        unknown=_unknown(counted),
        verdicts=_tally(map(_verdict, counted), _VERDICTS, "counted"),
        reasons=_reasons(counted),
        table=_counted(counted),
        failures=_failures(rows),
    )


def _verdict(row: Row) -> str:
    if isinstance(row["macs"], str):
        return "symbolic"
    if row["flop_counter"] is None:
        return "fails"
    if row["unexplained"]:
        return "unexplained"
    if row["unseen"]:
        return "explained"
    return "equal as exported" if row.get("exporting") else "equal"


def _tally(found: Iterable[str], known: dict[str, str], total: str) -> str:
    counts = Counter(found)
    lines = [(known[key], counts[key]) for key in known if counts[key]]
    return _table([*lines, (f"**{total}**", counts.total())], ("", "models"), numbers=1)


def _unknown(rows: list[Row]) -> str:
    models = Counter(op for row in rows for op in row["unknown"])
    named = [f"`{op}` ({count})" for op, count in models.most_common()]
    return f"Operators without a price, and models with them: {', '.join(named)}." if named else ""


def _reasons(rows: list[Row]) -> str:
    """Where FlopCounterMode has other numbers or none, and why."""
    lines = [
        *_explanations(rows),
        *(
            f"- Fails on {len(types)} (`{'`, `'.join(types[:4])}`): `{reason[:_LONGEST]}`."
            for reason, types in _grouped_failures(rows).items()
        ),
    ]
    return "\n".join(lines)


def _explanations(rows: list[Row]) -> list[str]:
    exported = [
        f"- `{row['type']}`: {_plain(row)} when run plainly, {row['flop_counter']:,} as exported."
        for row in rows
        if row.get("exporting")
    ]
    unseen = Counter(op for row in rows if _verdict(row) == "explained" for op in row["unseen"])
    return (
        exported
        + [f"- No formula for `{op}`: {count} models." for op, count in unseen.most_common()]
        + [
            f"- `{row['type']}`: {row['unexplained']:,} FLOPs more here, unexplained."
            for row in rows
            if _verdict(row) == "unexplained"
        ]
    )


def _plain(row: Row) -> str:
    plain = row["flop_counter_plain"]
    return "fails" if plain is None else f"{plain:,}"


def _grouped_failures(rows: list[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if _verdict(row) == "fails":
            found.setdefault(row["flop_counter_reason"], []).append(row["type"])
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _counted(rows: list[Row]) -> str:
    statuses = ("counted", "free", "decomposed", "unknown")
    lines = [
        (
            f"`{row['type']}`" + ("" if row["cut"] else " *full*"),
            f"`{row['class']}`",
            _verdict(row),
            row["calls"],
            *(row["statuses"].get(status, 0) for status in statuses),
            row["macs"],
        )
        for row in rows
    ]
    headers = ("type", "class", "contractions", "calls", *statuses, "MACs")
    return _table(lines, headers, numbers=6)


def _failures(rows: list[Row]) -> str:
    lines = [
        (f"`{row['type']}`", row["outcome"], _shortened(row["reason"]))
        for outcome in _OUTCOMES
        for row in rows
        if row["outcome"] == outcome != "counted"
    ]
    return _table(lines, ("type", "outcome", "reason"))


_SAID_BY_THE_OUTCOME = re.compile(
    r"ModelSpecError: (transformers cannot build \S+ from this config: )?"
    r"|CaptureError: (the forward of \S+ fails on these inputs: )?"
    r"|\S+ cannot be captured as a graph. "
    r"| (Give it: --input|Correct the config|The inputs were|Its Python depends).*"
)


def _shortened(reason: str) -> str:
    text = _SAID_BY_THE_OUTCOME.sub("", reason)
    text = text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " ..."
    return text.replace("|", "\\|").replace("<", "&lt;")


def _table(lines: Iterable[tuple[object, ...]], headers: tuple[str, ...], numbers: int = 0) -> str:
    """A Markdown table whose last ``numbers`` columns are numbers."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in line] for line in lines]
    aligned = ["left"] * (len(headers) - numbers) + ["right"] * numbers
    return tabulate(cells, headers, tablefmt="pipe", colalign=aligned, disable_numparse=True)
