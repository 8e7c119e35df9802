"""How the time of a count grows: ``python -m benchmarks.scaling``.

The Llama-3-8B shape at 2,048 tokens, and one size of it after the other: layers, tokens, width; and
experts of a mixture. graphflops and ``FlopCounterMode`` under fake tensors take turns, forward
and training; medians after a warm-up. Writes ``benchmarks/results/scaling.json`` and the plot
``docs/evidence/scaling.svg``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.capture import counters, medians
from benchmarks.results import environment, fill
from graphflops.models import Options, resolve

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
PLOT = ROOT / "docs" / "evidence" / "scaling.svg"
LLAMA = f"hf:{ROOT}/examples/configs/llama-3-8b"
ROUNDS = 3


def _llama(**config: int) -> tuple[str, Options]:
    tokens = config.pop("tokens", 2048)
    positions = {"max_position_embeddings": max(tokens, 8192)}
    return LLAMA, Options(seq_len=tokens, overrides={**positions, **config})


def _mixture(experts: int) -> tuple[str, Options]:
    sizes = {"num_hidden_layers": 16, "hidden_size": 1024, "moe_intermediate_size": 512}
    overrides = {**sizes, "num_local_experts": experts}
    return "hf:qwen3_moe", Options(seq_len=512, dtype="bfloat16", overrides=overrides)


AXES: dict[str, dict[int, tuple[str, Options]]] = {
    "layers": {n: _llama(num_hidden_layers=n) for n in (2, 4, 8, 16, 32, 64, 126)},
    "tokens": {n: _llama(tokens=n) for n in (512, 2048, 8192, 32768)},
    "width": {
        n: _llama(hidden_size=n, intermediate_size=4 * n, num_attention_heads=n // 128)
        for n in (1024, 2048, 4096, 8192, 16384)
    },
    "experts": {n: _mixture(n) for n in (8, 32, 64, 128, 256)},
}


def main() -> None:
    """Measure, print, save, draw."""
    found: dict[str, Any] = {"environment": environment(("torch", "transformers"))}
    for axis, sizes in AXES.items():
        found[axis] = {}
        for size, (name, options) in sizes.items():
            found[axis][str(size)] = medians(counters(resolve(name, options)), ROUNDS)
            print(axis, size, found[axis][str(size)], flush=True)
    found["126 layers over 4"] = _growth()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    fill(PAGE, "scaling", table(found))
    draw(found)


def _growth() -> dict[str, float]:
    """How much longer 126 layers take than 4, taking turns."""
    by_depth = {n: counters(resolve(*_llama(num_hidden_layers=n))) for n in (4, 126)}
    found = {}
    for name in by_depth[4]:
        turns = {str(n): counting[name] for n, counting in by_depth.items()}
        taken = medians(turns, 3 * ROUNDS if name.startswith("graphflops") else ROUNDS)
        found[name] = round((taken["126"] or 0) / (taken["4"] or 1), 2)
    return found


def table(found: dict[str, Any]) -> str:
    """Seconds of each counter at each size."""
    names = list(found["layers"]["126"])
    rows = [
        (f"{axis} {size}", *(f"{found[axis][size][name]:.3g}" for name in names))
        for axis in AXES
        for size in found[axis]
    ]
    growth = found["126 layers over 4"]
    rows.append(("126 layers over 4", *(f"{growth[name]:.1f} x" for name in names)))
    return tabulate(rows, ["seconds", *names], tablefmt="github", disable_numparse=True)


def draw(found: dict[str, Any]) -> None:
    """The plot: a panel for each size, a line for each counter."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "graphflops"
    figure, panels = plt.subplots(1, len(AXES), figsize=(14, 3.6), sharey=True)
    for panel, axis in zip(panels, AXES, strict=True):
        sizes = list(found[axis])
        for counter in found[axis][sizes[0]]:
            times = [found[axis][size][counter] for size in sizes]
            style = "--" if "FlopCounterMode" in counter else "-"
            color = "tab:orange" if "training" in counter else "tab:blue"
            panel.plot([*map(int, sizes)], times, style, color=color, marker=".", label=counter)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_xticks([*map(int, sizes)], [*map(str, sizes)], rotation=45)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
