"""The page about a run: every number and every claim on it comes from the results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from tabulate import tabulate

from benchmarks.models import MODELS
from benchmarks.peers import FLOPS_PER_MAC, PEERS, REFERENCE
from benchmarks.results import Results, Row

_PLACEMENTS = {"cpu": "CPU", "meta": "meta", "fake": "meta, fake tensors"}
_CLOSE = 0.005

_INTRODUCTION = """\
# Side by side with other counters

Written by `python -m benchmarks.vs_peers`, which measures all of this in one run;
`--render-only` writes the page again from `benchmarks/results/vs_peers.json`.

{environment}

All models are in eval mode and float32, counted without gradients, batch of one. Counters that
are written for real weights get them, random, on the CPU. Weights of the 8B shape do not fit
into this machine's memory: these counters get that model on the meta device, and if they fail
there, on the meta device under `FakeTensorMode(allow_non_fake_inputs=True)`. FlopCounterMode on
meta always has that mode, since transformers reads values of its masks. graphflops has plain
meta models throughout. DeepSpeed's extra warm-up pass is off. Threads wait without spinning
(`OMP_WAIT_POLICY=passive`), since other work on the same cores would slow down spinning ones.

{counters}
"""

_COVERAGE = """\
## How much of a model they see

What a counter reports, MACs if it does, over the MACs that graphflops counts; a number without
MACs is converted first. Above 100%, a counter adds operators that are no contractions
(normalisation, activation, bias). graphflops has these in its FLOPs, not in its MACs.

{table}

{sentences}
"""

_TIME = """\
## Time

Time of a count over the time of graphflops, both after a warm-up, taking turns in one process;
below 1 the other counter is faster. graphflops against itself shows how far noise goes.

{table}

{sentences}
"""

_MEMORY = """\
## Peak memory

MiB of a process that imports, builds the model and counts once.

{table}

{sentences}
"""

_MODEL = """\
## {title}

{contractions:,} FLOPs (2 x MACs) in contractions, {attention:.2%} of them in attention;
{flops:,} FLOPs over all operators, by graphflops. *Of contractions* is the share of the former
that a counter reports; where it is less than all of them, *without attention* is its share of
them without attention. *Ratio* is time over time of graphflops; *built* is the peak before the
count.

{table}
"""


def render(results: Results) -> str:
    """The whole page."""
    rows = results.rows
    parts = [
        _INTRODUCTION.format(environment=_environment(results), counters=_counters(results)),
        _COVERAGE.format(table=_matrix(rows, _coverage(rows)), sentences=_coverage_says(rows)),
        _TIME.format(
            table=_matrix(rows, lambda row: _shown(row.ratio, ".2f")), sentences=_time_says(rows)
        ),
        _MEMORY.format(
            table=_matrix(rows, lambda row: _shown(row.peak_mib, ",.0f")),
            sentences=_memory_says(rows),
        ),
        *(_model(rows, model) for model in MODELS),
        _failures(rows),
    ]
    return "\n".join(parts)


def _environment(results: Results) -> str:
    where = results.environment
    return (
        f"Measured on {where['date']}, Python {where['python']}, {where['platform']}, "
        f"{where['cpus']} CPUs, {where['memory_gib']} GiB of memory, "
        f"load average {where['load']} at the start,\n"
        f"transformers {where['packages']['transformers']}, numpy {where['packages']['numpy']}."
    )


def _counters(results: Results) -> str:
    versions = results.environment["packages"]
    lines = [
        (
            peer.title,
            f"{peer.package} {versions[peer.package]}",
            peer.reports,
            "a MAC" if peer.flops_per_mac == 1 else "half a MAC",
            peer.sees,
        )
        for peer in PEERS.values()
    ]
    headers = ("Counter", "Package", "It reports", "Its operation is", "It looks at")
    return _table(lines, headers)


def _coverage(rows: list[Row]) -> Callable[[Row], str]:
    return lambda row: _shown(_share(row, _reference(rows, row.model)), ".2%")


def _matrix(rows: list[Row], cell: Callable[[Row], str]) -> str:
    """Counters by models; a count that failed says so."""
    lines = [
        [peer.title] + [cell(row) if row.placement else "fails" for row in rows if row.peer == key]
        for key, peer in PEERS.items()
    ]
    return _table(lines, ("Counter", *(model.title for model in MODELS.values())))


def coverage_table(results: Results, models: Collection[str]) -> str:
    """What each counter calls a FLOP, and its share of the contractions of some models."""
    rows = results.rows
    share = _coverage(rows)
    lines = [
        [
            peer.title,
            "a MAC" if peer.flops_per_mac == 1 else "half a MAC",
            *(
                share(row) if row.placement else "fails"
                for model in models
                for row in rows
                if (row.peer, row.model) == (key, model)
            ),
        ]
        for key, peer in PEERS.items()
    ]
    return _table(lines, ("counter", "its FLOP is", *(MODELS[model].title for model in models)))


def _model(rows: list[Row], model: str) -> str:
    reference = _reference(rows, model)
    contractions, attention = _contractions(reference)
    lines = [
        (
            PEERS[row.peer].title,
            _PLACEMENTS[row.placement],
            _shown(row.flops, ","),
            _shown(row.macs, ","),
            _shown(_share(row, reference), ".2%"),
            _shown(_share_of_rest(row, reference), ".2%"),
            _shown(row.seconds, ".3f"),
            _shown(row.graphflops_seconds, ".3f"),
            _shown(row.ratio, ".2f"),
            row.rounds,
            _shown(row.peak_mib, ",.0f"),
            _shown(row.built_mib, ",.0f"),
        )
        for row in rows
        if row.model == model and row.placement
    ]
    headers = (
        *("Counter", "Model on", "FLOPs it reports", "MACs it reports", "Of contractions"),
        *("Without attention", "Seconds", "graphflops, s", "Ratio", "Rounds", "Peak, MiB"),
        "Built, MiB",
    )
    return _MODEL.format(
        title=MODELS[model].title,
        contractions=contractions,
        attention=attention / contractions,
        flops=reference.flops,
        table=_table(lines, headers),
    )


def _failures(rows: list[Row]) -> str:
    lines = [
        (
            MODELS[row.model].title,
            PEERS[row.peer].title,
            _PLACEMENTS[placement],
            why.replace("|", "\\|"),
            f"counts on {_PLACEMENTS[row.placement]}" if row.placement else "no number",
        )
        for row in rows
        for placement, why in row.failures.items()
    ]
    table = _table(lines, ("Model", "Counter", "Model on", "Why", "In the end"))
    return f"## What failed\n\n{table if lines else 'Nothing.'}\n"


def _coverage_says(rows: list[Row]) -> str:
    """One sentence per counter, from its shares."""

    def verdict(row: Row) -> str:
        reference = _reference(rows, row.model)
        share, rest = _share(row, reference), _share_of_rest(row, reference)
        if share is None:
            return "no number for"
        if share == 1:
            return "exactly the contractions of"
        if rest is not None and abs(rest - 1) < _CLOSE:
            return f"within {_CLOSE:.1%} of the contractions without attention of"
        return f"{share:.2%} of the contractions of"

    return "\n".join(
        f"- {peer.title}: {_grouped((row for row in rows if row.peer == key), verdict)}."
        for key, peer in PEERS.items()
        if key != REFERENCE
    )


def _grouped(rows: Iterable[Row], verdict: Callable[[Row], str]) -> str:
    groups: dict[str, list[str]] = {}
    for row in rows:
        title = MODELS[row.model].title.partition(",")[0]
        fallback = row.placement if PEERS[row.peer].placement is None else None
        on = f" ({_PLACEMENTS[fallback]})" if fallback in {"meta", "fake"} else ""
        groups.setdefault(verdict(row), []).append(title + on)
    return "; ".join(f"{said} {', '.join(titles)}" for said, titles in groups.items())


def _time_says(rows: list[Row]) -> str:
    ratios = [row.ratio for row in rows if row.peer != REFERENCE and row.ratio is not None]
    ours = [row.seconds for row in rows if row.peer == REFERENCE and row.seconds is not None]
    return (
        f"graphflops takes {min(ours):.2f} to {max(ours):.2f} seconds. Of {len(ratios)} counts by "
        f"others that gave a number, {sum(ratio < 1 for ratio in ratios)} were faster than "
        f"graphflops. They take from {min(ratios):.2f} to {max(ratios):.2f} times as long."
    )


def _memory_says(rows: list[Row]) -> str:
    ours = [row for row in rows if row.peer == REFERENCE]
    peaks = [row.peak_mib or 0 for row in ours]
    added = [(row.peak_mib or 0) - (row.built_mib or 0) for row in ours]
    return (
        f"graphflops stays between {min(peaks):,.0f} and {max(peaks):,.0f} MiB, torch and "
        f"transformers included; its import and the count add {min(added):,.0f} to "
        f"{max(added):,.0f} MiB to a process with the model."
    )


def _reference(rows: list[Row], model: str) -> Row:
    return next(row for row in rows if (row.peer, row.model) == (REFERENCE, model))


def _contractions(reference: Row) -> tuple[int, int]:
    """FLOPs of all contractions, and those of them that are attention."""
    macs, attention = reference.macs or 0, reference.attention_macs or 0
    return FLOPS_PER_MAC * macs, FLOPS_PER_MAC * attention


def _share(row: Row, reference: Row) -> float | None:
    """How much of the contractions a counter reports."""
    if row.contraction_flops is None:
        return None
    return row.contraction_flops / _contractions(reference)[0]


def _share_of_rest(row: Row, reference: Row) -> float | None:
    """The same without attention, of a counter that reports less than all of them."""
    contractions, attention = _contractions(reference)
    seen = row.contraction_flops
    if seen is None or seen >= contractions or not attention:
        return None
    return seen / (contractions - attention)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(lines: Iterable[Iterable[object]], headers: Iterable[str]) -> str:
    return tabulate(list(lines), list(headers), tablefmt="github", disable_numparse=True)
