"""Pricing of calls: from calls and a registry to records with costs."""

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
    """Price calls in order, equal ones once: in a deep model most calls have an equal."""
    records: dict[Hashable, OpRecord] = {}

    def price_once(call: OpCall) -> tuple[OpRecord]:
        key = price_key(call)
        equal = records.get(key)
        if equal is not None:
            return (OpRecord(call=call, status=equal.status, cost=equal.cost, parts=equal.parts),)
        record = price(call, registry, fallback)
        if not is_position_dependent(call):
            records[key] = record
        return (record,)

    def is_position_dependent(call: OpCall) -> bool:
        entry = registry.lookup(call)
        return entry is not None and entry.position_dependent

    return CallSequence.of(calls).expand_where(is_position_dependent).map_items(price_once)


def price_key(call: OpCall) -> Hashable:
    """Return the fields of a call that determine its price: all but its position."""
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
        *(call.outputs, tuple(call.inputs.values()), _typed_key(tuple(call.attrs.values()))),
        _alias_key(call),
    )


def _typed_key(value: object) -> Hashable:
    """Return a key that differs for equal values of different types, such as True and 1."""
    if isinstance(value, tuple):
        return tuple([_typed_key(item) for item in value])
    return value if type(value) is str else (type(value), value)


def _alias_key(call: OpCall) -> Hashable:
    """Return a key for which inputs are the same tensor, which is read once."""
    tensors = [tensor.name or id(tensor) for _, tensor in call.tensors()]
    is_distinct = len(set(tensors)) == len(tensors)
    return None if is_distinct else tuple([tensors.index(tensor) for tensor in tensors])


def price(call: OpCall, registry: Registry, fallback: Fallback | None = None) -> OpRecord:
    """Price one call.

    Args:
        call: Call with shapes and attributes.
        registry: Registry in which its handler is looked up.
        fallback: Source of a formula, then of a decomposition, if there is no handler.

    Returns:
        A record: COUNTED by a handler or a formula, FREE by declaration, DECOMPOSED into
        priced calls, or UNKNOWN with no cost, as for a sparse tensor that a handler does not
        support.

    Raises:
        HandlerError: The handler failed, or returned something that is not a cost.
    """
    entry = registry.lookup(call)
    if not _supports_layouts(entry, call):
        return OpRecord(call=call, status=Status.UNKNOWN, cost=None)
    if entry is None:
        return _fall_back(call, registry, fallback)
    if not entry.has_price:
        return OpRecord(call=call, status=Status.UNKNOWN, cost=None)
    status = Status.FREE if entry.handler is None else Status.COUNTED
    cost = cost_of(call, entry)
    if registry.skips_masked:
        cost = cost.without_masked()
    return OpRecord(
        call=call, status=status, cost=cost if call.trip_count == 1 else cost * call.trip_count
    )


def cost_of(call: OpCall, entry: Registration) -> OpCost:
    """Return the cost of one run of a call by an entry, without loops around it.

    Raises:
        HandlerError: The handler failed, or returned something that is not a cost.
    """
    is_idle = entry.handler is None or _has_empty_inputs(call)
    cost = OpCost() if is_idle and entry.traffic is not None else _arithmetic(call, entry)
    if call.masked_scores[0] != 0:
        cost += OpCost(flops_masked=FLOPS_PER_MAC * _masked_macs(cost.macs, *call.masked_scores))
    return cost if entry.traffic is None else cost.with_bytes(*entry.traffic(call))


def _masked_macs(macs: Dim, masked: Dim, scores: Dim) -> Dim:
    """Return the MACs of masked scores, if all scores take the same number."""
    product = macs * masked
    if isinstance(product, int) and isinstance(scores, int):
        return product // scores
    return product / scores


@dataclass(frozen=True, slots=True)
class HasEntry:
    """Predicate for operators with an entry in a registry; equal for the same registry."""

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
    calls = fallback.decompose(call, HasEntry(registry))
    parts = tuple(price_all(calls, registry)) if calls is not None else ()
    costs = [part.cost for part in parts if part.cost is not None]
    if calls is None or len(costs) < len(parts):
        return unknown
    cost = sum(costs, start=OpCost())
    # The parts run as one operator: intermediate tensors cause no traffic.
    has_traffic = cost.bytes_read != 0 or cost.bytes_written != 0
    cost = cost.with_bytes(*read_all_write_all(call)) if has_traffic else cost
    return replace(unknown, status=Status.DECOMPOSED, cost=cost * call.trip_count, parts=parts)


def _supports_layouts(entry: Registration | None, call: OpCall) -> bool:
    """Return True if the sparse tensors of a call, if any, can be priced by an entry."""
    inputs = [tensor.sparse for _, tensor in call.tensors() if tensor.sparse is not None]
    storages = inputs + [tensor.sparse for tensor in call.outputs if tensor.sparse is not None]
    if entry is None or not storages:
        return not storages
    has_no_traffic = entry.handler is None and entry.traffic is no_traffic
    is_known = has_no_traffic or all(sparse.elements is not None for sparse in storages)
    return is_known and len(inputs) <= entry.sparse


def _has_empty_inputs(call: OpCall) -> bool:
    """Return True if a call has input tensors and all are empty: then nothing is computed."""
    inputs = [tensor for name, tensor in call.tensors() if name != "out"]
    return bool(inputs) and all(tensor.numel == 0 for tensor in inputs)


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
    # FLOPs are floating-point: integer and boolean arithmetic has none, but keeps its MACs.
    return replace(cost, flops=0, transcendentals=0, flops_masked=0)


def _argument(call: OpCall, name: str) -> object:
    if name in call.inputs:
        return call.inputs[name]
    if name in call.attrs:
        return call.attrs[name]
    names = ", ".join((*call.inputs, *call.attrs))
    msg = f"it asks for {name!r}, which the operator's schema does not have (it has: {names})"
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
    location = f"node {call.name!r} in module {call.module_path or 'root'!r}"
    return f"{call.op}.{call.overload} ({location}; {shapes})"
