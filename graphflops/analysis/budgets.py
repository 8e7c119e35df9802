"""Budgets: limits of the figures of a model and of its modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import reduce
from math import floor
from operator import or_
from pathlib import Path
from typing import Any, Protocol

from graphflops.analysis.figures import Totals, figures_of, module_figures
from graphflops.analysis.limits import UNITS, parse_quantity
from graphflops.analysis.toml_tables import read_toml
from graphflops.core.cost import Dim
from graphflops.core.module_tree import ModuleNode
from graphflops.errors import ModelSpecError, UnboundSymbolError

_ANY_MODEL = "budget"
_MODULES = "modules"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """A limit and the figure that it limits.

    Attributes:
        path: Path of the module; ``""`` is the model.
        figure: Name of the figure.
        limit: Largest value that passes.
        actual: Value of the figure.
    """

    path: str
    figure: str
    limit: int
    actual: int

    @property
    def margin(self) -> int:
        """Room below the limit; negative if it is exceeded."""
        return self.limit - self.actual

    @property
    def ok(self) -> bool:
        """True if the limit is kept."""
        return self.actual <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of a model and of its modules.

    Attributes:
        limits: Largest value by figure.
        modules: The same by pattern of module paths, in which ``*`` stands within one name.
    """

    limits: Mapping[str, int]
    modules: Mapping[str, Mapping[str, int]]

    def __or__(self, other: Budget) -> Budget:
        """Return a budget in which the limits of another one replace those of this one."""
        patterns = {
            pattern: {**self.modules.get(pattern, {}), **other.modules.get(pattern, {})}
            for pattern in (*self.modules, *other.modules)
        }
        return Budget(limits={**self.limits, **other.limits}, modules=patterns)


class TotalsByModule(Totals, Protocol):
    """Report, as far as figures of it and its modules go."""

    @property
    def root(self) -> ModuleNode:
        """Module tree."""


def parse_budget(table: Any, name: str = _ANY_MODEL) -> Budget:
    """Parse a table of limits, with patterns of module paths under ``modules``.

    Args:
        table: Limits by figure.
        name: Name of the table, for messages.

    Raises:
        ModelSpecError: A key or a value means nothing.

    Example:
        >>> parse_budget({"flops": "2 MFLOP", "modules": {"layers.*": {"params": 10}}}).modules
        {'layers.*': {'params': 10}}
    """
    if not isinstance(table, Mapping):
        msg = f'{name} is {table!r}. Give a table of limits, such as flops = "1.2 TFLOP".'
        raise ModelSpecError(msg)
    patterns = table.get(_MODULES, {})
    if not isinstance(patterns, Mapping):
        msg = f'{name}.{_MODULES} is {patterns!r}. Give tables by pattern: "layers.*".'
        raise ModelSpecError(msg)
    limits = {key: value for key, value in table.items() if key != _MODULES}
    return Budget(
        limits=_parse_limits(limits, name),
        modules={
            pattern: _parse_limits(values, f"{name}.{_MODULES}.{pattern}")
            for pattern, values in patterns.items()
        },
    )


def read_budgets(path: Path) -> dict[str, Budget]:
    """Read the budgets of a TOML file by name: ``budget`` is for every model.

    Raises:
        ModelSpecError: The file cannot be read, or has keys or values that mean nothing.
    """
    tables = read_toml(path, "a budget")
    if _MODULES in tables:  # of every model, at the top of the file for brevity
        shared = {_MODULES: tables.pop(_MODULES)}
        tables[_ANY_MODEL] = {**shared, **tables.get(_ANY_MODEL, {})}
    try:
        return {name: parse_budget(table, name) for name, table in tables.items()}
    except ModelSpecError as error:
        raise ModelSpecError(f"{path}: {error}") from None


def load_budget(path: Path, *names: str) -> Budget:
    """Read the budget of a model from a TOML file.

    The tables ``[budget]`` and ``[modules]`` are for every model; a table of the model's name
    adds limits and replaces these.

    Args:
        path: The file.
        names: Names that the model's table may have.

    Raises:
        ModelSpecError: The file cannot be read, or has no limits for the model.
    """
    budgets = read_budgets(path)
    chosen = [budgets[name] for name in dict.fromkeys((_ANY_MODEL, *names)) if name in budgets]
    if not chosen:
        listed = ", ".join(f"[{name}]" for name in budgets) or "none"
        msg = (
            f"{path} has no limits for {names[0]}. Its tables: {listed}. Add a table of that name, "
            f"or [{_ANY_MODEL}] for every model."
        )
        raise ModelSpecError(msg)
    return reduce(or_, chosen)


def _parse_limits(table: Any, name: str) -> dict[str, int]:
    if not isinstance(table, Mapping):
        msg = f'{name} is {table!r}. Give a table of limits, such as flops = "1.2 TFLOP".'
        raise ModelSpecError(msg)
    limits = {}
    for figure, value in table.items():
        if figure not in UNITS:
            close = get_close_matches(str(figure), UNITS, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Give one of {', '.join(UNITS)}."
            raise ModelSpecError(f"{name} has no figure {figure!r}. {hint}")
        limit = parse_quantity(figure, value)
        if limit < 0:
            msg = f"budget: {figure} = {value!r} in {name} is below 0. Give the largest value."
            raise ModelSpecError(msg)
        limits[figure] = floor(limit)
    return limits


def check_limits(report: TotalsByModule, budget: Budget) -> Iterator[LimitCheck]:
    """Yield a check for each limit, those of modules for each module that a pattern matches.

    Raises:
        ModelSpecError: A pattern matches no module.
        UnboundSymbolError: A figure is no number.
    """
    yield from _check("", figures_of(report), budget.limits)
    modules = list(report.root.walk())
    for pattern, limits in budget.modules.items():
        matches = [module for module in modules if _matches(module.path, pattern)]
        if not matches:
            paths = [module.path for module in modules]
            close = get_close_matches(pattern, paths, n=3, cutoff=0.3)
            hint = f"Did you mean {', '.join(close)}?" if close else "report.root.walk() has all."
            msg = f"budget: no module has a path that matches {pattern!r}. {hint}"
            raise ModelSpecError(msg)
        for module in matches:
            yield from _check(module.path, module_figures(module), limits)


def _matches(path: str, pattern: str) -> bool:
    """Return True if a path matches a pattern part by part: ``layers.*`` is each layer."""
    parts, patterns = (name.split(".") if name else [] for name in (path, pattern))
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _check(
    path: str, figures: Mapping[str, Dim], limits: Mapping[str, int]
) -> Iterator[LimitCheck]:
    for figure, limit in limits.items():
        actual = figures[figure]
        if not isinstance(actual, int):
            msg = (
                f"{figure} of {path or 'the model'} is {actual}, which is no number yet. Give "
                "numbers for the sizes with report.subs, or count without symbolic sizes."
            )
            raise UnboundSymbolError(msg)
        yield LimitCheck(path=path, figure=figure, limit=limit, actual=actual)
