"""Patches of process-wide state that act in some threads only.

Libraries keep state in module globals: a patched function, a flag, a filter. A count that
patches one would change it for every thread, and two counts would undo each other's patch. So
each patch is installed once, by the first thread that needs it, tests in which thread it is
called, and is removed by the last thread that needs it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

_LOCK = threading.RLock()  # a signal handler may count while its thread installs
_ABSENT: Any = object()
_ALL_PATCHES: list[Patches] = []


is_traced_by_dynamo: Callable[[], bool] = bool
"""Predicate that Dynamo evaluates to True while it compiles a function, which disables patches.

Dynamo would break the graph at the test for the current thread. Set to torch's own predicate by
the code that imports torch.
"""


class Patch(Protocol):
    """Change of process-wide state; an interrupted method may be called again."""

    def install(self, patches: Patches) -> None:
        """Make the change, for the threads that hold ``patches``."""

    def remove(self) -> None:
        """Undo the change, unless other code has changed the same state since."""


class Patches:
    """Set of patches that act in the threads that hold it.

    Args:
        *patches: Patches in order of installation.
    """

    def __init__(self, *patches: Patch) -> None:
        self._patches = patches
        self._counts: dict[int, int] = {}
        _ALL_PATCHES.append(self)

    def is_held(self) -> bool:
        """Return True in a thread that holds the patches."""
        return threading.get_ident() in self._counts

    def hold(self) -> None:
        """Activate the patches in this thread; calls may be nested."""
        with _LOCK:
            ident = threading.get_ident()
            is_first = not self._counts
            self._counts[ident] = self._counts.get(ident, 0) + 1
            if is_first:
                for patch in self._patches:
                    patch.install(self)

    def hold_count(self) -> int:
        """Return the number of times that this thread holds the patches."""
        return self._counts.get(threading.get_ident(), 0)

    def release(self, count: int = 0) -> None:
        """Reduce the hold count of this thread to ``count``, if it is higher.

        May be called again if it was interrupted.
        """
        with _LOCK:
            ident = threading.get_ident()
            if count and self._counts.get(ident, 0) >= count:
                self._counts[ident] = count
            elif not count:
                self._counts.pop(ident, None)
            if not self._counts:
                for patch in reversed(self._patches):
                    patch.remove()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the patches until the block ends."""
        count = self.hold_count()
        try:
            self.hold()
            yield
        finally:
            self.release(count)


def hold_counts() -> dict[Patches, int]:
    """Return the hold counts of this thread for all sets of patches."""
    return {patches: patches.hold_count() for patches in _ALL_PATCHES}


class AttributePatch:
    """Patch of an attribute of a module or a class.

    Args:
        owner: Module or class, or the name of a module that is imported when it is patched.
        name: Name of the attribute.
        value: Function that makes the new value from the original one and a predicate that is
            true in the threads that hold the patch.
        allow_missing: True if the attribute may be missing; the patch adds it then.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        value: Callable[[Any, Callable[[], bool]], Any],
        *,
        allow_missing: bool = False,
    ) -> None:
        self._owner, self._name, self._value = owner, name, value
        self._allow_missing = allow_missing
        self._original = self._replacement = _ABSENT

    def install(self, patches: Patches) -> None:
        """Set the new value."""
        if isinstance(self._owner, str):
            self._owner = importlib.import_module(self._owner)
        original = vars(self._owner).get(self._name, _ABSENT)
        if original is _ABSENT and not self._allow_missing:
            getattr(self._owner, self._name)  # raises if this version of the library lacks it
        if self._replacement is _ABSENT:
            self._original, self._replacement = original, self._value(original, patches.is_held)
        setattr(self._owner, self._name, self._replacement)

    def remove(self) -> None:
        """Restore the original value."""
        if self._replacement is not _ABSENT and self._is_installed():
            if self._original is _ABSENT:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._original)
        self._replacement = self._original = _ABSENT

    def _is_installed(self) -> bool:
        return vars(self._owner).get(self._name) is self._replacement


def patch_function(owner: Any, name: str, replacement: Callable[..., Any]) -> AttributePatch:
    """Return a patch of a function; ``replacement`` takes the original and the arguments."""

    def value(original: Any, is_held: Callable[[], bool]) -> Any:
        @functools.wraps(original)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            if is_traced_by_dynamo() or not is_held():
                return original(*args, **kwargs)
            return replacement(original, *args, **kwargs)

        return dispatch

    return AttributePatch(owner, name, value)


class NoGarbageCollection:
    """Patch that disables garbage collection: a count makes many objects and drops few."""

    def __init__(self) -> None:
        self._was_enabled = False

    def install(self, _: Patches) -> None:
        """Disable the collector."""
        self._was_enabled = self._was_enabled or gc.isenabled()
        gc.disable()

    def remove(self) -> None:
        """Enable the collector, if it was enabled before."""
        if self._was_enabled:
            gc.enable()
        self._was_enabled = False


WITHOUT_GARBAGE_COLLECTION = Patches(NoGarbageCollection())
"""Patches of a thread that makes many objects and drops few, outside of a count."""


class _WarningFilter:
    """Filter that ignores warnings of libraries in threads that hold the patches.

    It is inserted into the list of filters directly: ``catch_warnings`` would reset in every
    module which warnings it has shown.
    """

    def __init__(self, libraries: Sequence[str]) -> None:
        self._libraries = frozenset(libraries)
        self._is_held: Callable[[], bool] = bool
        self._filter: Any = ("ignore", None, Warning, self, 0)
        self._filters: list[Any] = []

    def match(self, module: str) -> bool:
        """Return True if a warning that a module causes is to be ignored."""
        return self._is_held() and module.partition(".")[0] in self._libraries

    def install(self, patches: Patches) -> None:
        """Insert the filter before all others."""
        self._is_held = patches.is_held
        self._filters = _current_filters()
        self._filters.insert(0, self._filter)

    def remove(self) -> None:
        """Remove the filter from its list, and from the current one, which may be a copy."""
        for filters in (self._filters, _current_filters()):
            while self._filter in filters:
                filters.remove(self._filter)


def _current_filters() -> list[Any]:
    return warnings.filters  # type: ignore[return-value]  # declared as a sequence: it is a list


LIBRARIES = (
    *("torch", "transformers", "huggingface_hub", "timm", "torchvision", "accelerate"),
    *("importlib", "sympy", "contextlib", "graphflops"),
)
"""Packages that warn and log while they run for a count; the report has what matters."""


def _handle(original: Callable[..., Any], logger: logging.Logger, record: Any) -> None:
    is_library = logger.name.partition(".")[0] in LIBRARIES
    if not is_library or record.levelno >= logging.CRITICAL:
        original(logger, record)


QUIET = Patches(
    _WarningFilter(LIBRARIES),
    patch_function(logging.Logger, "handle", _handle),
)
"""Patches that suppress warnings and logs of libraries, not those of the user's code."""
