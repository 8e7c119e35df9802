"""Counts held against real runs on the CPU, case by case.

``python -m benchmarks.real_runs training``, ``... generation`` or ``... forward`` runs all cases
of a kind, ``... training checkpoints/nested ...`` some, and ``--resume`` what has no result yet.
Results are kept in ``benchmarks/results/real_KIND.jsonl`` and shown in
``docs/evidence/real_runs.md``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from benchmarks import sweep
from benchmarks.real_runs import page, worker
from benchmarks.results import environment


def main() -> None:
    """Run the cases of a kind, and write the page."""
    parser = sweep.arguments(__doc__, seconds=180)
    parser.usage = "%(prog)s KIND [NAME ...] [options]"
    parser.set_defaults(workers=1)
    options = parser.parse_args()
    kind, *options.names = options.names or [""]
    if kind not in worker.KINDS:
        parser.error(f"{kind!r} is no kind of run. Give one of {', '.join(worker.KINDS)}.")
    if not options.render_only:
        _sweep(kind, options)
    page.PAGE.write_text(page.render(), encoding="utf-8")


def _sweep(kind: str, options: Any) -> None:
    workers = sweep.pool(options, "benchmarks.real_runs.preload")
    known = workers.call(worker.names, kind)
    asked = [
        name
        for name in known
        if not options.names or any(fnmatchcase(name, pattern) for pattern in options.names)
    ]
    where = environment(("torch", "transformers", "timm", "torchvision", "peft"))
    sweep.Sweep(
        job=worker.examine,
        cases={name: (kind, name) for name in asked},
        results=page.RESULTS[kind],
        where=where | {"limit": options.seconds},
    ).run(workers, options)


if __name__ == "__main__":
    main()
