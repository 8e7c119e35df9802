"""Intermediate representation: calls, tensors and captures, produced by capture for pricing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, cached_property
from math import prod
from typing import NamedTuple, Protocol, TypeAlias

import sympy

from graphflops.core.cost import Dim, OpCost
from graphflops.core.storage_events import StorageEvents
from graphflops.errors import GraphFlopsError

# Dtypes whose elements pack several numbers, or whose name does not contain a size.
_BITS = {"bool": 8, "bits1x8": 8, "bits2x4": 8, "bits4x2": 8}
_SIZE_IN_NAME = re.compile(r"[a-z]+(?P<bits>\d+)(?:.*_x(?P<packed>\d+))?")

ATTENTION_SCORES = "graphflops::attention_scores"
"""Pseudo-operator: scores that a fused attention backward recomputes beside the gradients."""


@cache
def dtype_bits(dtype: str) -> int:
    """Return the bits that an element of a torch dtype takes in memory: under 8 if packed.

    The size is read off the name, so that dtypes of later versions of torch work too.

    Raises:
        GraphFlopsError: The name does not contain a size.

    Example:
        >>> dtype_bits("bfloat16"), dtype_bits("uint4"), dtype_bits("float4_e2m1fn_x2")
        (16, 4, 8)
    """
    if dtype in _BITS:
        return _BITS[dtype]
    size = _SIZE_IN_NAME.match(dtype)
    if size is None:
        msg = (
            f"nothing says how many bytes an element of dtype {dtype!r} takes. Use a version of "
            "torch that graphflops was tested with, or a tensor of another dtype."
        )
        raise GraphFlopsError(msg)
    return int(size["bits"]) * int(size["packed"] or 1)


@dataclass(frozen=True, slots=True)
class SparseStorage:
    """Storage of a sparse tensor.

    Attributes:
        elements: Number of stored elements, blocks in full; ``None`` if it depends on values
            that are not known.
        index_nbytes: Bytes of the indices.
    """

    elements: Dim | None
    index_nbytes: Dim = 0


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """Tensor metadata.

    Attributes:
        shape: Sizes, integers or expressions.
        dtype: Name in torch without the prefix, e.g. ``"bfloat16"``.
        strides: Strides in elements, if known; a stride of 0 marks an axis that was broadcast
            and adds no elements to the storage.
        name: Name of the value in its graph: equal names are one tensor. Not compared.
        sparse: Storage of a sparse tensor; ``None`` for a dense one.
        masked_elements: Number of masked elements of an attention mask; ``None`` if it is not
            known.
        known_values: Values of a tensor of sequence offsets, if known.
        storage: Name of the tensor in whose memory it lies, if that is another. Not compared.
    """

    shape: tuple[Dim, ...]
    dtype: str = "float32"
    strides: tuple[Dim, ...] | None = None
    name: str = field(default="", compare=False)
    sparse: SparseStorage | None = None
    masked_elements: Dim | None = None
    known_values: tuple[int, ...] | None = None
    storage: str = field(default="", compare=False)

    @property
    def numel(self) -> Dim:
        """Number of elements in the shape."""
        return prod(self.shape)

    @property
    def stored(self) -> Dim:
        """Number of stored elements: ``numel``, but for a sparse tensor.

        If that of a sparse tensor is not known, the upper bound ``numel``.
        """
        elements = None if self.sparse is None else self.sparse.elements
        return self.numel if elements is None else elements

    @property
    def nbytes(self) -> Dim:
        """Bytes in memory, a broadcast axis counted once, indices of a sparse tensor included."""
        elements, index_nbytes = self.stored, 0 if self.sparse is None else self.sparse.index_nbytes
        if self.strides is not None and 0 in self.strides:
            pairs = zip(self.shape, self.strides, strict=True)
            elements = prod(size for size, stride in pairs if stride != 0)
        bits = dtype_bits(self.dtype)
        # Packed dtypes of less than 8 bits are rounded up to whole bytes.
        nbytes = elements * (bits // 8) if bits % 8 == 0 else (elements * bits + 7) // 8
        return nbytes + index_nbytes

    @property
    def is_complex(self) -> bool:
        """True if the elements are complex numbers."""
        return self.dtype.startswith(("complex", "bcomplex"))

    @property
    def is_floating(self) -> bool:
        """True if arithmetic on the elements is floating-point (complex included)."""
        return self.dtype.startswith(("float", "bfloat")) or self.is_complex


Value: TypeAlias = object
"""Non-tensor argument: number, expression, string, ``None``, or a tuple of these."""
Tensors: TypeAlias = "TensorMeta | tuple[TensorMeta | None, ...]"
NamedTensors: TypeAlias = tuple[tuple[str, TensorMeta], ...]


class Phase(Enum):
    """Phase of a training step in which a call runs."""

    FORWARD = "forward"
    BACKWARD = "backward"
    RECOMPUTE = "recompute"


@dataclass(frozen=True, kw_only=True)
class OpCall:
    """Call of an operator in the graph.

    Attributes:
        op: Operator packet, e.g. ``"aten::add"``.
        overload: Overload name, e.g. ``"Tensor"`` (``"default"`` where it has none).
        inputs: Tensor arguments by schema name; a tensor list is a tuple.
        attrs: Other arguments by schema name, defaults included.
        outputs: Tensors returned, in order.
        writes: Schema names of the arguments that the operator writes to (in-place, ``out=``).
        is_view: True if the output shares the memory of an input and nothing is copied.
        module_path: Path of the innermost module that made the call; ``""`` is the root.
        name: Name of the node in its graph.
        index: Position of the call in the capture.
        trip_count: Number of times that the call runs: the product of the loops around it.
        source_line: ``file:line`` of the innermost model code that made the call, if known.
        torch_function: Python callable that made it, kind and name: ``"function.softmax"`` for
            ``F.softmax``, ``"method_descriptor.softmax"`` for ``x.softmax``; empty if unknown.
        module_class: Class of the innermost module that made it; empty if unknown.
        phase: Phase in which it runs. A backward call belongs to the module whose forward
            caused it.
        is_weight_gradient: True if a backward call computes gradients of parameters alone; any
            other passes a gradient on to earlier calls.
        discarded_gradients: Inputs whose gradients a fused backward computes although they are
            not needed.
        masked_scores: Number of masked scores and of all scores, for a product within attention.
        same_as: Index of the equal call in the traced instance of the same layer, if this
            instance was not traced. Not compared.
    """

    op: str
    overload: str = "default"
    inputs: Mapping[str, Tensors] = field(default_factory=dict)
    attrs: Mapping[str, Value] = field(default_factory=dict)
    outputs: tuple[TensorMeta, ...] = ()
    writes: tuple[str, ...] = ()
    is_view: bool = False
    module_path: str = ""
    name: str = ""
    index: int = 0
    trip_count: Dim = 1
    source_line: str = ""
    torch_function: str = ""
    module_class: str = ""
    phase: Phase = Phase.FORWARD
    is_weight_gradient: bool = False
    discarded_gradients: frozenset[str] = frozenset()
    masked_scores: tuple[Dim, Dim] = (0, 1)
    same_as: int | None = field(default=None, compare=False)

    @property
    def template_index(self) -> int:
        """Index of the traced call: this one, or the one that it repeats."""
        return self.index if self.same_as is None else self.same_as

    def tensors(self) -> Iterator[tuple[str, TensorMeta]]:
        """Yield every input tensor with its schema name, lists flattened, in schema order."""
        for name, value in self.inputs.items():
            for tensor in value if isinstance(value, tuple) else (value,):
                if tensor is not None:
                    yield name, tensor

    @cached_property
    def is_floating(self) -> bool:
        """True if the arithmetic is floating-point: if any input or output is."""
        return any(t.is_floating for _, t in self.tensors()) or any(
            t.is_floating for t in self.outputs
        )

    @cached_property
    def dtype(self) -> str:
        """Dtype of the computation: that of the first floating tensor, else of the first."""
        tensors = [t for _, t in self.tensors()] + list(self.outputs)
        floating = (t.dtype for t in tensors if t.is_floating)
        return next(floating, tensors[0].dtype if tensors else "")


class Fallback(Protocol):
    """PyTorch's own formulas and decompositions, for operators without a handler."""

    def formula(self, call: OpCall) -> Dim | None:
        """Return the FLOPs by a formula registered with ``torch.utils.flop_counter``, if any."""

    def decompose(
        self, call: OpCall, has_price: Callable[[str, str], bool]
    ) -> tuple[OpCall, ...] | None:
        """Return the calls that a call decomposes into, if it does.

        Args:
            call: Call to decompose.
            has_price: Predicate on operator packet and overload; decomposition stops at
                operators for which it is true.
        """


class Status(Enum):
    """Source of the cost of a call."""

    COUNTED = "counted"
    FREE = "free"
    DECOMPOSED = "decomposed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRecord:
    """Call with its cost.

    Attributes:
        call: The call.
        status: Source of its cost.
        cost: Its cost; ``None`` if and only if ``status`` is UNKNOWN.
        parts: Records of its decomposition, if ``status`` is DECOMPOSED.
    """

    call: OpCall
    status: Status
    cost: OpCost | None
    parts: tuple[OpRecord, ...] = ()


def combine_records(records: Sequence[OpRecord]) -> OpRecord:
    """Return the record of one call, or that of several: their sum, with them as its parts."""
    first, *others = records
    if not others:
        return first
    parts = tuple(records)
    costs = [record.cost for record in records if record.cost is not None]
    if len(costs) < len(parts):
        return replace(first, status=Status.UNKNOWN, cost=None, parts=parts)
    return replace(first, status=Status.DECOMPOSED, cost=sum(costs, start=OpCost()), parts=parts)


class Parameter(NamedTuple):
    """Parameter of a module. Equal ``identity`` means one tensor under several names."""

    name: str
    identity: int
    numel: int
    nbytes: int
    trainable: bool


class Module(NamedTuple):
    """Module of the captured model.

    Attributes:
        path: Qualified name; ``""`` is the root.
        module_class: Class name.
        extra: ``extra_repr()`` of the module, e.g. ``in_features=3, out_features=4``.
        parameters: Parameters of the module itself.
        calls: Number of calls; ``None`` if the capture did not record it.
    """

    path: str
    module_class: str = ""
    extra: str = ""
    parameters: tuple[Parameter, ...] = ()
    calls: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReuse:
    """Layers that were not traced, because an equal one had been.

    Attributes:
        layers: Number of those layers.
        distinct: Number of traced layers that they repeat.
    """

    layers: int = 0
    distinct: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSize:
    """Data-dependent size: it follows from data, which a count does not have.

    Attributes:
        name: Name of its symbol.
        operator: Operator that produces it, e.g. ``"aten::nonzero"``.
        source: ``file:line`` of the model code that calls the operator, if known.
        largest: Upper bound; ``None`` if it is unbounded.
        value: Value that it is counted as; ``None`` if it stays a symbol.
        count: Number of sizes that share the name.
        is_placeholder: True if the value is arbitrary, and another gave the same calls.
    """

    name: str
    operator: str
    source: str = ""
    largest: Dim | None = None
    value: Dim | None = None
    count: int = 0
    is_placeholder: bool = False

    @property
    def origin(self) -> str:
        """Operator and source line that produce it."""
        return f"{self.operator} at {self.source}" if self.source else self.operator

    def __str__(self) -> str:
        times = f", {self.count} times" if self.count > 1 else ""
        if self.value is None:
            text = f"{self.name} is open, for nothing bounds it"
        elif self.is_placeholder:
            text = f"{self.name} = {self.value}, and another number comes to the same calls"
        elif self.value == self.largest:
            text = f"{self.name} = {self.value}, the largest it can be"
        elif self.largest is None:
            text = f"{self.name} = {self.value}, as assumed"
        else:
            text = f"{self.name} = {self.value}, as assumed, of {self.largest} at most"
        return f"{text}: {self.origin}{times}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Graph of a model: its calls in order and its modules in registration order.

    Attributes:
        calls: Operator calls; repeated layers may be unexpanded.
        modules: Modules, parents before children.
        method: Capture method, e.g. ``"eager tracing"``.
        seconds: Wall time of the capture.
        inputs: Input tensors of the model by name.
        outputs: Output tensors of the model, in order.
        constants: Tensors that are no inputs, parameters or buffers, by name: their values, or
            ``None`` where these are not known. Not compared.
        control_flow: Operators whose graphs do not simply run in the order of the calls: branches,
            loops, ``vmap``, regions under autocast.
        caches: Names of inputs that hold the state of earlier tokens, such as a KV cache.
        notes: Notes on this capture for the reader of the report.
        assumptions: Conditions on the symbolic sizes under which the graph is valid.
        data_sizes: Data-dependent sizes.
        layer_reuse: Number of repeated layers that were traced once.
        timings: Seconds by part of the capture.
        fallback: PyTorch's formulas and decompositions, for operators without a handler.
        storages: When memory is allocated and freed; ``None`` if the model did not run as Python.
    """

    calls: Sequence[OpCall]
    modules: tuple[Module, ...]
    method: str
    seconds: float = 0.0
    inputs: NamedTensors = ()
    outputs: tuple[TensorMeta, ...] = ()
    constants: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    control_flow: tuple[str, ...] = ()
    caches: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    assumptions: tuple[sympy.Basic, ...] = ()
    data_sizes: tuple[DataSize, ...] = ()
    layer_reuse: LayerReuse = LayerReuse()
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    fallback: Fallback | None = field(default=None, compare=False, repr=False)
    storages: StorageEvents | None = field(default=None, compare=False, repr=False)
