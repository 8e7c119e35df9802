"""The whole zoo on meta: ``python -m benchmarks.zoo``, ``--quick`` for four layers of each.

Every transformers model type, a sample of timm over its families and torchvision's models are
built by name and given inputs, and three things are counted: the forward pass, a training step,
and, of those that generate, a generation, by the class that does. What the contractions of the
first two come to is compared with ``FlopCounterMode``. Each count has a process of its own, with
limits on time and memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import sweep, zoo_worker
from benchmarks.results import environment, rows_of
from benchmarks.zoo_page import render

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "zoo.jsonl"
QUICK = RESULTS.with_name("zoo_quick.jsonl")
PAGE = ROOT / "docs" / "evidence" / "zoo.md"
SOURCES = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision"}
PACKAGES = ("torch", *SOURCES.values())


def main() -> None:
    """Sweep, unless told otherwise, and write the page; that of the quick form is printed."""
    options = _options()
    results = QUICK if options.quick else RESULTS
    if not options.render_only:
        _sweep(options, results)
    page = render(*rows_of(results))
    if options.quick:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = sweep.arguments(__doc__)
    parser.add_argument(
        "--source", action="append", choices=SOURCES, help="only this one (may be repeated)"
    )
    parser.add_argument(
        "--mode", action="append", choices=zoo_worker.MODES, help="only this one (likewise)"
    )
    parser.add_argument("--quick", action="store_true", help="four layers of each model")
    return parser.parse_args()


def _sweep(options: argparse.Namespace, results: Path) -> None:
    workers = sweep.pool(options, "benchmarks.zoo_preload")
    known, facts = workers.call(zoo_worker.start, [*SOURCES])
    names = options.names or [
        name for name in known if not options.source or name.partition(":")[0] in options.source
    ]
    where = environment(PACKAGES) | facts
    cases = {
        f"{mode}/{name}": (mode, name, options.quick, options.seconds)
        for mode in options.mode or zoo_worker.MODES
        for name in names
        if mode != "generation" or zoo_worker.may_generate(name)
    }
    sweep.Sweep(
        job=zoo_worker.examine,
        cases=cases,
        facts={
            case: {"mode": mode, "model": name, "auto": False, "generates": "others"}
            | known.get(name, {})
            for case, (mode, name, *_) in cases.items()
        },
        results=results,
        where=where | {"workers": options.workers, "limit": options.seconds},
        partial=bool(options.source or options.mode),
    ).run(workers, options)


if __name__ == "__main__":
    main()
