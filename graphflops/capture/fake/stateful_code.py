"""Copies of functions and classes that have state outside of instances.

Globals, closures, defaults and ``lru_cache`` hold such state: a hook appends to a list of its
file. A fake model runs copies of the code that see copies of the state, where fake tensors may
be stored.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

MISSING: Any = object()
_CONTAINERS = frozenset({list, dict, set, deque, bytearray, OrderedDict, defaultdict, Counter})
_IMMUTABLE = frozenset({int, float, bool, str, bytes, complex, type(None), type, torch.dtype})
_LRU_CACHE: type = functools._lru_cache_wrapper
_STATELESS = {"torch", "numpy", "sympy", "graphflops", *sys.stdlib_module_names} - {"__main__"}
"""Packages whose functions store nothing that a model computes."""


class Copier(Protocol):
    """Copier of objects, as the copies of code use it."""

    def deepcopy(self, value: Any) -> Any:
        """Return the complete copy of an object."""
        ...

    def copy(self, value: Any) -> Any:
        """Return the copy of an object; its contents may be filled in later."""
        ...

    def copy_attributes(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Return the copy of a dictionary of attributes."""
        ...

    def copy_globals(self, original: dict[str, Any]) -> CopiedGlobals:
        """Return the globals of a file for copies of its functions."""
        ...

    def register(self, value: object, new: object) -> None:
        """Record the copy of an object, before its contents are copied."""
        ...

    def defer(self, fill: Callable[[], None]) -> None:
        """Fill in a copy after its container exists."""
        ...


def may_have_state(module_name: str | None) -> bool:
    """Return False for code of packages that are known to be stateless."""
    if module_name is None or module_name.partition(".")[0] in _STATELESS:
        return False
    if module_name.startswith("transformers.models."):
        return True
    return not module_name.startswith("transformers.")


@functools.cache
def is_installed(module_name: str) -> bool:
    """Return True for a module of an installed package, not a file of the user's."""
    file = getattr(sys.modules.get(module_name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def is_state(value: Any, seen: set[int], *, is_package: bool = False) -> bool:
    """Return True if a model could write to an object that code references.

    Args:
        value: Object in a global, a closure or a default.
        seen: Identities of functions that were inspected already.
        is_package: True if the code is of an installed package: its lists of constants are
            declarations that are not written to.
    """
    cls = type(value)
    if cls is types.FunctionType:
        return has_state(value, seen)
    if cls in _CONTAINERS:
        return not (is_package and value and _IMMUTABLE.issuperset(map(type, value)))
    if cls is _LRU_CACHE:
        return may_have_state(value.__module__)
    if cls is types.MethodType:
        return is_state(value.__self__, seen) or is_state(value.__func__, seen)
    if issubclass(cls, nn.Module | torch.Tensor | functools.partial | types.SimpleNamespace):
        return True
    # An instance of a class of the user's script, not of a library.
    return cls.__module__ == "__main__" and not issubclass(cls, type)


def has_state(function: types.FunctionType, seen: set[int]) -> bool:
    """Return True if a function could write to something that outlives its calls."""
    if id(function) in seen or not may_have_state(function.__module__):
        return False
    seen.add(id(function))
    code, scope = function.__code__, function.__globals__
    named = [scope[name] for name in _names(code) if name in scope]
    is_plain = not _may_store_globals(code) and not any(map(is_user_module, named))
    references = _References() if is_plain else _references(code)
    values = (
        *(cell_contents(cell) for cell in function.__closure__ or ()),
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
        *vars(function).values(),
        *named,
        *(_resolve(scope, path) for path in references.paths),
    )
    is_package = is_installed(function.__module__)
    return (
        references.stores_global
        or any(is_user_module(_resolve(scope, path)) for path in references.written)
        or any(is_state(value, seen, is_package=is_package) for value in values)
    )


def is_user_module(value: object) -> bool:
    """Return True for a module that is a file of the user's, not of a package."""
    if type(value) is not types.ModuleType:
        return False
    return may_have_state(value.__name__) and not is_installed(value.__name__)


def _resolve(scope: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return the value of a dotted name, as long as it leads through files of the user's."""
    value = scope.get(path[0], MISSING)
    for name in path[1:]:
        if not is_user_module(value):
            return MISSING
        value = vars(value).get(name, MISSING)
    return value


def cell_contents(cell: types.CellType) -> Any:
    """Return the value of a closure variable, or ``MISSING`` if it is not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


@functools.cache
def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names that code and the functions nested in it reference: globals, attributes."""
    return frozenset(code.co_names).union(*map(_names, _nested(code)))


@functools.cache
def _may_store_globals(code: types.CodeType) -> bool:
    """Return False for code without an instruction that assigns or deletes a global."""
    return not _GLOBAL_STORES.isdisjoint(code.co_code[::2]) or any(
        map(_may_store_globals, _nested(code))
    )


_STORES = ("STORE_GLOBAL", "DELETE_GLOBAL")
_GLOBAL_STORES = frozenset(dis.opmap[name] for name in _STORES)


def _nested(code: types.CodeType) -> list[types.CodeType]:
    return [const for const in code.co_consts if isinstance(const, types.CodeType)]


class _References(NamedTuple):
    """Dotted names that code references, and whether it stores globals.

    Attributes:
        stores_global: True if the code assigns or deletes a global.
        paths: Dotted names that begin with a global.
        written: Dotted names of objects with an attribute that the code assigns or deletes.
    """

    stores_global: bool = False
    paths: frozenset[tuple[str, ...]] = frozenset()
    written: frozenset[tuple[str, ...]] = frozenset()


@functools.cache
def _references(code: types.CodeType) -> _References:
    """Return what code and the functions nested in it reference."""
    paths, written, stored = set[tuple[str, ...]](), set[tuple[str, ...]](), set[str]()
    stores_global, path = False, tuple[str, ...]()
    for instruction in dis.get_instructions(code):
        opname, value = instruction.opname, instruction.argval
        stores_global = stores_global or opname in _STORES
        if opname in {"STORE_ATTR", "DELETE_ATTR"}:
            stored.add(value)
            written.add(path)
        if opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            path = (value,)
        elif path and opname in {"LOAD_ATTR", "LOAD_METHOD"}:
            path = (*path, value)
            paths.add(path)
        elif opname not in {"COPY", "EXTENDED_ARG"}:
            path = ()
    written |= {path[:-1] for path in paths if path[-1] in stored}  # x.y += 1 reads x.y first
    parts = [
        _References(stores_global, frozenset(paths), frozenset(written - {()})),
        *map(_references, _nested(code)),
    ]
    return _References(
        any(part.stores_global for part in parts),
        frozenset().union(*(part.paths for part in parts)),
        frozenset().union(*(part.written for part in parts)),
    )


class CopiedGlobals(dict[str, Any]):
    """Globals of a file for copies of its functions: state is copied on first access.

    Args:
        original: Globals of the file.
        copier: Copier of their values.
    """

    def __init__(self, original: dict[str, Any], copier: Copier) -> None:
        super().__init__((k, v) for k, v in original.items() if k.startswith("__"))
        self._original, self._copier = original, copier

    def __missing__(self, name: str) -> Any:
        new = value = self._original[name]
        if is_user_module(value):
            new = _CopiedModule(value, self._copier.copy_globals(vars(value)))
        elif is_state(value, set()):
            new = self._copier.deepcopy(value)
        self[name] = new
        return new


class _CopiedModule(types.ModuleType):
    """A file of the user's for copies of the functions that import it."""

    def __init__(self, original: types.ModuleType, scope: CopiedGlobals) -> None:
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


def copy_function(copier: Copier, function: types.FunctionType) -> types.FunctionType:
    """Return a function that sees copies of its state, or the function itself if it has none."""
    if not has_state(function, set()):
        return function
    cells = function.__closure__ or ()
    new_cells = tuple(types.CellType() for _ in cells)
    scope = copier.copy_globals(function.__globals__)
    new = types.FunctionType(function.__code__, scope, function.__name__, None, new_cells)
    copier.register(function, new)
    new.__qualname__, new.__module__ = function.__qualname__, function.__module__
    new.__doc__, new.__annotations__ = function.__doc__, function.__annotations__

    def fill() -> None:
        for cell, new_cell in zip(cells, new_cells, strict=True):
            value = cell_contents(cell)
            if value is not MISSING:
                new_cell.cell_contents = copier.copy(value)
        new.__defaults__ = function.__defaults__ and tuple(map(copier.copy, function.__defaults__))
        new.__kwdefaults__ = function.__kwdefaults__ and copier.copy_attributes(
            function.__kwdefaults__
        )
        vars(new).update(copier.copy_attributes(vars(function)))

    copier.defer(fill)
    return new


def copy_class(copier: Copier, cls: type) -> type:
    """Return a class whose methods see copies of their state.

    It is a subclass, and so are the copies of its bases that have state, so that ``super()``
    finds copies too. A class without state is returned itself.
    """
    bases = [base for base in cls.__mro__ if may_have_state(base.__module__)]
    changed = {base: members for base in bases if (members := dict(_members(copier, base)))}
    if not changed:
        return cls
    new_bases = [
        _subclass(base, (base,), members) for base, members in changed.items() if base is not cls
    ]
    return _subclass(cls, (cls, *new_bases), changed.get(cls, {}))


def _subclass(cls: type, bases: tuple[type, ...], members: Mapping[str, Any]) -> type:
    # Neither the metaclass nor a base is notified: they may keep lists of subclasses.
    silent = type("Silent", (), {"__init_subclass__": classmethod(lambda _: None)})
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, _ORIGINAL: cls}
    return type.__new__(type(cls), cls.__name__, (silent, *bases), {**names, **members})


_ORIGINAL = "_graphflops_original"


def is_copied_class(cls: type) -> bool:
    """Return True for a class that ``copy_class`` has made."""
    return _ORIGINAL in vars(cls)


@functools.cache
def stateful_methods(cls: type) -> frozenset[str] | None:
    """Return the names of a class's methods that see copies of state outside of instances.

    Returns:
        ``None`` if an instance may see such state without a lookup of one of these names on it:
        in its forward, a special method, an attribute of the class, by ``super()``.
    """
    changed = [base for base in cls.__mro__ if is_copied_class(base)]
    members = [(n, m) for base in changed for n, m in vars(base).items() if n not in _OWN_NAMES]
    names = frozenset(name for name, _ in members)
    if not names:
        return names
    methods = (types.FunctionType, classmethod, staticmethod, property)
    if "forward" in names or any(name.startswith("__") for name in names):
        return None
    if not all(isinstance(member, methods) for _, member in members):
        return None
    classes = {base.__name__ for base in cls.__mro__}
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.FunctionType) and name not in names | {"__init__"}:
                used = _names(member.__code__)
                if names & used and used & {*classes, "super", "type", "__class__"}:
                    return None
    return names


_OWN_NAMES = {"__module__", "__qualname__", "__doc__", _ORIGINAL}


def _members(copier: Copier, cls: type) -> Iterator[tuple[str, Any]]:
    """Yield copies of the members of a class that have state."""
    # Installed packages declare plans and layer names in lists that nothing writes to.
    is_package = is_installed(cls.__module__)
    for name, member in vars(cls).items():
        if name in {"__dict__", "__weakref__", "__init__", "__new__"}:
            continue
        new = member
        if isinstance(member, types.FunctionType):
            new = copy_function(copier, member)
        elif isinstance(member, classmethod | staticmethod):
            function = copier.copy(member.__func__)
            new = member if function is member.__func__ else type(member)(function)
        elif isinstance(member, property):
            accessors = [member.fget, member.fset, member.fdel]
            new_accessors = [copier.copy(accessor) for accessor in accessors]
            new = member if new_accessors == accessors else property(*new_accessors)
        elif isinstance(member, _LRU_CACHE | torch.Tensor) or (
            type(member) in _CONTAINERS and not (name.startswith("__") or is_package)
        ):
            new = copier.copy(member)
        if new is not member:
            yield name, new
