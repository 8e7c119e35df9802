"""Parts that pages are made of: scripts, styles and libraries of this package, and packed data."""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from importlib import resources


@cache
def text(name: str) -> str:
    """Return a file of ``page/``."""
    return _file("page", name)


@cache
def licences() -> str:
    """Return the licences of the libraries."""
    return _file("vendor", "LICENSES.txt")


@cache
def script(*names: str) -> str:
    """Return scripts of ``page/`` as one, in this order, which leaves no names in the page.

    Args:
        names: Names of the files without their end.
    """
    files = "\n".join(text(f"{name}.js") for name in names)
    return f'(() => {{\n"use strict";\n{files}}})();'


def style(*names: str) -> str:
    """Return style sheets of ``page/`` as one."""
    return "\n".join(text(f"{name}.css") for name in names)


def packed(content: str) -> str:
    """Return text compressed, in letters that have no meaning in markup.

    Example:
        >>> packed("<script>" * 1000)[:8]
        'H4sIAAAA'
    """
    return b64encode(gzip.compress(content.encode(), compresslevel=9, mtime=0)).decode("ascii")


@cache
def library(name: str) -> str:
    """Return the element of a library of ``vendor/``, which the page's script starts."""
    return f'<script type="text/plain" id="{name}">{packed(_library(name))}</script>'


def policy(styles: str, own_script: str, libraries: Iterable[str]) -> str:
    """Return the content security policy of a page: it runs these scripts, and fetches nothing.

    Args:
        styles: Its style sheet.
        own_script: Its script.
        libraries: Names of the libraries that this starts.
    """
    hashes = " ".join(map(_hash, (own_script, *map(_library, libraries))))
    rules = f"script-src {hashes}; style-src {_hash(styles)}; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {rules}"


@cache
def _library(name: str) -> str:
    return _file("vendor", f"{name}.min.js")


@cache
def _hash(content: str) -> str:
    digest = b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _file(folder: str, name: str) -> str:
    return resources.files("graphflops.html").joinpath(folder, name).read_text("utf-8")
