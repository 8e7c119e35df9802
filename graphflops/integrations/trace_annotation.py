"""Costs on the events of a profiler's trace: FLOPs, bytes, the bound, and how near the run is.

Each operator is priced from what the trace has of it, so that no model is needed, and optimizers,
losses and models of all kinds are priced alike. A model tells modules: its calls are matched with
the operators of the trace in order.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphflops import conventions
from graphflops.analysis.call_time import Roofline
from graphflops.analysis.device_names import device_by_driver_name
from graphflops.analysis.devices import Device, device
from graphflops.analysis.efficiency import Efficiency
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.integrations.profiler_trace import (
    OperatorEvent,
    Operators,
    device_names,
    operators_of,
)
from graphflops.integrations.recorded_calls import FLOATING, CallPricer, Recorded, is_operator_name

KEY = "graphflops"
"""Key of what an event gets in its ``args``."""
_LEAST_SHARE = 0.5
"""Least share of a model's multiply-accumulates that a trace of it has."""


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """Figures of an annotated trace.

    Attributes:
        device: Device of the bounds.
        operators: Number of events of operators.
        priced: Number of those that have a cost now.
        kernels: Number of kernels, copies and fills on a device.
        matched_kernels: Number of those that have the cost of an operator now.
        unpriced: Operators without a cost and their number.
        flops: FLOPs of all operators that no other priced one calls.
        macs: Their multiply-accumulates.
        nbytes: Bytes that they read and write.
        bound: Seconds of their bounds.
        seconds: Measured seconds: on the device if the trace has one, else of these operators.
        model_share: Share of the multiply-accumulates of a model that was found; ``None`` without.
    """

    device: Device
    operators: int
    priced: int
    kernels: int
    matched_kernels: int
    unpriced: dict[str, int]
    flops: int
    macs: int
    nbytes: int
    bound: float
    seconds: float
    model_share: float | None = None


def annotate_trace(
    trace: dict[str, Any],
    *,
    device: Device | str | None = None,
    records: Sequence[OpRecord] | None = None,
    convention: str = "exact",
) -> tuple[dict[str, Any], TraceSummary]:
    """Annotate the trace of a run with the costs of its operators.

    Each operator and each kernel that belongs to one gets an entry ``graphflops`` in its ``args``:
    ``flops``, ``macs``, ``bytes``, ``bound_seconds``, and ``achieved_percent``, the bound over the
    time of all kernels that the operator launched, or over its own on a CPU. The entry of a kernel
    has ``operator`` and ``kernels``, the number of those that share this cost.

    Args:
        trace: Trace of ``torch.profiler`` with ``record_shapes=True``, as parsed JSON.
        device: Device of the bound, or its name; by default the GPU of the trace, or a CPU.
        records: Calls of the forward pass of its model; then operators get their ``module``.
        convention: Way of counting.

    Returns:
        An annotated copy, and what was annotated.

    Raises:
        ModelSpecError: The trace has no shapes, its device is not known, or it is that of another
            model.
    """
    trace = copy.deepcopy(trace)
    operators = operators_of(trace)
    annotation = _Annotation(operators, _device(trace, operators, device), convention)
    share = None if records is None else annotation.add_modules(records)
    annotation.write()
    return trace, annotation.summary(share)


def _device(trace: dict[str, Any], operators: Operators, given: Device | str | None) -> Device:
    if isinstance(given, Device):
        return given
    if given is not None:
        return device(given)
    if not operators.has_device:
        return device("cpu")
    names = device_names(trace)
    found = device_by_driver_name(names[0]) if names else None
    if found is None:
        who = f"its GPU, {names[0]}," if names else "its GPU"
        msg = f"no peak rates of {who} are known. Give the device, see graphflops devices."
        raise ModelSpecError(msg)
    return found


class _Annotation:
    """Costs of the operators of a trace."""

    def __init__(self, operators: Operators, on: Device, convention: str) -> None:
        self._operators = operators
        self._roofline = Roofline(on, Efficiency())
        self._named = [o for o in operators.events if is_operator_name(o.name)]
        pricer = CallPricer(conventions.get(convention), self._main_type())
        self._records: dict[OperatorEvent, OpRecord] = {}
        self._keys: dict[OperatorEvent, _Key] = {}
        has_shapes = False
        for operator in self._named:
            recorded = Recorded.of(operator.name, operator.args)
            has_shapes |= recorded is not None
            record = recorded and pricer.price(recorded)
            if record is not None:
                self._records[operator] = record
                self._keys[operator] = _key(record)
        if not has_shapes:
            msg = (
                "the trace has no operator with the shapes of its inputs. Record it with "
                "profile(record_shapes=True)."
            )
            raise ModelSpecError(msg)
        self._modules: dict[OperatorEvent, str] = {}
        self._owners = self._owners_of_kernels()

    def _main_type(self) -> str:
        """Return the floating-point type of most tensors of the trace."""
        types = (kind for o in self._named for kind in o.args.get("Input type") or ())
        counted = Counter(kind for kind in types if kind in FLOATING)
        return counted.most_common(1)[0][0] if counted else "float"

    def add_modules(self, records: Sequence[OpRecord]) -> float:
        """Match the calls of a forward pass, and return the share of MACs that was found.

        Raises:
            ModelSpecError: It is less than half.
        """
        calls: dict[_Key, list[OpRecord]] = defaultdict(list)
        for record in records:
            if record.cost is not None and record.cost.macs:
                calls[_key(record)].append(record)
        events: dict[_Key, list[OperatorEvent]] = defaultdict(list)
        for operator, key in self._keys.items():
            if not operator.in_backward:  # there, checkpoints run the forward again
                events[key].append(operator)
        found = whole = 0
        for key, wanted in calls.items():
            macs = int(sum(r.cost.macs for r in wanted if r.cost is not None))
            whole += macs
            found += macs * min(len(events[key]), len(wanted)) // len(wanted)
            # Several steps have the calls of one several times over, in the same order.
            if events[key] and len(events[key]) % len(wanted) == 0:
                for i, operator in enumerate(events[key]):
                    self._modules[operator] = wanted[i % len(wanted)].call.module_path
        share = found / whole if whole else 0.0
        if share < _LEAST_SHARE:
            msg = (
                f"the trace has {share:.0%} of the multiply-accumulates of the model: it is one of "
                "another model, or of other inputs. Give its model with the inputs that it ran on."
            )
            raise ModelSpecError(msg)
        return share

    def write(self) -> None:
        """Write the entries of operators and kernels."""
        kernels: dict[OperatorEvent, list[dict[str, Any]]] = defaultdict(list)
        below: dict[OperatorEvent, float] = defaultdict(float)
        for operator in self._operators.events:
            seconds = sum(float(k.get("dur", 0)) for k in operator.on_device) / 1e6
            for ancestor in operator.with_ancestors():
                below[ancestor] += seconds
            if (owner := self._owners.get(operator)) is not None:
                kernels[owner] += operator.on_device
        has_device, modules = self._operators.has_device, self._all_modules()
        for operator, record in self._records.items():
            entry = self._entry(record, below[operator] if has_device else operator.seconds)
            if module := modules.get(operator):
                entry["module"] = module
            operator.event.setdefault("args", {})[KEY] = entry
            shared = sum(float(k.get("dur", 0)) for k in kernels[operator]) / 1e6
            for kernel in kernels[operator]:
                kernel.setdefault("args", {})[KEY] = {
                    "operator": operator.name,
                    "kernels": len(kernels[operator]),
                    **self._entry(record, shared),
                    **({"module": module} if module else {}),
                }

    def _owners_of_kernels(self) -> dict[OperatorEvent, OperatorEvent]:
        """Return, for operators that launched kernels, the innermost one with a cost."""
        owners = {}
        for operator in self._operators.events:
            if operator.on_device:
                priced = (o for o in operator.with_ancestors() if o in self._records)
                if (owner := next(priced, None)) is not None:
                    owners[operator] = owner
        return owners

    def _all_modules(self) -> dict[OperatorEvent, str]:
        """Return the modules of operators, of what these call, and of their backward."""
        modules: dict[OperatorEvent, str] = {}
        by_sequence: dict[int, str] = {}
        for operator in self._operators.events if self._modules else ():
            if operator.in_backward and operator.sequence is not None:
                module = by_sequence.get(operator.sequence, "")
            else:
                matched = (o for o in operator.with_ancestors() if o in self._modules)
                module = self._modules[o] if (o := next(matched, None)) is not None else ""
                if module and operator.sequence is not None:
                    by_sequence[operator.sequence] = module
            if module:
                modules[operator] = module
        return modules

    def _entry(self, record: OpRecord, seconds: float) -> dict[str, Any]:
        cost = record.cost
        assert cost is not None  # noqa: S101 - of priced calls
        bound = self._bound(record)
        entry: dict[str, Any] = {
            "flops": cost.flops,
            "macs": cost.macs,
            "bytes": cost.bytes_read + cost.bytes_written,
            "bound_seconds": bound,
        }
        if bound and seconds:
            entry["achieved_percent"] = round(100 * bound / seconds, 2)
        return entry

    def _bound(self, record: OpRecord) -> float | None:
        try:
            return float(self._roofline.time(record).bound)
        except ModelSpecError:  # the device has no rate for the dtype
            return None

    def summary(self, share: float | None) -> TraceSummary:
        """Return what was annotated."""
        unpriced: dict[str, int] = defaultdict(int)
        for operator in self._named:
            if operator not in self._records:
                unpriced[operator.name] += 1
        outer = [
            operator
            for operator in self._records
            if not any(o in self._records for o in list(operator.with_ancestors())[1:])
        ]
        costs = [cost for o in outer if (cost := self._records[o].cost) is not None]
        on_device = [k for o in self._operators.events for k in o.on_device]
        kernels = [*on_device, *self._operators.orphans]
        on_host = sum(o.seconds for o in outer)
        return TraceSummary(
            device=self._roofline.device,
            operators=len(self._named),
            priced=len(self._records),
            kernels=len(kernels),
            matched_kernels=sum(len(operator.on_device) for operator in self._owners),
            unpriced=dict(sorted(unpriced.items(), key=lambda item: -item[1])),
            flops=int(sum(cost.flops for cost in costs)),
            macs=int(sum(cost.macs for cost in costs)),
            nbytes=int(sum(cost.bytes_read + cost.bytes_written for cost in costs)),
            bound=sum(self._bound(self._records[o]) or 0.0 for o in outer),
            seconds=sum(float(k.get("dur", 0)) for k in kernels) / 1e6 if kernels else on_host,
            model_share=share,
        )


_Key = tuple[str, tuple[tuple[Any, ...], ...]]


def _key(record: OpRecord) -> _Key:
    """Return operator and input shapes: what the calls of a model and of a trace have in common."""
    call = record.call
    return call.op, tuple(tensor.shape for _, tensor in call.tensors())
