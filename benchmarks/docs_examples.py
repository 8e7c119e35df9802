"""Examples and figures in the pages: ``python -m benchmarks.docs_examples [--update] [PAGE ...]``.

What a page shows is what graphflops prints:

- ``python`` blocks of a page run in order, in one namespace; an ``output`` block is what the
  ``python`` block before it prints.
- A ``console`` block holds commands, ``$ graphflops ...``, each followed by what it prints. They
  run in this process, with the checkout as working directory and a terminal of 100 columns.
  ``head -N``, ``tail -N`` and ``grep TEXT`` after a ``|`` select lines.
- ``graphflops`` commands in ``sh`` blocks are parsed and not run: commands and flags exist.
- Text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` is a figure of
  :mod:`benchmarks.docs_figures`.

Times and the line numbers of other packages may differ; lines that differ in nothing else stay as
they are. Without ``--update``, stale blocks are listed and the exit status is 1; with it, they are
written again.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from benchmarks import docs_figures
from graphflops.cli import app
from graphflops.cli import main as run_graphflops

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COLUMNS = 100
PYTHON, CONSOLE = ("python", "output"), ("console", "sh")
_VARYING = (
    (re.compile(r" *\b\d+(\.\d+)? (s|ms)\b"), " # s"),
    (re.compile(r"\b((?:torch|transformers|timm|torchvision)/\S+\.py):\d+"), r"\1:#"),
    (re.compile(r" +$", re.MULTILINE), ""),
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Part of a page that was produced again.

    Attributes:
        page: The page.
        start: Where the part begins in the page's text.
        end: Where it ends.
        shown: What the page has.
        printed: What it should have.
        exact: Times count as well.
    """

    page: Path
    start: int
    end: int
    shown: str
    printed: str
    exact: bool = False

    @property
    def stale(self) -> bool:
        """True if the two differ, in more than times and line numbers unless they are exact."""
        return self._compared(self.shown) != self._compared(self.printed)

    def _compared(self, text: str) -> str:
        return text.strip("\n") if self.exact else normalized(text)

    def update(self) -> str:
        """Return what the page should have, with the lines of the page that are as good."""
        if self.exact:
            return self.printed
        lines = {normalized(line): line for line in self.shown.splitlines()}
        printed = (lines.get(normalized(line), line) for line in self.printed.splitlines())
        return "\n".join(printed) + "\n"

    def difference(self) -> str:
        """The differing lines."""
        line = self.page.read_text("utf-8").count("\n", 0, self.start) + 1
        place = f"{self.page.relative_to(ROOT)}:{line}"
        lines = difflib.unified_diff(
            self._compared(self.shown).splitlines(),
            self._compared(self.printed).splitlines(),
            f"{place}, as it stands",
            "as it should be: make docs-examples",
            lineterm="",
        )
        return "\n".join(lines)


def normalized(text: str) -> str:
    """Return the text without what varies from run to run."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip("\n")


_FENCE = "```"


class _Runner:
    """Evaluators of the blocks of one page."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._python = PythonEvaluator()
        self._printed = ""

    def parsers(self, languages: Iterable[str]) -> list[CodeBlockParser]:
        return [CodeBlockParser(name, getattr(self, f"_run_{name}")) for name in languages]

    def _run_python(self, example: Example) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            self._python(example)
        self._printed = stdout.getvalue()

    def _run_output(self, example: Example) -> None:
        self._add(example, self._printed)

    def _run_console(self, example: Example) -> None:
        printed = []
        for command in _commands(example.parsed):
            printed += [f"$ {command}", run_command(command)]
        self._add(example, "\n".join(printed))

    @staticmethod
    def _run_sh(example: Example) -> None:
        for line in example.parsed.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "graphflops":
                ends = (at for at, word in enumerate(words) if word in {"|", "||", "&&", ">"})
                _check_command(words[1 : next(ends, None)])

    def _add(self, example: Example, printed: str) -> None:
        start = example.start + example.parsed.offset
        # The parsed text lacks the spaces of blank lines.
        end = example.document.text.rindex(_FENCE, start, example.end)
        self.blocks.append(
            Block(
                page=Path(example.path),
                start=start,
                end=end,
                shown=example.parsed,
                printed=re.sub(r" +$", "", printed, flags=re.MULTILINE).rstrip("\n") + "\n",
            )
        )


def run_python(page: Path) -> list[Block]:
    """Run the ``python`` blocks of a page; return its ``output`` blocks."""
    return _run(page, PYTHON)


def run_console(page: Path) -> list[Block]:
    """Run the ``console`` blocks of a page and return them; parse its ``sh`` blocks."""
    return _run(page, CONSOLE)


def _run(page: Path, languages: Iterable[str]) -> list[Block]:
    runner = _Runner()
    document = Sybil(parsers=runner.parsers(languages)).parse(page)
    for example in document.examples():
        example.evaluate()
    return runner.blocks


def figures(page: Path) -> Iterator[Block]:
    """Compute the figures of a page again.

    Raises:
        KeyError: A mark has the name of no figure.
    """
    text = page.read_text("utf-8")
    for match in re.finditer(r"<!-- ([a-z-]+) -->(.*?)<!-- /\1 -->", text, re.DOTALL):
        shown = match[2]
        value = docs_figures.FIGURES[match[1]]()
        printed = f"\n\n{value}\n\n" if "\n" in shown else value
        yield Block(
            page=page,
            start=match.start(2),
            end=match.end(2),
            shown=shown,
            printed=printed,
            exact=True,
        )


def languages_of(page: Path) -> set[str]:
    """Return the kinds of fenced blocks that a page has."""
    return set(re.findall(r"^```(\w+)$", page.read_text("utf-8"), re.MULTILINE))


def run_command(command: str) -> str:
    """Run ``graphflops ... | head -N`` and return what a terminal would show."""
    first, *filters = command.replace("\\\n", " ").split(" | ")
    text = _graphflops(shlex.split(first)[1:])
    for words in map(shlex.split, filters):
        text = _filtered(text, words)
    return text.rstrip("\n")


def _commands(block: str) -> list[str]:
    found = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
    if other := [command for command in found if not command.startswith("graphflops ")]:
        raise ValueError(f"only graphflops commands are run: {other}")
    return found


def _graphflops(arguments: list[str]) -> str:
    terminal = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": str(COLUMNS), "NO_COLOR": "1"}),
        mock.patch.object(sys, "argv", ["graphflops", *arguments]),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(terminal),
        contextlib.redirect_stderr(terminal),
        contextlib.suppress(SystemExit),
    ):
        run_graphflops()
    return terminal.getvalue()


def _filtered(text: str, words: list[str]) -> str:
    lines = text.splitlines()
    match words:
        case ["head", count]:
            lines = lines[: int(count.removeprefix("-"))]
        case ["tail", count]:
            lines = lines[-int(count.removeprefix("-")) :]
        case ["grep", pattern]:
            lines = [line for line in lines if re.search(pattern, line)]
        case _:
            raise ValueError(f"{words[0]} is none of head, tail and grep.")
    return "\n".join(lines)


def _check_command(arguments: list[str]) -> None:
    """Parse a command line.

    Raises:
        ValueError: It has no such command or flag.
    """
    group: Any = typer.main.get_command(app)
    command = group.commands.get(arguments[0])
    if command is None:
        raise ValueError(f"graphflops has no command {arguments[0]}.")
    command.make_context(arguments[0], arguments[1:])


def main() -> int:
    """Run all pages, or those that are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--update", action="store_true", help="write stale blocks again")
    options = parser.parse_args()
    stale = False
    for page in [path.resolve() for path in options.pages] or PAGES:
        for produce in (run_python, run_console, figures):
            old = [block for block in produce(page) if block.stale]
            stale = stale or bool(old)
            for block in old:
                print(block.difference(), file=sys.stderr)
            if options.update:
                _write(page, old)
    return int(stale and not options.update)


def _write(page: Path, blocks: list[Block]) -> None:
    text = page.read_text("utf-8")
    for block in sorted(blocks, key=lambda block: block.start, reverse=True):
        text = text[: block.start] + block.update() + text[block.end :]
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
