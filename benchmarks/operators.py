"""The operator reference, made from the handlers: ``python -m benchmarks.operators``.

Writes ``docs/reference/operators.md`` from the registry and from ``benchmarks/results/op_db.json``.
A test fails if the page is stale.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from graphflops import conventions
from graphflops.pricing.registry import Registration

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "operators.md"
RESULTS = ROOT / "benchmarks" / "results" / "op_db.json"
# Families whose MACs are compared with FlopCounterMode on meta tensors.
CONTRACTIONS = {"matmul", "conv", "attention", "attention_backward"}

HEAD = """\
# Operator reference

<!-- Made by `python -m benchmarks.operators` from the handlers; edit those, not this page. -->

Every operator with a price of its own, by family; what is not here is priced through PyTorch's
decomposition into what is. *Bytes* names the rule in `graphflops.pricing.memory_traffic`.
*Checked against*:
**prims** is PyTorch's reference decomposition on the samples of its own operator tests, equal on
all that it can spell out; **FlopCounterMode** is PyTorch's counter on meta tensors; **by hand** is
arithmetic written out in a test, or another form of the same computation.

"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page as it should stand."""
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"]
    checked = _checked(rows)
    families: defaultdict[str, list[Registration]] = defaultdict(list)
    for entry in conventions.exact():
        source = Path(entry.origin.rpartition(":")[0])
        # What plugins and tests have registered beside ours is not ours to document.
        if source.parent == ROOT / "handlers":
            families[source.stem].append(entry)
    tables = (
        f"## {family}\n\n{_table(family, families[family], checked)}\n\n"
        for family in sorted(families)
    )
    return HEAD + "".join(tables) + _sweep(rows)


def _table(family: str, entries: Iterable[Registration], checked: set[str]) -> str:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        against = _against(family, entry, checked)
        rule = getattr(entry.traffic, "__name__", "its own")
        grouped.setdefault((_formula(entry), rule, against), []).append(f"`{entry.op}`")
    rows = [(", ".join(sorted(ops)), *key) for key, ops in grouped.items()]
    return _markdown(rows, ["operators", "formula, or why it is free", "bytes", "checked against"])


def _markdown(rows: Iterable[Sequence[str]], headers: list[str]) -> str:
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    # Cells padded to the widest formula would make the page four times as long.
    return re.sub(r"-{3,}", "---", re.sub(r" {2,}", " ", table))


def _formula(entry: Registration) -> str:
    if entry.handler is None:
        return f"free: {entry.reason}"
    text = inspect.cleandoc(entry.handler.__doc__ or "")
    return " ".join(text.replace("|", "\\|").replace("``", "`").split())


def _against(family: str, entry: Registration, checked: set[str]) -> str:
    if entry.handler is None:
        return ""
    if entry.op.partition(".")[0] in checked:
        return "prims"
    return "FlopCounterMode" if family in CONTRACTIONS else "by hand"


def _checked(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Operators of samples whose price equals the reference's."""
    return {op for row in rows for op in row.get("operators", ()) if row["outcome"] == "equal"}


def _sweep(rows: list[dict[str, Any]]) -> str:
    by_outcome: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_outcome[row["outcome"]].append(row)
    counts = [(outcome, str(len(found))) for outcome, found in sorted(by_outcome.items())]
    parts = [
        "## PyTorch's operator samples\n\n"
        f"{len(rows)} OpInfos, up to 10 float samples each, traced on meta "
        "(`python -m benchmarks.op_db`).\n\n" + _markdown(counts, ["outcome", "OpInfos"])
    ]
    for outcome, title in (
        ("different", "Where the price differs from the reference, on purpose"),
        ("no reference", "Where the reference stops short, at these operators"),
        ("not traceable", "What PyTorch cannot trace without data"),
        ("failed", "What is not priced"),
    ):
        found = [(f"`{row['name']}`", row["reason"]) for row in by_outcome[outcome]]
        if found:
            parts.append(f"### {title}\n\n{_markdown(found, ['OpInfo', 'reason'])}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
