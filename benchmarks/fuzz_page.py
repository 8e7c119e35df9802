"""The page about the last sweep over generated models: every figure comes from its results."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
PAGE = ROOT / "docs" / "evidence" / "fuzz.md"
CHECKS = {
    "totals": "modules and operators add up to the totals, parameters are those of the model",
    "contractions": "2 x MACs are what `FlopCounterMode` counts on the meta device",
    "untouched": "model, inputs, random generators and process are as before: every object the "
    "very same one, every tensor bit by bit, flags, hooks, handlers, names of torch",
    "twice": "a second count gives the same, record by record",
    "layer_reuse": (
        "so does one without layer reuse; sums of gradients that autograd makes on its own may "
        "stand elsewhere"
    ),
    "threads": "so do counts of this model and another one in four threads at once",
    "compile": "`torch.compile` calls its backend",
    "graph": "`report.graph.to_fx(model)` gives what the model gives and counts as it does, record "
    "by record; the edges of `to_networkx()` are those that a run finds (forward passes)",
    "rendered": "every form of the report can be made, and its JSON fits the schema",
}
"""Checks by name; that a count succeeds and prices every call is checked always."""

_PAGE = """\
# Generated models

Written by `python -m benchmarks.fuzz`, from `benchmarks/results/fuzz.json`. Each number stands for
a model: layers of `torch.nn` and functional operators drawn at random, one after the other, side by
side, nested, repeated and shared; with inputs and outputs in many forms, in float32, float64 and
bfloat16, with values on the CPU or on meta; in training or evaluation, with frozen and tied
weights, hooks, checkpoints, buffers that are written and results that are kept.

{environment}

{outcomes}

{failures}

## What is checked

A count succeeds unless PyTorch refuses the model as well, and every call has a price. Beyond that:

{checks}

`FlopCounterMode` is blind or wrong in places. Arithmetic takes its place there:

{by_hand}

And these are left out on both sides:

{left_out}

Models that call these do other work on a CPU than on meta, and are not compared:

{not_compared}

## What they are made of

{kinds} kinds of layers, functions and containers, priced as {operators} operators. Special about
them:

{traits}
"""


def page() -> str:
    """The whole page."""
    from benchmarks.fuzz_contractions import BY_HAND, LEFT_OUT, OTHERWISE_ON_META

    found = json.loads(RESULTS.read_text("utf-8"))
    both = [found["forward"], found["step"]]
    traits = sum((Counter(part["traits"]) for part in both), Counter())
    by_hand = [(f"`{op}`", why) for op, (_, why) in BY_HAND.items()]
    left_out = [(f"`{op}`", why) for op, why in LEFT_OUT.items()]
    not_compared = [(f"`{op}`", phase.value, why) for (op, phase), why in OTHERWISE_ON_META.items()]
    return _PAGE.format(
        environment=_environment(found),
        outcomes=_outcomes(found),
        failures=_failures(both),
        checks="\n".join(f"- *{name}*: {CHECKS[name]}." for name in found["checks"]),
        by_hand=tabulate(by_hand, ("operator", "`FlopCounterMode`"), tablefmt="github"),
        left_out=tabulate(left_out, ("operator", "why"), tablefmt="github"),
        not_compared=tabulate(not_compared, ("operator", "phase", "why"), tablefmt="github"),
        kinds=len({kind for part in both for kind in part["kinds"]}),
        operators=len({op for part in both for op in part["operators"]}),
        traits=tabulate(traits.most_common(), ("", "models"), tablefmt="github"),
    )


def _environment(found: dict[str, Any]) -> str:
    where = found["environment"]
    seconds = found["forward"]["seconds"] + found["step"]["seconds"]
    return (
        f"Run on {where['date']}, torch {where['packages']['torch']}, Python {where['python']}, "
        f"{where['platform']}, {seconds:,} seconds of one core."
    )


def _outcomes(found: dict[str, Any]) -> str:
    rows = [
        (
            title,
            part["outcomes"].get("counted", 0),
            part["outcomes"].get("refused", 0),
            part["outcomes"].get("layers reused", 0),
            part["outcomes"].get("contractions compared", 0),
            len({failure["model"] for failure in part["failures"]}),
        )
        for title, part in (("forward", found["forward"]), ("step", found["step"]))
    ]
    headers = (
        *("", "models counted", "refused, by PyTorch too", "with layers reused"),
        *("contractions compared", "models with a failure"),
    )
    return tabulate(rows, headers, tablefmt="github", intfmt=",")


def _failures(both: list[dict[str, Any]]) -> str:
    failed = Counter(failure["failed"] for part in both for failure in part["failures"])
    if not failed:
        return "Nothing failed."
    return tabulate(failed.most_common(), ("what failed", "models"), tablefmt="github")
