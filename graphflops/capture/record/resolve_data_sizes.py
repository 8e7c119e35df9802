"""Data-dependent sizes of a capture: their values, and the notes on them."""

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

_NOTE = (
    "Sizes that follow from data are named, and stand at their largest; assume= (--assume) says "
    "otherwise."
)
_NONE: Mapping[str, int] = MappingProxyType({})


def with_sizes(
    capture: Capture, bounds: Mapping[str, int] = _NONE, assume: Mapping[str, int] = _NONE
) -> Capture:
    """Return a capture in which data-dependent sizes have values, and notes explain them.

    Args:
        capture: A capture, perhaps with symbols for some of these sizes.
        bounds: Largest values of bounded symbols, by name.
        assume: Values, by name, of symbols that are not to take the largest.
    """
    if not capture.data_sizes:
        return capture
    sizes = capture.data_sizes
    if any(size.value is None for size in sizes):
        used = {s.name for call in capture.calls for s in _symbols((call.inputs, call.outputs))}
        sizes = tuple(_resolve(s, bounds, assume) if s.name in used else s for s in sizes)
        calls, storages = _substitute(capture.calls, sizes), capture.storages
        if storages is not None:
            storages = storages.map_sizes(_substitution(sizes).dim)
        capture = replace(capture, calls=calls, storages=storages, data_sizes=sizes)
        sizes = tuple(s for s in sizes if s.value is not None or s.name in used)
    notes = (_NOTE, *map(str, sizes)) if sizes else ()
    return replace(capture, notes=(*capture.notes, *notes))


def _resolve(size: DataSize, bounds: Mapping[str, int], assume: Mapping[str, int]) -> DataSize:
    if size.value is not None:
        return size
    largest = bounds.get(size.name, size.largest)
    return replace(size, largest=largest, value=assume.get(size.name, largest))


def _substitution(sizes: Iterable[DataSize]) -> Substitution:
    return Substitution({size.name: size.value for size in sizes if size.value is not None})


def _substitute(calls: Sequence[OpCall], sizes: Iterable[DataSize]) -> Sequence[OpCall]:
    substitution = _substitution(sizes)
    if isinstance(calls, CallSequence):
        return calls.map_items(lambda call: (substitution.call(call),))
    return tuple(map(substitution.call, calls))


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


def refuse_decisive_placeholders(capture: Capture, recapture: Callable[[], Capture]) -> None:
    """Check that the placeholders of unknown numbers in Python do not affect the calls.

    Args:
        capture: The capture with some placeholders.
        recapture: Captures again with other placeholders.

    Raises:
        CaptureError: With other placeholders the calls differ.
    """
    placeholders = [size for size in capture.data_sizes if size.is_placeholder]
    if not placeholders:
        return
    try:
        is_equal = recapture().calls == capture.calls
    except Exception as error:  # noqa: BLE001 - a failure is a difference too
        raise_interruption(error)
        is_equal = False
    if not is_equal:
        names = ", ".join(f"{size.name} ({size.origin})" for size in placeholders)
        msg = (
            f"what is computed depends on numbers that only data can give: {names}. Say what they "
            f'are: assume={{"{placeholders[0].name}": 10}}, or --assume {placeholders[0].name}=10.'
        )
        raise CaptureError(msg)


def check_assumed(assume: Mapping[str, int], sizes: Iterable[DataSize]) -> None:
    """Check that the sizes of ``assume`` exist and can have these values.

    Raises:
        ModelSpecError: No size has the name, or its largest value is smaller.
    """
    sizes_by_name = {size.name: size for size in sizes}
    for name, value in assume.items():
        if name not in sizes_by_name:
            options = ", ".join(f"{size.name} ({size.origin})" for size in sizes_by_name.values())
            hint = (
                f"Those that do are {options}."
                if sizes_by_name
                else "None does here: leave it out."
            )
            raise ModelSpecError(f"assume: no size {name!r} follows from data. {hint}")
        largest = sizes_by_name[name].largest
        if isinstance(largest, int) and value > largest:
            raise ModelSpecError(
                f"assume: {name} is {value}, and {sizes_by_name[name].origin} gives {largest} at "
                "most."
            )
