"""The page about a sweep over the zoo: all numbers on it come from the results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from tabulate import tabulate

Row = dict[str, Any]
_LONGEST = 160
_MANY = 4

_GROUPS: dict[str, Callable[[Row], bool]] = {
    "`AutoModel`": lambda row: row["auto"],
    "other transformers": lambda row: row["name"].startswith("hf:") and not row["auto"],
    "timm": lambda row: row["name"].startswith("timm:"),
    "torchvision": lambda row: row["name"].startswith("torchvision:"),
}
_OUTCOMES = {
    "counted": "counted",
    "no class": "no class: a config that no model is built from alone",
    "not built": "the library does not build it from its default config",
    "needs": "needs a package that is not installed",
    "refused": "refused: no inputs can be made for it",
    "inputs do not fit": "its own forward fails on the inputs made",
    "not captured": "cannot be captured as a graph",
    "failed": "the count failed",
    "too slow": "no answer in time",
    "out of memory": "more memory than allowed",
    "crashed": "the process ended",
}
_UNBUILT = {"no class", "not built", "needs"}
_VERDICTS = {
    "equal": "equal to the last digit",
    "equal as exported": "equal once the model knows it is exported: it then computes otherwise",
    "explained": "different by products that FlopCounterMode does not see, to the last digit",
    "unexplained": "different for no known reason",
    "symbolic": "not compared: the count has symbols for sizes that depend on values",
    "too slow": "not compared: no answer in the time that the count left",
    "fails": "not compared: FlopCounterMode cannot run the model",
}
_COMPARED = ("equal", "equal as exported", "explained", "unexplained")

_PAGE = """\
# The zoo

<!-- Written by `python -m benchmarks.zoo`; edit the script, not this page. -->

Models by name, each with the inputs that `graphflops count NAME` makes for it, built on meta from
the default config and counted in eval mode, {depth}:
{tried}.

{shares}

Each model has a process of its own with {limit:.0f} seconds and {memory_limit_gib} GiB, {workers}
at a time on {cpus} cores. torch {torch}, transformers {transformers}, timm {timm}, torchvision
{torchvision}, Python {python}, {date}. `--resume` goes on where a sweep stopped, and
`--render-only` writes this page again from the results.

## Outcomes

{outcomes}

By which rung of the ladder they were captured:

{rungs}

{statuses}

{unknown}

## Time

{time}

## Contractions

2 x MACs against `FlopCounterMode` on the same model and inputs, run eagerly: on meta tensors under
a fake mode, or, for models that ask for values of their inputs, on fake tensors that know them,
with attention as plain products (it has no formula for the fused kernel of the CPU). Experts are
batched products: its shape rule of grouped ones takes nothing but bfloat16.

{verdicts}

{causes}

## What was not counted

{failures}

## What was counted
{full}
{table}
"""


def render(where: dict[str, Any], rows: list[Row]) -> str:
    """The whole page."""
    counted = [row for row in rows if row["outcome"] == "counted"]
    quick = any(row.get("cut") for row in rows)
    depth = (
        f"cut to {where['depth']} layers where a config says how many" if quick else "at full depth"
    )
    full = "\nModels marked *full* are not cut: they are no deeper, or take no cut.\n"
    keys = ("limit", "memory_limit_gib", "python", "workers", "cpus", "date")
    return _PAGE.format(
        **{key: where[key] for key in keys},
        **where["packages"],
        depth=depth,
        tried=_tried(where, rows),
        shares=_shares(rows, counted),
        outcomes=_tally(rows, _outcome, _OUTCOMES, "tried"),
        rungs=_tally(counted, lambda row: str(row["method"]), _methods(counted), "counted"),
        statuses=_statuses(counted),
        unknown=_unknown(counted),
        time=_time(where, rows, counted),
        verdicts=_tally(counted, _verdict, _VERDICTS, "counted"),
        causes="\n".join(_causes(counted)),
        failures=_failures(rows),
        full=full if quick else "",
        table=_counted(counted, quick=quick),
    )


def _outcome(row: Row) -> str:
    return "needs" if row["outcome"].startswith("needs ") else str(row["outcome"])


def _verdict(row: Row) -> str:
    return str(row["flop_counter"]["verdict"])


def _methods(rows: list[Row]) -> dict[str, str]:
    return {method: method for method, _ in Counter(row["method"] for row in rows).most_common()}


def _tried(where: dict[str, Any], rows: list[Row]) -> str:
    """How many of those that each library lists."""
    tried = Counter(row["name"].partition(":")[0] for row in rows)
    libraries = {"hf": "transformers types", "timm": "in timm", "torchvision": "in torchvision"}
    return ", ".join(
        f"{tried[source]} of {where['listed'][source]:,} {library}"
        for source, library in libraries.items()
        if tried[source]
    )


def _shares(rows: list[Row], counted: list[Row]) -> str:
    """The figures of merit."""
    lines = []
    for group, belongs in _GROUPS.items():
        built = [row for row in rows if belongs(row) and _outcome(row) not in _UNBUILT]
        done = sum(row["outcome"] == "counted" for row in built)
        if built:
            lines.append(
                f"- {group}: **{_share(done, len(built))}** of those it builds are counted."
            )
    complete = sum(not row["unknown"] for row in counted)
    lines.append(f"- No call without a price: {_share(complete, len(counted))} of those counted.")
    found = Counter(map(_verdict, counted))
    compared = sum(found[verdict] for verdict in _COMPARED)
    equal = found["equal"] + found["equal as exported"]
    lines.append(
        f"- Contractions equal to `FlopCounterMode`: {_share(equal, compared)} of those it runs."
    )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})" if whole else "none"


def _tally(rows: list[Row], key: Callable[[Row], str], known: dict[str, str], total: str) -> str:
    """How many rows of each kind, by where the models come from."""
    groups = {name: [*filter(belongs, rows)] for name, belongs in _GROUPS.items()}
    groups = {name: members for name, members in groups.items() if members}
    counts = [Counter(map(key, members)) for members in groups.values()]
    everything = sum(counts, Counter[str]())
    lines = [
        (said, *(count[kind] for count in counts), everything[kind])
        for kind, said in known.items()
        if everything[kind]
    ]
    sums = (f"**{total}**", *(count.total() for count in counts), everything.total())
    return _table([*lines, sums], ("", *groups, "all"), numbers=len(groups) + 1)


def _statuses(rows: list[Row]) -> str:
    statuses: Counter[str] = Counter()
    for row in rows:
        statuses.update(row["statuses"])
    named = ", ".join(f"{calls:,} {status}" for status, calls in statuses.most_common())
    return f"{sum(row['calls'] for row in rows):,} calls in all: {named}."


def _unknown(rows: list[Row]) -> str:
    models = Counter(op for row in rows for op in row["unknown"])
    named = [f"`{op}` ({count})" for op, count in models.most_common()]
    return f"Operators without a price, and models with them: {', '.join(named) or 'none'}."


def _time(where: dict[str, Any], rows: list[Row], counted: list[Row]) -> str:
    """Medians, and what imports take of all the time."""
    if not counted:
        return "Nothing was counted."
    timed = [row["seconds"] for row in rows if "seconds" in row]
    total = sum(sum(spans.get(stage, 0) for stage in _STAGES) for spans in timed)
    imports = sum(spans["import"] for spans in timed) + where["preload"]
    medians = ", ".join(
        f"{stage} {median(row['seconds'][stage] for row in counted):.2f}" for stage in _STAGES
    )
    whole = median(sum(row["seconds"][stage] for stage in _STAGES) for row in counted)
    return (
        f"Median seconds of a model that is counted: **{whole:.2f}** ({medians}); of all workers "
        f"{total / 60:.0f} minutes. Imports take **{imports / (total + where['preload']):.1%}** of "
        f"that: what all share is imported once, in {where['preload']:.1f} s, and workers are "
        "forked from there."
    )


_STAGES = ("build", "count", "compare")


def _causes(rows: list[Row]) -> Iterable[str]:
    """Where FlopCounterMode has other numbers or none, and why."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for cause in _cause(row["flop_counter"]):
            found.setdefault(cause, []).append(row["name"])
    for cause, names in sorted(found.items(), key=lambda item: -len(item[1])):
        some = ", ".join(f"`{name}`" for name in names[:_MANY])
        yield f"- {cause}: {len(names)} ({some}{', ...' if len(names) > _MANY else ''})"


def _cause(found: Row) -> Iterable[str]:
    if found["verdict"] == "fails":
        yield f"Fails, {_text(found['reason'])}"
    if found["verdict"] == "unexplained":
        more = found["unexplained"]
        yield f"{abs(more):,} FLOPs {'more' if more > 0 else 'fewer'} here, unexplained"
    if found["verdict"] == "explained":
        yield from (
            f"Not seen, {_UNSEEN.get(op, f'no formula for `{op}`')}" for op in found["unseen"]
        )
    if found.get("exporting"):
        plain = found["plain"]
        yield (
            "Fails when run plainly, not as exported"
            if plain is None
            else "Computes otherwise when exported"
        )


_UNSEEN = {
    "aten::einsum": "`aten::einsum` over axes of size one, which PyTorch runs elementwise",
    "aten::matmul": "`aten::matmul` with a vector, which becomes `mv` or `dot`",
}


def _counted(rows: list[Row], *, quick: bool) -> str:
    lines = [
        (
            f"`{row['name']}`" + (" *full*" if quick and not row["cut"] else ""),
            f"`{row['class']}`",
            row["method"],
            _verdict(row),
            f"{sum(row['seconds'][stage] for stage in ('build', 'count')):.1f}",
            row["calls"],
            sum(row["unknown"].values()),
            row["macs"] if isinstance(row["macs"], int) else "depends on values",
        )
        for row in rows
    ]
    headers = ("name", "class", "rung", "contractions", "seconds", "calls", "unknown", "MACs")
    return _table(lines, headers, numbers=4)


def _failures(rows: list[Row]) -> str:
    lines = [
        (f"`{row['name']}`", row["outcome"], _text(row["reason"]))
        for outcome in _OUTCOMES
        for row in rows
        if _outcome(row) == outcome != "counted"
    ]
    return _table(lines, ("name", "outcome", "reason")) if lines else "Nothing."


_SAID_BY_THE_OUTCOME = re.compile(
    r"ModelSpecError: ((transformers|\S+) cannot (be built so|build \S+ from this config): )?"
    r"|CaptureError: (the forward of \S+ fails on these inputs: )?"
    r"|\S+ cannot be captured as a graph. "
    r"| (Give it: --input|Correct (the config|--set)|The inputs were|Its Python depends).*"
)


def _text(reason: str) -> str:
    text = _SAID_BY_THE_OUTCOME.sub("", reason)
    text = text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " ..."
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _table(lines: Iterable[tuple[object, ...]], headers: tuple[str, ...], numbers: int = 0) -> str:
    """A Markdown table whose last ``numbers`` columns are numbers."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in line] for line in lines]
    aligned = ["left"] * (len(headers) - numbers) + ["right"] * numbers
    return tabulate(cells, headers, tablefmt="pipe", colalign=aligned, disable_numparse=True)
