"""Functions and classes with a state outside of instances: globals, closures, caches, defaults.

A hook writes to a list of its file, a method remembers results in ``lru_cache``. A stand-in runs
copies of such code, which see copies of that state: fake tensors end up there.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from graphflops.capture.fake.copies import Copies

MISSING: Any = object()
_CONTAINERS = frozenset({list, dict, set, deque, bytearray, OrderedDict, defaultdict, Counter})
_IMMUTABLE = frozenset({int, float, bool, str, bytes, complex, type(None), type, torch.dtype})
_MEMORY: type = functools._lru_cache_wrapper
_STATELESS = {"torch", "numpy", "sympy", "graphflops", *sys.stdlib_module_names} - {"__main__"}
"""Packages whose functions keep nothing of what a model computes."""


def may_have_state(name: str | None) -> bool:
    """Return False for the code of packages that are known to keep nothing."""
    if name is None or name.partition(".")[0] in _STATELESS:
        return False
    return name.startswith("transformers.models.") or not name.startswith("transformers.")


@functools.cache
def is_installed(name: str) -> bool:
    """Return True for a module of a package, not a file of the user's."""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def is_state(value: Any, seen: set[int], *, declares: bool = False) -> bool:
    """Return True if a model could write to something that code names.

    Args:
        value: What a global, a closure or a default holds.
        seen: Identities of functions that are looked at already.
        declares: Whether the code is of an installed package: lists of names that stand there
            are not written to.
    """
    kind = type(value)
    if kind is types.FunctionType:
        return has_state(value, seen)
    if kind in _CONTAINERS:
        return not (declares and value and _IMMUTABLE.issuperset(map(type, value)))
    if kind is _MEMORY:
        return may_have_state(value.__module__)
    if kind is types.MethodType:
        return is_state(value.__self__, seen) or is_state(value.__func__, seen)
    if issubclass(kind, nn.Module | torch.Tensor | functools.partial | types.SimpleNamespace):
        return True
    # An object of a class of the user's own, no library's.
    return kind.__module__ == "__main__" and not issubclass(kind, type)


def has_state(function: types.FunctionType, seen: set[int]) -> bool:
    """Return True if a function could write to something that outlives its calls."""
    if id(function) in seen or not may_have_state(function.__module__):
        return False
    seen.add(id(function))
    named = _named_in(function.__code__)
    scope = function.__globals__
    held = (
        *(content(cell) for cell in function.__closure__ or ()),
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
        *vars(function).values(),
        *(scope[name] for name in named.globals if name in scope),
        *(_in_modules(scope, path) for path in named.paths),
    )
    declares = is_installed(function.__module__)
    return (
        named.stores
        or any(is_own_file(_in_modules(scope, path)) for path in named.written)
        or any(is_state(value, seen, declares=declares) for value in held)
    )


def is_own_file(value: object) -> bool:
    """Return True for a module that is a file of the user's, not of a package."""
    if type(value) is not types.ModuleType:
        return False
    return may_have_state(value.__name__) and not is_installed(value.__name__)


def _in_modules(scope: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return what a dotted name holds, as far as it leads through files of the user's."""
    value = scope.get(path[0], MISSING)
    for name in path[1:]:
        if not is_own_file(value):
            return MISSING
        value = vars(value).get(name, MISSING)
    return value


def content(cell: types.CellType) -> Any:
    """Return what a variable of an outer function holds, if it is there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


class _Named(NamedTuple):
    """What some code names.

    Attributes:
        globals: Names that may be globals.
        stores: Whether it writes to one.
        paths: Dotted names that begin with a global.
        written: Dotted names to an attribute of which it writes.
    """

    globals: frozenset[str]
    stores: bool
    paths: frozenset[tuple[str, ...]]
    written: frozenset[tuple[str, ...]]


@functools.cache
def _named_in(code: types.CodeType) -> _Named:
    """Return what some code, and that of functions within it, names."""
    paths, written, stored = set[tuple[str, ...]](), set[tuple[str, ...]](), set[str]()
    stores, path = False, tuple[str, ...]()
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        stores = stores or name in {"STORE_GLOBAL", "DELETE_GLOBAL"}
        if name in {"STORE_ATTR", "DELETE_ATTR"}:
            stored.add(value)
            written.add(path)
        if name in {"LOAD_GLOBAL", "LOAD_NAME"}:
            path = (value,)
        elif path and name in {"LOAD_ATTR", "LOAD_METHOD"}:
            path = (*path, value)
            paths.add(path)
        elif name not in {"COPY", "EXTENDED_ARG"}:
            path = ()
    written |= {path[:-1] for path in paths if path[-1] in stored}  # x.y += 1 reads x.y first
    own = _Named(frozenset(code.co_names), stores, frozenset(paths), frozenset(written - {()}))
    parts = [own, *(_named_in(one) for one in code.co_consts if isinstance(one, types.CodeType))]
    return _Named(
        frozenset().union(*(part.globals for part in parts)),
        any(part.stores for part in parts),
        frozenset().union(*(part.paths for part in parts)),
        frozenset().union(*(part.written for part in parts)),
    )


class Scope(dict[str, Any]):
    """Globals of a file as copies of its functions see them: state is copied when it is named.

    Args:
        original: The globals of the file.
        copies: The copies of what is in them.
    """

    def __init__(self, original: dict[str, Any], copies: Copies) -> None:
        super().__init__((k, v) for k, v in original.items() if k.startswith("__"))
        self._original, self._copies = original, copies

    def __missing__(self, name: str) -> Any:
        made = value = self._original[name]
        if is_own_file(value):
            made = _OwnFile(value, self._copies.scope(vars(value)))
        elif is_state(value, set()):
            made = self._copies.whole(value)
        self[name] = made
        return made


class _OwnFile(types.ModuleType):
    """A file of the user's as copies of functions see it that import it."""

    def __init__(self, original: types.ModuleType, scope: Scope) -> None:
        super().__init__(original.__name__)
        vars(self)[_SCOPE] = original, scope

    def __getattr__(self, name: str) -> Any:
        original, scope = vars(self)[_SCOPE]
        return scope[name] if name in vars(original) or name in scope else getattr(original, name)

    def __setattr__(self, name: str, value: object) -> None:
        vars(self)[_SCOPE][1][name] = value

    def __delattr__(self, name: str) -> None:
        del vars(self)[_SCOPE][1][name]


_SCOPE = "_graphflops_scope"


def own_function(copies: Copies, function: types.FunctionType) -> types.FunctionType:
    """Return a function that sees copies of what it could write to; itself if there is nothing."""
    if not has_state(function, set()):
        return function
    cells = function.__closure__ or ()
    own = tuple(types.CellType() for _ in cells)
    scope = copies.scope(function.__globals__)
    made = types.FunctionType(function.__code__, scope, function.__name__, None, own)
    copies.register(function, made)
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    made.__doc__, made.__annotations__ = function.__doc__, function.__annotations__

    def fill() -> None:
        for cell, other in zip(cells, own, strict=True):
            value = content(cell)
            if value is not MISSING:
                other.cell_contents = copies.of(value)
        made.__defaults__ = function.__defaults__ and tuple(map(copies.of, function.__defaults__))
        made.__kwdefaults__ = function.__kwdefaults__ and copies.attributes(function.__kwdefaults__)
        vars(made).update(copies.attributes(vars(function)))

    copies.later(fill)
    return made


def own_class(copies: Copies, kind: type) -> type:
    """Return a class whose methods see copies of what they could write to.

    It is a subclass, and so are its bases where they have state, so that ``super()`` finds copies
    too. The class itself is returned if there is no state.
    """
    bases = [base for base in kind.__mro__ if may_have_state(base.__module__)]
    changed = {base: members for base in bases if (members := dict(_members(copies, base)))}
    if not changed:
        return kind
    own = [
        _subclass(base, (base,), members) for base, members in changed.items() if base is not kind
    ]
    return _subclass(kind, (kind, *own), changed.get(kind, {}))


def _subclass(kind: type, bases: tuple[type, ...], members: Mapping[str, Any]) -> type:
    # Neither a metaclass nor a base is told: they may keep lists of classes.
    silent = type("Silent", (), {"__init_subclass__": classmethod(lambda _: None)})
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, _ORIGINAL: kind}
    return type.__new__(type(kind), kind.__name__, (silent, *bases), {**named, **members})


_ORIGINAL = "_graphflops_original"


def is_own_class(kind: type) -> bool:
    """Return True for a class that ``own_class`` has made."""
    return _ORIGINAL in vars(kind)


def _members(copies: Copies, kind: type) -> Iterator[tuple[str, Any]]:
    """Copies of the members of a class that have a state."""
    # Installed packages declare plans and names of layers in lists that nothing writes to.
    declares = is_installed(kind.__module__)
    for name, member in vars(kind).items():
        if name in {"__dict__", "__weakref__", "__init__", "__new__"}:
            continue
        own = member
        if isinstance(member, types.FunctionType):
            own = own_function(copies, member)
        elif isinstance(member, classmethod | staticmethod):
            function = copies.of(member.__func__)
            own = member if function is member.__func__ else type(member)(function)
        elif isinstance(member, property):
            parts = [member.fget, member.fset, member.fdel]
            copied = [copies.of(part) for part in parts]
            own = member if copied == parts else property(*copied)
        elif isinstance(member, _MEMORY | torch.Tensor) or (
            type(member) in _CONTAINERS and not (name.startswith("__") or declares)
        ):
            own = copies.of(member)
        if own is not member:
            yield name, own
