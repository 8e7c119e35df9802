"""Sizes of a capture that follow from data: where they stand, and what the reader is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import sympy

from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Capture, DataSize, OpCall, TensorMeta
from graphflops.core.substitution import Substitution
from graphflops.errors import CaptureError, ModelSpecError
from graphflops.runtime.interruption import raise_interruption

_STAND = (
    "Sizes that follow from data are named, and stand at their largest; assume= (--assume) says "
    "otherwise."
)
_NONE: Mapping[str, int] = MappingProxyType({})


def with_sizes(
    captured: Capture, bounds: Mapping[str, int] = _NONE, assume: Mapping[str, int] = _NONE
) -> Capture:
    """Return a capture in which sizes that follow from data have values, and are explained.

    Args:
        captured: A capture, perhaps with symbols for some of these sizes.
        bounds: The largest values of such symbols that have one, by name.
        assume: Their values, by name, where they are not the largest.
    """
    if not captured.data_sizes:
        return captured
    sizes = captured.data_sizes
    if any(size.value is None for size in sizes):
        used = {s.name for call in captured.calls for s in _symbols((call.inputs, call.outputs))}
        sizes = tuple(_valued(s, bounds, assume) if s.name in used else s for s in sizes)
        captured = replace(captured, calls=_put(captured.calls, sizes), data_sizes=sizes)
        sizes = tuple(s for s in sizes if s.value is not None or s.name in used)
    notes = (_STAND, *map(str, sizes)) if sizes else ()
    return replace(captured, notes=(*captured.notes, *notes))


def _valued(size: DataSize, bounds: Mapping[str, int], assume: Mapping[str, int]) -> DataSize:
    if size.value is not None:
        return size
    largest = bounds.get(size.name, size.largest)
    return replace(size, largest=largest, value=assume.get(size.name, largest))


def _put(calls: Sequence[OpCall], sizes: Iterable[DataSize]) -> Sequence[OpCall]:
    put = Substitution({size.name: size.value for size in sizes if size.value is not None})
    if isinstance(calls, CallSequence):
        return calls.map_items(lambda call: (put.call(call),))
    return tuple(map(put.call, calls))


def _symbols(value: Any) -> Iterator[Any]:
    if isinstance(value, sympy.Basic):
        yield from value.free_symbols
    elif isinstance(value, TensorMeta):
        yield from _symbols(value.shape)
    elif isinstance(value, Mapping):
        yield from _symbols(tuple(value.values()))
    elif isinstance(value, tuple):
        for item in value:
            yield from _symbols(item)


def refuse_decisive(found: Capture, otherwise: Callable[[], Capture]) -> None:
    """Check that numbers which Python was given for unknown ones decide nothing.

    Args:
        found: A capture in which they are some numbers.
        otherwise: Makes it again with others.

    Raises:
        CaptureError: Then other operators are called.
    """
    supposed = [size for size in found.data_sizes if size.is_placeholder]
    if not supposed:
        return
    try:
        alike = otherwise().calls == found.calls
    except Exception as error:  # noqa: BLE001 - what does not go through with another is not alike
        raise_interruption(error)
        alike = False
    if not alike:
        which = ", ".join(f"{size.name} ({size.origin})" for size in supposed)
        msg = (
            f"what is computed depends on numbers that only data can give: {which}. Say what they "
            f'are: assume={{"{supposed[0].name}": 10}}, or --assume {supposed[0].name}=10.'
        )
        raise CaptureError(msg)


def check_assumed(assume: Mapping[str, int], sizes: Iterable[DataSize]) -> None:
    """Check that there are the sizes for which values are given, and can be these.

    Raises:
        ModelSpecError: There is none of some name, or it is never so large.
    """
    known = {size.name: size for size in sizes}
    for name, value in assume.items():
        if name not in known:
            have = ", ".join(f"{size.name} ({size.origin})" for size in known.values())
            hint = f"Those that do are {have}." if known else "None does here: leave it out."
            raise ModelSpecError(f"assume: no size {name!r} follows from data. {hint}")
        largest = known[name].largest
        if isinstance(largest, int) and value > largest:
            raise ModelSpecError(
                f"assume: {name} is {value}, and {known[name].origin} gives {largest} at most."
            )
