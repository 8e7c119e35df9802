"""Figures of reports and modules by name, as limits and comparisons read them."""

from __future__ import annotations

from typing import Protocol

from graphflops.core.cost import Dim, OpCost
from graphflops.core.module_tree import ModuleNode


class Totals(Protocol):
    """Report, as far as its figures go."""

    @property
    def total(self) -> OpCost:
        """Cost of the whole."""

    @property
    def params(self) -> int:
        """Number of parameters."""

    @property
    def params_trainable(self) -> int:
        """Number of parameters that require a gradient."""

    def unsupported_ops(self) -> dict[str, int]:
        """Return the number of calls without a price by operator."""


def figures_of(report: Totals) -> dict[str, Dim]:
    """Return the figures of a report by name."""
    unsupported = sum(report.unsupported_ops().values())
    return _figures(report.total, report.params, report.params_trainable, unsupported)


def module_figures(module: ModuleNode) -> dict[str, Dim]:
    """Return the figures of a module by name, its submodules included."""
    return _figures(module.total, module.params_total, module.params_trainable, module.unknown)


def _figures(cost: OpCost, params: int, params_trainable: int, unsupported: int) -> dict[str, Dim]:
    return {
        "flops": cost.flops,
        "macs": cost.macs,
        "transcendentals": cost.transcendentals,
        "bytes_read": cost.bytes_read,
        "bytes_written": cost.bytes_written,
        "bytes": cost.bytes_read + cost.bytes_written,
        "params": params,
        "params_trainable": params_trainable,
        "unsupported": unsupported,
    }
