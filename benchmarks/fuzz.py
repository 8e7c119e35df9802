"""Generated models and training steps, counted and checked from all sides.

``python -m benchmarks.fuzz --graphs 3000 --steps 1000`` writes what it found part by part to
``build/fuzz.jsonl``, goes on there with ``--resume``, and sums up in
``benchmarks/results/fuzz.json`` and ``docs/evidence/fuzz.md``. ``--only forward:12`` looks at one
model.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks import fuzz_page
from benchmarks.fuzz_page import CHECKS, PAGE, RESULTS
from benchmarks.results import environment

PARTS = Path(__file__).parents[1] / "build" / "fuzz.jsonl"
IN_A_PART = 50
Row = dict[str, Any]


def main() -> None:
    """Sweep, and sum up."""
    options = _options()
    if options.only:
        sys.exit(_one(options.only, options.checks))
    if not options.render_only:
        asked = {"forward": options.graphs, "step": options.steps, "seed": options.seed}
        _sweep(options)
        rows = [json.loads(line) for line in options.parts.read_text("utf-8").splitlines()]
        found = summary(rows, environment(("torch", "numpy")), options.checks)
        found |= {"asked": asked}
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.results == RESULTS:
        PAGE.write_text(fuzz_page.page(), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=3_000, help="models whose forward is counted")
    parser.add_argument("--steps", type=int, default=1_000, help="models of which a step is")
    parser.add_argument("--seed", type=int, default=0, help="number of the first model of either")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--resume", action="store_true", help="leave out parts that are there")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one model: forward:12 or step:12")
    parser.add_argument("--checks", type=_checks, default=frozenset(CHECKS), help=_checks.__doc__)
    parser.add_argument("--parts", type=Path, default=PARTS, help="where parts are written")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where they are summed up")
    parser.add_argument("--render-only", action="store_true", help="write the page again")
    return parser.parse_args()


def _checks(text: str) -> frozenset[str]:
    """Checks by name, with commas between: all, or all but those after a minus."""
    names = set(text.removeprefix("-").split(","))
    if unknown := names - set(CHECKS):
        msg = f"no check is called {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}"
        raise argparse.ArgumentTypeError(msg)
    return frozenset(set(CHECKS) - names if text.startswith("-") else names)


def _one(name: str, checks: frozenset[str]) -> int:
    """Print a model and what failed; the number of failures."""
    from benchmarks.fuzz_checks import examine
    from benchmarks.fuzz_graphs import generate

    graph = generate(name, training=name.startswith("step:"))
    print(graph and graph.model)
    found = examine(name, checks, always=True)
    print(f"{name}: {found.status}, {', '.join(sorted(found.traits))}")
    for what, message in found.failures:
        print(f"{what}: {message}")
    return len(found.failures)


def _sweep(options: argparse.Namespace) -> None:
    """Append what became of each part to the file of parts, as soon as it is there."""
    options.parts.parent.mkdir(parents=True, exist_ok=True)
    kept = options.parts.read_text("utf-8") if options.resume and options.parts.exists() else ""
    done = {json.loads(line)["part"] for line in kept.splitlines()}
    parts = [part for part in _parts(options) if part not in done]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.workers, context, _start)
    with options.parts.open("w", encoding="utf-8") as file, pool:
        file.write(kept)
        file.flush()
        futures = [pool.submit(examine_part, part, options.checks) for part in parts]
        for number, future in enumerate(as_completed(futures), start=1):
            row = future.result()
            print(json.dumps(row), file=file, flush=True)
            failed = f", {len(row['failures'])} failures" if row["failures"] else ""
            print(
                f"{number}/{len(parts)} {row['part']}: {row['seconds']} s{failed}", file=sys.stderr
            )


def _parts(options: argparse.Namespace) -> Iterator[str]:
    for kind, number in (("forward", options.graphs), ("step", options.steps)):
        for start in range(options.seed, options.seed + number, IN_A_PART):
            yield f"{kind}:{start}-{min(start + IN_A_PART, options.seed + number)}"


def _start() -> None:
    import torch

    torch.set_num_threads(1)


def examine_part(part: str, checks: frozenset[str]) -> Row:
    """What became of the models of a part such as ``"forward:0-50"``."""
    from benchmarks.fuzz_checks import examine

    kind, _, numbers = part.partition(":")
    first, last = map(int, numbers.split("-"))
    began = time.process_time()
    row: Row = {"part": part, "failures": []}
    totals: dict[str, Counter[str]] = {
        name: Counter() for name in ("outcomes", "kinds", "operators", "traits")
    }
    for number in range(first, last):
        found = examine(f"{kind}:{number}", checks)
        totals["outcomes"][found.status] += 1
        totals["outcomes"]["layers reused"] += bool(found.reused)
        totals["outcomes"]["contractions compared"] += found.compared
        totals["kinds"] += Counter(found.kinds)
        totals["operators"] += Counter(found.operators)
        totals["traits"] += Counter(found.traits)
        row["failures"] += [
            {
                "model": found.name,
                "failed": what,
                "message": message,
                "traits": sorted(found.traits),
                "again": f"python -m benchmarks.fuzz --only {found.name}",
            }
            for what, message in found.failures
        ]
    return row | totals | {"seconds": round(time.process_time() - began, 1)}


def summary(rows: list[Row], where: Row, checks: frozenset[str]) -> Row:
    """All parts in one."""
    found: Row = {"environment": where, "checks": sorted(checks)}
    for kind in ("forward", "step"):
        own = [row for row in rows if row["part"].startswith(kind)]
        totals: dict[str, Counter[str]] = {
            name: sum((Counter(row[name]) for row in own), Counter())
            for name in ("outcomes", "kinds", "operators", "traits")
        }
        found[kind] = {name: dict(sorted(total.items())) for name, total in totals.items()}
        found[kind]["seconds"] = round(sum(row["seconds"] for row in own))
        found[kind]["failures"] = [failure for row in own for failure in row["failures"]]
    return found


if __name__ == "__main__":
    main()
