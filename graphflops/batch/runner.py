"""Run of a batch: items that have no record are counted, and their records appended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphflops.batch.executor import Executor, Outcome
from graphflops.batch.failures import Stage, failure_of
from graphflops.batch.item import Item
from graphflops.batch.record import failed_record
from graphflops.batch.results import ResultsFile
from graphflops.batch.spec import Spec


@dataclass(frozen=True, kw_only=True)
class WorkList:
    """Items of a batch.

    Attributes:
        items: All of them, by key.
        problems: Sentences on schemes whose names cannot be listed.
    """

    items: Mapping[str, Item]
    problems: tuple[str, ...] = ()


def work_list(spec: Spec, executor: Executor) -> WorkList:
    """Return the items of a spec, with names that match where they are counted.

    Raises:
        ModelSpecError: A pattern matches no model, or there is no dtype of a name.
        BatchError: The executor cannot be reached.
    """
    # Imports torch, which only the processes that count need.
    names, problems = executor.call(_match_names, spec.models, spec.dtypes)
    items = {item.key: item for item in spec.items(names)}
    return WorkList(items=items, problems=tuple(problems))


def run(
    items: Mapping[str, Item],
    executor: Executor,
    results: ResultsFile,
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    """Count the items that have no record yet, and append a record of each as it is done.

    Args:
        items: The items by key.
        executor: What runs them.
        results: Where records go.
        report: Told each record once it is written.

    Raises:
        OutputError: A record cannot be written.
        BatchError: The executor is lost.
    """
    left = {key: item for key, item in items.items() if key not in results.done}
    for key, outcome in executor.run(_count_item, left):
        record = _record(items[key], outcome)
        results.append(record)
        report(record)


def _record(item: Item, outcome: Outcome) -> Mapping[str, Any]:
    if outcome.error is None:
        record: Mapping[str, Any] = outcome.value
        return record
    return failed_record(item, failure_of(outcome.error, Stage.COUNT))


def _match_names(patterns: tuple[str, ...], dtypes: tuple[str, ...]) -> Any:
    from graphflops.batch.work import match_names

    return match_names(patterns, dtypes)


def _count_item(item: Item) -> dict[str, Any]:
    from graphflops.batch.work import count_item

    return count_item(item)
