"""Fingerprints of modules and arguments: equal fingerprints imply equal traces.

Two fingerprints are equal only if a forward that sees no more than what they cover does the same
work on both: the same classes, the same plain values, tensors of the same metadata that share
storages in the same way. An opaque object equals itself alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from numbers import Number
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import sympy
import torch
from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.leaves import size_key
from graphflops.capture.fake.stateful_code import stateful_methods
from graphflops.capture.layer_reuse import kv_caches
from graphflops.capture.layer_reuse.module_dict import module_dict
from graphflops.capture.layer_reuse.outside_state import PLAIN_TYPES, IdentityKey, cell_contents
from graphflops.capture.named_modules import own_attributes
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.no_modes import no_modes

_VALUE_TYPES = {torch.dtype, torch.device, torch.layout, torch.memory_format, range, slice}
_STATELESS_TYPES = (FunctionType, BuiltinFunctionType, ModuleType, type)
# Numbers of NumPy among them; plain ones have their own way.
_IMMUTABLE_TYPES = (Number, re.Pattern, Enum)
_SYMBOLIC_TYPES = (torch.SymInt, torch.SymFloat, torch.SymBool)
# A real tensor equals the fake one that it becomes.
_STANDARD_TENSOR_TYPES = {torch.Tensor, nn.Parameter, nn.Buffer, FakeTensor}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_SNAPSHOT_NUMEL = 16
"""Number of elements up to which a value is copied, to compare it after a write."""
_MAX_OBJECTS = 20_000
"""Number of objects above which a fingerprint is given up."""


class NotComparable(Exception):  # noqa: N818 - no error: a layer is captured in full
    """The object has no fingerprint."""


class ValueKey:
    """Key of a tensor's tracked value, as of the construction of the key."""

    __slots__ = ("elements", "value", "version")

    def __init__(self, value: torch.Tensor) -> None:
        if value.is_inference():  # it has no version counter
            raise NotComparable
        self.value = value
        self.version = value._version
        # Copied, since a layer with a counter writes to it: the old value is compared later.
        self.elements: Any = None
        if value.numel() <= _SNAPSHOT_NUMEL:
            with no_modes():
                self.elements = value.tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ValueKey):
            return False
        if self.elements is not None:
            return bool(self.elements == other.elements)
        if self.value is other.value:
            return self.version == other.version
        unchanged = not (self.has_changed(self.value) or other.has_changed(other.value))
        with no_modes():
            return unchanged and torch.equal(self.value, other.value)

    def __hash__(self) -> int:
        return id(self.value)

    def has_changed(self, value: torch.Tensor | None) -> bool:
        """Return True if the tensor's ``value`` is another object or has been written to."""
        return value is not self.value or value._version != self.version


@dataclass(slots=True)
class ModuleState:
    """State of one module of a subtree.

    Attributes:
        module: The module.
        module_dict: Its attribute dictionary.
        structure: Class, parameters, buffers, names of children.
        attributes: Fingerprints of its other attributes, by name.
    """

    module: nn.Module
    module_dict: dict[str, Any]
    structure: tuple[Any, ...]
    attributes: dict[str, Any]


@dataclass(slots=True)
class Fingerprint:
    """Fingerprint of modules and arguments, which are added one after the other.

    Attributes:
        values: Tracker of the values of fake tensors; ``None`` to ignore values.
        modules: States of the modules.
        tensors: All tensors, in the order in which they first appear.
        caches: KV caches, whose entries are not part of the fingerprint.
        has_outside_modules: True if there are modules among the values, of which only the
            identity is part of the fingerprint.
    """

    values: ValueTracker | None
    modules: list[ModuleState] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    caches: list[Any] = field(default_factory=list)
    has_outside_modules: bool = False
    _value_keys: list[ValueKey | None] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _storages: dict[int, tuple[int, Any]] = field(default_factory=dict)
    _keep_alive: list[object] = field(default_factory=list)

    def copy(self) -> Fingerprint:
        """Return a copy, to which more may be added."""
        return Fingerprint(
            values=self.values,
            modules=self.modules,
            tensors=self.tensors.copy(),
            caches=self.caches.copy(),
            has_outside_modules=self.has_outside_modules,
            _value_keys=self._value_keys.copy(),
            _numbers=self._numbers.copy(),
            _storages=self._storages.copy(),
            _keep_alive=self._keep_alive.copy(),
        )

    def add_module(self, module: nn.Module) -> None:
        """Add a module and its descendants.

        Raises:
            NotComparable: One of them has hooks, or state outside of its instance.
        """
        if self._number(module) is not None:
            return
        attributes = module_dict(module)
        cls: type = type(module)
        # State that a class keeps outside of its instances may differ in each call.
        if any(attributes.get(name) for name in _HOOKS) or stateful_methods(cls) is None:
            raise NotComparable
        parameters, buffers, children = (
            attributes["_parameters"],
            attributes["_buffers"],
            attributes["_modules"],
        )
        structure = (
            cls,
            "_call_impl" in attributes,  # else it was made by the forward and has no path
            (*parameters, *map(self._module_tensor, parameters.values())),
            (*buffers, *map(self._module_tensor, buffers.values())),
            (*children, *[c is None or id(c) in self._numbers for c in children.values()]),
        )
        state = ModuleState(module, attributes, structure, {})
        self.modules.append(state)
        for child in children.values():
            if child is not None:
                self.add_module(child)
        for name in own_attributes(tuple(attributes)):
            value = attributes[name]
            is_plain = type(value) in PLAIN_TYPES
            state.attributes[name] = (type(value), value) if is_plain else self.add(value)

    def add(self, value: Any) -> Any:
        """Add a value and return its fingerprint.

        Raises:
            NotComparable: It is an iterator, which a look would use up, or too large.
        """
        cls: type = type(value)
        if cls in PLAIN_TYPES:
            return (cls, value)
        visit, may_be_shared = _visitor(cls)
        if may_be_shared and (number := self._number(value)) is not None:
            return ("alias", number)
        return visit(self, value)

    def _number(self, value: object) -> int | None:
        """Return the number of an object seen before; number a new one and return ``None``."""
        number = len(self._numbers)
        if number > _MAX_OBJECTS:
            raise NotComparable
        first = self._numbers.setdefault(id(value), number)
        if first == number:
            self._keep_alive.append(value)
            return None
        return first

    def _function(self, value: FunctionType) -> Any:
        cells = value.__closure__
        if not cells or self._number(value) is not None:
            return IdentityKey(value)
        return (IdentityKey(value), self._sequence(map(cell_contents, cells)))

    def _outside_module(self, value: nn.Module) -> Any:
        self.has_outside_modules = True
        return IdentityKey(value)

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        keys, items = self._sequence(value.keys()), self._sequence(value.values())
        return (type(value), keys, items, self._state(value))

    def _partial(self, value: functools.partial[Any]) -> Any:
        return (type(value), self.add(value.func), self.add(value.args), self.add(value.keywords))

    def _method(self, value: MethodType) -> Any:
        return (MethodType, IdentityKey(value.__func__), self.add(value.__self__))

    def _object(self, value: object) -> Any:
        if kv_caches.is_cache(value):
            self.caches.append(value)
            return (type(value), self.add(kv_caches.state_outside_entries(value)))
        cls: type = type(value)
        is_transparent = cls.__dictoffset__ and _is_pure_python(cls)
        if not is_transparent and not isinstance(value, _IMMUTABLE_TYPES):
            raise NotComparable(value)  # its state may change unseen
        return (cls, self._state(value)) if is_transparent else (cls, value)

    def _state(self, value: object) -> Any:
        if not type(value).__dictoffset__:
            return ()
        # Some configs override the lookup of attributes.
        attributes = object.__getattribute__(value, "__dict__")
        return (tuple(attributes), self._sequence(attributes.values())) if attributes else ()

    def _sequence(self, values: Iterable[Any]) -> Any:
        """Return the fingerprint of several values: their classes, and plain ones themselves."""
        keys = list(values)
        types = tuple(map(type, keys))
        if not PLAIN_TYPES.issuperset(types):
            pairs = zip(types, keys, strict=True)
            keys = [value if cls in PLAIN_TYPES else self.add(value) for cls, value in pairs]
        return types, tuple(keys)

    def _module_tensor(self, tensor: torch.Tensor | None) -> Any:
        """Return the fingerprint of a parameter or a buffer; the value of a weight is ignored."""
        if tensor is None:
            return None
        if (number := self._number(tensor)) is not None:
            return ("alias", number)
        return self._tensor(tensor, with_value=not tensor.is_floating_point())

    def _tensor(self, tensor: torch.Tensor, *, with_value: bool = True) -> Any:
        """Return the fingerprint of a tensor."""
        value = self.values.value(tensor) if with_value and self.values is not None else None
        value_key = None if value is None else ValueKey(value)
        self.tensors.append(tensor)
        self._value_keys.append(value_key)
        if tensor.layout != torch.strided or tensor.is_nested or _has_hooks(tensor):
            return IdentityKey(tensor)
        shape, strides = tensor.shape, tensor.stride()
        is_symbolic = tensor._has_symbolic_sizes_strides
        offset = size_key(tensor.storage_offset())
        # Where in memory the first tensor of a storage lies makes no difference, as for a slice of
        # each time step; where others lie beside it does.
        number, first_offset = self._storages.setdefault(
            tensor.untyped_storage()._cdata, (len(self._storages), offset)
        )
        return (
            None if type(tensor) in _STANDARD_TENSOR_TYPES else type(tensor),
            _size_keys(shape) if is_symbolic else shape,
            _size_keys(strides) if is_symbolic else strides,
            offset - first_offset,
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
            number,
            self._knowledge(tensor) if with_value and value_key is None else value_key,
        )

    def _knowledge(self, tensor: torch.Tensor) -> Any:
        """Return what is known of the elements of a tensor without a value."""
        values = self.values
        if values is None:
            return None
        bound = None if tensor.is_floating_point() else values.distinct.bound(tensor)
        element = values.elements.get(tensor)
        return None if bound is None and element is None else (bound, element)

    def has_changed(self, number: int) -> bool:
        """Return True if the tracked value of tensor ``number`` has changed since it was added."""
        key = self._value_keys[number]
        value = None if self.values is None else self.values.value(self.tensors[number])
        return value is not None if key is None else key.has_changed(value)


def _has_hooks(tensor: torch.Tensor) -> bool:
    if not tensor.requires_grad:
        return False
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


def _size_keys(values: Any) -> tuple[Any, ...]:
    """Return keys of several sizes."""
    return tuple(map(size_key, values))


@functools.cache
def _visitor(cls: type) -> tuple[Callable[[Fingerprint, Any], Any], bool]:  # noqa: PLR0911 - a table
    """Return the visitor of values of a class, and True if aliases among them matter."""
    if cls in _VALUE_TYPES or issubclass(cls, sympy.Basic):
        return lambda _, value: value, False
    if issubclass(cls, _SYMBOLIC_TYPES):
        return lambda _, value: (cls, value.node.expr), False
    if issubclass(cls, FunctionType):
        return Fingerprint._function, False
    if issubclass(cls, _STATELESS_TYPES):
        return lambda _, value: IdentityKey(value), False
    for base, visit in _VISITORS.items():
        if issubclass(cls, base):
            return visit, True
    if hasattr(cls, "__next__"):
        return _refuse, False
    return Fingerprint._object, True


def _refuse(_: Fingerprint, value: object) -> Any:
    raise NotComparable(value)


def _set(_: Fingerprint, value: Any) -> Any:
    # In practice sets hold plain values.
    if not PLAIN_TYPES.issuperset(map(type, value)):
        raise NotComparable(value)
    return (type(value), frozenset(value))


_VISITORS: dict[Any, Callable[[Fingerprint, Any], Any]] = {
    torch.Tensor: Fingerprint._tensor,
    list | tuple: lambda fingerprint, value: (type(value), fingerprint._sequence(value)),
    Mapping: Fingerprint._mapping,
    set | frozenset: _set,
    nn.Module: Fingerprint._outside_module,
    functools.partial: Fingerprint._partial,
    MethodType: Fingerprint._method,
}


@functools.cache
def _is_pure_python(cls: type) -> bool:
    """Return True if instances keep all state in attributes: no base is an extension class."""
    return all(base is object or base.__flags__ & 1 << 9 for base in cls.__mro__) and not any(
        "__slots__" in vars(base) and vars(base)["__slots__"] for base in cls.__mro__
    )
