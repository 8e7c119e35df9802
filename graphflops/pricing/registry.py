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

from graphflops.core.cost import FLOPS_PER_MAC, OpCost
from graphflops.core.ir import OpCall
from graphflops.errors import DuplicateHandlerError
from graphflops.pricing.memory_traffic import TrafficRule, read_all_write_all

Handler: TypeAlias = Callable[..., OpCost]
H = TypeVar("H", bound=Handler)
MANY = sys.maxsize
"""Of sparse inputs, as many as there may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the registry knows of one operator.

    Attributes:
        op: The operator it was registered under.
        handler: The pricing function; ``None`` for an operator that does no arithmetic.
        parameters: Schema names the handler takes, in order.
        wants_out: Whether the handler takes the output as ``out``.
        traffic: The rule for bytes; ``None`` where the handler states them itself. Neither it nor
            a handler: the operator has no price here, whoever else knows one.
        reason: Why the operator is free; empty where it is not.
        origin: ``file:line`` of the registration.
        wants_call: Whether the handler takes the whole call as ``call``.
        integers: Whether arithmetic on integers counts; by default FLOPs are floating-point.
        sparse: How many inputs may be sparse, at most; with more of them the price is unknown.
    """

    op: str
    handler: Handler | None
    parameters: tuple[str, ...] = ()
    wants_out: bool = False
    traffic: TrafficRule | None = read_all_write_all
    reason: str = ""
    origin: str = ""
    wants_call: bool = False
    integers: bool = False
    sparse: int = 0

    @property
    def has_price(self) -> bool:
        """Whether it says what the operator costs, or that it costs nothing."""
        return self.handler is not None or self.traffic is not None

    @property
    def position_dependent(self) -> bool:
        """Whether the price may follow from where in a model a call is made.

        Handlers of ours that want the whole call look at what it is.
        """
        ours = str(getattr(self.handler, "__module__", "")).startswith("graphflops.")
        return self.wants_call and not ours

    @property
    def formula(self) -> str:
        """What the handler's docstring says, or why there is none."""
        if self.handler is None:
            return f"none: {self.reason}"
        return inspect.cleandoc(self.handler.__doc__ or "")


class Registry:
    """A table of handlers, one way of counting.

    Args:
        name: What reports call it.
        base: Where operators that have no entry here are looked up. An entry here overrides
            the base's, for every overload it covers.
        ignores: What this way of counting does not see, whatever the entries: from a call to
            the entry that says why it costs nothing, or ``None`` where it is seen.
        integers: Whether arithmetic on integers counts as well.
        flops_per_mac: FLOPs in its unit that a multiply-accumulate makes; the base's by default.
        sparse: How many inputs of a call may be sparse, unless its handler says otherwise.

    Example:
        >>> registry = Registry("mine")
        >>> @registry.register("mylib::scale")
        ... def scale(x, *, out):
        ...     '''Scaling: one multiplication per element.'''
        ...     return OpCost(flops=out.numel)
        >>> [entry.op for entry in registry]
        ['mylib::scale']
    """

    def __init__(  # noqa: PLR0913 - what a way of counting differs by
        self,
        name: str,
        base: Registry | None = None,
        *,
        ignores: Callable[[OpCall], Registration | None] | None = None,
        integers: bool = False,
        flops_per_mac: int | None = None,
        sparse: int = 0,
    ) -> None:
        self.name = name
        self.base = base
        self.ignores = ignores
        self.integers = integers
        self.sparse = sparse
        self._flops_per_mac = flops_per_mac
        self._entries: dict[str, Registration] = {}
        self._resolved: dict[tuple[str, str], Registration | None] = {}

    @property
    def flops_per_mac(self) -> int:
        """FLOPs, in the unit of this way of counting, that a multiply-accumulate makes."""
        if self._flops_per_mac is not None:
            return self._flops_per_mac
        return FLOPS_PER_MAC if self.base is None else self.base.flops_per_mac

    def with_base(self, base: Registry) -> Registry:
        """This registry with ``base`` below it, unless it stands on one already."""
        return self if self.base is not None else self._on(base)

    def rebase_onto(self, base: Registry) -> Registry:
        """The same overrides over another way of counting; ``base`` itself if it has none."""
        return base if self.base is None else self._on(self.base.rebase_onto(base))

    def _on(self, base: Registry) -> Registry:
        joined = Registry(
            self.name,
            base,
            ignores=self.ignores,
            integers=self.integers,
            flops_per_mac=self._flops_per_mac,
            sparse=self.sparse,
        )
        joined._entries = self._entries
        return joined

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._entries.values())

    def register(
        self, *ops: str, traffic: TrafficRule | None = read_all_write_all, sparse: int = 0
    ) -> Callable[[H], H]:
        """Register a handler for one or more operators.

        Args:
            *ops: Operator names. Several share a handler only where one formula fits all.
            traffic: The rule for bytes read and written; ``None`` if the handler returns them.
            sparse: How many inputs may be sparse, at most: of those the formula looks at what
                is ``stored``. A call with more of them has no price.

        Returns:
            A decorator. The handler's parameters are the operator schema's own names, and
            only those it needs; a keyword-only ``out`` receives the output (a tuple of
            outputs where there are several), ``call`` the whole :class:`OpCall`. It returns an
            :class:`OpCost`.

        Raises:
            DuplicateHandlerError: An operator already has an entry.
        """
        origin = _caller()

        def decorate(handler: H) -> H:
            names = inspect.signature(handler).parameters
            for op in ops:
                self._add(
                    Registration(
                        op=op,
                        handler=handler,
                        parameters=tuple(n for n in names if n not in {"out", "call"}),
                        wants_out="out" in names,
                        wants_call="call" in names,
                        traffic=traffic,
                        origin=origin,
                        integers=self.integers,
                        sparse=sparse or self.sparse,
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
            self._add(
                Registration(
                    op=op, handler=None, traffic=traffic, reason=reason, origin=origin, sparse=MANY
                )
            )

    def lookup(self, call: OpCall) -> Registration | None:
        """The entry for a call: its overload, its packet, the packet it is in-place of."""
        if self.ignores is not None and (ignored := self.ignores(call)) is not None:
            return ignored
        found = self.lookup_local(call)
        return found if found or self.base is None else self.base.lookup(call)

    def lookup_local(self, call: OpCall) -> Registration | None:
        """The entry that this registry itself has, whatever it ignores or stands on."""
        op, overload = key = (call.op, call.overload)
        if key not in self._resolved:
            functional = op.removesuffix("_") if not op.endswith("__") else op
            names = (f"{op}.{overload}", op, functional)
            self._resolved[key] = next((e for n in names if (e := self._entries.get(n))), None)
        return self._resolved[key]

    def _add(self, entry: Registration) -> None:
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
