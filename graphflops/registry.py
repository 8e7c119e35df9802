"""Which handler prices which operator.

Operators are named as PyTorch names them: ``"aten::add"`` is the packet and covers every
overload, ``"aten::add.Tensor"`` one overload. An in-place operator without an entry of its
own (``"aten::add_"``) is priced as its functional form.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from graphflops.cost import OpCost
from graphflops.errors import DuplicateHandlerError
from graphflops.ir import OpCall
from graphflops.traffic import TrafficRule, streamed

Handler: TypeAlias = Callable[..., OpCost]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the registry knows of one operator.

    Attributes:
        op: The operator it was registered under.
        handler: The pricing function; ``None`` for an operator that does no arithmetic.
        parameters: Schema names the handler takes, in order.
        wants_out: Whether the handler takes the output as ``out``.
        traffic: The rule for bytes; ``None`` where the handler states them itself.
        reason: Why the operator is free; empty where it is not.
        origin: ``file:line`` of the registration.
    """

    op: str
    handler: Handler | None
    parameters: tuple[str, ...] = ()
    wants_out: bool = False
    traffic: TrafficRule | None = streamed
    reason: str = ""
    origin: str = ""


class Registry:
    """A table of handlers, one way of counting.

    Args:
        name: What reports call it.
        base: Where operators that have no entry here are looked up. An entry here overrides
            the base's, for every overload it covers.

    Example:
        >>> registry = Registry("mine")
        >>> @registry.register("mylib::scale")
        ... def scale(x, *, out):
        ...     '''Scaling: one multiplication per element.'''
        ...     return OpCost(flops=out.numel)
        >>> [entry.op for entry in registry]
        ['mylib::scale']
    """

    def __init__(self, name: str, base: Registry | None = None) -> None:
        self.name = name
        self.base = base
        self._entries: dict[str, Entry] = {}
        self._resolved: dict[tuple[str, str], Entry | None] = {}

    def over(self, base: Registry) -> Registry:
        """This registry with ``base`` below it, unless it stands on one already."""
        if self.base is not None:
            return self
        joined = Registry(self.name, base)
        joined._entries = self._entries
        return joined

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def register(self, *ops: str, traffic: TrafficRule | None = streamed) -> Callable[[H], H]:
        """Register a handler for one or more operators.

        Args:
            *ops: Operator names. Several share a handler only where one formula fits all.
            traffic: The rule for bytes read and written; ``None`` if the handler returns them.

        Returns:
            A decorator. The handler's parameters are the operator schema's own names, and
            only those it needs; a keyword-only ``out`` receives the output (a tuple of
            outputs where there are several). It returns an :class:`OpCost`.

        Raises:
            DuplicateHandlerError: An operator already has an entry.
        """
        origin = _caller()

        def decorate(handler: H) -> H:
            names = inspect.signature(handler).parameters
            for op in ops:
                self._add(
                    Entry(
                        op=op,
                        handler=handler,
                        parameters=tuple(n for n in names if n != "out"),
                        wants_out="out" in names,
                        traffic=traffic,
                        origin=origin,
                    )
                )
            return handler

        return decorate

    def free(self, *ops: str, reason: str, traffic: TrafficRule) -> None:
        """Declare operators that do no floating-point arithmetic, with the reason.

        Args:
            *ops: Operator names.
            reason: Why they cost nothing, e.g. ``"view: same memory, other strides"``.
            traffic: The rule for bytes: a copy is free of FLOPs, not of traffic.

        Raises:
            DuplicateHandlerError: An operator already has an entry.
        """
        origin = _caller()
        for op in ops:
            self._add(Entry(op=op, handler=None, traffic=traffic, reason=reason, origin=origin))

    def lookup(self, call: OpCall) -> Entry | None:
        """The entry for a call: its overload, its packet, the packet it is in-place of."""
        return self.find(call.op, call.overload)

    def find(self, op: str, overload: str) -> Entry | None:
        """The entry for an operator by packet and overload name."""
        key = (op, overload)
        if key not in self._resolved:
            functional = op.removesuffix("_") if not op.endswith("__") else op
            names = (f"{op}.{overload}", op, functional)
            self._resolved[key] = next((e for n in names if (e := self._entries.get(n))), None)
        found = self._resolved[key]
        return found if found or self.base is None else self.base.find(op, overload)

    def _add(self, entry: Entry) -> None:
        if (known := self._entries.get(entry.op)) is not None:
            msg = (
                f"{entry.op} is registered twice in {self.name!r}: at {known.origin} and at "
                f"{entry.origin}. Remove one of the two; to override a price, register it in a "
                "Registry of your own and pass it as registry=."
            )
            raise DuplicateHandlerError(msg)
        self._entries[entry.op] = entry
        self._resolved.clear()


def _caller() -> str:
    """``file:line`` of whoever called the function that asks."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


EXACT = Registry("exact")
"""The registry that ``graphflops.handlers`` fills and that a count uses by default."""

register = EXACT.register
free = EXACT.free
