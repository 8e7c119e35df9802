"""One measurement in a process of its own: ``python -m benchmarks.worker``.

Prints one JSON object: what was measured, or ``error`` with the reason there is nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.models import MODELS, Placement
from benchmarks.peers import PEERS, REFERENCE, Figures

_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 25


def measure(peer: str, model: str, placement: Placement, seconds: float) -> dict[str, Any]:
    """Count once for the figures and the peak memory, then take turns with graphflops.

    Until the peak is read, neither graphflops nor its model is in this process, unless it is
    the one that is measured. Taking turns, a noisy moment hits both.

    Args:
        peer: Key of the counter.
        model: Key of the model.
        placement: Where the counter gets its model; graphflops has its own, on meta.
        seconds: About how long to go on, within limits on the number of rounds.
    """
    count = _counter(peer, model, placement)
    built = _peak_mib()
    figures = count()
    peak = _peak_mib()

    reference = _counter(REFERENCE, model, "meta")
    reference()  # warm, as the peer is by now
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < _FEWEST_ROUNDS or (len(times) < _MOST_ROUNDS and time.perf_counter() < end):
        times.append((_seconds(count), _seconds(reference)))
    theirs, ours = (median(column) for column in zip(*times, strict=True))
    return {
        **asdict(figures),
        "seconds": theirs,
        "graphflops_seconds": ours,
        "rounds": len(times),
        "built_mib": built,
        "peak_mib": peak,
    }


def _counter(peer: str, model: str, placement: Placement) -> Callable[[], Figures]:
    """A call that counts, with the model built; the counter is imported by the first call."""
    import torch
    from torch._subclasses import FakeTensorMode

    module, inputs = MODELS[model].build(placement)

    def count() -> Figures:
        # Masks of transformers read values: fake tensors let code pass that meta ones do not.
        mode = FakeTensorMode(allow_non_fake_inputs=True) if placement == "fake" else nullcontext()
        with torch.no_grad(), mode:
            return PEERS[peer].count(module, inputs)

    return count


def _seconds(count: Callable[[], Figures]) -> float:
    gc.collect()  # nobody pays for what the other left behind
    start = time.perf_counter()
    count()
    return time.perf_counter() - start


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**20 if sys.platform == "darwin" else 2**10)


def _reason(error: BaseException) -> str:
    """Type and first line of the exception at the root."""
    while error.__cause__:
        error = error.__cause__
    line = next(iter(str(error).strip().splitlines()), "no message")
    return f"{type(error).__name__}: {line}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("placement", choices=("cpu", "meta", "fake"))
    parser.add_argument("seconds", type=float, help="how long to take turns with graphflops")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with redirect_stdout(sys.stderr):  # some counters print
        try:
            result = measure(options.peer, options.model, options.placement, options.seconds)
        except Exception as error:  # noqa: BLE001 - why a counter fails is a result
            result = {"error": _reason(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
