"""Imports of the user's Python code, and short messages for its failures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from graphflops.capture.diagnose import first_line
from graphflops.capture.source_lines import is_model_file, short_path
from graphflops.errors import ModelNameError, ModelSpecError
from graphflops.models import schemes
from graphflops.models.optional_dependencies import repair_torchvision

_THIS_PACKAGE = str(Path(__file__).parent)
_STANDARD_LIBRARY = str(Path(traceback.__file__).parent)


def load_module(location: str) -> ModuleType:
    """Import a file or a module.

    Raises:
        ModelSpecError: It does not exist, or its code fails.
    """
    if location.endswith(".py") and not Path(location).is_file():
        problem = "is no file" if Path(location).exists() else "does not exist"
        raise ModelNameError(f"{location} {problem}. Give the path of a Python file: FILE.py:NAME.")
    try:
        if location.endswith(".py"):
            return _load_file(Path(location))
        return importlib.import_module(location)
    except (Exception, SystemExit) as error:
        if repair_torchvision():  # an import of the file may have needed it
            return load_module(location)
        advice, kind = "Correct it, or run where its imports work.", ModelSpecError
        if isinstance(error, ModuleNotFoundError) and error.name == location:
            # The user may have meant a scheme.
            kind = ModelNameError
            advice = (
                f"Give a module that is installed, FILE.py:NAME, or {schemes.SCHEME_LIST}:NAME."
            )
        reason = failure_reason(error)
        raise kind(f"{location} cannot be imported: {reason}. {advice}") from error


def failure_reason(error: BaseException) -> str:
    """Return the message of a failure in the user's code, with its source line."""
    message = first_line(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_user_file(f.filename)]
    # The message of a syntax error has its source line.
    if not frames or isinstance(error, SyntaxError):
        return message
    return f"{message} (at {short_path(frames[-1].filename)}:{frames[-1].lineno})"


def _is_user_file(file: str) -> bool:
    is_standard = file.startswith(_STANDARD_LIBRARY) and "site-packages" not in file
    return is_model_file(file) and not is_standard and not file.startswith(_THIS_PACKAGE)


def _load_file(path: Path) -> ModuleType:
    name = _unique_module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - a path ending in .py has a loader
    assert spec.loader is not None  # noqa: S101 - likewise
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the file look up their module.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _unique_module_name(path: Path) -> str:
    """Return a module name for a file that no other module has: it may be called ``json.py``."""
    loaded = sys.modules.get(path.stem)
    is_free = loaded is None or getattr(loaded, "__file__", None) == str(path)
    return path.stem if is_free else f"{path.stem}_of_{abs(hash(path.resolve()))}"
