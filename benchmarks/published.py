"""What two published reports got wrong: ``python -m benchmarks.published`` writes the page.

The same captures priced by the reports' convention and by ``exact``, where the two part, and
how long it takes: ``docs/counting/published_reports.md`` and ``benchmarks/results/published.json``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import environment
from graphflops.analysis.compare_conventions import Difference
from graphflops.counting.generation import count_generation
from graphflops.models import Options, resolve
from graphflops.reports.comparison import ConventionComparison
from graphflops.reports.generation import GenerationReport

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "published.json"
PAGE = ROOT / "docs" / "counting" / "published_reports.md"
SHOWN = 8
EVALUATIONS = 100


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A published report: what was run, and the totals it printed."""

    title: str
    model: str
    new_tokens: int
    logits_to_keep: int
    published: str
    longer: int

    @property
    def command(self) -> str:
        """What counts it."""
        kept = "" if self.logits_to_keep == 1 else f" --logits-to-keep {self.logits_to_keep}"
        return f"graphflops generate {self.model} --new-tokens {self.new_tokens}{kept}"


WORKLOADS = (
    Workload(
        title="InternVL2-1B: 9 tiles, 2,480 prompt tokens, 58 new ones, attention written out",
        model="examples/internvl_chat.py:chat",
        new_tokens=58,
        logits_to_keep=0,
        published="4.7897 TMACs, 9.7411 TFLOPs",
        longer=4000,
    ),
    Workload(
        title="LLaVA-OneVision-7B: 16 crops, 7,405 prompt tokens, 7 new ones, fused attention",
        model="examples/llava_onevision.py:reported",
        new_tokens=7,
        logits_to_keep=1,
        published="53.1858 TMACs, 111.817 TFLOPs",
        longer=9000,
    ),
)


def main() -> None:
    """Count both, write the results and the page."""
    results: dict[str, Any] = {"environment": environment(("torch", "transformers"))}
    sections = []
    for workload in WORKLOADS:
        report, seconds = _counted(workload)
        parted = report.compare_conventions("exact")
        facts = {
            "seconds": round(seconds, 2),
            "evaluation_ms": round(_evaluation(report, workload.longer), 2),
            "calflops": {"macs": parted.ours.macs, "flops": parted.ours.flops},
            "exact": {"macs": parted.theirs.macs, "flops": parted.theirs.flops},
        }
        results[workload.model] = facts
        sections.append(_section(workload, parted, facts))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(_page(sections, results["environment"]), encoding="utf-8")


def _counted(workload: Workload) -> tuple[GenerationReport, float]:
    """A count and the seconds it took, the model's construction left out."""
    made = resolve(workload.model, Options())
    start = time.perf_counter()
    report = count_generation(
        made.model,
        made.kwargs,
        max_new_tokens=workload.new_tokens,
        logits_to_keep=workload.logits_to_keep,
        convention="calflops",
    )
    return report, time.perf_counter() - start


def _evaluation(report: GenerationReport, longer: int) -> float:
    """Milliseconds to evaluate the formula at another prompt length: the median of many."""
    times = []
    for length in range(longer, longer + EVALUATIONS):
        start = time.perf_counter()
        _ = report.subs(P=length).flops
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def _section(workload: Workload, parted: ConventionComparison, facts: dict[str, Any]) -> str:
    invented, missed = (_grouped(parted.modules, sign) for sign in (-1, 1))
    here, there = facts["calflops"], facts["exact"]
    shares = (f"{there[unit] / here[unit]:.2%}" for unit in ("macs", "flops"))
    return f"""## {workload.title}

`{workload.command}`, with `--convention calflops`, and with `--compare-conventions exact` beside:

| | MACs | FLOPs |
|---|---:|---:|
| published | {workload.published.replace(", ", " | ")} |
| convention `calflops` | {here["macs"]:,} | {here["flops"]:,} |
| convention `exact` | {there["macs"]:,} | **{there["flops"]:,}** |
| `exact` over published | {" | ".join(shares)} |

What was counted and is not there, FLOPs by module and operator:

{_table(invented)}

What is there and was not counted:

{_table(missed)}

Counted in {facts["seconds"]} s, both graphs and the sum over the steps; at another prompt length
in {facts["evaluation_ms"]} ms (median of {EVALUATIONS}), without another capture.
"""


def _grouped(rows: Iterable[Difference], sign: int) -> list[tuple[str, str, int, int]]:
    """Differences of one sign, layers of a stack together, the largest first."""
    sums: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        difference = int(row.flops)
        if difference * sign > 0:
            key = re.sub(r"\.\d+(?=\.|$)", ".*", row.path) or "(model)", row.op
            sums.setdefault(key, [0, 0])
            sums[key][0] += row.calls
            sums[key][1] += difference
    found = [(path, op, calls, flops) for (path, op), (calls, flops) in sums.items()]
    return sorted(found, key=lambda row: -abs(row[3]))


def _table(rows: list[tuple[str, str, int, int]]) -> str:
    lines = ["| module | operator | calls | FLOPs |", "|---|---|---:|---:|"]
    lines += [
        f"| `{path}` | `{op}` | {calls:,} | {flops:+,} |" for path, op, calls, flops in rows[:SHOWN]
    ]
    if rest := rows[SHOWN:]:
        calls, flops = sum(row[2] for row in rest), sum(row[3] for row in rest)
        lines.append(f"| {len(rest)} more | | {calls:,} | {flops:+,} |")
    lines.append(f"| **all** | | | **{sum(row[3] for row in rows):+,}** |")
    return "\n".join(lines)


def _page(sections: list[str], where: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    return "\n".join((_INTRODUCTION, *sections, f"Measured with {versions}, {where['date']}.\n"))


_INTRODUCTION = """# What two published reports got wrong

<!-- Written by `python -m benchmarks.published`; edit the script, not this page. -->

Two reports of calflops, of a `generate` run each, print 87 rows of parameters, MACs, FLOPs and
percentages. Under the convention `calflops` graphflops prints every one of these figures
(`tests/test_golden.py`): that is what the package's rules make of these models. Here is what the
models do, and where the two part. [Why tools disagree](why_tools_disagree.md) has the rules.

- **Invented.** calflops aligns the sizes of `*`, `+` and `/` on the left. The weight of an RMSNorm,
  H numbers, times 1 x T x H is charged H x T x H; the same happens to LayerScale.
- **Missed.** Fused attention kernels, the method `x.softmax`, an activation that was taken from
  `torch.nn.functional` before it was wrapped, biases, and what is written with `-`, `**`, `mean`.
- **Right.** MACs of linear layers, convolutions and products written out.
"""


if __name__ == "__main__":
    main()
