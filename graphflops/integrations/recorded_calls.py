"""Operator calls from what a profiler recorded of them: shapes, dtypes, strides and numbers.

A trace has the inputs of a call and not its results. The operator runs on fake tensors of these
inputs, which gives the results' shapes; nothing is computed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from graphflops.capture.fake.metadata import (
    bind_arguments,
    output_metas,
    tensor_meta,
    written_arguments,
)
from graphflops.capture.record.aliasing import is_view, returns_written
from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.fused_kernels import split_fused
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.capture.torch_internals.operators import OpOverload, allows_numbers
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import OpCall, OpRecord, combine_records
from graphflops.errors import GraphFlopsError
from graphflops.pricing.price import price
from graphflops.pricing.registry import Registry
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

_C_DTYPES = {
    "float": torch.float32,
    "double": torch.float64,
    "c10::Half": torch.float16,
    "c10::BFloat16": torch.bfloat16,
    "c10::Float8_e4m3fn": torch.float8_e4m3fn,
    "c10::Float8_e5m2": torch.float8_e5m2,
    "c10::Float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "c10::Float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "c10::complex<float>": torch.complex64,
    "c10::complex<double>": torch.complex128,
    "long": torch.int64,
    "long int": torch.int64,
    "int": torch.int32,
    "short": torch.int16,
    "short int": torch.int16,
    "signed char": torch.int8,
    "unsigned char": torch.uint8,
    "bool": torch.bool,
}
"""Dtypes by the names that a profiler writes: those of C++."""
FLOATING = tuple(name for name, dtype in _C_DTYPES.items() if dtype.is_floating_point)
"""Names of the floating-point ones."""
_SCALAR_TYPES = {
    **dict(enumerate((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))),
    **dict(enumerate((torch.float16, torch.float32, torch.float64), start=5)),
    **dict(enumerate((torch.complex32, torch.complex64, torch.complex128, torch.bool), start=8)),
    15: torch.bfloat16,
    23: torch.float8_e5m2,
    24: torch.float8_e4m3fn,
}
"""Dtypes by their numbers in ``c10::ScalarType``."""
_LIST = "TensorList"
_OF_NUMBERS = ("double", "long", "long int", "c10::complex<double>", "bool")
"""Types of the tensors that numbers of Python become."""
_OTHERS = "the arguments are those of another overload"
_NUMBERED: dict[str, dict[Any, Any]] = {
    "ScalarType": _SCALAR_TYPES,
    "MemoryFormat": {
        0: torch.contiguous_format,
        1: torch.preserve_format,
        2: torch.channels_last,
        3: torch.channels_last_3d,
    },
    "Layout": {0: torch.strided},
}
"""Values by their numbers, for arguments that are recorded as numbers."""


class Recorded(NamedTuple):
    """Recorded inputs of a call.

    Attributes:
        op: Operator packet, e.g. ``"aten::add"``.
        types: Type of each argument: that of a tensor's elements, ``"Scalar"``, ``"ScalarList"``,
            ``"TensorList"``, or nothing.
        dims: Shape of each tensor; of a list, those of its tensors.
        strides: Likewise.
        values: Numbers and lists of numbers, as text.
    """

    op: str
    types: tuple[str, ...]
    dims: tuple[Any, ...]
    strides: tuple[Any, ...]
    values: tuple[str, ...]

    @classmethod
    def of(cls, name: str, args: Mapping[str, Any]) -> Recorded | None:
        """Return what an event has of a call; ``None`` if shapes were not recorded."""
        columns = [args.get(key) for key in ("Input type", "Input Dims")]
        if not all(isinstance(column, list) for column in columns):
            return None
        types, dims = columns
        assert types is not None  # noqa: S101 - both are lists
        assert dims is not None  # noqa: S101 - likewise
        strides = args.get("Input Strides") or [[] for _ in types]
        values = args.get("Concrete Inputs") or ["" for _ in types]
        rows = (types, dims, strides, values)
        if len({len(row) for row in rows}) != 1:
            return None
        return cls(name, *(_frozen(row) for row in rows))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class CallPricer:
    """Prices of recorded calls; equal ones are priced once.

    Args:
        registry: Handlers.
        list_type: Type of the elements of tensors in lists, of which none is recorded.
    """

    def __init__(self, registry: Registry, list_type: str = "float") -> None:
        self._registry = registry
        self._list_type = list_type
        self._records: dict[Recorded, OpRecord | None] = {}

    def price(self, recorded: Recorded) -> OpRecord | None:
        """Return a call with its cost; ``None`` if it cannot be told from what was recorded."""
        if recorded not in self._records:
            self._records[recorded] = self._price(recorded)
        return self._records[recorded]

    def _price(self, recorded: Recorded) -> OpRecord | None:
        for op in _overloads(recorded.op):
            try:
                with QUIET.holding(), torch.no_grad(), FakeTensorMode():
                    record = self._record(op, _run(op, recorded, self._list_type))
            except GraphFlopsError:
                raise
            except Exception as error:  # noqa: BLE001 - of another overload, or it needs data
                raise_interruption(error)
                continue
            if record.cost is not None:
                return record
        return None

    def _record(self, op: OpOverload, invocation: Invocation) -> OpRecord:
        inputs, attrs = bind_arguments(op, invocation.args, invocation.kwargs, tensor_meta)
        leaves = pytree.tree_leaves((invocation.args, dict(invocation.kwargs)))
        call = OpCall(
            op=op._schema.name,
            overload=op._overloadname,
            inputs=inputs,
            attrs=attrs,
            outputs=output_metas(invocation.result, ""),
            writes=written_arguments(op),
            is_view=is_view(invocation.result, leaves) or returns_written(op),
        )
        fallback = Expander(lambda _: invocation)
        parts = split_fused(call)
        return replace(
            combine_records([price(part, self._registry, fallback) for part in parts]), call=call
        )


def _overloads(name: str) -> list[OpOverload]:
    """Return the overloads of an operator; none if there is no such operator."""
    namespace, _, packet_name = name.partition("::")
    try:
        packet = getattr(getattr(torch.ops, namespace), packet_name)
        return [getattr(packet, overload) for overload in packet.overloads()]
    except (AttributeError, RuntimeError):
        return []


def is_operator_name(name: str) -> bool:
    """Return True for the name of an operator that torch knows."""
    return "::" in name and bool(_overloads(name))


def _run(op: OpOverload, recorded: Recorded, list_type: str) -> Invocation:
    """Run an overload on fake tensors.

    Raises:
        TypeError: The arguments are not its own.
    """
    columns = zip(op._schema.arguments, *recorded[1:], strict=False)
    if len(op._schema.arguments) != len(recorded.types):
        raise TypeError(_OTHERS)
    numbers = allows_numbers(op._opname) and any(recorded.dims)
    args, kwargs = [], {}
    for argument, kind, dims, strides, value in columns:
        if kind in _OF_NUMBERS and numbers and dims == ():
            # A number in the place of a tensor is recorded as a tensor of no dimension.
            given: Any = 1
        elif kind in _C_DTYPES or kind == _LIST:
            given = _tensors(argument, kind, dims, strides, list_type)
        else:
            given = _plain(argument, kind, value)
        if argument.kwarg_only:
            kwargs[argument.name] = given
        else:
            args.append(given)
    # A number among the results would be read off data, and matters to no cost.
    has_tensors = any("Tensor" in str(result.type) for result in op._schema.returns)
    return Invocation(op, tuple(args), kwargs, op(*args, **kwargs) if has_tensors else None)


def _tensors(argument: Any, kind: str, dims: Any, strides: Any, list_type: str) -> Any:
    """Return the tensor or the list of tensors of an argument."""
    declared = str(argument.type)
    if "Tensor" not in declared or ("List" in declared) != (kind == _LIST):
        raise TypeError(_OTHERS)
    if kind == _LIST:
        return [_tensor(list_type, *pair) for pair in zip(dims, strides, strict=True)]
    return _tensor(kind, dims, strides)


def _plain(argument: Any, kind: str, value: str) -> Any:
    """Return the number, list of numbers or default of an argument."""
    declared = str(argument.real_type)
    if kind in {"Scalar", "ScalarList"} and value:
        if "Tensor" in declared or ("List" in declared) != (kind == "ScalarList"):
            raise TypeError(_OTHERS)
        number = _number(value)
        names = _NUMBERED.get(declared.removeprefix("Optional[").removesuffix("]"))
        return number if names is None else names[number]
    if declared == "Device":  # shapes are the same on all
        return torch.device("cpu")
    if not argument.has_default_value() and not declared.startswith("Optional"):
        raise TypeError(_OTHERS)
    return argument.default_value if argument.has_default_value() else None


def _tensor(kind: str, dims: Any, strides: Any) -> torch.Tensor:
    if len(strides) != len(dims):
        return torch.empty(dims, dtype=_C_DTYPES[kind])
    return torch.empty_strided(dims, strides, dtype=_C_DTYPES[kind])


def _number(value: str) -> Any:
    """Return a number, a truth value or a list of these."""
    if value.lstrip("-") in {"inf", "nan"}:
        return float(value)
    return ast.literal_eval(value)
