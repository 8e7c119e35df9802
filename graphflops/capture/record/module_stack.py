"""Which module of a model runs: calls belong to it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from graphflops.capture.named_modules import Modules
from graphflops.capture.source_lines import line_running


class CallSite(NamedTuple):
    """A module and a line of its code."""

    module_path: str
    module_class: str = ""
    source_line: str = ""


class ModuleStack:
    """Follows which module of a model runs.

    Attributes:
        calls: How often each module was called, by path.
    """

    def __init__(self, modules: Modules, outside: CallSite | None = None) -> None:
        """Follow none yet.

        Args:
            modules: Those of the model.
            outside: Whose calls those are that no module of the model makes; by default its own.
        """
        self.calls: Counter[str] = Counter()
        self._names: dict[int, list[str]] = {}
        for path, module in modules:
            self._names.setdefault(id(module), []).append(path)
        self._stack = [outside or CallSite("", type(modules[0][1]).__name__)]

    def run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run a module of the model, and follow it."""
        self._enter(module)
        try:
            return type(module)._call_impl(module, *args, **kwargs)  # type: ignore[no-untyped-call]  # torch's gap
        finally:
            self._leave()

    def current(self) -> CallSite:
        """The module that runs now, and the line that does."""
        owner = self._stack[-1]
        # What runs again is called by no line of the model, but was.
        return owner._replace(source_line=line_running() or owner.source_line)

    @contextmanager
    def inside(self, owner: CallSite) -> Iterator[None]:
        """Let calls be those of a module until the block ends."""
        self._stack.append(owner)
        try:
            yield
        finally:
            self._stack.pop()

    def call_site_of(self, module: nn.Module) -> CallSite:
        """A module that is about to run; what is none of the model's is its caller's."""
        outer = self._stack[-1]
        names = self._names.get(id(module))
        if names is None:
            return outer
        # A shared module goes by the name under which the running one has it.
        inside = (name for name in names if name.startswith(f"{outer.module_path}."))
        return CallSite(next(inside, names[0]), type(module).__name__, outer.source_line)

    def _enter(self, module: nn.Module) -> None:
        owner = self.call_site_of(module)
        if self._is_counted():
            self.calls[owner.module_path] += 1
        self._stack.append(owner)

    def _is_counted(self) -> bool:
        """Whether a call of a module is one of the forward pass."""
        return True

    def _leave(self) -> None:
        self._stack.pop()


def run_by(modules: Modules, run: Callable[..., Any]) -> None:
    """Let the modules of a stand-in be run by a function of the module and its arguments.

    ``nn.Module.__call__`` finds it as an attribute of theirs: other models know nothing of it.
    """
    for _, module in modules:
        vars(module)["_call_impl"] = functools.partial(run, module)
