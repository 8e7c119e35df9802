"""State outside of modules that their methods may read: globals, class attributes, defaults.

It is compared shallowly: plain values, the items of lists and dictionaries, the attributes of
objects. What a method names is found in its code, and in that of functions of the same file that
it names.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeAlias

PLAIN_TYPES = {int, float, bool, str, bytes, complex, type(None), type(...)}
_STATELESS_TYPES = (type, FunctionType, BuiltinFunctionType, ModuleType)
_COLLECTIONS = (list, tuple, AbstractSet, deque, bytearray)
_DATA_TYPES = (*PLAIN_TYPES, dict, *_COLLECTIONS)
Reader: TypeAlias = Callable[[], Any]
_MAX_ITEMS = 256
"""Number of items above which a collection, likely a table, is compared by its size."""


class IdentityKey:
    """Key that compares by object identity."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def outside_state(classes: Iterable[type]) -> tuple[Any, ...]:
    """Return the state outside of modules that methods of their classes may read."""
    return tuple([_snapshot(read()) for read in _readers(tuple(classes))])


def cell_contents(cell: Any) -> Any:
    """Return what a function's closure refers to; ``None`` if nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _snapshot(value: Any) -> Any:
    """Return a key of a value, which is another if the value has changed."""
    if type(value) in PLAIN_TYPES:
        return value
    if isinstance(value, _STATELESS_TYPES):
        return IdentityKey(value)
    items: Iterable[Any]
    if isinstance(value, dict):
        items = (*value, *value.values()) if len(value) <= _MAX_ITEMS else ()
    elif isinstance(value, _COLLECTIONS):
        items = value if len(value) <= _MAX_ITEMS else ()
    else:
        items = getattr(value, "__dict__", {}).values()
        return IdentityKey(value), tuple(map(_item, items))
    return IdentityKey(value), len(value), tuple(map(_item, items))


def _item(value: Any) -> Any:
    return (type(value), value) if type(value) in PLAIN_TYPES else IdentityKey(value)


def _itself(value: Any) -> Any:
    return value


@functools.cache
def _readers(classes: tuple[type, ...]) -> tuple[Reader, ...]:
    """Return functions that read the state that methods of the classes may read."""
    readers: dict[tuple[int, str], Reader] = {}
    for base in dict.fromkeys(base for cls in classes for base in cls.__mro__):
        if base.__module__.startswith("torch.") or base is object:
            continue
        for name, value in list(vars(base).items()):
            function = getattr(value, "__wrapped__", value)
            if isinstance(function, FunctionType):
                _add_readers(function, readers)
            elif isinstance(value, _DATA_TYPES) and not name.startswith("__"):
                readers[id(base), name] = functools.partial(vars(base).get, name)
    return tuple(readers.values())


def _add_readers(function: FunctionType, readers: dict[tuple[int, str], Reader]) -> None:
    """Add readers of the globals that a function names, of its closure and of its defaults."""
    scope, code = function.__globals__, function.__code__
    if (id(code), "") in readers:
        return
    readers[id(code), ""] = functools.partial(_itself, None)  # visited
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    for number, value in enumerate(defaults):
        if isinstance(value, (dict, *_COLLECTIONS)):
            readers[id(code), str(number)] = functools.partial(_itself, value)
    held = [
        (id(cell), "", functools.partial(cell_contents, cell))
        for cell in function.__closure__ or ()
    ]
    held += [
        (id(scope), name, functools.partial(scope.get, name))
        for name in code.co_names
        if name in scope
    ]
    for key, name, read in held:
        value = read()
        if not isinstance(value, _STATELESS_TYPES):
            readers[key, name] = read
        elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
            _add_readers(value, readers)
