"""Snapshot of the attributes of the user's classes, restored after a count.

``Net.calls += 1`` in a forward writes to the class itself, which is not copied. Its attributes
are restored when the last count of the process ends.
"""

from __future__ import annotations

import operator
import threading
from collections import deque
from typing import Any

from graphflops.capture.fake.stateful_code import is_installed, may_have_state
from graphflops.runtime.patches import Patches

_ABSENT = object()
_LOCK = threading.Lock()


class ClassAttributes:
    """Attributes of classes, and the contents of those that are containers."""

    def __init__(self) -> None:
        self._values: dict[type, dict[str, Any]] = {}
        self._contents: dict[int, tuple[Any, Any]] = {}

    def snapshot(self, cls: type) -> None:
        """Save the attributes of a class and its bases, unless a package defines them."""
        with _LOCK:
            for base in cls.__mro__:
                name = base.__module__
                if base in self._values or not may_have_state(name) or is_installed(name):
                    continue
                self._values[base] = values = dict(vars(base))
                for value in values.values():
                    if type(value) in {list, dict, set, deque}:
                        self._contents[id(value)] = value, value.copy()

    def install(self, _: Patches) -> None:
        """Do nothing: attributes are saved when a model is copied."""

    def remove(self) -> None:
        """Restore the attributes and contents that have changed."""
        for cls, saved in self._values.items():
            current = dict(vars(cls))
            for name in current.keys() - saved.keys() - _INTERNAL:
                delattr(cls, name)
            for name, value in saved.items():
                if current.get(name, _ABSENT) is not value and name not in _INTERNAL:
                    setattr(cls, name, value)
        for value, contents in self._contents.values():
            if (
                len(value) != len(contents)
                or any(map(operator.is_not, value, contents))
                or (
                    isinstance(value, dict)
                    and any(map(operator.is_not, value.values(), contents.values()))
                )
            ):
                value.clear()
                (value.extend if isinstance(value, list | deque) else value.update)(contents)
        self._values, self._contents = {}, {}


_INTERNAL = {"__dict__", "__weakref__", "__doc__", "__abstractmethods__", "_abc_impl"}
CLASS_ATTRIBUTES = ClassAttributes()
