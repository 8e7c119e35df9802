"""Files of Python code as they are in a git revision: ``REVISION:FILE.py:NAME``."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphflops.errors import GraphFlopsError, ModelSpecError
from graphflops.models.schemes import schemes

_AT_REVISION = re.compile(r"(?P<revision>[^:]+):(?P<file>[^:]+\.py)(?P<name>:[^:]*)?")


@contextlib.contextmanager
def at_revision(name: str) -> Iterator[str]:
    """Write the file of ``REVISION:FILE.py:NAME`` to a temporary folder.

    What the file imports from its repository is what the working tree has.

    Args:
        name: Name of a model; the path is relative to the working directory.

    Yields:
        Name of the model in the temporary file; other names as they are.

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
    text = _show(match["revision"], match["file"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(match["file"]).name
        path.write_bytes(text)
        try:
            yield f"{path}{match['name'] or ''}"
        except GraphFlopsError as error:
            # The sentence names the file where the user has it.
            shown = str(error).replace(str(path), f"{match['revision']}:{match['file']}")
            raise type(error)(shown) from error


def _show(revision: str, file: str) -> bytes:
    """Return a file of a revision."""
    git = shutil.which("git")
    if git is None:
        msg = (
            f"{revision}:{file} is a file in a git revision, and git is not installed. Install it."
        )
        raise ModelSpecError(msg)
    relative = Path(os.path.relpath(file)).as_posix()
    done = subprocess.run(  # noqa: S603 - the revision is one argument, and no option
        [git, "show", "--end-of-options", f"{revision}:./{relative}"],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        msg = (
            f"git has no {file} in {revision!r}: {reason}. Give a revision of this repository and "
            "a path relative to the working directory: REVISION:FILE.py:NAME."
        )
        raise ModelSpecError(msg)
    return done.stdout
