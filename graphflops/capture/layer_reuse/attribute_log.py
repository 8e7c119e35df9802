"""Which attributes of modules are read and written while a block runs."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from graphflops.capture.layer_reuse.fingerprint import MACHINERY
from graphflops.capture.layer_reuse.layer_index import Slot
from graphflops.capture.layer_reuse.module_dict import variables
from graphflops.runtime.patches import AttributePatch, Patches, patch_function

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
EVERYTHING = "*"
# Their reading of ``__dict__`` is what looking up a parameter or a child comes down to.
_LOOK_UP = "torch/nn/modules/module.py"


@dataclass(slots=True)
class Watch:
    """What was read and written, by the identity of the module's attribute dictionary.

    Attributes:
        read: Names of attributes, there or not; ``"*"`` where all may have been.
        wrote: Whether an attribute was written to, of a module that was there before.
        new: Attribute dictionaries of modules that were made.
        indices: Attributes that may say which entry of a cache is the module's, with the number
            of the module and their value: they are handed out as slots, and are read only if
            they are used as numbers.
        slots: The slots that were handed out.
        passed: Modules without parts that returned what they got, and their arguments.
    """

    indices: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    read: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    held: dict[int, dict[str, Any]] = field(default_factory=dict)
    wrote: bool = False
    new: dict[int, dict[str, Any]] = field(default_factory=dict)
    slots: dict[tuple[int, str], Slot] = field(default_factory=dict)
    passed: defaultdict[int, list[Arguments]] = field(default_factory=lambda: defaultdict(list))

    def note(self, held: dict[str, Any], name: str) -> None:
        """Note a reading."""
        self.read[id(held)].add(name)
        self.held[id(held)] = held

    def slot(self, held: dict[str, Any], name: str) -> Slot | None:
        """What stands for an attribute that says which entry of a cache is the module's."""
        key = (id(held), name)
        if key not in self.indices:
            return None
        if key not in self.slots:
            number, value = self.indices[key]
            self.slots[key] = Slot((number, name), value, lambda: note(held, name))
        return self.slots[key]


class _Watches(threading.local):
    """What watches in a thread, the outermost first."""

    def __init__(self) -> None:
        self.all: list[Watch] = []


_WATCHES = _Watches()


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Note what is read and written until the block ends; blocks may be nested."""
    outer = _WATCHES.all
    _WATCHES.all = [*outer, watch]
    try:
        with _WATCHING.holding():
            yield
    finally:
        _WATCHES.all = outer


def is_watching() -> bool:
    """Whether a block is watched."""
    return bool(_WATCHES.all)


def note_passed(held: dict[str, Any], arguments: Arguments) -> None:
    """Note that a module returned what it got, if it has no parts."""
    if not (held["_modules"] or held["_parameters"] or held["_buffers"]):
        for watch in _WATCHES.all:
            watch.passed[id(held)].append(arguments)


class _NoOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Refuses to run any."""

    def __torch_dispatch__(self, *_: Any) -> Any:
        raise _Ran


class _Ran(Exception):  # noqa: N818 - an answer
    pass


def passes(module: nn.Module, arguments: Arguments) -> bool:
    """Whether a module returns what it gets, and that is all it does."""
    args, kwargs = arguments
    watch = Watch()
    try:
        with watched(watch), _disable_current_modes(), _NoOperators():  # type: ignore[no-untyped-call]  # likewise
            return module.forward(*args, **kwargs) is args[0] and not watch.wrote
    except _Ran:
        return False


def note(held: dict[str, Any], name: str) -> None:
    """Note that an attribute would have been read: an instance was reused whose first read it."""
    for watch in _WATCHES.all:
        watch.note(held, name)


def _get(module: nn.Module, name: str) -> Any:
    if not _WATCHES.all:
        return object.__getattribute__(module, name)
    held = variables(module)
    if name == "__dict__":
        if not sys._getframe(1).f_code.co_filename.endswith(_LOOK_UP):
            note(held, EVERYTHING)
        return held
    if name in held and name not in MACHINERY:
        slot = None
        for watch in _WATCHES.all:  # the outermost first: it may be the one that is used again most
            found = watch.slot(held, name) if slot is None else None
            if found is None:
                watch.note(held, name)
            else:
                slot = found
        return held[name] if slot is None else slot
    try:
        return object.__getattribute__(module, name)
    except AttributeError:
        note(held, name)
        raise


def _make(made: Callable[..., None], module: nn.Module, *args: Any, **kwargs: Any) -> None:
    held = variables(module)
    for watch in _WATCHES.all:
        watch.new[id(held)] = held
    made(module, *args, **kwargs)


def _set(write: Callable[..., None], module: nn.Module, name: str, value: Any) -> None:
    if not name.startswith("__"):
        for watch in _WATCHES.all:
            watch.wrote |= id(variables(module)) not in watch.new
    write(module, name, value)


_WATCHING = Patches(
    patch_function(nn.Module, "__init__", _make),
    AttributePatch(nn.Module, "__getattribute__", lambda _, __: _get),
    patch_function(nn.Module, "__setattr__", _set),
)
