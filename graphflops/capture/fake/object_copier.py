"""Deep copies of the objects that modules and inputs reference, functions and closures included.

Every object that a forward could write to is copied once, so that shared references and cycles
are kept. Immutable objects are shared with the original.
"""

from __future__ import annotations

import copy
import functools
import logging
import operator
import random
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cache
from typing import Any, TypeAlias

import sympy
import torch
from torch import fx, nn

from graphflops.capture.fake.stateful_code import CopiedGlobals, copy_function
from graphflops.capture.torch_internals.operators import (
    HigherOrderOperator,
    OpOverload,
    OpOverloadPacket,
)
from graphflops.errors import CaptureError

_CopyMethod: TypeAlias = Callable[["ObjectCopier", Any], Any]
_MISSING = object()
IMMUTABLE = frozenset(
    {int, float, bool, str, bytes, complex, type(None), type(...), range, slice, type}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size}
    | {types.ModuleType, types.CodeType, property}
)
"""Classes of immutable values, and of values that belong to no model."""
_NOT_COPIED = (
    *(type, types.ModuleType, Enum, logging.Logger, sympy.Basic),
    *(fx.Graph, fx.Node, torch.jit.ScriptFunction, threading.Thread),
    *(OpOverload, OpOverloadPacket, HigherOrderOperator),
    *(torch.SymInt, torch.SymFloat, torch.SymBool),
)
"""Base classes of objects that are not state of a model."""
_DICT_CLASSES = (OrderedDict, defaultdict, dict)
_LOCKS: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}


class ObjectCopier:
    """Copies objects, each once; subclasses define the copies of tensors and modules.

    Attributes:
        module_path: Path of the module whose attributes are being copied.
    """

    def __init__(self) -> None:
        self._copies: dict[int, Any] = {}
        self._originals: list[object] = []
        self._pending: deque[tuple[str, Callable[[], None]]] = deque()
        self.module_path = ""

    def copy_tensor(self, value: torch.Tensor) -> Any:
        """Return the copy of a tensor."""
        raise NotImplementedError

    def copy_module(self, value: nn.Module) -> Any:
        """Return the copy of a module."""
        raise NotImplementedError

    def deepcopy(self, value: Any) -> Any:
        """Return the complete copy of an object."""
        new = self.copy(value)
        while self._pending:
            self.module_path, fill = self._pending.popleft()
            fill()
        return new

    def copy(self, value: Any) -> Any:
        """Return the copy of an object; its contents may be filled in later."""
        cls: type = type(value)
        if cls in IMMUTABLE:
            return value
        new = self._copies.get(id(value), _MISSING)
        if new is not _MISSING:
            return new
        copy_method: _CopyMethod = _copy_method(cls)
        new = copy_method(self, value)
        if id(value) not in self._copies:
            self.register(value, new)
        return new

    def existing(self, value: object) -> Any:
        """Return the copy of an object if there is one already, else None."""
        return self._copies.get(id(value))

    def register(self, value: object, new: object) -> None:
        """Record the copy of an object, before its contents are copied."""
        self._copies[id(value)] = new
        self._originals.append(value)  # an id is unique only while its object is alive

    def defer(self, fill: Callable[[], None]) -> None:
        """Fill in a copy after its container exists: recursion could be too deep."""
        self._pending.append((self.module_path, fill))

    def error(self, reason: str, advice: str) -> CaptureError:
        """Return the error of an object that cannot be copied."""
        return CaptureError(f"{self.module_path or 'the model'} {reason}. {advice}")

    def copy_globals(self, original: dict[str, Any]) -> CopiedGlobals:
        """Return the globals of a file for copies of its functions."""
        new = self._copies.get(id(original))
        if new is None:
            self.register(original, new := CopiedGlobals(original, self))
        return new

    def copy_items(self, values: Iterable[Any]) -> list[Any]:
        """Return a list of the copies of some values."""
        items = list(values)
        return items if IMMUTABLE.issuperset(map(type, items)) else list(map(self.copy, items))

    def copy_attributes(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Return the copy of a dictionary of attributes."""
        attributes = attributes.copy()
        return dict(zip(attributes, self.copy_items(attributes.values()), strict=True))

    def _fill_attributes(self, value: Any, new: Any) -> None:
        """Copy the attributes of an object later, those in slots included."""
        cls: type = type(value)
        attributes, slots = _attributes(value), _slots(cls)
        if not (attributes or slots):
            return

        def fill() -> None:
            if attributes:
                _attributes(new).update(self.copy_attributes(attributes))
            for name in slots:
                content = getattr(value, name, _MISSING)
                if content is not _MISSING:
                    object.__setattr__(new, name, self.copy(content))

        self.defer(fill)

    def _list(self, value: Any) -> Any:
        base: Any = deque if isinstance(value, deque) else list
        new = base.__new__(type(value))
        if base is deque:
            deque.__init__(new, maxlen=value.maxlen)
        self.register(value, new)
        # The base class's methods: a subclass may override iteration.
        self.defer(lambda: base.extend(new, self.copy_items(base.__iter__(value))))
        self._fill_attributes(value, new)
        return new

    def _dict(self, value: Any) -> Any:
        base: Any = next(base for base in _DICT_CLASSES if isinstance(value, base))
        new = base.__new__(type(value))
        self.register(value, new)
        if base is defaultdict:
            new.default_factory = self.copy(value.default_factory)

        def fill() -> None:
            items = list(base.items(value))
            keys = self.copy_items(key for key, _ in items)
            for key, item in zip(keys, self.copy_items(item for _, item in items), strict=True):
                base.__setitem__(new, key, item)

        self.defer(fill)
        self._fill_attributes(value, new)
        return new

    def _set(self, value: Any) -> Any:
        new = set.__new__(type(value))
        self.register(value, new)
        self.defer(lambda: set.update(new, self.copy_items(set.copy(value))))
        self._fill_attributes(value, new)
        return new

    def _tuple(self, value: Any) -> Any:
        items = self.copy_items(tuple.__iter__(value))
        if type(value) is tuple and all(map(operator.is_, items, value)):
            return value
        try:
            new = tuple.__new__(type(value), items)
        except TypeError:  # a named tuple of torch.return_types
            return type(value)(items)
        self._fill_attributes(value, new)
        return new

    def _frozenset(self, value: Any) -> Any:
        items = self.copy_items(value)
        return value if all(map(operator.is_, items, value)) else type(value)(items)

    def _mapping_proxy(self, value: Any) -> Any:
        return types.MappingProxyType(self.copy(dict(value)))

    def _partial(self, value: Any) -> Any:
        new = type(value)(self.copy(value.func), *map(self.copy, value.args), **value.keywords)
        self.register(value, new)
        keywords = value.keywords

        def fill() -> None:
            new.keywords.update(self.copy_attributes(keywords))

        self.defer(fill)
        self._fill_attributes(value, new)
        return new

    def _method(self, value: types.MethodType) -> Any:
        return types.MethodType(self.copy(value.__func__), self.copy(value.__self__))

    def _builtin_method(self, value: Any) -> Any:
        """Bind a method of a container, such as ``features.append``, to its copy."""
        container = value.__self__
        if container is None or isinstance(container, type | types.ModuleType):
            return value
        new = self.copy(container)
        return value if new is container else getattr(new, value.__name__)

    def _weak_ref(self, value: Any) -> Any:
        target = value()
        if target is None:
            return value
        new = self.copy(target)
        return value if new is target else type(value)(new)

    def _weak_collection(self, value: Any) -> Any:
        new = type(value)()
        self.register(value, new)

        def fill() -> None:
            if isinstance(value, weakref.WeakSet):
                new.update(self.copy_items(value))
            else:
                new.update(
                    zip(self.copy_items(value), self.copy_items(value.values()), strict=True)
                )

        self.defer(fill)
        return new

    def _function(self, value: types.FunctionType) -> Any:
        # A compiled function is copied as its original, and runs eagerly.
        original = getattr(value, "_torchdynamo_orig_callable", None)
        return copy_function(self, value) if original is None else self.copy(original)

    def _lru_cache(self, value: Any) -> Any:
        """Return a copy of a cached function, with an empty cache."""
        decorate: Any = functools.lru_cache(**value.cache_parameters())
        return decorate(self.copy(value.__wrapped__))

    def _generator(self, value: torch.Generator) -> Any:
        new = torch.Generator(value.device)
        new.set_state(value.get_state())
        return new

    def _object(self, value: Any) -> Any:
        cls: type = type(value)
        if _layout_base(cls) not in _WITHOUT_HIDDEN_STATE:
            return value  # an extension type or a file: it holds nothing of torch's
        try:
            new: Any = _layout_base(cls).__new__(cls)
        except TypeError:
            return value
        self.register(value, new)
        self._fill_attributes(value, new)
        return new

    def _iterator(self, value: Any) -> Any:
        try:
            return copy.copy(value)
        except TypeError:
            reason = f"holds a {type(value).__name__}, which the forward would use up"
            raise self.error(reason, "Let it hold a list instead.") from None


@cache
def _slots(cls: type) -> tuple[str, ...]:
    """Return the names of the slots of a class."""
    return tuple(
        name
        for base in cls.__mro__
        if "__slots__" in vars(base)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    )


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes written in Python


_WITHOUT_HIDDEN_STATE = {object, types.SimpleNamespace, threading.local}


def _layout_base(cls: type) -> Any:
    """Return the static base class, which defines the memory layout of instances."""
    return next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)


def _attributes(value: object) -> dict[str, Any]:
    """Return the attributes of an object, without its class's ``__getattribute__``."""
    try:
        attributes: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return attributes


@cache
def _copy_method(cls: type) -> _CopyMethod:
    """Return the function that copies instances of a class."""
    if (lock := _LOCKS.get(cls)) is not None:
        return lambda _, __: lock()
    package = cls.__module__.partition(".")[0]
    # Other threads reference the same pools and event loops.
    if issubclass(cls, _NOT_COPIED) or package in {"concurrent", "multiprocessing", "asyncio"}:
        return lambda _, value: value
    for base, copy_method in _COPY_METHODS.items():
        if issubclass(cls, base):
            return copy_method
    if package == "numpy":
        return lambda _, value: copy.deepcopy(value)
    if hasattr(cls, "__next__") and package in {"builtins", "itertools"}:
        return ObjectCopier._iterator
    return ObjectCopier._object


_COPY_METHODS: dict[Any, _CopyMethod] = {
    torch.Tensor: lambda copier, value: copier.copy_tensor(value),
    nn.Module: lambda copier, value: copier.copy_module(value),
    (list, deque): ObjectCopier._list,
    dict: ObjectCopier._dict,
    tuple: ObjectCopier._tuple,
    set: ObjectCopier._set,
    frozenset: ObjectCopier._frozenset,
    types.MappingProxyType: ObjectCopier._mapping_proxy,
    types.FunctionType: ObjectCopier._function,
    types.MethodType: ObjectCopier._method,
    (types.BuiltinMethodType, types.MethodWrapperType): ObjectCopier._builtin_method,
    functools.partial: ObjectCopier._partial,
    functools._lru_cache_wrapper: ObjectCopier._lru_cache,
    weakref.ref: ObjectCopier._weak_ref,
    (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet): (
        ObjectCopier._weak_collection
    ),
    torch.Generator: ObjectCopier._generator,
    random.Random: lambda _, value: copy.deepcopy(value),
}
