"""From a call and a registry to a priced record."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

import sympy

from graphflops.core.call_sequence import CallSequence
from graphflops.core.cost import FLOPS_PER_MAC, Dim, OpCost
from graphflops.core.ir import Fallback, OpCall, OpRecord, Status
from graphflops.errors import HandlerError
from graphflops.pricing.memory_traffic import no_traffic, read_all_write_all
from graphflops.pricing.registry import HandlerNotLoadedError, Registration, Registry
from graphflops.runtime.interruption import raise_interruption


def price_all(
    calls: Iterable[OpCall], registry: Registry, fallback: Fallback | None = None
) -> CallSequence[OpRecord]:
    """Price calls in order, alike ones once: in a deep model most are."""
    known: dict[Hashable, OpRecord] = {}

    def record(call: OpCall) -> tuple[OpRecord]:
        key = _key(call)
        alike = known.get(key)
        if alike is not None:
            return (OpRecord(call=call, status=alike.status, cost=alike.cost, parts=alike.parts),)
        found = price(call, registry, fallback)
        entry = registry.lookup(call)
        if entry is None or not entry.position_dependent:
            known[key] = found
        return (found,)

    def position_dependent(call: OpCall) -> bool:
        entry = registry.lookup(call)
        return entry is not None and entry.position_dependent

    return CallSequence.of(calls).expand_where(position_dependent).map_items(record)


def _key(call: OpCall) -> Hashable:
    """All of a call but where it was made: what a price follows from."""
    return (
        *(
            call.op,
            call.overload,
            call.is_view,
            call.trip_count,
            call.module_class,
            call.torch_function,
            call.writes,
        ),
        *(call.phase, call.is_weight_gradient, call.discarded_gradients, call.masked_scores),
        *(call.outputs, tuple(call.inputs.values()), _typed(tuple(call.attrs.values()))),
        _shared(call),
    )


def _typed(value: object) -> Hashable:
    """A value that is not equal to one of another type: True is 1 otherwise."""
    if isinstance(value, tuple):
        return tuple([_typed(item) for item in value])
    return value if type(value) is str else (type(value), value)


def _shared(call: OpCall) -> Hashable:
    """Which inputs are one tensor: it is read once."""
    tensors = [tensor.name or id(tensor) for _, tensor in call.tensors()]
    alone = len(set(tensors)) == len(tensors)
    return None if alone else tuple([tensors.index(tensor) for tensor in tensors])


def price(call: OpCall, registry: Registry, fallback: Fallback | None = None) -> OpRecord:
    """Price one call.

    Args:
        call: The call, shapes and attributes only.
        registry: Where its handler is looked up.
        fallback: Asked where there is none: for a formula, then for a decomposition.

    Returns:
        A record: COUNTED by a handler or a formula, FREE by declaration, DECOMPOSED into
        priced calls, or UNKNOWN with no cost, as where a formula is not one for sparse tensors.

    Raises:
        HandlerError: The handler failed, or returned something that is not a cost.
    """
    entry = registry.lookup(call)
    if not _is_for_layouts(entry, call):
        return OpRecord(call=call, status=Status.UNKNOWN, cost=None)
    if entry is None:
        return _fall_back(call, registry, fallback)
    if not entry.has_price:
        return OpRecord(call=call, status=Status.UNKNOWN, cost=None)
    status = Status.FREE if entry.handler is None else Status.COUNTED
    cost = cost_of(call, entry)
    return OpRecord(
        call=call, status=status, cost=cost if call.trip_count == 1 else cost * call.trip_count
    )


def cost_of(call: OpCall, entry: Registration) -> OpCost:
    """What one run of a call costs by an entry, loops around it left aside.

    Raises:
        HandlerError: The handler failed, or returned something that is not a cost.
    """
    idle = entry.handler is None or _reads_nothing(call)
    cost = OpCost() if idle and entry.traffic is not None else _arithmetic(call, entry)
    if call.masked_scores[0] != 0:
        cost += OpCost(flops_masked=FLOPS_PER_MAC * _part(cost.macs, *call.masked_scores))
    return cost if entry.traffic is None else cost.with_bytes(*entry.traffic(call))


def _part(macs: Dim, hidden: Dim, scores: Dim) -> Dim:
    """MACs of the hidden ones of some scores, of which each takes as many."""
    whole = macs * hidden
    return whole // scores if isinstance(whole, int) and isinstance(scores, int) else whole / scores


@dataclass(frozen=True, slots=True)
class Priced:
    """Tells whether an operator has an entry in a registry; equal for the same registry."""

    registry: Registry

    def __call__(self, op: str, overload: str) -> bool:
        """Return True for an operator with an entry."""
        return self.registry.lookup(OpCall(op=op, overload=overload)) is not None


def _fall_back(call: OpCall, registry: Registry, fallback: Fallback | None) -> OpRecord:
    unknown = OpRecord(call=call, status=Status.UNKNOWN, cost=None)
    if fallback is None:
        return unknown
    if (flops := fallback.formula(call)) is not None:
        cost = OpCost(flops=flops).with_bytes(*read_all_write_all(call))
        return replace(unknown, status=Status.COUNTED, cost=cost * call.trip_count)
    calls = fallback.decompose(call, Priced(registry))
    parts = tuple(price_all(calls, registry)) if calls is not None else ()
    costs = [part.cost for part in parts if part.cost is not None]
    if calls is None or len(costs) < len(parts):
        return unknown
    cost = sum(costs, start=OpCost())
    # Its parts run as one operator: what passes between them stays inside.
    moves = cost.bytes_read != 0 or cost.bytes_written != 0
    cost = cost.with_bytes(*read_all_write_all(call)) if moves else cost
    return replace(unknown, status=Status.DECOMPOSED, cost=cost * call.trip_count, parts=parts)


def _is_for_layouts(entry: Registration | None, call: OpCall) -> bool:
    """Return True if what sparse tensors store decides a price, and it is known."""
    inputs = [tensor.sparse for _, tensor in call.tensors() if tensor.sparse is not None]
    stored = inputs + [tensor.sparse for tensor in call.outputs if tensor.sparse is not None]
    if entry is None or not stored:
        return not stored
    moves_nothing = entry.handler is None and entry.traffic is no_traffic
    is_known = moves_nothing or all(sparse.elements is not None for sparse in stored)
    return is_known and len(inputs) <= entry.sparse


def _reads_nothing(call: OpCall) -> bool:
    """Whether tensors go in, and none of them has an element: then nothing is computed."""
    read = [tensor for name, tensor in call.tensors() if name != "out"]
    return bool(read) and all(tensor.numel == 0 for tensor in read)


def _arithmetic(call: OpCall, entry: Registration) -> OpCost:
    assert entry.handler is not None  # noqa: S101 - narrowed by the caller
    try:
        arguments = {name: _argument(call, name) for name in entry.parameters}
        if entry.wants_out:
            arguments["out"] = call.outputs[0] if len(call.outputs) == 1 else call.outputs
        if entry.wants_call:
            arguments["call"] = call
        cost = entry.handler(**arguments)
    except HandlerNotLoadedError:
        raise
    except Exception as error:
        raise_interruption(error)
        raise HandlerError(
            f"the handler at {entry.origin} failed on {_describe(call)}: "
            f"{type(error).__name__}: {error}. Correct the handler."
        ) from error
    _check(cost, call, entry)
    if call.is_floating or entry.integers:
        return cost
    # FLOPs are floating-point: integer and boolean arithmetic is none, its MACs remain.
    return replace(cost, flops=0, transcendentals=0, flops_masked=0)


def _argument(call: OpCall, name: str) -> object:
    if name in call.inputs:
        return call.inputs[name]
    if name in call.attrs:
        return call.attrs[name]
    known = ", ".join((*call.inputs, *call.attrs))
    msg = f"it asks for {name!r}, which the operator's schema does not have (it has: {known})"
    raise TypeError(msg)


def _check(cost: object, call: OpCall, entry: Registration) -> None:
    if not isinstance(cost, OpCost):
        problem = f"returned {type(cost).__name__}, not an OpCost"
    elif bad := [f"{n}={v!r}" for n, v in cost.items() if not _is_count(v)]:
        problem = f"returned {', '.join(bad)}; costs are integers or sympy expressions, 0 or more"
    elif entry.traffic is not None and (cost.bytes_read != 0 or cost.bytes_written != 0):
        problem = "returned bytes although it was registered with a traffic rule; pass traffic=None"
    else:
        return
    msg = f"the handler at {entry.origin} {problem}. The call was {_describe(call)}."
    raise HandlerError(msg)


def _is_count(value: object) -> bool:
    if type(value) is int:
        return value >= 0
    return (
        isinstance(value, sympy.Expr)
        and not value.has(sympy.Float)
        and value.is_negative is not True
    )


def _describe(call: OpCall) -> str:
    shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in call.tensors())
    where = f"node {call.name!r} in module {call.module_path or 'root'!r}"
    return f"{call.op}.{call.overload} ({where}; {shapes})"
