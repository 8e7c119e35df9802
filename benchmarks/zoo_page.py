"""The page about a sweep over the zoo: all numbers on it come from the results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

from tabulate import tabulate

Row = dict[str, Any]
_LONGEST = 160
_MANY = 4

_LIBRARIES: dict[str, Callable[[Row], bool]] = {
    "`AutoModel`": lambda row: row["auto"],
    "other transformers": lambda row: row["model"].startswith("hf:") and not row["auto"],
    "timm": lambda row: row["model"].startswith("timm:"),
    "torchvision": lambda row: row["model"].startswith("torchvision:"),
}
_TASKS: dict[str, Callable[[Row], bool]] = {
    task: partial(lambda task, row: row.get("generates") == task, task)
    for task in ("causal", "image-text", "sequence to sequence", "speech", "others")
}
_GROUPS = {"forward": _LIBRARIES, "training": _LIBRARIES, "generation": _TASKS}
"""Kinds of models by mode, each with what belongs to it."""
_OUTCOMES = {
    "counted": "counted",
    "no class": "no class: a config that no model is built from alone",
    "no generation": "no class of it continues a prompt",
    "not built": "the library does not build it from its default config",
    "needs": "needs a package that is not installed",
    "fails for real": "a real run on the same inputs fails too, at the same line",
    "refused": "refused: no inputs can be made for it",
    "inputs do not fit": "its own forward fails on the inputs made",
    "not captured": "cannot be captured as a graph",
    "failed": "the count failed",
    "too slow": "no answer in time",
    "out of memory": "more memory than allowed",
    "crashed": "the process ended",
}
_UNBUILT = {"no class", "not built", "needs", "no generation"}
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

Models by name, each with the inputs that `graphflops count NAME`, `train NAME` and `generate NAME`
make for it, built on meta from the default config, {depth}:
{tried}.

{shares}

Each count has a process of its own with {limit:.0f} seconds and {memory_limit_gib} GiB, {workers}
at a time on {cpus} cores. torch {torch}, transformers {transformers}, timm {timm}, torchvision
{torchvision}, Python {python}, {date}. `--resume` goes on where a sweep stopped, and
`--render-only` writes this page again from the results.
{sections}
## What was counted

MACs, of a training step without what is computed again, and of a generation of {new_tokens} tokens.
{full}
{table}
"""
_TITLES = {
    "forward": ("Forward", "The model in eval mode, by the class that `graphflops count` builds."),
    "training": ("Training", "A step in training mode: forward, the loss, backward."),
    "generation": (
        "Generation",
        "By the class that generates, if transformers has one: a prompt, then new tokens.",
    ),
}
_CONTRACTIONS = """\
2 x MACs against `FlopCounterMode` on the same model and inputs, run eagerly: on meta tensors under
a fake mode, or, for forwards that ask for values of their inputs, on fake tensors that know them,
with attention as plain products (it has no formula for the fused kernel of the CPU). Experts are
batched products: its shape rule of grouped ones takes nothing but bfloat16. Its formula for the
backward of convolutions in groups is wrong: arithmetic takes its place."""


def render(where: dict[str, Any], rows: list[Row]) -> str:
    """The whole page."""
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in _TITLES}
    by_mode = {mode: found for mode, found in by_mode.items() if found}
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
        tried=_tried(where, next(iter(by_mode.values()))),
        shares="\n".join(_shares(mode, found) for mode, found in by_mode.items()),
        sections="\n".join(_section(where, mode, found) for mode, found in by_mode.items()),
        new_tokens=where.get("new_tokens", 0),
        full=full if quick else "",
        table=_counted(rows, quick=quick),
    )


def _section(where: dict[str, Any], mode: str, rows: list[Row]) -> str:
    """All about one way of counting."""
    counted = [row for row in rows if row["outcome"] == "counted"]
    compared = [row for row in counted if "flop_counter" in row]
    title, said = _TITLES[mode]
    parts = [f"\n## {title}", said, *_unfinished(where, rows)]
    parts.append(_tally(rows, _outcome, _OUTCOMES, "tried"))
    if methods := _methods(counted):
        rungs = _tally(counted, lambda row: str(row["method"]), methods, "counted")
        parts += ["By which rung of the ladder they were captured:", rungs]
    parts += [_statuses(counted), _unknown(counted), _time(where, rows, counted)]
    if compared:
        verdicts = _tally(compared, _verdict, _VERDICTS, "counted")
        parts += ["### Contractions", _CONTRACTIONS, verdicts, "\n".join(_causes(compared))]
    return "\n\n".join([*parts, "### What was not counted", _failures(rows), ""])


def _unfinished(where: dict[str, Any], rows: list[Row]) -> Iterable[str]:
    """What a sweep has left out that was cut short."""
    tried = sum(row["model"].startswith("hf:") for row in rows)
    if tried < (listed := where["listed"]["hf"]):
        yield f"The sweep has come to {tried} of {listed} types of transformers; the rest is to do."


def _outcome(row: Row) -> str:
    if row.get("real_run", {}).get("alike"):
        return "fails for real"
    return "needs" if row["outcome"].startswith("needs ") else str(row["outcome"])


def _verdict(row: Row) -> str:
    return str(row["flop_counter"]["verdict"])


def _methods(rows: list[Row]) -> dict[str, str]:
    found = Counter(row["method"] for row in rows if "method" in row)
    return {method: method for method, _ in found.most_common()}


def _tried(where: dict[str, Any], rows: list[Row]) -> str:
    """How many of those that each library lists."""
    tried = Counter(row["model"].partition(":")[0] for row in rows)
    libraries = {"hf": "transformers types", "timm": "in timm", "torchvision": "in torchvision"}
    return ", ".join(
        f"{tried[source]} of {where['listed'][source]:,} {library}"
        for source, library in libraries.items()
        if tried[source]
    )


def _shares(mode: str, rows: list[Row]) -> str:
    """The figures of merit."""
    counted = [row for row in rows if row["outcome"] == "counted"]
    lines = []
    for group, belongs in _GROUPS[mode].items():
        built = [row for row in rows if belongs(row) and _outcome(row) not in _UNBUILT]
        done = sum(row["outcome"] == "counted" for row in built)
        if built:
            runs = len(built) - sum(_outcome(row) == "fails for real" for row in built)
            of_running = "" if runs == len(built) else f", {_share(done, runs)} of those that run"
            lines.append(f"{group} {_share(done, len(built))}{of_running}")
    complete = sum(not row["unknown"] for row in counted)
    said = f"- {_TITLES[mode][0]}, counted of those built: {'; '.join(lines)}. "
    said += f"No call without a price: {_share(complete, len(counted))}."
    found = Counter(_verdict(row) for row in counted if "flop_counter" in row)
    if compared := sum(found[verdict] for verdict in _COMPARED):
        equal = found["equal"] + found["equal as exported"]
        said += f" Contractions equal to `FlopCounterMode`: {_share(equal, compared)}."
    return said


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})" if whole else "none"


def _tally(rows: list[Row], key: Callable[[Row], str], known: dict[str, str], total: str) -> str:
    """How many rows of each kind, by where the models come from."""
    kinds = _GROUPS[rows[0]["mode"]] if rows else _LIBRARIES
    groups = {name: [*filter(belongs, rows)] for name, belongs in kinds.items()}
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
    stages = [stage for stage in _STAGES if any(stage in row["seconds"] for row in counted)]
    total = sum(sum(spans.get(stage, 0) for stage in _STAGES) for spans in timed)
    imports = sum(spans["import"] for spans in timed) + where["preload"]
    medians = ", ".join(
        f"{stage} {median(row['seconds'][stage] for row in counted):.2f}" for stage in stages
    )
    whole = median(sum(row["seconds"][stage] for stage in stages) for row in counted)
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
            found.setdefault(cause, []).append(row["model"])
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
    """A line for each model that is counted in some way."""
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["outcome"] == "counted":
            by_model.setdefault(row["model"], {})[row["mode"]] = row
    lines = [
        (
            f"`{model}`"
            + (" *full*" if quick and not any(r["cut"] for r in ways.values()) else ""),
            *(_figure(ways.get(mode)) for mode in _TITLES),
        )
        for model, ways in by_model.items()
    ]
    headers = ("name", *(title.lower() for title, _ in _TITLES.values()))
    return _table(lines, headers, numbers=len(_TITLES))


def _figure(row: Row | None) -> str:
    """What a way of counting comes to, and what is the matter with it, if anything is."""
    if row is None:
        return ""
    marks = [] if not row["unknown"] else ["incomplete"]
    verdict = _verdict(row) if "flop_counter" in row else ""
    marks += [verdict] if verdict in {"unexplained", "fails", "too slow"} else []
    figure = f"{row['macs']:,}" if isinstance(row["macs"], int) else "depends on values"
    return figure + (f" ({', '.join(marks)})" if marks else "")


def _failures(rows: list[Row]) -> str:
    lines = [
        (f"`{row['model']}`", row["outcome"], _text(row["reason"]))
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
