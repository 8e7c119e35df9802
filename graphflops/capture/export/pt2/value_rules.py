"""Rules for the values of a file: each lets one kind through, and refuses all others."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

from graphflops.capture.export.pt2.errors import UnreadableError, shown
from graphflops.capture.export.pt2.sizes import MAX_BITS
from graphflops.capture.torch_internals.serialized_programs import schema

Rule: TypeAlias = Callable[[Any], Any]
"""From a value of the JSON, which it uses up, to what torch's deserializer gets.

Raises ``UnreadableError`` where the value does not fit.
"""

MAX_TEXT = 1 << 16
"""Characters of a text: a stack trace has a few thousand."""
MAX_NAME = 4_096
"""Characters of a name, and of the path of a module."""
MAX_ARGUMENTS = 1 << 14
"""Arguments of a call: a graph within a graph is given all the weights it uses."""
MAX_DEPTH = 64
"""Modules within modules: a path is walked down recursively."""


def text(value: Any, limit: int = MAX_TEXT) -> str:
    """Any text, as data."""
    if isinstance(value, str) and len(value) <= limit:
        return value
    raise _unfit(value, "text")


def identifier(value: Any) -> str:
    """A name of Python: ``torch.fx`` writes names into source code, which it compiles."""
    name = text(value, MAX_NAME)
    if name.isidentifier() and not keyword.iskeyword(name):
        return name
    raise _unfit(value, "a name")


def name_or_none(value: Any) -> str:
    """A name, or the empty one of arguments that have no name."""
    return "" if value == "" else identifier(value)


def qualified_name(value: Any) -> str:
    """The name of a parameter: the path of its module and its own."""
    name = text(value, MAX_NAME)
    if name.count(".") > MAX_DEPTH:
        raise _unfit(value, "the name of a parameter")
    return name


def integer(value: Any) -> int:
    """An integer of 64 bits."""
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    raise _unfit(value, "an integer of 64 bits")


def number(value: Any) -> float:
    """A floating-point number; JSON has no word for infinity, so it is written as text."""
    if isinstance(value, int | float) or value in {"Infinity", "-Infinity", "NaN"}:
        return float(value)
    raise _unfit(value, "a number")


def boolean(value: Any) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise _unfit(value, "true or false")


def member(kind: type[IntEnum]) -> Rule:
    """A rule for the number of a member of an enumeration."""

    def rule(value: Any) -> int:
        if type(value) is int and value in set(kind):
            return value
        raise _unfit(value, f"a {kind.__name__}")

    return rule


def optional(rule: Rule) -> Rule:
    """A rule for a value or null."""
    return lambda value: None if value is None else rule(value)


def many(rule: Rule, limit: int | None = None) -> Rule:
    """A rule for a list, of no more than so many items."""

    def listed(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _unfit(value, "a list")
        if limit is not None and len(value) > limit:
            raise UnreadableError(f"has a call of {len(value):,} arguments")
        # What was read is dropped at once: JSON and records need not fit into memory together.
        value.reverse()
        return [rule(value.pop()) for _ in range(len(value))]

    return listed


def mapping(key: Rule, rule: Rule) -> Rule:
    """A rule for an object with keys of one kind and values of one kind."""

    def mapped(value: Any) -> dict[Any, Any]:
        found = _object(value)
        return {key(name): rule(found.pop(name)) for name in list(found)}

    return mapped


def left_out(empty: Callable[[], Any]) -> Rule:
    """A rule for what is not read: it stays empty."""
    return lambda _: empty()


def record(name: str, fields: Mapping[str, Rule]) -> Rule:
    """A rule for a record of torch's schema; fields without a rule are not read.

    Versions of torch differ in what their schema has; what this one has not is not read.
    """
    cls: Any = getattr(schema, name, None)
    known = {key: rule for key, rule in fields.items() if key in _fields(cls)}

    def read(value: Any) -> Any:
        given = _object(value)
        try:
            return cls(**{key: rule(given[key]) for key, rule in known.items() if key in given})
        except TypeError as error:
            raise UnreadableError(f"has a {name} without all of its fields") from error

    return read


def one_of(name: str, choices: Mapping[str, Rule]) -> Rule:
    """A rule for a union of torch's schema: an object with one key, which says what it is."""
    cls: Any = getattr(schema, name)
    known = _fields(cls) & choices.keys()

    def made(key: str, item: Any) -> Any:
        if key in known:
            return cls.create(**{key: choices[key](item)})
        raise UnreadableError(
            f"has a {name} of a kind that is not known here, {shown(key)}",
            "Update graphflops, or save the program again with this version of PyTorch.",
        )

    # Sizes and flags repeat; torch reads them and no more, so that one object may stand for all.
    kept = lru_cache(maxsize=_KEPT, typed=True)(made)

    def read(value: Any) -> Any:
        given = _object(value)
        if len(given) != 1:
            raise _unfit(value, f"one {name}")
        ((key, item),) = given.items()
        return (kept if isinstance(item, int) else made)(key, item)

    return read


_KEPT = 1_024
"""Different values of a union that are kept."""


def _fields(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)} if cls is not None else set()


def tensor(rule: Rule) -> Rule:
    """A rule for the metadata of a tensor: no negative size, and no more bytes than there are."""

    def read(value: Any) -> Any:
        meta = rule(value)
        sizes, strides = (
            [size.value for size in dims if size.type == "as_int"]
            for dims in (meta.sizes, meta.strides)
        )
        fits = all(size >= 0 for size in (*sizes, *strides)) and len(meta.sizes) <= MAX_DEPTH
        reach = max(prod(sizes), 1 + sum(map(_reach, sizes, strides)))
        if fits and len(meta.sizes) == len(meta.strides) and reach.bit_length() <= _MAX_ELEMENTS:
            return meta
        raise UnreadableError(f"has a tensor of the shape {shown(sizes)}, which none can have")

    return read


_MAX_ELEMENTS = MAX_BITS - 4
"""Bits of a number of elements, of 16 bytes at most."""


def _reach(size: int, stride: int) -> int:
    return max(size - 1, 0) * stride


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _unfit(value, "an object")


def _unfit(value: Any, wanted: str) -> UnreadableError:
    return UnreadableError(f"is damaged: {shown(value)} stands where {wanted} belongs")
