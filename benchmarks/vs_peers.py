"""graphflops side by side with other counters: ``python -m benchmarks.vs_peers``.

Every counter gets every model, each time in a process of its own, which counts once for the
figures and the peak memory and then takes turns with graphflops for the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS, Placement
from benchmarks.page import render
from benchmarks.peers import PEERS
from benchmarks.results import Results, Row, environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "vs_peers.json"
PAGE = ROOT / "docs" / "evidence" / "vs_peers.md"
TIMEOUT = 180


def main() -> None:
    """Measure, unless told otherwise, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--render-only", action="store_true", help="write the page from the last results"
    )
    parser.add_argument(
        "--seconds", type=float, default=4, help="how long each pair takes turns (default: 4)"
    )
    options = parser.parse_args()
    if not options.render_only:
        where = environment()
        rows = [measure(peer, model, options.seconds) for model in MODELS for peer in PEERS]
        Results(where, rows).save(RESULTS)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(Results.load(RESULTS)))


def measure(peer: str, model: str, seconds: float) -> Row:
    """Try a counter on a model wherever it might work, and measure it where it does."""
    failures: dict[str, str] = {}
    for placement in PEERS[peer].placements(MODELS[model]):
        if placement == "cpu" and not MODELS[model].weights_fit:
            failures[placement] = "not run: the weights do not fit into memory"
            continue
        found = _work(peer, model, placement, seconds)
        if "error" not in found:
            return Row(peer=peer, model=model, placement=placement, failures=failures, **found)
        failures[placement] = found["error"]
    return Row(peer=peer, model=model, failures=failures)


def _work(peer: str, model: str, placement: Placement, seconds: float) -> dict[str, Any]:
    """What a worker prints, or why it prints nothing.

    This process stays small, without torch: a child's peak memory starts at its parent's.
    """
    task = [peer, model, placement, str(seconds)]
    # Threads that spin while they wait, on cores shared with anything else, slow counters that
    # run the model on the CPU many times over.
    patient = os.environ | {"OMP_WAIT_POLICY": "passive"}
    try:
        done = subprocess.run(  # noqa: S603 - our own module, our own keys
            [sys.executable, "-m", "benchmarks.worker", *task],
            cwd=ROOT,
            env=patient,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        answer: dict[str, Any] = {"error": f"no answer within {TIMEOUT} seconds"}
    else:
        crashed = {"error": f"the process ended with code {done.returncode}"}
        answer = crashed if done.returncode else json.loads(done.stdout)
    outcome = answer.get("error") or f"{answer['seconds']:.3f} s, {answer['peak_mib']:.0f} MiB"
    print(f"{peer} {model} {placement}: {outcome}", file=sys.stderr)
    return answer


if __name__ == "__main__":
    main()
