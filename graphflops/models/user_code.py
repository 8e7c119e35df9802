"""Python code of the user's: loaded, and what it fails with in a few words."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from graphflops.capture.diagnose import first_line
from graphflops.capture.source_lines import is_model_file, short_path
from graphflops.errors import ModelSpecError
from graphflops.models import schemes
from graphflops.models.optional_dependencies import repair_torchvision

_OURS = str(Path(__file__).parent)
_STANDARD = str(Path(traceback.__file__).parent)


def load(where: str) -> ModuleType:
    """Import a file or a module.

    Raises:
        ModelSpecError: There is none, or its code fails.
    """
    if where.endswith(".py") and not Path(where).is_file():
        what = "is no file" if Path(where).exists() else "does not exist"
        raise ModelSpecError(f"{where} {what}. Give the path of a Python file: FILE.py:NAME.")
    try:
        return _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        if repair_torchvision():  # what the file imports may have needed that
            return load(where)
        advice = "Correct it, or run where its imports work."
        if isinstance(error, ModuleNotFoundError) and error.name == where:
            # It may have been meant as a scheme.
            advice = f"Give a module that is installed, FILE.py:NAME, or {schemes.LISTED}:NAME."
        raise ModelSpecError(f"{where} cannot be imported: {reason_of(error)}. {advice}") from error


def reason_of(error: BaseException) -> str:
    """What the user's code fails with, and at which line of it."""
    said = first_line(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    # That of a syntax error stands in its message.
    if not frames or isinstance(error, SyntaxError):
        return said
    return f"{said} (at {short_path(frames[-1].filename)}:{frames[-1].lineno})"


def _is_users(file: str) -> bool:
    standard = file.startswith(_STANDARD) and "site-packages" not in file
    return is_model_file(file) and not standard and not file.startswith(_OURS)


def _load_file(path: Path) -> ModuleType:
    name = _free_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - a path ending in .py has a loader
    assert spec.loader is not None  # noqa: S101 - likewise
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the file look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _free_name(path: Path) -> str:
    """A name for the module of a file that is nobody else's: it may be called ``json.py``."""
    taken = sys.modules.get(path.stem)
    own = taken is None or getattr(taken, "__file__", None) == str(path)
    return path.stem if own else f"{path.stem}_of_{abs(hash(path.resolve()))}"
