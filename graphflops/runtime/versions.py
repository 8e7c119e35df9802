"""Versions of torch and transformers: those tested, and what to say where another one differs.

Much of what a capture needs has no public name in torch, so a version that nobody has tested
may lack it, or have it otherwise.
"""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType, TracebackType

from graphflops.errors import VersionError

TESTED = {"torch": ("2.13.0", "2.15.0"), "transformers": ("5.23.0", "5.24.0")}
"""The oldest and the newest version of each that all tests have passed on."""

_MISSING_NAME = re.compile(r"cannot import name '(\w+)'")
_SIGNATURE = re.compile(r"([\w.]+)\(\) (?:got an unexpected|got multiple|missing|takes)")
_HANDS_ON = {"__torch_function__", "__torch_dispatch__"}  # a call of the model's, as it was made


@contextmanager
def explained_changes() -> Iterator[None]:
    """Say in one sentence which piece of torch or transformers is not as it was.

    Raises:
        VersionError: A piece that graphflops itself has asked for is missing, or takes other
            arguments.
    """
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        if (change := change_behind(error)) is None:
            raise
        raise change from error


def change_behind(error: BaseException) -> VersionError | None:
    """The change of a version that is behind an error; nothing if it has another reason."""
    if not _is_our_request(error.__traceback__):
        return None
    if isinstance(error, ImportError):
        package, piece = _missing_import(error)
    elif isinstance(error, AttributeError):
        package, piece = _missing_attribute(error)
    else:
        package, piece = _changed_signature(error)
    # A version that was tested has every piece: then it is our mistake, which shows as it is.
    if not piece or not is_untested(package):
        return None
    oldest, newest = TESTED[package]
    return VersionError(
        f"{package} {_installed(package)} has changed {piece}, which graphflops needs. "
        f"graphflops was tested with {package} {oldest} to {newest}: install one of these, or a "
        "graphflops that knows this one."
    )


def is_untested(package: str) -> bool:
    """Whether the version of a package is older or newer than all that were tested."""
    oldest, newest = map(_numbers, TESTED[package])
    return not oldest <= _numbers(_installed(package)) <= newest


def untested_versions() -> str:
    """A sentence on the packages whose version was not tested; empty if there are none."""
    named = [
        f"{package} {_installed(package)} ({oldest} to {newest} were tested)"
        for package, (oldest, newest) in TESTED.items()
        if is_untested(package)
    ]
    return f"It may also be the untested {' and '.join(named)}." if named else ""


def _installed(package: str) -> str:
    """The version of a package; the oldest tested one if it is not installed."""
    from importlib import metadata  # slow, and seldom needed

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return TESTED[package][0]


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` as ``(2, 13, 0)``."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def _is_our_request(traceback: TracebackType | None) -> bool:
    """Whether a line of graphflops asked for what is not there."""
    asking = ""
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if frame.f_code.co_name in _HANDS_ON:
            asking = ""
        # torch's modules and namespaces look for an attribute in a function of theirs.
        elif frame.f_code.co_name != "__getattr__":
            asking = frame.f_globals.get("__name__", "")
    return asking.partition(".")[0] == "graphflops"


def _missing_import(error: ImportError) -> tuple[str, str]:
    module = error.name or ""
    package = module.partition(".")[0]
    if name := _MISSING_NAME.match(str(error)):
        module = f"{module}.{name[1]}"
    # Without a dot it is the whole package that is not installed.
    return (package, module) if package in TESTED and "." in module else ("", "")


def _missing_attribute(error: AttributeError) -> tuple[str, str]:
    owner = error.obj
    kind = owner if isinstance(owner, type) else type(owner)
    home = owner.__name__ if isinstance(owner, ModuleType) else f"{kind.__module__}.{kind.__name__}"
    package = home.partition(".")[0]
    return (package, f"{home}.{error.name}") if package in TESTED else ("", "")


def _changed_signature(error: BaseException) -> tuple[str, str]:
    called = _SIGNATURE.match(str(error))
    name = called[1].partition(".")[0] if called else ""
    if called is None or hasattr(builtins, name):
        return "", ""
    # The message does not say where that is defined.
    modules = [m for m in sys.modules.values() if isinstance(m, ModuleType)]
    for function in (vars(module).get(name) for module in modules):
        if isinstance(function, FunctionType | type):
            package = function.__module__.partition(".")[0]
            if package in TESTED:
                return package, f"{called[1]}()"
    return "", ""
