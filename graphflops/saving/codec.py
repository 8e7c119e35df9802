"""Codecs: pairs of functions between values and plain data, put together like types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple


class DataError(Exception):
    """Data that a codec does not read.

    Attributes:
        path: Keys and positions that lead to it, the outermost first.
        problem: What is wrong with it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []


class Codec(NamedTuple):
    """Two functions that undo each other.

    Attributes:
        encode: Function from a value to plain data, as JSON has them.
        decode: Function from plain data to the value. Raises :class:`DataError`.
    """

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def scalar(*types: type) -> Codec:
    """Return the codec of values that JSON has itself."""

    def decode(data: Any) -> Any:
        if type(data) not in types:
            expected = " or ".join(kind.__name__ for kind in types)
            raise DataError(f"is {type(data).__name__}, not {expected}")
        return data

    return Codec(lambda value: value, decode)


def optional(codec: Codec) -> Codec:
    """Return the codec of a value or ``None``."""
    return Codec(
        lambda value: None if value is None else codec.encode(value),
        lambda data: None if data is None else codec.decode(data),
    )


def sequence(codec: Codec, build: Callable[[list[Any]], Any] = tuple) -> Codec:
    """Return the codec of a tuple, or of another collection that ``build`` makes of a list."""

    def decode(data: Any) -> Any:
        if not isinstance(data, list):
            raise DataError(f"is {type(data).__name__}, not list")
        return build([within(str(i), codec.decode, item) for i, item in enumerate(data)])

    return Codec(lambda values: [codec.encode(value) for value in values], decode)


def row(*codecs: Codec) -> Codec:
    """Return the codec of a tuple of fixed length."""

    def decode(data: Any) -> Any:
        if not isinstance(data, list) or len(data) != len(codecs):
            raise DataError(f"is not a list of {len(codecs)}")
        pairs = zip(codecs, data, strict=True)
        return tuple([within(str(i), c.decode, item) for i, (c, item) in enumerate(pairs)])

    return Codec(
        lambda value: [c.encode(item) for c, item in zip(codecs, value, strict=True)], decode
    )


def mapping(codec: Codec) -> Codec:
    """Return the codec of a dictionary with strings as keys."""

    def decode(data: Any) -> Any:
        return {key: within(key, codec.decode, item) for key, item in _object(data).items()}

    return Codec(lambda values: {key: codec.encode(item) for key, item in values.items()}, decode)


def enumeration(kind: type[Enum]) -> Codec:
    """Return the codec of an enumeration, by value."""

    def decode(data: Any) -> Any:
        try:
            return kind(data)
        except ValueError:
            raise DataError(f"is {data!r}, no {kind.__name__}") from None

    return Codec(lambda value: value.value, decode)


def structure(kind: type, /, **codecs: Codec) -> Codec:
    """Return the codec of a dataclass or named tuple; fields at their defaults are left out.

    Args:
        kind: The class.
        **codecs: Codec of each of its fields; what has none is not saved.
    """
    defaults = _defaults(kind)

    def encode(value: Any) -> Any:
        held = {name: getattr(value, name) for name in codecs}
        return {
            name: codecs[name].encode(item)
            for name, item in held.items()
            if name not in defaults or item != defaults[name]
        }

    def decode(data: Any) -> Any:
        check_keys(data, codecs, set(codecs) - set(defaults))
        return kind(**{key: within(key, codecs[key].decode, item) for key, item in data.items()})

    return Codec(encode, decode)


def check_keys(data: Any, known: Mapping[str, Any], required: set[str]) -> None:
    """Check that data are an object with known keys, and have those that are required.

    Raises:
        DataError: They are not.
    """
    keys = _object(data).keys()
    if unknown := sorted(keys - known.keys()):
        raise DataError(f"has a field {unknown[0]!r}, which this version does not know")
    if missing := sorted(required - keys):
        raise DataError(f"lacks the field {missing[0]!r}")


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise DataError(f"is {type(data).__name__}, not an object")
    return data


def within(key: str, decode: Callable[[Any], Any], data: Any) -> Any:
    """Decode a part of data; an error names the part.

    Args:
        key: Key or position of the part.
        decode: Function that decodes it.
        data: The part.

    Raises:
        DataError: The part is not readable.
    """
    try:
        return decode(data)
    except DataError as error:
        error.path.insert(0, key)
        raise


def _defaults(kind: type) -> dict[str, Any]:
    if not is_dataclass(kind):
        return dict(getattr(kind, "_field_defaults", {}))
    made = {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}
    return {**{f.name: f.default for f in fields(kind) if f.default is not MISSING}, **made}
