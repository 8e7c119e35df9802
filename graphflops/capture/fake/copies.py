"""Copies of what modules and inputs hold: containers, objects, functions, in any tangle.

What a forward could write to is copied, once for each object, so that what is shared or goes in
circles in the original does in the copy. What cannot change is the same object in both.
"""

from __future__ import annotations

import copy
import functools
import logging
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

from graphflops.capture.fake.code import Scope, own_function
from graphflops.errors import CaptureError

_Way: TypeAlias = Callable[["Copies", Any], Any]
_MISSING = object()
PLAIN = frozenset(
    {int, float, bool, str, bytes, complex, type(None), type(...), range, slice, type}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size}
    | {types.ModuleType, types.CodeType, property}
)
"""Classes of values that nothing can be written to, or that are no model's own."""
_SHARED = (
    *(type, types.ModuleType, Enum, logging.Logger, sympy.Basic),
    *(fx.Graph, fx.Node, torch.jit.ScriptFunction, threading.Thread),
    *(torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator),
    *(torch.SymInt, torch.SymFloat, torch.SymBool),
)
"""Classes whose instances are no state of a model."""
_DICTIONARIES = (OrderedDict, defaultdict, dict)
_LOCKS: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}


class Copies:
    """Copies of objects, each made once.

    Subclasses say what becomes of tensors and modules.

    Attributes:
        place: The path of the module whose attributes are copied.
    """

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._held: list[object] = []
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self.place = ""

    def tensor(self, value: torch.Tensor) -> Any:
        """Return what a copy holds in place of a tensor."""
        raise NotImplementedError

    def module(self, value: nn.Module) -> Any:
        """Return what a copy holds in place of a module."""
        raise NotImplementedError

    def whole(self, value: Any) -> Any:
        """Return the copy of an object, with all that it holds."""
        made = self.of(value)
        while self._waiting:
            self.place, fill = self._waiting.popleft()
            fill()
        return made

    def of(self, value: Any) -> Any:
        """Return the copy of an object; what is in it may come later."""
        kind: type = type(value)
        if kind in PLAIN:
            return value
        made = self._made.get(id(value), _MISSING)
        if made is not _MISSING:
            return made
        way: _Way = _way(kind)
        made = way(self, value)
        if id(value) not in self._made:
            self.register(value, made)
        return made

    def made(self, value: object) -> Any:
        """Return the copy of an object if there is one, else ``None``."""
        return self._made.get(id(value))

    def register(self, value: object, made: object) -> None:
        """Note the copy of an object, before what is in it is looked at."""
        self._made[id(value)] = made
        self._held.append(value)  # identities hold as long as objects do

    def later(self, fill: Callable[[], None]) -> None:
        """Put something into a copy when what holds it is there: nests may be deep."""
        self._waiting.append((self.place, fill))

    def refuse(self, what: str, instead: str) -> CaptureError:
        """Return the error of an object that no copy can be made of."""
        return CaptureError(f"{self.place or 'the model'} {what}. {instead}")

    def scope(self, original: dict[str, Any]) -> Scope:
        """Return the globals of a file as copies of its functions see them."""
        made = self._made.get(id(original))
        if made is None:
            self.register(original, made := Scope(original, self))
        return made

    def several(self, values: Iterable[Any]) -> list[Any]:
        """Return copies of some values."""
        found = list(values)
        return found if PLAIN.issuperset(map(type, found)) else list(map(self.of, found))

    def attributes(self, held: dict[str, Any]) -> dict[str, Any]:
        """Return the copy of a dictionary of attributes."""
        held = held.copy()
        return dict(zip(held, self.several(held.values()), strict=True))

    def _state(self, value: Any, made: Any) -> None:
        """Copy attributes, those in slots too."""
        kind: type = type(value)
        held, slots = _held(value), _slots(kind)
        if not (held or slots):
            return

        def fill() -> None:
            if held:
                _held(made).update(self.attributes(held))
            for name in slots:
                content = getattr(value, name, _MISSING)
                if content is not _MISSING:
                    object.__setattr__(made, name, self.of(content))

        self.later(fill)

    def _list(self, value: Any) -> Any:
        base: Any = deque if isinstance(value, deque) else list
        made = base.__new__(type(value))
        if base is deque:
            deque.__init__(made, maxlen=value.maxlen)
        self.register(value, made)
        # Whatever a class makes of iteration.
        self.later(lambda: base.extend(made, self.several(base.__iter__(value))))
        self._state(value, made)
        return made

    def _dict(self, value: Any) -> Any:
        base: Any = next(base for base in _DICTIONARIES if isinstance(value, base))
        made = base.__new__(type(value))
        self.register(value, made)
        if base is defaultdict:
            made.default_factory = self.of(value.default_factory)

        def fill() -> None:
            items = list(base.items(value))
            keys = self.several(key for key, _ in items)
            for key, item in zip(keys, self.several(item for _, item in items), strict=True):
                base.__setitem__(made, key, item)

        self.later(fill)
        self._state(value, made)
        return made

    def _set(self, value: Any) -> Any:
        made = set.__new__(type(value))
        self.register(value, made)
        self.later(lambda: set.update(made, self.several(set.copy(value))))
        self._state(value, made)
        return made

    def _tuple(self, value: Any) -> Any:
        items = self.several(tuple.__iter__(value))
        if type(value) is tuple and all(map(_is, items, value)):
            return value
        try:
            made = tuple.__new__(type(value), items)
        except TypeError:  # a result of torch's with names
            return type(value)(items)
        self._state(value, made)
        return made

    def _frozenset(self, value: Any) -> Any:
        items = self.several(value)
        return value if all(map(_is, items, value)) else type(value)(items)

    def _mapping_proxy(self, value: Any) -> Any:
        return types.MappingProxyType(self.of(dict(value)))

    def _partial(self, value: Any) -> Any:
        made = type(value)(self.of(value.func), *map(self.of, value.args), **value.keywords)
        self.register(value, made)
        keywords = value.keywords

        def fill() -> None:
            made.keywords.update(self.attributes(keywords))

        self.later(fill)
        self._state(value, made)
        return made

    def _method(self, value: types.MethodType) -> Any:
        return types.MethodType(self.of(value.__func__), self.of(value.__self__))

    def _builtin_method(self, value: Any) -> Any:
        """Bind a method of a container, such as ``features.append``, to its copy."""
        own = value.__self__
        if own is None or isinstance(own, type | types.ModuleType):
            return value
        made = self.of(own)
        return value if made is own else getattr(made, value.__name__)

    def _weak(self, value: Any) -> Any:
        target = value()
        if target is None:
            return value
        made = self.of(target)
        return value if made is target else type(value)(made)

    def _weak_collection(self, value: Any) -> Any:
        made = type(value)()
        self.register(value, made)

        def fill() -> None:
            if isinstance(value, weakref.WeakSet):
                made.update(self.several(value))
            else:
                made.update(zip(self.several(value), self.several(value.values()), strict=True))

        self.later(fill)
        return made

    def _function(self, value: types.FunctionType) -> Any:
        # What is compiled runs as it was written.
        original = getattr(value, "_torchdynamo_orig_callable", None)
        return own_function(self, value) if original is None else self.of(original)

    def _memory(self, value: Any) -> Any:
        """Return a cache of results of its own for a function that has one."""
        remember: Any = functools.lru_cache(**value.cache_parameters())
        return remember(self.of(value.__wrapped__))

    def _generator(self, value: torch.Generator) -> Any:
        made = torch.Generator(value.device)
        made.set_state(value.get_state())
        return made

    def _object(self, value: Any) -> Any:
        kind: type = type(value)
        if _base(kind) not in _WITHOUT_HIDDEN_STATE:
            return value  # a foreign library's own, or a file: nothing of torch's is in it
        try:
            made: Any = _base(kind).__new__(kind)
        except TypeError:
            return value
        self.register(value, made)
        self._state(value, made)
        return made

    def _iterator(self, value: Any) -> Any:
        try:
            return copy.copy(value)
        except TypeError:
            what = f"holds a {type(value).__name__}, which the forward would use up"
            raise self.refuse(what, "Let it hold a list instead.") from None


def _is(one: object, other: object) -> bool:
    return one is other


@cache
def _slots(kind: type) -> tuple[str, ...]:
    """Return the names of the attributes that instances keep in slots."""
    return tuple(
        name
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    )


_HEAP_TYPE = 1 << 9  # most of these are written in Python


_WITHOUT_HIDDEN_STATE = {object, types.SimpleNamespace, threading.local}


def _base(kind: type) -> Any:
    """Return the class, not written in Python, that says how instances lie in memory."""
    return next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)


def _held(value: object) -> dict[str, Any]:
    """Return the attributes of an object, whatever its class makes of access to them."""
    try:
        found: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found


@cache
def _way(kind: type) -> _Way:
    """Return how instances of a class are copied."""
    if (lock := _LOCKS.get(kind)) is not None:
        return lambda _, __: lock()
    package = kind.__module__.partition(".")[0]
    # Other threads hold the other end of pools and loops.
    if issubclass(kind, _SHARED) or package in {"concurrent", "multiprocessing", "asyncio"}:
        return lambda _, value: value
    for base, way in _WAYS.items():
        if issubclass(kind, base):
            return way
    if package == "numpy":
        return lambda _, value: copy.deepcopy(value)
    if hasattr(kind, "__next__") and package in {"builtins", "itertools"}:
        return Copies._iterator
    return Copies._object


_WAYS: dict[Any, _Way] = {
    torch.Tensor: lambda copies, value: copies.tensor(value),
    nn.Module: lambda copies, value: copies.module(value),
    (list, deque): Copies._list,
    dict: Copies._dict,
    tuple: Copies._tuple,
    set: Copies._set,
    frozenset: Copies._frozenset,
    types.MappingProxyType: Copies._mapping_proxy,
    types.FunctionType: Copies._function,
    types.MethodType: Copies._method,
    (types.BuiltinMethodType, types.MethodWrapperType): Copies._builtin_method,
    functools.partial: Copies._partial,
    functools._lru_cache_wrapper: Copies._memory,
    weakref.ref: Copies._weak,
    (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet): (
        Copies._weak_collection
    ),
    torch.Generator: Copies._generator,
    random.Random: lambda _, value: copy.deepcopy(value),
}
