"""How long whole commands take beside ``import torch``: ``python -m benchmarks.command``.

Each command is a process of its own, and so is ``python -c "import torch"``; they take turns.
Seconds and CPU seconds, medians, with their ratios to those of the import. Bytecode is compiled
first, as an installation does. Writes ``benchmarks/results/command.json`` and a table of
``docs/evidence/speed.md``.
"""

from __future__ import annotations

import compileall
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.results import environment, fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "command.json"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
LLAMA = "hf:examples/configs/llama-3-8b"
IMPORT = "python -c 'import torch'"
COMMANDS = {
    IMPORT: ("-c", "import torch"),
    **{
        f"graphflops {line}": ("-m", "graphflops", *line.split())
        for line in (
            f"count {LLAMA} --seq-len 2048",
            f"generate {LLAMA} --prompt-len 2048 --new-tokens 128",
            f"train {LLAMA} --seq-len 2048",
            "count torchvision:resnet50",
            "devices",
            "--help",
        )
    },
}
ROUNDS = 5


def main() -> None:
    """Measure, save, fill in the page."""
    for package in ("graphflops", "handlers"):
        compileall.compile_dir(ROOT / package, quiet=1)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            taken[name].append(_run(arguments))
    rows = {
        name: {
            "seconds": round(statistics.median(wall for wall, _ in times), 3),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in times), 3),
        }
        for name, times in taken.items()
    }
    found = {"environment": environment(("torch", "transformers")), "commands": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    fill(PAGE, "command", table(found))


def _run(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Seconds and CPU seconds of a process of Python."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(  # noqa: S603 - the commands above
        [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.perf_counter() - start, cpu - before.children_user - before.children_system


def table(found: dict[str, Any]) -> str:
    """Each command's seconds, and how many imports of torch that is."""
    base = found["commands"][IMPORT]
    rows = [
        (
            f"`{name}`",
            *(f"{row[kind]:.2f}" for kind in base),
            *(f"{row[kind] / base[kind]:.2f}" for kind in base),
        )
        for name, row in found["commands"].items()
    ]
    headers = ("command", "seconds", "CPU seconds", "over the import", "CPU over the import")
    align = ("left", *("right",) * 4)
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)


if __name__ == "__main__":
    main()
