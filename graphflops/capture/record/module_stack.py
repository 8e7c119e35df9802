"""Stack of the modules that run: the innermost one makes the operator calls."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from graphflops.capture.named_modules import Modules
from graphflops.capture.source_lines import current_source_line


class CallSite(NamedTuple):
    """Module that makes a call, and line of the call.

    Attributes:
        module_path: Path of the module; ``""`` is the root.
        module_class: Name of its class.
        source_line: ``file:line`` of the call.
    """

    module_path: str
    module_class: str = ""
    source_line: str = ""


class ModuleStack:
    """Stack of the modules of a model that run.

    Attributes:
        calls: Number of calls of each module, by path.
    """

    def __init__(self, modules: Modules, root: CallSite | None = None) -> None:
        """Start with no module running.

        Args:
            modules: Modules of the model.
            root: Call site of calls made outside of all modules; by default the model itself.
        """
        self.calls: Counter[str] = Counter()
        self._paths: dict[int, list[str]] = {}
        for path, module in modules:
            self._paths.setdefault(id(module), []).append(path)
        self._stack = [root or CallSite("", type(modules[0][1]).__name__)]

    def run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run a module of the model with its call site on the stack."""
        self._enter(module)
        try:
            return type(module)._call_impl(module, *args, **kwargs)  # type: ignore[no-untyped-call]  # torch's gap
        finally:
            self._leave()

    def current_call_site(self) -> CallSite:
        """Return the module that runs now, and the line that runs."""
        call_site = self._stack[-1]
        # A rerun has no line of the model on the Python stack: its call site has the line.
        return call_site._replace(source_line=current_source_line() or call_site.source_line)

    @contextmanager
    def at_call_site(self, call_site: CallSite) -> Iterator[None]:
        """Attribute calls in the block to a call site."""
        self._stack.append(call_site)
        try:
            yield
        finally:
            self._stack.pop()

    def call_site_of(self, module: nn.Module) -> CallSite:
        """Return the call site of a module about to run: the caller's if it is not of the model."""
        caller = self._stack[-1]
        paths = self._paths.get(id(module))
        if paths is None:
            return caller
        # A shared module goes by its path below the caller.
        below = (path for path in paths if path.startswith(f"{caller.module_path}."))
        return CallSite(next(below, paths[0]), type(module).__name__, caller.source_line)

    def _enter(self, module: nn.Module) -> None:
        call_site = self.call_site_of(module)
        if self._counts_calls():
            self.calls[call_site.module_path] += 1
        self._stack.append(call_site)

    def _counts_calls(self) -> bool:
        """Return True if module calls now are of the forward pass, and counted."""
        return True

    def _leave(self) -> None:
        self._stack.pop()


def patch_call_impl(modules: Modules, run: Callable[..., Any]) -> None:
    """Let a function run the modules of a stand-in, given the module and its arguments.

    It is an attribute of each instance, which ``nn.Module.__call__`` finds: no other model is
    affected.
    """
    for _, module in modules:
        vars(module)["_call_impl"] = functools.partial(run, module)
