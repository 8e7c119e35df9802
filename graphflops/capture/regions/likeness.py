"""What modules and arguments are like, in terms that can be compared.

Two likenesses are equal only if a forward that sees no more than what they are made of does the
same work on both: the same classes, the same plain values, tensors of the same metadata that
share memory in the same way. What cannot be looked into is like itself alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import sympy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from graphflops.capture.regions import caches
from graphflops.capture.regions.held import kept, variables
from graphflops.capture.values import KnownValues

_PLAIN = {int, float, bool, str, bytes, complex, type(None), type(...)}
_VALUES = {torch.dtype, torch.device, torch.layout, torch.memory_format, range, slice}
_LISTS = {list, tuple, torch.Size}
_WITHOUT_STATE = (FunctionType, BuiltinFunctionType, ModuleType, type)
_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool)
_HELD = ("_parameters", "_buffers")
# A real one is like the fake one that it becomes.
_USUAL = {torch.Tensor, nn.Parameter, nn.Buffer, FakeTensor}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What every module has, beside which it is free to have attributes of its own.
MACHINERY = frozenset(vars(nn.Module())) - {"training"}
_FEW = 16
_MOST = 20_000
"""Values that are looked at before a thing is too large to be known."""


class Unlike(Exception):  # noqa: N818 - no error: a layer is captured in full
    """It is not known to be like anything."""


class Same:
    """A thing that is like itself alone."""

    __slots__ = ("thing",)

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


class Known:
    """A value that a tensor is known to have, as it was when it was looked at."""

    __slots__ = ("numbers", "value", "version")

    def __init__(self, value: torch.Tensor) -> None:
        if value.is_inference():  # it does not tell whether it has changed
            raise Unlike
        self.value = value
        self.version = value._version
        # A counter is written to by the very layer that has it.
        self.numbers: Any = None
        if value.numel() <= _FEW:
            with _disable_current_modes():
                self.numbers = value.tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Known):
            return False
        if self.numbers is not None:
            return bool(self.numbers == other.numbers)
        if self.value is other.value:
            return self.version == other.version
        still = not (self.has_changed(self.value) or other.has_changed(other.value))
        with _disable_current_modes():
            return still and torch.equal(self.value, other.value)

    def __hash__(self) -> int:
        return id(self.value)

    def has_changed(self, value: torch.Tensor | None) -> bool:
        """Whether a value of the same tensor is another one."""
        return value is not self.value or value._version != self.version


@dataclass(slots=True)
class Part:
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
class Likeness:
    """What some modules and arguments are like, looked at one after the other.

    Attributes:
        known: The values of fake tensors.
        parts: The modules.
        tensors: All tensors, in the order in which they first appear.
        hidden: Numbers of those that were put aside.
        caches: Caches of keys and values, whose entries are not looked at here.
    """

    known: KnownValues | None
    parts: list[Part] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    caches: list[Any] = field(default_factory=list)
    _values: list[Known | None] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict)
    _storages: dict[int, int] = field(default_factory=dict)
    _held: list[object] = field(default_factory=list)

    def subtree(self, module: nn.Module) -> None:
        """Look at a module and all below it.

        Raises:
            Unlike: One of them has hooks.
        """
        if self._number(module) is not None:
            return
        held = variables(module)
        if any(held.get(name) for name in _HOOKS):
            raise Unlike
        children = held["_modules"]
        hidden = [type(held[kind]) is not dict for kind in _HELD]
        parameters, buffers = (kept(held[kind]) for kind in _HELD)
        fixed = (
            _class_of(module),
            tuple([(name, self._held_by(t, hidden[0])) for name, t in parameters.items()]),
            tuple([(name, self._held_by(t, hidden[1])) for name, t in buffers.items()]),
            tuple(
                [
                    (name, child is None or id(child) in self._seen)
                    for name, child in children.items()
                ]
            ),
        )
        part = Part(module, held, fixed, {})
        self.parts.append(part)
        for child in children.values():
            if child is not None:
                self.subtree(child)
        for name, value in held.items():
            if name not in MACHINERY:
                part.plain[name] = self.of(value)

    def of(self, value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
        """What a value is like.

        Raises:
            Unlike: It is used up by being looked at, or too large.
        """
        kind = type(value)
        if kind in _PLAIN:
            return (kind, value)
        if kind in _VALUES:
            return value
        if isinstance(value, _NUMBERS):
            return (kind, value.node.expr)
        if isinstance(value, sympy.Basic):
            return value
        if isinstance(value, _WITHOUT_STATE):
            return self._function(value) if isinstance(value, FunctionType) else Same(value)
        if (number := self._number(value)) is not None:
            return ("again", number)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        return self._object(kind, value)

    def contents(self) -> Callable[[], None]:
        """What puts lists, dictionaries and globals back to what they hold now."""
        lists = [(held, list(held)) for held in self._held if type(held) is list]
        mappings = [(held, dict(held)) for held in self._held if type(held) is dict]
        seen = _seen_by_all(self.parts)
        plain = [(scope, name, scope[name]) for scope, name in seen if isinstance(scope, dict)]

        def restore() -> None:
            for held, content in lists:
                held[:] = content
            for mapping, items in mappings:
                mapping.clear()
                mapping.update(items)
            for scope, name, value in plain:
                scope[name] = value

        return restore

    def _number(self, value: object) -> int | None:
        """The number a thing has got when it was first seen; it gets one if this is the first."""
        number = len(self._seen)
        if number > _MOST:
            raise Unlike
        first = self._seen.setdefault(id(value), number)
        if first == number:
            self._held.append(value)
            return None
        return first

    def _function(self, value: FunctionType) -> Any:
        cells = value.__closure__
        if not cells or self._number(value) is not None:
            return Same(value)
        return (Same(value), tuple(_content(cell) for cell in cells))

    def _object(self, kind: type, value: Any) -> Any:  # noqa: PLR0911 - likewise
        if kind in _LISTS or isinstance(value, tuple):
            return (kind, tuple([self.of(item) for item in value]))
        if isinstance(value, Mapping) and hasattr(value, "items"):
            items = tuple([(self.of(key), self.of(item)) for key, item in value.items()])
            return (kind, items, self._state(value))
        if isinstance(value, set | frozenset):
            # Sets of plain values are all there is in practice.
            return (
                (kind, frozenset(value)) if all(type(v) in _PLAIN for v in value) else Same(value)
            )
        if isinstance(value, nn.Module):
            return Same(value)
        if isinstance(value, functools.partial):
            return (kind, self.of(value.func), self.of(value.args), self.of(value.keywords))
        if isinstance(value, MethodType):
            return (kind, Same(value.__func__), self.of(value.__self__))
        if hasattr(value, "__next__"):
            raise Unlike
        if caches.is_cache(value):
            self.caches.append(value)
            return (kind, self.of(caches.beside_entries(value)))
        if kind.__flags__ & 1 << 9 and hasattr(value, "__dict__") and _is_all_python(kind):
            return (kind, self._state(value))
        return Same(value)

    def _state(self, value: object) -> Any:
        held = getattr(value, "__dict__", None)
        return tuple([(name, self.of(item)) for name, item in held.items()]) if held else ()

    def _held_by(self, tensor: torch.Tensor | None, hidden: bool) -> Any:
        """What a parameter or a buffer is like; of those that are weights no value is known."""
        if tensor is None:
            return None
        number = self._number(tensor)
        if number is not None:
            return ("again", number)
        if hidden:
            self.hidden.add(len(self.tensors))
        weight = isinstance(tensor, nn.Parameter) or tensor.is_floating_point()
        return self._tensor(tensor, valued=not weight)

    def _tensor(self, tensor: torch.Tensor, *, valued: bool = True) -> Any:
        """What a tensor is like."""
        value = self.known.value(tensor) if valued and self.known is not None else None
        known = None if value is None else Known(value)
        self.tensors.append(tensor)
        self._values.append(known)
        if tensor.layout != torch.strided or tensor.is_nested:
            return Same(tensor)
        memory = tensor.untyped_storage()._cdata
        return (
            None if type(tensor) in _USUAL else type(tensor),
            tuple(tensor.shape) if _is_static(tensor) else sizes(tensor.shape),
            tensor.stride() if _is_static(tensor) else sizes(tensor.stride()),
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
            self._storages.setdefault(memory, len(self._storages)),
            size(tensor.storage_offset()),
            known,
        )

    def has_changed(self, number: int) -> bool:
        """Whether the known value of a tensor is another by now."""
        was = self._values[number]
        value = None if self.known is None else self.known.value(self.tensors[number])
        return value is not None if was is None else was.has_changed(value)


def size(value: int | torch.SymInt) -> Any:
    """A size that may be compared: asking a symbolic one would add a guard."""
    return value.node.expr if isinstance(value, torch.SymInt) else value


def sizes(values: Any) -> tuple[Any, ...]:
    """Sizes that may be compared."""
    return tuple(map(size, values))


def _is_static(tensor: torch.Tensor) -> bool:
    return not tensor._has_symbolic_sizes_strides


def _class_of(module: nn.Module) -> type:
    # Export's stand-ins are of a class of their own that comes before the module's.
    kind = type(module)
    return kind.__mro__[1] if kind.__bases__[0].__name__ == "AttrProxy" else kind


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
    return (type(content), content) if type(content) in _PLAIN else Same(content)


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


def surroundings(parts: list[Part]) -> tuple[Any, ...]:
    """Plain values of globals and classes that the methods of some modules name.

    Not those that functions they call name: a global that changes from layer to layer and is
    read at two removes goes unnoticed.
    """
    return tuple([scope.get(name) for scope, name in _seen_by_all(parts)])


def _seen_by_all(parts: list[Part]) -> Iterator[tuple[Mapping[str, Any], str]]:
    for kind in dict.fromkeys(part.fixed[0] for part in parts):
        yield from _seen_by(kind)
