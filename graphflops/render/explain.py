"""Explanation of an operator call's cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from string import ascii_uppercase

import sympy

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, OpRecord, Status, TensorMeta
from graphflops.pricing.formula import formula
from graphflops.pricing.price import price
from graphflops.pricing.registry import HandlerNotLoadedError, Registration, Registry
from graphflops.render.escape import visible
from graphflops.render.units import exact


def explain(record: OpRecord, registry: Registry) -> str:
    """The formula of a call, the numbers put into it and where both come from.

    Args:
        record: A priced call.
        registry: What it was priced with.

    Returns:
        Plain text. Sizes are named by letters, equal sizes by the same one; the costs are
        given in letters and in numbers.
    """
    return "\n".join(map(visible, _lines(record, registry)))


def details(record: OpRecord, registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield what explains the cost of a call as ``(label, text)`` lines.

    They are the same for equal calls of a repeated layer: where a call is made is not among them.

    Args:
        record: A priced call.
        registry: What it was priced with.
    """
    call, entry = record.call, registry.lookup(record.call)
    if call.torch_function:
        yield "called as", call.torch_function
    yield "computes in", call.dtype
    if call.trip_count != 1:
        yield "runs", f"{call.trip_count} times"
    yield from (("input", _tensor(name, t)) for name, t in call.tensors())
    yield from (("attribute", f"{n} = {v!r}") for n, v in call.attrs.items() if v is not None)
    yield from (("output", _tensor("", t)) for t in call.outputs)
    yield from _price(record, registry)
    yield from (("formula", line) for line in formula(record, registry))
    if entry is not None:
        yield "priced by", f"{registry.name} convention, {_home(entry)}"


def parts(record: OpRecord) -> Iterator[tuple[str, str, str]]:
    """Yield operator, FLOPs and outputs of the calls that a call was decomposed into."""
    for part in record.parts:
        flops = part.cost.flops if part.cost is not None else 0
        yield part.call.op, exact(flops), ", ".join(_tensor("", t) for t in part.call.outputs)


def _lines(record: OpRecord, registry: Registry) -> Iterator[str]:
    yield f"{record.call.op}.{record.call.overload}"
    yield from _rows((*_where(record.call), *details(record, registry)))
    for op, flops, shapes in parts(record):
        yield f"    {op:<34} {flops:>20} FLOPs  -> {shapes}"


def _rows(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    last = ""
    for label, text in pairs:
        yield f"  {'' if label == last else label:<15} {text}"
        last = label


def _where(call: OpCall) -> Iterator[tuple[str, str]]:
    yield "module", call.module_path or "(model)"
    yield "node", f"{call.name}, call {call.index}"
    if call.source_line:
        yield "source", call.source_line


def _tensor(name: str, meta: TensorMeta) -> str:
    text = f"{meta.dtype}[{', '.join(map(str, meta.shape))}]"
    return f"{name} {text}" if name else text


def _price(record: OpRecord, registry: Registry) -> Iterator[tuple[str, str]]:
    yield "status", record.status.value
    if record.cost is None:
        return
    letters, symbols = _with_letters(record.call)
    symbolic: Mapping[str, Dim] = {}
    if record.status is Status.COUNTED and registry.lookup(record.call) is not None:
        with suppress(HandlerNotLoadedError):
            symbolic = dict((price(letters, registry).cost or OpCost()).items())
        yield from (("where", f"{letter} = {size}") for size, letter in symbols.items())
    for name, value in record.cost.items():
        expression = symbolic.get(name, value)
        in_letters = "" if isinstance(expression, int) else f" = {_factored(expression)}"
        if value != 0:
            yield name.replace("_", " "), f"{exact(value)}{in_letters}"


@lru_cache(maxsize=1024)
def _factored(expression: sympy.Expr) -> str:
    return str(sympy.factor(expression))


def _with_letters(call: OpCall) -> tuple[OpCall, dict[Dim, sympy.Symbol]]:
    """The call with a letter for every distinct size of two or more."""
    symbols: dict[Dim, sympy.Symbol] = {}

    def letter(size: Dim) -> Dim:
        if not isinstance(size, int) or size < 2 or len(symbols) == len(ascii_uppercase):  # noqa: PLR2004 - 0 and 1 explain themselves
            return size
        name = ascii_uppercase[len(symbols)]
        return symbols.setdefault(size, sympy.Symbol(name, positive=True, integer=True))

    def tensor(meta: TensorMeta) -> TensorMeta:
        return replace(meta, shape=tuple(map(letter, meta.shape)))

    inputs = {
        name: tuple(t and tensor(t) for t in value) if isinstance(value, tuple) else tensor(value)
        for name, value in call.inputs.items()
    }
    outputs = tuple(map(tensor, call.outputs))
    return replace(call, inputs=inputs, outputs=outputs), symbols


def _home(entry: Registration) -> str:
    return entry.handler.__module__ if entry.handler else entry.origin.rpartition("/")[2]
