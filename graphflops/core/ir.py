"""What flows between the rooms: capture makes these, pricing and roll-up read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from math import prod
from typing import NamedTuple, Protocol, TypeAlias

import sympy

from graphflops.core.cost import Dim, OpCost
from graphflops.errors import GraphFlopsError

# Elements that hold several numbers, or whose name has no size in it.
_BITS = {"bool": 8, "bits1x8": 8, "bits2x4": 8, "bits4x2": 8}
_SIZE_IN_NAME = re.compile(r"[a-z]+(?P<bits>\d+)(?:.*_x(?P<packed>\d+))?")

ATTENTION_SCORES = "graphflops::attention_scores"
"""Pseudo-operator: what a fused attention backward computes beside what is asked of it."""


@cache
def dtype_bits(dtype: str) -> int:
    """Bits that an element of a torch dtype takes in memory; sub-byte ones less than eight.

    Torch names a dtype by its size, so that a later version's have theirs too.

    Raises:
        GraphFlopsError: The name has no size in it.

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
    """What a sparse tensor holds in memory.

    Attributes:
        elements: Elements that are stored, those of blocks all; ``None`` if how many they are
            follows from values that nobody knows.
        index_nbytes: Bytes of the indices that say where they lie.
    """

    elements: Dim | None
    index_nbytes: Dim = 0


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """What is known of a tensor without its values.

    Attributes:
        shape: Sizes, integers or expressions.
        dtype: Torch's name of it without the prefix, e.g. ``"bfloat16"``.
        strides: Elements between neighbours along each axis, if known; a stride of 0 marks
            an axis that was broadcast and holds no further elements.
        name: The value's name in its graph: two equal names are one tensor. Not compared.
        sparse: What it stores, if it is sparse.
        masked_elements: Elements of an attention mask that let nothing through; ``None`` where
            the number is not known.
        known_values: Values of a tensor of sequence offsets, if they are known.
    """

    shape: tuple[Dim, ...]
    dtype: str = "float32"
    strides: tuple[Dim, ...] | None = None
    name: str = field(default="", compare=False)
    sparse: SparseStorage | None = None
    masked_elements: Dim | None = None
    known_values: tuple[int, ...] | None = None

    @property
    def numel(self) -> Dim:
        """Number of elements that the shape has."""
        return prod(self.shape)

    @property
    def stored(self) -> Dim:
        """Number of elements that are stored: all but of a sparse tensor.

        Where nobody knows it the largest number, all.
        """
        held = None if self.sparse is None else self.sparse.elements
        return self.numel if held is None else held

    @property
    def nbytes(self) -> Dim:
        """Bytes that exist in memory: a broadcast axis counts once, indices of sparse ones too."""
        elements, indices = self.stored, 0 if self.sparse is None else self.sparse.index_nbytes
        if self.strides is not None and 0 in self.strides:
            pairs = zip(self.shape, self.strides, strict=True)
            elements = prod(size for size, stride in pairs if stride != 0)
        bits = dtype_bits(self.dtype)
        # Whole bytes for every dtype of eight bits or more; packed ones round up.
        own = elements * (bits // 8) if bits % 8 == 0 else (elements * bits + 7) // 8
        return own + indices

    @property
    def is_complex(self) -> bool:
        """Whether the elements are complex numbers."""
        return self.dtype.startswith(("complex", "bcomplex"))

    @property
    def is_floating(self) -> bool:
        """Whether arithmetic on the elements is floating-point (complex included)."""
        return self.dtype.startswith(("float", "bfloat")) or self.is_complex


Value: TypeAlias = object
"""An argument that is no tensor: number, expression, string, ``None``, or a tuple of these."""
Tensors: TypeAlias = "TensorMeta | tuple[TensorMeta | None, ...]"
NamedTensors: TypeAlias = tuple[tuple[str, TensorMeta], ...]


class Phase(Enum):
    """When a call runs."""

    FORWARD = "forward"
    BACKWARD = "backward"
    RECOMPUTE = "recompute"


@dataclass(frozen=True, kw_only=True)
class OpCall:
    """One call of one operator in the graph.

    Attributes:
        op: Operator packet, e.g. ``"aten::add"``.
        overload: Overload name, e.g. ``"Tensor"`` (``"default"`` where it has none).
        inputs: Tensor arguments by schema name; a tensor list is a tuple.
        attrs: All other arguments by schema name, defaults included.
        outputs: The tensors returned, in order.
        writes: Schema names of the arguments the operator writes to (in-place, ``out=``).
        is_view: Whether the output shares the memory of an input, nothing being copied.
        module_path: Path of the innermost module that made the call; ``""`` is the root.
        name: The node's name in its graph.
        index: Position of the call in the capture.
        trip_count: How many times the call runs: the product of the loops around it.
        source_line: ``file:line`` of the innermost model code that made the call, if known.
        torch_function: The Python callable that made it, kind and name: ``"function.softmax"`` for
            ``F.softmax``, ``"method_descriptor.softmax"`` for ``x.softmax``; empty if unknown.
        module_class: Class of the innermost module that made it; empty if unknown.
        phase: When it runs. A backward call belongs to the module whose forward caused it.
        is_weight_gradient: Whether a backward call computes gradients of parameters alone; any
            other passes a gradient on to earlier calls.
        discarded_gradients: Inputs whose gradients a fused backward computes unasked.
        masked_scores: Scores that a mask hides and all scores, for a product within attention.
        same_as: Index of the equal call in the instance of the same layer that was traced, if
            this one was not. Not compared.
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
        """Index of the call that was traced: this one, or the one it repeats."""
        return self.index if self.same_as is None else self.same_as

    def tensors(self) -> Iterator[tuple[str, TensorMeta]]:
        """Every input tensor with its schema name, lists flattened, in schema order."""
        for name, value in self.inputs.items():
            for tensor in value if isinstance(value, tuple) else (value,):
                if tensor is not None:
                    yield name, tensor

    @cached_property
    def is_floating(self) -> bool:
        """Whether the operator's arithmetic is floating-point: any tensor in or out is."""
        return any(t.is_floating for _, t in self.tensors()) or any(
            t.is_floating for t in self.outputs
        )

    @cached_property
    def dtype(self) -> str:
        """The dtype the operator computes in: of its first floating tensor, else of its first."""
        tensors = [t for _, t in self.tensors()] + list(self.outputs)
        floating = (t.dtype for t in tensors if t.is_floating)
        return next(floating, tensors[0].dtype if tensors else "")


class Fallback(Protocol):
    """What PyTorch itself knows of an operator that has no handler."""

    def formula(self, call: OpCall) -> Dim | None:
        """FLOPs by a formula registered with ``torch.utils.flop_counter``, if there is one."""

    def decompose(
        self, call: OpCall, known: Callable[[str, str], bool]
    ) -> tuple[OpCall, ...] | None:
        """The calls it decomposes into, down to operators ``known`` by packet and overload."""


class Status(Enum):
    """How a call came by its cost."""

    COUNTED = "counted"
    FREE = "free"
    DECOMPOSED = "decomposed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRecord:
    """A call with its cost.

    Attributes:
        call: The call.
        status: How it came by its cost.
        cost: What it costs; ``None`` exactly where ``status`` is UNKNOWN.
        parts: What the operator decomposes into, where ``status`` is DECOMPOSED.
    """

    call: OpCall
    status: Status
    cost: OpCost | None
    parts: tuple[OpRecord, ...] = ()


class Parameter(NamedTuple):
    """A parameter of a module. Equal ``identity`` means one tensor under several names."""

    name: str
    identity: int
    numel: int
    nbytes: int
    trainable: bool


class Module(NamedTuple):
    """A module of the captured model.

    Attributes:
        path: Qualified name; ``""`` is the root.
        module_class: Class name.
        extra: What the class adds to its own ``repr``, e.g. ``in_features=3, out_features=4``.
        parameters: The module's own parameters.
        calls: How often it was called; ``None`` where the capture did not record it.
    """

    path: str
    module_class: str = ""
    extra: str = ""
    parameters: tuple[Parameter, ...] = ()
    calls: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReuse:
    """Layers that were not traced again, because an equal one had been.

    Attributes:
        layers: How many.
        distinct: How many different ones they are repetitions of.
    """

    layers: int = 0
    distinct: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSize:
    """A size that follows from data, which a count does not have.

    Attributes:
        name: Its symbol.
        operator: What makes it, e.g. ``"aten::nonzero"``.
        source: ``file:line`` of the model's code where it does, if known.
        largest: The largest it can be; ``None`` where nothing bounds it.
        value: What it is counted as; ``None`` where it stays a symbol.
        count: How many sizes go by the name.
        is_placeholder: Whether the value is any number at all, and another came to the same calls.
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
        """The operator and the line that make it."""
        return f"{self.operator} at {self.source}" if self.source else self.operator

    def __str__(self) -> str:
        times = f", {self.count} times" if self.count > 1 else ""
        if self.value is None:
            said = f"{self.name} is open, for nothing bounds it"
        elif self.is_placeholder:
            said = f"{self.name} = {self.value}, and another number comes to the same calls"
        elif self.value == self.largest:
            said = f"{self.name} = {self.value}, the largest it can be"
        elif self.largest is None:
            said = f"{self.name} = {self.value}, as assumed"
        else:
            said = f"{self.name} = {self.value}, as assumed, of {self.largest} at most"
        return f"{said}: {self.origin}{times}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A model as a graph: its calls in order and its modules in registration order.

    Attributes:
        calls: Every operator call; repeated layers may be folded.
        modules: Every module, parents before children.
        method: The way the graph was obtained, e.g. ``"eager tracing"``.
        seconds: Wall time of the capture.
        inputs: The model's input tensors by name.
        caches: Names of those inputs that hold what earlier tokens left behind.
        notes: Sentences a reader of the report must know about this capture.
        assumptions: Conditions on the symbolic sizes under which the graph is this one.
        data_sizes: Sizes that follow from data.
        layer_reuse: Repeated layers that were traced once.
        timings: Seconds that parts of the capture took, by what they are.
        fallback: What PyTorch knows of operators without a handler.
    """

    calls: Sequence[OpCall]
    modules: tuple[Module, ...]
    method: str
    seconds: float = 0.0
    inputs: NamedTensors = ()
    caches: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    assumptions: tuple[sympy.Basic, ...] = ()
    data_sizes: tuple[DataSize, ...] = ()
    layer_reuse: LayerReuse = LayerReuse()
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    fallback: Fallback | None = field(default=None, compare=False, repr=False)
