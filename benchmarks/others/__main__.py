"""Models of other packages, as their own users build them, counted and compared.

``make others`` sets up an environment with the packages and runs them all;
``python -m benchmarks.others "science/PyG *"`` runs some, ``--resume`` what has no result yet.
Results are kept in ``benchmarks/results/others.jsonl`` and shown in ``docs/evidence/others.md``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from benchmarks import sweep
from benchmarks.others import page, worker
from benchmarks.results import environment


def main() -> None:
    """Run the cases, and write the page."""
    options = sweep.arguments(__doc__, seconds=240).parse_args()
    if not options.render_only:
        workers = sweep.pool(options, "benchmarks.real_runs.preload")
        known = workers.call(worker.names)
        patterns = options.names or ["*"]
        asked = [name for name in known if any(fnmatchcase(name, p) for p in patterns)]
        where = environment(("torch", *page.PACKAGES))
        sweep.Sweep(
            job=worker.examine,
            cases={name: (name,) for name in asked},
            results=page.RESULTS,
            where=where | {"limit": options.seconds},
        ).run(workers, options)
    page.PAGE.write_text(page.render(), encoding="utf-8")


if __name__ == "__main__":
    main()
