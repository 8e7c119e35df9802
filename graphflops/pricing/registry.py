"""Registries of handlers: from an operator to the function that prices it.

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
from graphflops.errors import DuplicateHandlerError, HandlerError
from graphflops.pricing.memory_traffic import TrafficRule, read_all_write_all

Handler: TypeAlias = Callable[..., OpCost]
H = TypeVar("H", bound=Handler)
MANY = sys.maxsize
"""No limit on the number of sparse inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Registry entry of one operator.

    Attributes:
        op: Operator that the entry is registered under.
        handler: Pricing function; ``None`` for an operator that does no arithmetic.
        parameters: Schema names that the handler takes, in order.
        wants_out: True if the handler takes the output as ``out``.
        traffic: Rule for bytes; ``None`` if the handler returns them itself. Without a rule and
            without a handler the operator has no price in this registry, whatever its base has.
        reason: Reason why the operator is free; empty if it is not.
        origin: ``file:line`` of the registration.
        wants_call: True if the handler takes the whole call as ``call``.
        integers: True if arithmetic on integers counts; by default FLOPs are floating-point.
        sparse: Maximum number of sparse inputs; with more of them the price is unknown.
        position_dependent: True if the price may depend on where in the model a call is made.
            Such calls are priced one by one; equal calls of other operators share one price.
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
    position_dependent: bool = False

    @property
    def has_price(self) -> bool:
        """True if the entry has a handler, or says that the operator costs no FLOPs."""
        return self.handler is not None or self.traffic is not None

    @property
    def formula(self) -> str:
        """Docstring of the handler, or the reason why there is no handler."""
        if self.handler is None:
            return f"none: {self.reason}"
        return inspect.cleandoc(self.handler.__doc__ or "")


class HandlerNotLoadedError(HandlerError):
    """Call of a handler of a loaded report, of which only the formula was saved."""


class Registry:
    """Table of handlers: one way of counting.

    Args:
        name: Name in reports.
        base: Registry in which operators without an entry in this one are looked up. An entry
            in this one overrides the base's, for every overload it covers.
        ignores: Function from a call that this way of counting does not see to an entry with
            the reason, or to ``None`` for a call that it sees. Takes precedence over entries.
        integers: True if arithmetic on integers counts as well.
        flops_per_mac: FLOPs per multiply-accumulate in its unit; the base's by default.
        sparse: Maximum number of sparse inputs of a call, unless its handler says otherwise.

    Example:
        >>> registry = Registry("mine")
        >>> @registry.register("mylib::scale")
        ... def scale(x, *, out):
        ...     '''Scaling: one multiplication per element.'''
        ...     return OpCost(flops=out.numel)
        >>> [entry.op for entry in registry]
        ['mylib::scale']
    """

    def __init__(  # noqa: PLR0913 - the properties in which ways of counting differ
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
        self._skips_masked = False
        self._entries: dict[str, Registration] = {}
        self._resolved: dict[tuple[str, str], Registration | None] = {}

    @property
    def flops_per_mac(self) -> int:
        """FLOPs per multiply-accumulate, in the unit of this way of counting."""
        if self._flops_per_mac is not None:
            return self._flops_per_mac
        return FLOPS_PER_MAC if self.base is None else self.base.flops_per_mac

    @property
    def skips_masked(self) -> bool:
        """True if FLOPs and MACs of masked scores of attention are left out."""
        return self._skips_masked or (self.base is not None and self.base.skips_masked)

    def with_base(self, base: Registry) -> Registry:
        """Return this registry on top of ``base``, or itself if it has a base already."""
        return self if self.base is not None else self._replace_base(base)

    def rebase_onto(self, base: Registry) -> Registry:
        """Return the overrides of this registry on top of ``base``; ``base`` if it has none."""
        return base if self.base is None else self._replace_base(self.base.rebase_onto(base))

    def without_masked(self, name: str) -> Registry:
        """Return a registry of the same entries that leaves masked scores of attention out."""
        reduced = self._copy(name, self.base)
        reduced._skips_masked = True
        return reduced

    def _replace_base(self, base: Registry) -> Registry:
        return self._copy(self.name, base)

    def _copy(self, name: str, base: Registry | None) -> Registry:
        """Return a registry that shares the entries of this one, those to come included."""
        copied = Registry(
            name,
            base,
            ignores=self.ignores,
            integers=self.integers,
            flops_per_mac=self._flops_per_mac,
            sparse=self.sparse,
        )
        copied._entries, copied._resolved = self._entries, self._resolved
        copied._skips_masked = self._skips_masked
        return copied

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._entries.values())

    def register(
        self,
        *ops: str,
        traffic: TrafficRule | None = read_all_write_all,
        sparse: int = 0,
        position_dependent: bool | None = None,
    ) -> Callable[[H], H]:
        """Register a handler for one or more operators.

        Args:
            *ops: Operator names. Several share a handler only where one formula fits all.
            traffic: Rule for bytes read and written; ``None`` if the handler returns them.
            sparse: Maximum number of sparse inputs; the formula takes their ``stored``
                elements. A call with more of them has no price.
            position_dependent: True if the price may depend on where in the model a call is
                made: then equal calls of repeated layers are priced one by one. By default
                True for a handler that takes ``call``.

        Returns:
            A decorator. The handler's parameters are the operator schema's own names, and
            only those it needs; a keyword-only ``out`` receives the output (a tuple of
            outputs where there are several), ``call`` the whole :class:`OpCall`. It returns an
            :class:`OpCost`.

        Raises:
            DuplicateHandlerError: An operator already has an entry.
        """
        origin = _caller_location()

        def decorate(handler: H) -> H:
            names = inspect.signature(handler).parameters
            wants_call = "call" in names
            for op in ops:
                self._add(
                    Registration(
                        op=op,
                        handler=handler,
                        parameters=tuple(n for n in names if n not in {"out", "call"}),
                        wants_out="out" in names,
                        wants_call=wants_call,
                        traffic=traffic,
                        origin=origin,
                        integers=self.integers,
                        sparse=sparse or self.sparse,
                        position_dependent=(
                            wants_call if position_dependent is None else position_dependent
                        ),
                    )
                )
            return handler

        return decorate

    def free(self, *ops: str, reason: str, traffic: TrafficRule) -> None:
        """Declare operators that do no floating-point arithmetic, with the reason.

        Args:
            *ops: Operator names.
            reason: Reason why they cost nothing, e.g. ``"view: same memory, other strides"``.
            traffic: Rule for bytes: a copy is free of FLOPs, not of traffic.

        Raises:
            DuplicateHandlerError: An operator already has an entry.
        """
        origin = _caller_location()
        for op in ops:
            self._add(
                Registration(
                    op=op, handler=None, traffic=traffic, reason=reason, origin=origin, sparse=MANY
                )
            )

    def lookup(self, call: OpCall) -> Registration | None:
        """Return the entry of a call: of its overload, its packet or its functional form."""
        if self.ignores is not None and (ignored := self.ignores(call)) is not None:
            return ignored
        entry = self.lookup_local(call)
        return entry if entry or self.base is None else self.base.lookup(call)

    def lookup_local(self, call: OpCall) -> Registration | None:
        """Return the entry of this registry itself, without ``ignores`` and its base."""
        op, overload = key = (call.op, call.overload)
        if key not in self._resolved:
            functional = op.removesuffix("_") if not op.endswith("__") else op
            names = (f"{op}.{overload}", op, functional)
            self._resolved[key] = next((e for n in names if (e := self._entries.get(n))), None)
        return self._resolved[key]

    def _add(self, entry: Registration) -> None:
        if (earlier := self._entries.get(entry.op)) is not None:
            msg = (
                f"{entry.op} is registered twice in {self.name!r}: at {earlier.origin} and at "
                f"{entry.origin}. Remove one of the two; to override a price, register it in a "
                "Registry of your own and pass it as registry=."
            )
            raise DuplicateHandlerError(msg)
        self._entries[entry.op] = entry
        self._resolved.clear()


def _caller_location() -> str:
    """Return ``file:line`` of the call of the function that calls this one."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


EXACT = Registry("exact")
"""Registry that ``graphflops.handlers`` fills and that a count uses by default."""

register = EXACT.register
free = EXACT.free
