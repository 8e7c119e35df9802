"""How long generations take to count: ``python -m benchmarks.generation_time``.

Processor time of ``count_generation`` and its total, once in a process of its own, with imports
and the model paid before: of every causal type of transformers by name, in its default config,
and of long generations across the windows of a cache. A sweep: names after the command are
measured anew, ``--resume`` goes on. Writes ``benchmarks/results/generation_time.jsonl`` and two
tables of ``docs/evidence/speed.md``.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import sweep
from benchmarks.results import environment, fill, rows_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "generation_time.jsonl"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
LONG = {"hf:mistral": (3000, 3000), "hf:gemma3_text": (3000, 3000)}
"""Prompt and new tokens of the generations that pass a window, by model."""
TOKENS = (128, 16)
"""Prompt and new tokens of all others."""
SLOWEST = 10


def main() -> None:
    """Measure, unless told otherwise, and fill in the page."""
    options = sweep.arguments(__doc__, seconds=600).parse_args()
    if not options.render_only:
        workers = sweep.pool(options, "benchmarks.zoo_preload")
        known = dict(workers.call(cases))
        sweep.Sweep(
            job=measure,
            cases={name: known[name] for name in options.names or known},
            results=RESULTS,
            where=environment(("torch", "transformers")) | {"workers": options.workers},
        ).run(workers, options)
    _, rows = rows_of(RESULTS)
    for mark, text in (("generation-time", table(rows)), ("slow-generations", slowest(rows))):
        print(text, end="\n\n")
        fill(PAGE, mark, text)


def cases() -> list[tuple[str, tuple[str, int, int]]]:
    """Models with the tokens of their prompts and the new ones, by the name of the case."""
    from transformers.models.auto import modeling_auto

    causal = [f"hf:{name}" for name in sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)]
    models = [*LONG.items(), *((name, TOKENS) for name in causal)]
    return [
        (f"{model}, {prompt:,} + {new:,}", (model, prompt, new)) for model, (prompt, new) in models
    ]


def measure(model: str, prompt: int, new_tokens: int) -> dict[str, Any]:
    """Count a generation once."""
    import graphflops as gf
    from graphflops.models import Options, resolve
    from graphflops.runtime.patches import QUIET

    with QUIET.holding():
        workload = resolve(model, Options(seq_len=prompt, generates=True))
    begin = time.process_time()
    report = gf.count_generation(
        workload.model, dict(workload.kwargs), max_new_tokens=new_tokens, on_unknown="ignore"
    )
    flops = report.total.flops
    return {
        "outcome": "counted",
        "seconds": round(time.process_time() - begin, 3),
        "graphs": len(report.decode_graphs),
        "flops": int(flops),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Processor seconds of the long generations, and of all types by name."""
    seconds = {row["name"]: row["seconds"] for row in rows if row["outcome"] == "counted"}
    long = [f"{model}, {prompt:,} + {new:,}" for model, (prompt, new) in LONG.items()]
    shown = [(f"{name} tokens", seconds[name]) for name in long if name in seconds]
    others = [taken for name, taken in seconds.items() if name not in long]
    if others:
        title = f"causal types by name, {TOKENS[0]} + {TOKENS[1]} tokens ({len(others)} measured)"
        shown += [
            (f"{title}: median", statistics.median(others)),
            (f"{title}: slowest", max(others)),
        ]
    return _table([(title, f"{taken:.2f} s") for title, taken in shown], ("generation", "CPU time"))


def slowest(rows: list[dict[str, Any]]) -> str:
    """Types that take longest, and those that are not counted."""
    counted = [row for row in rows if row["outcome"] == "counted"]
    counted.sort(key=lambda row: -row["seconds"])
    shown = [(row["name"], f"{row['seconds']:.2f} s", row["graphs"]) for row in counted[:SLOWEST]]
    shown += [(r["name"], r["outcome"], "") for r in rows if r["outcome"] != "counted"]
    return _table(shown, ("slowest", "CPU time", "decode graphs"))


def _table(rows: list[tuple[Any, ...]], headers: tuple[str, ...]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
