"""Prices of a loaded report: its convention, and formulas of handlers whose code is not there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from graphflops import conventions
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, OpRecord, Status
from graphflops.errors import GraphFlopsError
from graphflops.pricing.memory_traffic import read_all_write_all
from graphflops.pricing.registry import HandlerNotLoadedError, Registry
from graphflops.saving.calls import TEXT
from graphflops.saving.codec import DataError, check_keys


def encode_registry(registry: Registry) -> dict[str, Any]:
    """Return the convention of a registry, and the formulas of the handlers that override it."""
    overrides: dict[str, str] = {}
    convention = registry
    while convention.base is not None:
        for entry in convention:
            overrides.setdefault(entry.op, entry.formula)
        convention = convention.base
    if convention.name not in conventions.names():
        msg = (
            f"a report that was counted by the registry {convention.name!r} alone cannot be saved. "
            "Count with a convention below it: registry= does so."
        )
        raise GraphFlopsError(msg)
    return {"name": registry.name, "convention": convention.name, "overrides": overrides}


def decode_registry(data: Any) -> Registry:
    """Return the registry of a convention, with entries for handlers whose code is not there."""
    keys = {"name", "convention", "overrides"}
    check_keys(data, dict.fromkeys(keys), keys)
    name, convention = TEXT.decode(data["name"]), TEXT.decode(data["convention"])
    if convention not in conventions.names():
        raise DataError(f"was counted by the convention {convention!r}, which is not installed")
    base = conventions.get(convention)
    if name == convention:
        return base
    registry = Registry(name, base)
    for op, formula in data["overrides"].items():
        registry.register(op, traffic=read_all_write_all)(_handler(op, TEXT.decode(formula)))
    return registry


def _handler(op: str, formula: str) -> Callable[..., OpCost]:
    def handler(*, call: OpCall) -> OpCost:  # noqa: ARG001 - a handler takes the call
        msg = (
            f"the handler of {op} is not in the saved report, only its formula and what it came "
            "to. Count the model again where the handler is registered."
        )
        raise HandlerNotLoadedError(msg)

    handler.__doc__ = formula
    return handler


class RecordedFallback:
    """Formulas and decompositions of the operators without a handler, as they were recorded.

    Attributes:
        records: Records of the report, those of repeated layers once.
    """

    def __init__(self, records: Iterator[OpRecord], registry: Registry) -> None:
        self._parts: dict[Hashable, tuple[OpCall, ...]] = {}
        self._flops: dict[Hashable, Dim] = {}
        for record in records:
            if record.status is Status.DECOMPOSED:
                self._parts[_key(record.call)] = tuple(part.call for part in record.parts)
            elif record.cost is not None and registry.lookup(record.call) is None:
                self._flops[_key(record.call)] = record.cost.flops

    def formula(self, call: OpCall) -> Dim | None:
        """Return the FLOPs of a call by a formula that was registered with torch."""
        return self._flops.get(_key(call))

    def decompose(
        self, call: OpCall, known: Callable[[str, str], bool]
    ) -> tuple[OpCall, ...] | None:
        """Return the calls that an operator decomposes into, if all of them are known."""
        parts = self._parts.get(_key(call))
        if parts is None or not all(known(part.op, part.overload) for part in parts):
            return None
        return parts


def _key(call: OpCall) -> Hashable:
    return (call.op, call.overload, repr(call.inputs), repr(call.attrs))
