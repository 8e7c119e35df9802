"""The whole zoo on meta: ``python -m benchmarks.zoo``, ``--quick`` for four layers of each.

Every transformers model type, a sample of timm over its families and torchvision's models are
built by name, given inputs and counted, and what the contractions come to is compared with
``FlopCounterMode``. Each model has a process of its own, with limits on time and memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, as_completed
from concurrent.futures import TimeoutError as Late  # a class of its own until Python 3.11
from itertools import chain
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from benchmarks import zoo_worker
from benchmarks.results import environment
from benchmarks.zoo_page import Row, render

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "zoo.jsonl"
QUICK = RESULTS.with_name("zoo_quick.jsonl")
PAGE = ROOT / "docs" / "zoo.md"
SOURCES = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision"}
PACKAGES = ("torch", *SOURCES.values())


def main() -> None:
    """Sweep, unless told otherwise, and write the page; that of the quick form is printed."""
    options = _options()
    results = QUICK if options.quick else RESULTS
    if not options.render_only:
        _sweep(options, results)
    page = render(*load(results))
    if options.quick:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these; the others' results are kept")
    parser.add_argument(
        "--source", action="append", choices=SOURCES, help="only this one (may be repeated)"
    )
    parser.add_argument("--quick", action="store_true", help="four layers of each model")
    parser.add_argument("--resume", action="store_true", help="keep results, try what has none")
    parser.add_argument("--minutes", type=float, help="stop after so long; --resume goes on")
    parser.add_argument("--seconds", type=float, default=300, help="for each (default: 300)")
    parser.add_argument("--workers", type=int, default=2, help="at a time (default: 2)")
    parser.add_argument("--limit", type=int, help="only so many models")
    parser.add_argument(
        "--render-only", action="store_true", help="write the page from the last results"
    )
    return parser.parse_args()


def load(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The environment and the rows of the last sweep."""
    where, *rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return where, sorted(rows, key=lambda row: str(row["name"]))


def _sweep(options: argparse.Namespace, results: Path) -> None:
    """Write the environment and the rows, each as soon as it is there."""
    partial = options.resume or options.names or options.source or options.limit
    rows = load(results)[1] if partial and results.exists() else []
    # Workers are forked from a server that has imported everything and has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.zoo_preload"])
    pool = ProcessPool(options.workers, 1, zoo_worker.limit_memory, context=context)
    with pool:
        try:
            known, facts = pool.schedule(zoo_worker.start, [[*SOURCES]]).result()
            done = {row["name"] for row in rows} if options.resume else set()
            asked = options.names or [name for name in known if _is_from(name, options.source)]
            names = [name for name in asked if name not in done][: options.limit]
            where = environment(PACKAGES) | facts
            where |= {"workers": options.workers, "limit": options.seconds}
            kept = [row for row in rows if row["name"] not in names]
            fresh = (
                row | {"auto": known.get(row["name"], False)} for row in _run(pool, names, options)
            )
            with results.open("w", encoding="utf-8") as file:
                for line in chain([where], kept, fresh):
                    print(json.dumps(line), file=file, flush=True)
        finally:
            pool.stop()


def _is_from(name: str, sources: list[str] | None) -> bool:
    return not sources or name.partition(":")[0] in sources


def _run(pool: ProcessPool, names: list[str], options: argparse.Namespace) -> Iterator[Row]:
    """What comes of each model, in the order they are done, until time is up."""
    futures: dict[Future[Row], str] = {
        pool.schedule(
            zoo_worker.examine, [name, options.quick, options.seconds], timeout=options.seconds
        ): name
        for name in names
    }
    patience = None if options.minutes is None else 60 * options.minutes
    try:
        for done, future in enumerate(as_completed(futures, timeout=patience), start=1):
            row = {"name": futures[future]} | _result(future)
            print(f"{done}/{len(names)} {row['name']}: {row['outcome']}", file=sys.stderr)
            yield row
    except Late:
        print(f"{options.minutes} minutes are over; --resume goes on", file=sys.stderr)


def _result(future: Future[Row]) -> Row:
    """What a worker found, or how it ended."""
    try:
        return future.result()
    except Late as error:
        return {"outcome": "too slow", "reason": f"no answer within {error.args[1]:.0f} seconds"}
    except ProcessExpired as error:
        return {"outcome": "crashed", "reason": f"exit code {error.exitcode}"}
    except MemoryError:
        return {"outcome": "out of memory", "reason": f"more than {zoo_worker.MEMORY_GIB} GiB"}
    except BrokenExecutor:  # of the pool itself; --resume goes on
        raise
    except Exception as error:  # noqa: BLE001 - one model takes nothing with it
        return {"outcome": "failed", "reason": zoo_worker.reason(error)}


if __name__ == "__main__":
    main()
