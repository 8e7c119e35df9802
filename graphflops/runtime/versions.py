"""Tested versions of torch and transformers, and errors for changes in other versions.

Capture uses many private names of torch, which a version that was not tested may lack or may
define with another signature.
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
"""Oldest and newest version of each with which all tests pass."""

_MISSING_NAME = re.compile(r"cannot import name '(\w+)'")
_SIGNATURE = re.compile(r"([\w.]+)\(\) (?:got an unexpected|got multiple|missing|takes)")
_FORWARDERS = {"__torch_function__", "__torch_dispatch__"}
"""Functions that forward a call of the model unchanged: an error in it is the model's."""


@contextmanager
def translate_version_errors() -> Iterator[None]:
    """Translate errors from changed names of torch or transformers into a VersionError.

    Raises:
        VersionError: A name that graphflops itself uses is missing, or takes other arguments.
    """
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        if (change := version_error_behind(error)) is None:
            raise
        raise change from error


def version_error_behind(error: BaseException) -> VersionError | None:
    """Return a VersionError if the cause of an error is a changed library, else ``None``."""
    if not _is_own_access(error.__traceback__):
        return None
    if isinstance(error, ImportError):
        package, name = _missing_import(error)
    elif isinstance(error, AttributeError):
        package, name = _missing_attribute(error)
    else:
        package, name = _changed_signature(error)
    # A tested version has every name: then the error is a bug of graphflops, raised unchanged.
    if not name or not is_untested(package):
        return None
    oldest, newest = TESTED[package]
    return VersionError(
        f"{package} {_installed_version(package)} has changed {name}, which graphflops needs. "
        f"graphflops was tested with {package} {oldest} to {newest}: install one of these, or a "
        "graphflops that knows this one."
    )


def is_untested(package: str) -> bool:
    """Return True if the installed version of a package is outside of the tested range."""
    oldest, newest = map(_release, TESTED[package])
    return not oldest <= _release(_installed_version(package)) <= newest


def untested_versions() -> str:
    """Return a sentence on packages whose version is untested; empty if there are none."""
    packages = [
        f"{package} {_installed_version(package)} ({oldest} to {newest} were tested)"
        for package, (oldest, newest) in TESTED.items()
        if is_untested(package)
    ]
    return f"It may also be the untested {' and '.join(packages)}." if packages else ""


def _installed_version(package: str) -> str:
    """Return the version of a package; the oldest tested one if it is not installed."""
    from importlib import metadata  # slow to import, rarely needed

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return TESTED[package][0]


def _release(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: ``(2, 13, 0)`` for ``2.13.0+cpu``."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def _is_own_access(traceback: TracebackType | None) -> bool:
    """Return True if the innermost access to a library name is in a module of graphflops."""
    module = ""
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if frame.f_code.co_name in _FORWARDERS:
            module = ""
        # Skip the __getattr__ functions with which torch's modules and namespaces are defined.
        elif frame.f_code.co_name != "__getattr__":
            module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == "graphflops"


def _missing_import(error: ImportError) -> tuple[str, str]:
    module = error.name or ""
    package = module.partition(".")[0]
    if name := _MISSING_NAME.match(str(error)):
        module = f"{module}.{name[1]}"
    # A name without a dot is a whole package that is not installed.
    return (package, module) if package in TESTED and "." in module else ("", "")


def _missing_attribute(error: AttributeError) -> tuple[str, str]:
    owner = error.obj
    cls = owner if isinstance(owner, type) else type(owner)
    class_name = f"{cls.__module__}.{cls.__name__}"
    qualified_name = owner.__name__ if isinstance(owner, ModuleType) else class_name
    package = qualified_name.partition(".")[0]
    return (package, f"{qualified_name}.{error.name}") if package in TESTED else ("", "")


def _changed_signature(error: BaseException) -> tuple[str, str]:
    match = _SIGNATURE.match(str(error))
    name = match[1].partition(".")[0] if match else ""
    if match is None or hasattr(builtins, name):
        return "", ""
    # The message does not contain the module that defines the function.
    modules = [m for m in sys.modules.values() if isinstance(m, ModuleType)]
    for function in (vars(module).get(name) for module in modules):
        if isinstance(function, FunctionType | type):
            package = function.__module__.partition(".")[0]
            if package in TESTED:
                return package, f"{match[1]}()"
    return "", ""
