"""Rules for the values of a file: each accepts one kind of value and refuses all others."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

from graphflops.capture.export.pt2.errors import UnreadableError, quote
from graphflops.capture.export.pt2.sizes import MAX_BITS
from graphflops.capture.torch_internals.serialized_programs import schema

Rule: TypeAlias = Callable[[Any], Any]
"""Function from a JSON value, which it consumes, to a value for torch's deserializer.

Raises ``UnreadableError`` if the value does not fit.
"""

MAX_TEXT = 1 << 16
"""Maximum characters of a text: a stack trace has a few thousand."""
MAX_NAME = 4_096
"""Maximum characters of a name, and of the path of a module."""
MAX_ARGUMENTS = 1 << 14
"""Maximum arguments of a call: a subgraph takes all weights that it uses."""
MAX_DEPTH = 64
"""Maximum depth of nested modules: a path is resolved recursively."""


def text(value: Any, limit: int = MAX_TEXT) -> str:
    """Accept any text."""
    if isinstance(value, str) and len(value) <= limit:
        return value
    raise _unfit(value, "text")


def identifier(value: Any) -> str:
    """Accept a Python identifier: ``torch.fx`` generates code with names, and compiles it."""
    name = text(value, MAX_NAME)
    if name.isidentifier() and not keyword.iskeyword(name):
        return name
    raise _unfit(value, "a name")


def optional_identifier(value: Any) -> str:
    """Accept an identifier, or the empty name of a positional argument."""
    return "" if value == "" else identifier(value)


def qualified_name(value: Any) -> str:
    """Accept the qualified name of a parameter: the path of its module, and its own name."""
    name = text(value, MAX_NAME)
    if name.count(".") > MAX_DEPTH:
        raise _unfit(value, "the name of a parameter")
    return name


def integer(value: Any) -> int:
    """Accept a 64-bit integer."""
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    raise _unfit(value, "an integer of 64 bits")


def number(value: Any) -> float:
    """Accept a floating-point number; infinity, which JSON lacks, is a string."""
    if isinstance(value, int | float) or value in {"Infinity", "-Infinity", "NaN"}:
        return float(value)
    raise _unfit(value, "a number")


def boolean(value: Any) -> bool:
    """Accept true or false."""
    if isinstance(value, bool):
        return value
    raise _unfit(value, "true or false")


def enum_member(enum: type[IntEnum]) -> Rule:
    """Return a rule for the number of a member of an enumeration."""

    def rule(value: Any) -> int:
        if type(value) is int and value in set(enum):
            return value
        raise _unfit(value, f"a {enum.__name__}")

    return rule


def optional(rule: Rule) -> Rule:
    """Return a rule for a value or null."""
    return lambda value: None if value is None else rule(value)


def list_of(rule: Rule, limit: int | None = None) -> Rule:
    """Return a rule for a list, with an optional limit on the number of items."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _unfit(value, "a list")
        if limit is not None and len(value) > limit:
            raise UnreadableError(f"has a call of {len(value):,} arguments")
        # Each item is removed when it is read, so that memory need not hold both JSON and records.
        value.reverse()
        return [rule(value.pop()) for _ in range(len(value))]

    return read


def dict_of(key: Rule, rule: Rule) -> Rule:
    """Return a rule for an object with keys of one kind and values of one kind."""

    def read(value: Any) -> dict[Any, Any]:
        items = _object(value)
        return {key(name): rule(items.pop(name)) for name in list(items)}

    return read


def ignored(empty: Callable[[], Any]) -> Rule:
    """Return a rule for a field that is not read: its value is empty."""
    return lambda _: empty()


def record(name: str, fields: Mapping[str, Rule]) -> Rule:
    """Return a rule for a record of torch's schema; fields without a rule are not read.

    Versions of torch differ in their schema; fields that the installed one lacks are not read.
    """
    cls: Any = getattr(schema, name, None)
    rules = {key: rule for key, rule in fields.items() if key in _fields(cls)}

    def read(value: Any) -> Any:
        items = _object(value)
        try:
            return cls(**{key: rule(items[key]) for key, rule in rules.items() if key in items})
        except TypeError as error:
            raise UnreadableError(f"has a {name} without all of its fields") from error

    return read


def union(name: str, choices: Mapping[str, Rule]) -> Rule:
    """Return a rule for a union of torch's schema: an object with the variant as its one key."""
    cls: Any = getattr(schema, name)
    variants = _fields(cls) & choices.keys()

    def create(key: str, item: Any) -> Any:
        if key in variants:
            return cls.create(**{key: choices[key](item)})
        raise UnreadableError(
            f"has a {name} of a kind that is not known here, {quote(key)}",
            "Update graphflops, or save the program again with this version of PyTorch.",
        )

    # Sizes and flags repeat; torch only reads them, so that equal ones may share one object.
    create_cached = lru_cache(maxsize=_CACHE_SIZE, typed=True)(create)

    def read(value: Any) -> Any:
        items = _object(value)
        if len(items) != 1:
            raise _unfit(value, f"one {name}")
        ((key, item),) = items.items()
        return (create_cached if isinstance(item, int) else create)(key, item)

    return read


_CACHE_SIZE = 1_024
"""Number of cached values of a union."""


def _fields(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)} if cls is not None else set()


def tensor(rule: Rule) -> Rule:
    """Return a rule for tensor metadata: sizes are not negative, bytes are addressable."""

    def read(value: Any) -> Any:
        meta = rule(value)
        sizes, strides = (
            [size.value for size in dims if size.type == "as_int"]
            for dims in (meta.sizes, meta.strides)
        )
        is_valid = all(size >= 0 for size in (*sizes, *strides)) and len(meta.sizes) <= MAX_DEPTH
        is_valid = is_valid and len(meta.sizes) == len(meta.strides)
        extent = max(prod(sizes), 1 + sum(map(_last_offset, sizes, strides)))
        if is_valid and extent.bit_length() <= _MAX_ELEMENT_BITS:
            return meta
        raise UnreadableError(f"has a tensor of the shape {quote(sizes)}, which none can have")

    return read


_MAX_ELEMENT_BITS = MAX_BITS - 4
"""Maximum bits of a number of elements, which have up to 16 bytes."""


def _last_offset(size: int, stride: int) -> int:
    return max(size - 1, 0) * stride


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _unfit(value, "an object")


def _unfit(value: Any, expected: str) -> UnreadableError:
    return UnreadableError(f"is damaged: {quote(value)} stands where {expected} belongs")
