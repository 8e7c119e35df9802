"""Files of Python code as they are in a git revision: ``REVISION:FILE.py:NAME``."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from graphflops.errors import GraphFlopsError, ModelSpecError
from graphflops.models.schemes import schemes

_AT_REVISION = re.compile(r"(?P<revision>[^:]+):(?P<file>[^:]+\.py)(?P<name>:[^:]*)?")
_THIS_PACKAGE = "graphflops"


@contextlib.contextmanager
def at_revision(name: str) -> Iterator[str]:
    """Let ``FILE.py:NAME`` be that of a revision, for a name ``REVISION:FILE.py:NAME``.

    The files of the revision are written to a temporary folder, which is the working directory
    meanwhile: what the file imports or reads from its repository is that of the revision too.

    Args:
        name: Name of a model; the path is relative to the working directory.

    Yields:
        Name of the model in that folder; other names as they are.

    Raises:
        ModelSpecError: git is not installed, or has no such revision or file.

    Example:
        >>> with at_revision("models.py:tiny") as name:
        ...     name
        'models.py:tiny'
    """
    match = _AT_REVISION.fullmatch(name)
    if match is None or match["revision"] in schemes():
        yield name
        return
    revision, file = match["revision"], os.path.relpath(match["file"])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(_git(name, "rev-parse", "--show-toplevel"))
        tree = Path(folder).resolve() / "tree"
        _check_out(name, revision, root, tree)
        here = tree / Path.cwd().relative_to(root)
        if not (here / file).is_file():
            msg = (
                f"{name}: revision {revision!r} has no {file}. Give a path in it, relative to the "
                "working directory."
            )
            raise ModelSpecError(msg)
        with _imports_from(tree, root), contextlib.chdir(here):
            try:
                yield f"{file}{match['name'] or ''}"
            except GraphFlopsError as error:
                # The sentence names the file as the user did.
                shown = re.sub(rf"(?<![\w/.]){re.escape(file)}", f"{revision}:{file}", str(error))
                raise type(error)(shown) from error


def _check_out(name: str, revision: str, root: Path, tree: Path) -> None:
    """Write the files of a revision to a folder, past the index of the repository."""
    try:
        commit = _git(name, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{tree}}")
    except ModelSpecError as error:
        msg = (
            f"{name}: git knows no revision {revision!r}. Give a branch, a tag or a commit that "
            "git log shows; in CI, check out the whole history."
        )
        raise ModelSpecError(msg) from error
    environment = {**os.environ, "GIT_INDEX_FILE": str(tree.with_name("index"))}
    where = ("-C", str(root))
    _git(name, *where, "read-tree", commit, environment=environment)
    _git(name, *where, "checkout-index", "-a", f"--prefix={tree}/", environment=environment)
    tree.mkdir(exist_ok=True)


def _git(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a git command prints."""
    git = shutil.which("git")
    if git is None:
        msg = f"{name} is a file in a git revision, and git is not installed. Install it."
        raise ModelSpecError(msg)
    done = subprocess.run(  # noqa: S603 - arguments after --end-of-options are no options
        [git, *arguments], capture_output=True, check=False, text=True, env=environment
    )
    if done.returncode:
        reason = done.stderr.strip().removeprefix("fatal: ").rstrip(".")
        msg = f"{name}: git cannot read it: {reason}. Run in the repository that has the file."
        raise ModelSpecError(msg)
    return done.stdout.strip()


@contextlib.contextmanager
def _imports_from(tree: Path, root: Path) -> Iterator[None]:
    """Import modules of a repository from another folder; what was imported is put back."""
    path, hidden = list(sys.path), _modules_in(root)
    sys.path[:] = [_moved(entry, root, tree) for entry in path]
    for name in hidden:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in _modules_in(tree):
            del sys.modules[name]
        sys.modules.update(hidden)
        for entry in [entry for entry in sys.path_importer_cache if _is_in(entry, tree)]:
            del sys.path_importer_cache[entry]


def _moved(entry: str, root: Path, tree: Path) -> str:
    """Return the folder of a revision for an entry of ``sys.path``, if it is in it."""
    if not entry or not _is_in(entry, root):  # "" is the working directory
        return entry
    moved = tree / Path(entry).resolve().relative_to(root)
    return str(moved) if moved.is_dir() else entry


def _modules_in(folder: Path) -> dict[str, ModuleType]:
    """Return the imported modules whose files are in a folder, but those that count and test."""
    return {
        name: module
        for name, module in list(sys.modules.items())
        if (file := _file_of(module)) and _is_in(file, folder) and not _is_installed(name, file)
    }


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", ())), None)


def _is_installed(name: str, file: str) -> bool:
    return name.partition(".")[0] in {_THIS_PACKAGE, "__main__"} or "site-packages" in file


def _is_in(file: str, folder: Path) -> bool:
    return Path(file).resolve().is_relative_to(folder)
