"""How the time of a count grows: ``python -m benchmarks.scaling``.

The Llama-3-8B shape at 2,048 tokens, and one size of it after the other: layers, tokens, width; and
experts of a mixture. Forward and training, graphflops and ``FlopCounterMode``, the first count of
a process and a warm one; how is in ``benchmarks/count_time.py``. Writes
``benchmarks/results/scaling.json``, a table of ``docs/evidence/speed.md`` and the plot
``docs/evidence/scaling.svg``.
"""

from __future__ import annotations

import json
from typing import Any

from tabulate import tabulate

from benchmarks.capture import LLAMA, PAGE, TRAINING
from benchmarks.count_time import (
    COUNTERS,
    ROOT,
    Case,
    Row,
    arguments,
    measured,
    named,
    quicker,
    shown,
)
from benchmarks.results import environment, fill

RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
PLOT = ROOT / "docs" / "evidence" / "scaling.svg"
ROUNDS = 3
_FEW, _MANY = 64, 126
"""Layers between which the time of a further one is measured."""


def llama(**config: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a Llama with some sizes of its own."""
    tokens = config.pop("tokens", 2048)
    positions = {"max_position_embeddings": max(tokens, 8192)}
    return LLAMA, {"seq_len": tokens, "overrides": {**positions, **config}}


def _mixture(experts: int) -> tuple[str, dict[str, Any]]:
    sizes = {"num_hidden_layers": 16, "hidden_size": 1024, "moe_intermediate_size": 512}
    overrides = {**sizes, "num_local_experts": experts}
    return "hf:qwen3_moe", {"seq_len": 512, "dtype": "bfloat16", "overrides": overrides}


AXES = {
    "layers": {n: llama(num_hidden_layers=n) for n in (2, 4, 8, 16, 32, _FEW, _MANY)},
    "tokens": {n: llama(tokens=n) for n in (512, 2048, 8192, 32768)},
    "width": {
        n: llama(hidden_size=n, intermediate_size=4 * n, num_attention_heads=n // 128)
        for n in (1024, 2048, 4096, 8192, 16384)
    },
    "experts": {n: _mixture(n) for n in (8, 32, 64, 128, 256)},
}
CASES = {
    f"{axis} {size}{kind}": Case(build=named(name, **options), is_training=bool(kind))
    for axis, sizes in AXES.items()
    for size, (name, options) in sizes.items()
    for kind in ("", TRAINING)
}


def main() -> None:
    """Measure, print, save, draw."""
    options = arguments(__doc__, ROUNDS).parse_args()
    rows = {row["case"]: row for row in _load()["rows"]} if options.only else {}
    for title, case in CASES.items():
        if options.only is None or options.only in title:
            rows[title] = measured("benchmarks.scaling", title, case, options.rounds)
            print(title, rows[title]["warm"], flush=True)
            _save([rows[known] for known in CASES if known in rows])
    found = _load()["rows"]
    fill(PAGE, "scaling", table(found))
    draw(found)


def _load() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return loaded


def _save(rows: list[Row]) -> None:
    where = environment(("torch", "transformers"))
    RESULTS.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


def growth(rows: list[Row], kind: str = "") -> tuple[float, float]:
    """How much longer 126 layers take than 4: graphflops, and the quicker other."""
    few, many = (_warm(rows, f"layers {n}{kind}") for n in (4, _MANY))
    return many[0] / few[0], many[1] / few[1]


def further_layer(rows: list[Row], kind: str = "") -> tuple[float, float]:
    """Seconds that a further layer takes at 126 layers: graphflops, and the quicker other."""
    few, many = (_warm(rows, f"layers {n}{kind}") for n in (_FEW, _MANY))
    ours, theirs = ((b - a) / (_MANY - _FEW) for a, b in zip(few, many, strict=True))
    return ours, theirs


def _warm(rows: list[Row], title: str) -> tuple[float, float]:
    times = next(row["warm"] for row in rows if row["case"] == title)
    return times[COUNTERS[0]], quicker(times) or 0.0


def table(rows: list[Row]) -> str:
    """Seconds of graphflops and of the quicker other at each size."""
    by_title = {row["case"]: row for row in rows}
    cells = []
    for axis, sizes in AXES.items():
        for size in sizes:
            title = f"{axis} {size}"
            forward, training = by_title[title], by_title[title + TRAINING]
            times = (forward["first"], forward["warm"], training["first"], training["warm"])
            pairs = ((known[COUNTERS[0]], quicker(known)) for known in times)
            cells.append((title, *(shown(value) for pair in pairs for value in pair)))
    ratios = [f"{n:.1f} x" for kind in ("", TRAINING) for n in growth(rows, kind)]
    cells.append(("126 layers over 4", "", "", *ratios[:2], "", "", *ratios[2:]))
    layer = [f"{n * 1000:.2f} ms" for kind in ("", TRAINING) for n in further_layer(rows, kind)]
    cells.append((f"a further layer at {_MANY}", "", "", *layer[:2], "", "", *layer[2:]))
    headers = [
        f"{kind}{time}{who}"
        for kind in ("", "training, ")
        for time in ("first", "warm")
        for who in ("", ": other")
    ]
    return tabulate(cells, ["seconds", *headers], tablefmt="github", disable_numparse=True)


def draw(rows: list[Row]) -> None:
    """Plot warm counts: a panel for each size, a line for each counter."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "graphflops"
    figure, panels = plt.subplots(1, len(AXES), figsize=(14, 3.6), sharey=True)
    for panel, (axis, sizes) in zip(panels, AXES.items(), strict=True):
        for kind, color in (("", "tab:blue"), (TRAINING, "tab:orange")):
            pairs = [_warm(rows, f"{axis} {size}{kind}") for size in sizes]
            lines = zip(("graphflops", "FlopCounterMode"), ("-", "--"), strict=True)
            for times, (name, style) in zip(zip(*pairs, strict=True), lines, strict=True):
                label = name + kind
                panel.plot([*sizes], times, style, color=color, marker=".", label=label)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_xticks([*sizes], [*map(str, sizes)], rotation=45)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("CPU seconds")
    panels[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
