"""Changes to the process that only some threads see.

Libraries keep state in module globals: a patched function, a flag, a filter. A count that
exchanges one would change it for every thread, and two counts would put back each other's
exchange. So each exchange is installed once, by the first thread that needs it, asks who calls
it, and is taken out by the last.
"""

from __future__ import annotations

import functools
import gc
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

_LOCK = threading.RLock()  # a signal handler may count while its thread installs
_ABSENT: Any = object()
_SETS: list[Patches] = []


is_traced_by_dynamo: Callable[[], bool] = bool
"""What Dynamo takes to be true where it compiles a function: it sees no exchange of ours.

It would break at the question which thread asks. Torch's own predicate, once torch is there.
"""


class Patch(Protocol):
    """A change to the process; both methods may be called again when they were interrupted."""

    def install(self, patches: Patches) -> None:
        """Make the change, for the threads that hold ``patches``."""

    def remove(self) -> None:
        """Undo it, unless somebody else has changed the same since."""


class Patches:
    """Patches that act in the threads that hold them.

    Args:
        *patches: The changes, in the order in which they are made.
    """

    def __init__(self, *patches: Patch) -> None:
        self._patches = patches
        self._holders: dict[int, int] = {}
        _SETS.append(self)

    def held(self) -> bool:
        """Return True in a thread that holds the patches."""
        return threading.get_ident() in self._holders

    def hold(self) -> None:
        """Let the patches act in this thread; calls may be nested."""
        with _LOCK:
            ident = threading.get_ident()
            first = not self._holders
            self._holders[ident] = self._holders.get(ident, 0) + 1
            if first:
                for patch in self._patches:
                    patch.install(self)

    def holds(self) -> int:
        """Return how often this thread holds the patches."""
        return self._holders.get(threading.get_ident(), 0)

    def release(self, holds: int = 0) -> None:
        """Let this thread hold the patches ``holds`` times, at most.

        May be called again when it was interrupted.
        """
        with _LOCK:
            ident = threading.get_ident()
            if holds and self._holders.get(ident, 0) >= holds:
                self._holders[ident] = holds
            elif not holds:
                self._holders.pop(ident, None)
            if not self._holders:
                for patch in reversed(self._patches):
                    patch.remove()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the patches until the block ends."""
        holds = self.holds()
        try:
            self.hold()
            yield
        finally:
            self.release(holds)


def holds_of_thread() -> dict[Patches, int]:
    """Return which sets of patches this thread holds, and how often."""
    return {patches: patches.holds() for patches in _SETS}


class Exchange:
    """Another value for an attribute of a module or a class.

    Args:
        owner: The module or class.
        name: The attribute.
        value: Make the new value from the original one and a predicate that is true in the
            threads which are to see the change.
        adds: Whether the attribute need not be there.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        value: Callable[[Any, Callable[[], bool]], Any],
        *,
        adds: bool = False,
    ) -> None:
        self._owner, self._name, self._value, self._adds = owner, name, value, adds
        self._original = self._put = _ABSENT

    def install(self, patches: Patches) -> None:
        """Exchange the value."""
        original = vars(self._owner).get(self._name, _ABSENT)
        if original is _ABSENT and not self._adds:
            getattr(self._owner, self._name)  # where a version lacks it, this says so
        if self._put is _ABSENT:
            self._original, self._put = original, self._value(original, patches.held)
        setattr(self._owner, self._name, self._put)

    def remove(self) -> None:
        """Put the original value back."""
        if self._put is not _ABSENT and vars(self._owner).get(self._name) is self._put:
            if self._original is _ABSENT:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._original)
        self._put = self._original = _ABSENT


def replacing(owner: Any, name: str, call: Callable[..., Any]) -> Exchange:
    """Exchange a function: ``call`` gets the original one and the arguments."""

    def value(original: Any, held: Callable[[], bool]) -> Any:
        @functools.wraps(original)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            if is_traced_by_dynamo() or not held():
                return original(*args, **kwargs)
            return call(original, *args, **kwargs)

        return dispatch

    return Exchange(owner, name, value)


class NoCollection:
    """No collection of garbage: a count makes many objects and drops few of them."""

    def __init__(self) -> None:
        self._collecting = False

    def install(self, _: Patches) -> None:
        """Hold the collector back."""
        self._collecting = self._collecting or gc.isenabled()
        gc.disable()

    def remove(self) -> None:
        """Let it go on, if it did."""
        if self._collecting:
            gc.enable()
        self._collecting = False


class _NoWarnings:
    """A filter that ignores what libraries warn of in threads that hold the patches.

    It goes into the list of filters as it is: ``catch_warnings`` would make every module forget
    which warnings it has shown.
    """

    def __init__(self, libraries: Sequence[str]) -> None:
        self._libraries = frozenset(libraries)
        self._held: Callable[[], bool] = bool
        self._filter: Any = ("ignore", None, Warning, self, 0)
        self._list: list[Any] = []

    def match(self, module: str) -> bool:
        """Return True if a warning that a module causes is to be ignored."""
        return self._held() and module.partition(".")[0] in self._libraries

    def install(self, patches: Patches) -> None:
        """Put the filter before all others."""
        self._held = patches.held
        self._list = _filters()
        self._list.insert(0, self._filter)

    def remove(self) -> None:
        """Take it out of the list that it was put into, and of one that was made of that."""
        for filters in (self._list, _filters()):
            while self._filter in filters:
                filters.remove(self._filter)


def _filters() -> list[Any]:
    return warnings.filters  # type: ignore[return-value]  # declared as a sequence: it is a list


LIBRARIES = (
    *("torch", "transformers", "huggingface_hub", "timm", "torchvision", "accelerate"),
    *("importlib", "sympy", "contextlib", "graphflops"),
)
"""Packages that talk while they work for a count: what matters stands in the report."""


def _handle(original: Callable[..., Any], logger: logging.Logger, record: Any) -> None:
    talks = logger.name.partition(".")[0] in LIBRARIES
    if not talks or record.levelno >= logging.CRITICAL:
        original(logger, record)


QUIET = Patches(
    _NoWarnings(LIBRARIES),
    replacing(logging.Logger, "handle", _handle),
)
"""Libraries neither warn nor log; the user's own code does."""
