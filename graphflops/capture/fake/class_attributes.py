"""Attributes of the user's classes, which a forward reaches by the name of the class.

``Net.calls += 1`` writes to the class itself, of which there is one. So it is put back when the
last count of the process is done.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from graphflops.capture.fake.code import is_installed, may_have_state
from graphflops.runtime.patches import Patches

_ABSENT = object()
_LOCK = threading.Lock()


class ClassAttributes:
    """The attributes of some classes, and what is in those that are containers."""

    def __init__(self) -> None:
        self._values: dict[type, dict[str, Any]] = {}
        self._contents: dict[int, tuple[Any, Any]] = {}

    def note(self, kind: type) -> None:
        """Note the attributes of a class and its bases, unless they come with a package."""
        with _LOCK:
            for base in kind.__mro__:
                name = base.__module__
                if base in self._values or not may_have_state(name) or is_installed(name):
                    continue
                self._values[base] = values = dict(vars(base))
                for value in values.values():
                    if type(value) in {list, dict, set, deque}:
                        self._contents[id(value)] = value, value.copy()

    def install(self, _: Patches) -> None:
        """Do nothing: classes are noted as models are seen."""

    def remove(self) -> None:
        """Put back what has changed."""
        for kind, before in self._values.items():
            now = dict(vars(kind))
            for name in now.keys() - before.keys() - _INTERNAL:
                delattr(kind, name)
            for name, value in before.items():
                if now.get(name, _ABSENT) is not value and name not in _INTERNAL:
                    setattr(kind, name, value)
        for value, content in self._contents.values():
            if (
                len(value) != len(content)
                or any(map(_differ, value, content))
                or (isinstance(value, dict) and any(map(_differ, value.values(), content.values())))
            ):
                value.clear()
                (value.extend if isinstance(value, list | deque) else value.update)(content)
        self._values, self._contents = {}, {}


def _differ(one: object, other: object) -> bool:
    return one is not other


_INTERNAL = {"__dict__", "__weakref__", "__doc__", "__abstractmethods__", "_abc_impl"}
CLASS_ATTRIBUTES = ClassAttributes()
