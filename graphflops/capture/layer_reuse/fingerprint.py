"""What modules and arguments are like, in terms that can be compared.

Two likenesses are equal only if a forward that sees no more than what they are made of does the
same work on both: the same classes, the same plain values, tensors of the same metadata that
share memory in the same way. What cannot be looked into is like itself alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import sympy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.stateful_code import is_copied_class
from graphflops.capture.layer_reuse import kv_caches
from graphflops.capture.layer_reuse.module_dict import variables
from graphflops.capture.torch_internals.no_modes import no_modes

_PLAIN = {int, float, bool, str, bytes, complex, type(None), type(...)}
_VALUES = {torch.dtype, torch.device, torch.layout, torch.memory_format, range, slice}
_WITHOUT_STATE = (FunctionType, BuiltinFunctionType, ModuleType, type)
_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool)
# A real one is like the fake one that it becomes.
_USUAL = {torch.Tensor, nn.Parameter, nn.Buffer, FakeTensor}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What every module has, beside which it is free to have attributes of its own.
MACHINERY = frozenset(vars(nn.Module())) - {"training"} | {"_call_impl"}
_FEW = 16
_MOST = 20_000
"""Values that are looked at before a thing is too large to be known."""


class NotComparable(Exception):  # noqa: N818 - no error: a layer is captured in full
    """It is not known to be like anything."""


class IdentityKey:
    """A thing that is like itself alone."""

    __slots__ = ("thing",)

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


class Known:
    """A value that a tensor is known to have, as it was when it was looked at."""

    __slots__ = ("numbers", "value", "version")

    def __init__(self, value: torch.Tensor) -> None:
        if value.is_inference():  # it does not tell whether it has changed
            raise NotComparable
        self.value = value
        self.version = value._version
        # A counter is written to by the very layer that has it.
        self.numbers: Any = None
        if value.numel() <= _FEW:
            with no_modes():
                self.numbers = value.tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Known):
            return False
        if self.numbers is not None:
            return bool(self.numbers == other.numbers)
        if self.value is other.value:
            return self.version == other.version
        still = not (self.has_changed(self.value) or other.has_changed(other.value))
        with no_modes():
            return still and torch.equal(self.value, other.value)

    def __hash__(self) -> int:
        return id(self.value)

    def has_changed(self, value: torch.Tensor | None) -> bool:
        """Whether a value of the same tensor is another one."""
        return value is not self.value or value._version != self.version


@dataclass(slots=True)
class ModuleState:
    """A module of a subtree.

    Attributes:
        module: The module.
        held: Its attribute dictionary.
        fixed: Class, parameters, buffers, names of children.
        plain: What its attributes are like, by name.
    """

    module: nn.Module
    held: dict[str, Any]
    fixed: tuple[Any, ...]
    plain: dict[str, Any]


@dataclass(slots=True)
class Fingerprint:
    """What some modules and arguments are like, looked at one after the other.

    Attributes:
        known: The values of fake tensors.
        parts: The modules.
        tensors: All tensors, in the order in which they first appear.
        caches: Caches of keys and values, whose entries are not looked at here.
    """

    known: ValueTracker | None
    parts: list[ModuleState] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    caches: list[Any] = field(default_factory=list)
    _values: list[Known | None] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict)
    _storages: dict[int, int] = field(default_factory=dict)
    _held: list[object] = field(default_factory=list)

    def copy(self) -> Fingerprint:
        """Return another, in which more may be looked at."""
        return Fingerprint(
            known=self.known,
            parts=self.parts,
            tensors=self.tensors.copy(),
            caches=self.caches.copy(),
            _values=self._values.copy(),
            _seen=self._seen.copy(),
            _storages=self._storages.copy(),
            _held=self._held.copy(),
        )

    def subtree(self, module: nn.Module) -> None:
        """Look at a module and all below it.

        Raises:
            Unlike: One of them has hooks, or a state outside of it.
        """
        if self._number(module) is not None:
            return
        held = variables(module)
        # What a class keeps outside of its instances may be another thing in each call.
        if any(held.get(name) for name in _HOOKS) or is_copied_class(type(module)):
            raise NotComparable
        parameters, buffers, children = held["_parameters"], held["_buffers"], held["_modules"]
        fixed = (
            type(module),
            (*parameters, *map(self._weight, parameters.values())),
            (*buffers, *map(self._weight, buffers.values())),
            (*children, *[c is None or id(c) in self._seen for c in children.values()]),
        )
        part = ModuleState(module, held, fixed, {})
        self.parts.append(part)
        for child in children.values():
            if child is not None:
                self.subtree(child)
        for name in _own(tuple(held)):
            value = held[name]
            kind = type(value)
            part.plain[name] = (kind, value) if kind in _PLAIN else self.of(value)

    def of(self, value: Any) -> Any:
        """What a value is like.

        Raises:
            Unlike: It is used up by being looked at, or too large.
        """
        kind: type = type(value)
        if kind in _PLAIN:
            return (kind, value)
        look, may_be_shared = _way(kind)
        if may_be_shared and (number := self._number(value)) is not None:
            return ("again", number)
        return look(self, value)

    def _number(self, value: object) -> int | None:
        """The number a thing has got when it was first seen; it gets one if this is the first."""
        number = len(self._seen)
        if number > _MOST:
            raise NotComparable
        first = self._seen.setdefault(id(value), number)
        if first == number:
            self._held.append(value)
            return None
        return first

    def _function(self, value: FunctionType) -> Any:
        cells = value.__closure__
        if not cells or self._number(value) is not None:
            return IdentityKey(value)
        return (IdentityKey(value), tuple(_content(cell) for cell in cells))

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        keys, items = self._several(value.keys()), self._several(value.values())
        return (type(value), keys, items, self._state(value))

    def _partial(self, value: functools.partial[Any]) -> Any:
        return (type(value), self.of(value.func), self.of(value.args), self.of(value.keywords))

    def _method(self, value: MethodType) -> Any:
        return (MethodType, IdentityKey(value.__func__), self.of(value.__self__))

    def _object(self, value: object) -> Any:
        if kv_caches.is_cache(value):
            self.caches.append(value)
            return (type(value), self.of(kv_caches.beside_entries(value)))
        kind: type = type(value)
        known = kind.__dictoffset__ and _is_all_python(kind)
        return (kind, self._state(value)) if known else IdentityKey(value)

    def _state(self, value: object) -> Any:
        if not type(value).__dictoffset__:
            return ()
        # Some configs look their attributes up in a way of their own.
        held = object.__getattribute__(value, "__dict__")
        return (tuple(held), self._several(held.values())) if held else ()

    def _several(self, values: Iterable[Any]) -> Any:
        """What some values are like: their classes, and they themselves where they are plain."""
        found = list(values)
        kinds = tuple(map(type, found))
        if not _PLAIN.issuperset(kinds):
            pairs = zip(kinds, found, strict=True)
            found = [value if kind in _PLAIN else self.of(value) for kind, value in pairs]
        return kinds, tuple(found)

    def _weight(self, tensor: torch.Tensor | None) -> Any:
        """What a parameter or a buffer is like, of which no value is known if it is a weight."""
        if tensor is None:
            return None
        if (number := self._number(tensor)) is not None:
            return ("again", number)
        return self._tensor(tensor, valued=not tensor.is_floating_point())

    def _tensor(self, tensor: torch.Tensor, *, valued: bool = True) -> Any:
        """What a tensor is like."""
        value = self.known.value(tensor) if valued and self.known is not None else None
        known = None if value is None else Known(value)
        self.tensors.append(tensor)
        self._values.append(known)
        if tensor.layout != torch.strided or tensor.is_nested or _has_hooks(tensor):
            return IdentityKey(tensor)
        shape, strides, offset = tensor.shape, tensor.stride(), tensor.storage_offset()
        is_symbolic = tensor._has_symbolic_sizes_strides
        memory = tensor.untyped_storage()._cdata
        return (
            None if type(tensor) in _USUAL else type(tensor),
            sizes(shape) if is_symbolic else shape,
            sizes(strides) if is_symbolic else strides,
            size(offset) if is_symbolic else offset,
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
            self._storages.setdefault(memory, len(self._storages)),
            known,
        )

    def has_changed(self, number: int) -> bool:
        """Whether the known value of a tensor is another by now."""
        was = self._values[number]
        value = None if self.known is None else self.known.value(self.tensors[number])
        return value is not None if was is None else was.has_changed(value)


def _has_hooks(tensor: torch.Tensor) -> bool:
    if not tensor.requires_grad:
        return False
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


@functools.cache
def _own(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of the names of a module's attributes those that not every module has."""
    return tuple(name for name in names if name not in MACHINERY)


def size(value: int | torch.SymInt) -> Any:
    """A size that may be compared: asking a symbolic one would add a guard."""
    return value.node.expr if isinstance(value, torch.SymInt) else value


def sizes(values: Any) -> tuple[Any, ...]:
    """Sizes that may be compared."""
    return tuple(map(size, values))


@functools.cache
def _way(kind: type) -> tuple[Callable[[Fingerprint, Any], Any], bool]:  # noqa: PLR0911 - a table
    """How values of a class are looked at, and whether it matters if they are the same one."""
    if kind in _VALUES or issubclass(kind, sympy.Basic):
        return lambda _, value: value, False
    if issubclass(kind, _NUMBERS):
        return lambda _, value: (kind, value.node.expr), False
    if issubclass(kind, FunctionType):
        return Fingerprint._function, False
    if issubclass(kind, _WITHOUT_STATE):
        return lambda _, value: IdentityKey(value), False
    for base, look in _WAYS.items():
        if issubclass(kind, base):
            return look, True
    if hasattr(kind, "__next__"):
        return _refuse, False
    return Fingerprint._object, True


def _refuse(_: Fingerprint, value: object) -> Any:
    raise NotComparable(value)


def _set(_: Fingerprint, value: Any) -> Any:
    # Sets of plain values are all there is in practice.
    is_plain = _PLAIN.issuperset(map(type, value))
    return (type(value), frozenset(value)) if is_plain else IdentityKey(value)


_WAYS: dict[Any, Callable[[Fingerprint, Any], Any]] = {
    torch.Tensor: Fingerprint._tensor,
    list | tuple: lambda look, value: (type(value), look._several(value)),
    Mapping: Fingerprint._mapping,
    set | frozenset: _set,
    nn.Module: lambda _, value: IdentityKey(value),
    functools.partial: Fingerprint._partial,
    MethodType: Fingerprint._method,
}


@functools.cache
def _is_all_python(kind: type) -> bool:
    """Whether instances have no state but attributes: all bases are classes written in Python."""
    return all(base is object or base.__flags__ & 1 << 9 for base in kind.__mro__) and not any(
        "__slots__" in vars(base) and vars(base)["__slots__"] for base in kind.__mro__
    )


def _content(cell: Any) -> Any:
    try:
        content = cell.cell_contents
    except ValueError:  # not filled yet
        return None
    return (type(content), content) if type(content) in _PLAIN else IdentityKey(content)


@functools.cache
def _seen_by(kind: type) -> tuple[tuple[Mapping[str, Any], str], ...]:
    """Plain values outside of its instances that the methods of a class may see."""
    found: dict[tuple[int, str], tuple[Mapping[str, Any], str]] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("torch.") or base is object:
            continue
        for name, value in vars(base).items():
            if type(value) in _PLAIN and not name.startswith("__"):
                found[id(base), name] = (vars(base), name)
            function = getattr(value, "__wrapped__", value)
            if isinstance(function, FunctionType):
                scope = function.__globals__
                for used in function.__code__.co_names:
                    if type(scope.get(used, ...)) in _PLAIN - {type(...)}:
                        found[id(scope), used] = (scope, used)
    return tuple(found.values())


def surroundings(parts: list[ModuleState]) -> tuple[Any, ...]:
    """Plain values of globals and classes that the methods of some modules name.

    Not those that functions they call name: a global that changes from layer to layer and is
    read at two removes goes unnoticed.
    """
    kinds: list[type] = list(dict.fromkeys([type(part.module) for part in parts]))
    return tuple([scope.get(name) for kind in kinds for scope, name in _seen_by(kind)])
