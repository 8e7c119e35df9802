"""The page about models in the graphs of compilers: every figure comes from the results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tabulate import tabulate

from benchmarks.doors_graphs import DOORS
from benchmarks.doors_models import MODELS
from benchmarks.doors_results import RESULTS, Cell, cells


class Explanation(NamedTuple):
    """Reason for a difference.

    Attributes:
        problem: The difference, as :meth:`Cell.problems` names it.
        doors: Doors that have it.
        models: Models that have it.
        reason: The reason, one or more sentences.
        failure: Text of the error that it explains.
    """

    problem: str
    doors: tuple[str, ...]
    models: tuple[str, ...]
    reason: str
    failure: str = ""

    def explains(self, cell: Cell, problem: str) -> bool:
        """Return True if this is the reason for a difference of a cell."""
        return (
            problem == self.problem
            and cell.door in self.doors
            and cell.model in self.models
            and self.failure in cell.failure
        )


EXPLANATIONS = (
    Explanation(
        "modules",
        ("make_fx",),
        MODELS,
        "`make_fx` records no modules: all calls belong to the root.",
    ),
    Explanation(
        "contractions",
        ("decomposed", "unflatten", "AOT forward", "AOT joint", "Inductor"),
        ("BERT",),
        "Nothing uses the output of BERT's pooler. Its product is dead code, which the model runs "
        "and these graphs no longer hold.",
    ),
    Explanation(
        "failure",
        ("symbolic_trace",),
        ("GPT-2", "Llama", "ViT"),
        "`symbolic_trace` refuses the model: it branches on shapes or on values.",
        "TraceError",
    ),
    Explanation(
        "failure",
        ("symbolic_trace",),
        ("BERT",),
        "`symbolic_trace` refuses the model: it slices by a size of a tensor.",
        "slice indices must be integers",
    ),
    Explanation(
        "failure",
        ("make_fx",),
        ("GPT-2", "Llama"),
        "`make_fx` refuses the model: it reads the value of a tensor.",
        "aten._local_scalar_dense",
    ),
    Explanation(
        "failure",
        ("decomposed",),
        ("GPT-2",),
        "`run_decompositions` fails in torch: decomposed, attention returns other strides than in "
        "the trace, and a later `view` does not take them.",
        "Cannot view a tensor",
    ),
    Explanation(
        "failure",
        ("PT2E",),
        ("BERT",),
        "torchao fails on a linear layer whose output is not used, the pooler.",
        "IndexError: list index out of range",
    ),
)

_PAGE = """\
# The graphs of compilers

Written by `python -m benchmarks.doors`, from `benchmarks/results/doors.json`: {models} small models
with random weights on the CPU, in evaluation mode, each counted as a module and in {doors} other
forms in which compilers hold a model.

{environment}

In a form, three things are compared with the count of the module: the MACs of contractions, in
total; their modules, each MAC under the very module path; and phases: every call has its own, and
the report's is backward where the graph holds a backward pass alone. All operators must have a
price. A backward pass is compared with that of `count_training`. `=` says that nothing differs, a
number refers to an explanation below.

{matrix}

{same} of {cells} are equal in everything, {macs} in the MACs.

{explanations}

## The forms

The batch of the program with named dims is symbolic, and its report is substituted; torch keeps no
names of dims, the symbol is the one in `report.symbols`. Dynamo's graph is that of a backend of
`torch.compile`, and those of AOTAutograd lie below it; the joint graph is what it partitions.
Inductor's is what it makes code of, after its own passes. `allow_rnn` of Dynamo is on, so that an
LSTM is in the graph. PT2E is torchao's, with the quantizer for x86; its converted graph multiplies
dequantized tensors.

{forms}

## The models

Counts of the module itself. The forward pass is compared with `FlopCounterMode` under fake
tensors on meta, whose FLOPs are two for each MAC. The backward pass includes the scores that the
backward of fused attention computes again.

{references}
"""


def page() -> str:
    """The whole page."""
    results = json.loads(RESULTS.read_text("utf-8"))
    rows = cells(results)
    return _PAGE.format(
        models=len(MODELS),
        doors=len(DOORS),
        environment=_environment(results["environment"]),
        matrix=_matrix(rows),
        same=sum(not list(cell.problems()) for cell in rows),
        cells=len(rows),
        macs=sum(not {"failure", "contractions"} & set(cell.problems()) for cell in rows),
        explanations="\n".join(
            f"{number}. {explanation.reason}"
            for number, explanation in enumerate(EXPLANATIONS, start=1)
        ),
        forms=_table(
            [(door, f"`{form.how}`") for door, form in DOORS.items()], ("form", "made by")
        ),
        references=_references(results["references"]),
    )


def unexplained(cell: Cell) -> Iterator[str]:
    """Yield the differences of a cell that have no explanation."""
    for problem in cell.problems():
        if not any(explanation.explains(cell, problem) for explanation in EXPLANATIONS):
            yield problem


def _environment(where: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    return f"Run on {where['date']}, {packages}, Python {where['python']}, {where['platform']}."


def _matrix(rows: list[Cell]) -> str:
    by_key = {(cell.door, cell.model): cell for cell in rows}
    lines = [[door, *(_mark(by_key[door, model]) for model in MODELS)] for door in DOORS]
    return _table(lines, ("", *MODELS))


def _mark(cell: Cell) -> str:
    numbers = [
        str(number)
        for number, explanation in enumerate(EXPLANATIONS, start=1)
        if any(explanation.explains(cell, problem) for problem in cell.problems())
    ]
    return ", ".join([*numbers, *unexplained(cell)]) or "="


def _references(references: list[dict[str, Any]]) -> str:
    lines = [
        (
            reference["model"],
            f"{reference['macs']:,}",
            f"{reference['flop_counter_macs']:,}",
            f"{reference['backward_macs']:,}",
        )
        for reference in references
    ]
    return _table(lines, ("", "forward MACs", "`FlopCounterMode`", "backward MACs"))


def _table(lines: list[Any], headers: tuple[str, ...]) -> str:
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)
