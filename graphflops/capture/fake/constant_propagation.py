"""Fake tensors that remember values: sizes may follow from inputs whose values are known.

A grid of image patches or a mask is a small tensor of integers, and a model's Python asks
for its values. Without them a graph has symbols where it could have numbers, or cannot be
had at all. What is computed from known values alone is computed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any, TypeAlias

import sympy
import torch
from torch import nn
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from graphflops.capture.fake.data_sizes import DataSizes
from graphflops.capture.fake.dispatch_cache import DispatchCache
from graphflops.capture.fake.distinct_values import DistinctValues
from graphflops.capture.fake.fake_maker import FakeMaker
from graphflops.capture.fake.leaves import are_small, fakes_in, is_real, memory_of, tensors_in
from graphflops.capture.fake.literals import Literals
from graphflops.capture.fake.mask_elements import Elements
from graphflops.capture.fake.shape_rules import (
    FILLED,
    OWN_RULES,
    depends_on_values,
    is_composite,
    is_determined,
)
from graphflops.capture.fake.sparse import SparseRules
from graphflops.capture.fake.symbolic_shapes import SymbolicShapes
from graphflops.capture.source_lines import line_running
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.core.cost import Dim
from graphflops.errors import CaptureError

# Positions and masks of a long prompt are computed, not what is made of pixels.
LARGEST = 1 << 20
_UNKNOWN = object()
INPUTS, CHANCE = "inputs", "chance"
"""What a known value may follow from: the values of inputs, a number drawn at random."""
DRAWN = 0.5
"""What a number drawn at random for Python to look at is taken to be."""
UNCOUNTED = (
    "and what that computes would not be counted. Let it use a "
    "concurrent.futures.ThreadPoolExecutor, whose work is counted, or call the parts in turn."
)
State: TypeAlias = tuple[torch.Tensor | None, set[str] | None, sympy.Basic | None]
"""What is known of a tensor: its value, what that follows from, else what its elements are."""
_DEVICE = torch.ops.prim.device.default
_FAKES = frozenset({FakeTensor})


def __torch_dispatch__(  # noqa: N807 - what stacks call it
    mode: Any, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Run an operator on fakes."""
    return mode.dispatch(func, types, args, kwargs)


class ValueTracker:
    """Values of the fake tensors of a mode.

    Not a mode itself: higher-order operators take none but ``FakeTensorMode``.

    Attributes:
        mode: The mode; it calls back on every operator.
        symbols: The symbolic sizes of inputs in the mode.
        sizes: Sizes that follow from data.
        asked: Of what a size or a branch has followed: values of inputs, numbers drawn.
        largest: Elements of the largest value that is computed.
        supposed: Whether a value was supposed that is not known.
        operators: How many operators have made a fake tensor.
        numbers: Lines of the model that made a Python number of a value that nobody knows.
        sparse: What operators make of sparse tensors.
        masks: Lines of the model that attend under a mask that is not known, or not in full.
        packings: Lines that attend within packed sequences of unknown lengths.
        elements: What is known of tensors that are too large to have a value, or symbolic.
        fakes: Makes fake tensors of the mode.
        ranks: Over how many ranks weights are distributed.
    """

    def __init__(self) -> None:
        shape_env = SymbolicShapes()
        self.symbols = shape_env.symbols
        # Typed as anything: two of its methods are exchanged for ours.
        shape_env.answer = self._number_for
        mode: Any = FakeTensorMode(allow_non_fake_inputs=True, shape_env=shape_env)
        self.mode: FakeTensorMode = mode
        self._distinct = DistinctValues(self.value)
        self.sizes = DataSizes(mode, self.value, self._distinct.of)
        self.assumed = False
        self.operators, self.ranks = 0, 1
        self.numbers: dict[str, None] = {}
        self.masks: dict[str, None] = {}
        self.packings: dict[str, None] = {}
        self.dependences: set[str] = set()
        self.largest = LARGEST
        self._values: Any = WeakIdKeyDictionary()
        self._origins: Any = WeakIdKeyDictionary()
        self.elements = Elements(self.value, LARGEST)
        # References, though weak: another storage could come to lie at the same address.
        self._stale: set[StorageWeakRef] = set()
        self._thread = threading.get_ident()
        self.sparse = SparseRules(mode, self.value)
        self.fakes = FakeMaker(mode)
        self._dispatch, self._from_tensor = DispatchCache(mode, self.fakes).run, mode.from_tensor
        mode.from_tensor = self.from_tensor
        mode.dispatch = self.dispatch
        # Around its own one stand functions that keep a running compiler out, longer than it.
        mode.__torch_dispatch__ = MethodType(__torch_dispatch__, mode)
        # Whoever copies a cache or an input gets tensors of this mode.
        mode.__deepcopy__ = lambda _: mode
        mode.value_tracker = self

    def fake_with_value(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A fake tensor on a device that has the value of ``tensor``."""
        with self.mode:
            fake = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
            )
        with no_modes():
            self._values[fake] = tensor.clone()
        return fake

    def assign(self, fake: torch.Tensor, value: torch.Tensor) -> None:
        """Know the value of a fake tensor; whoever writes to that changes ``value``."""
        self._values[fake] = value

    def fake_input_with_value(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The same of an input: other values of it may come to another count."""
        fake = self.fake_with_value(tensor, device)
        self._origins[fake] = {INPUTS}
        return fake

    def is_own(self, leaf: object) -> bool:
        """Whether something is a fake tensor of the mode."""
        return isinstance(leaf, FakeTensor) and leaf.fake_mode is self.mode

    def value(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The value of a tensor, if it is known."""
        if not self.is_own(tensor) and tensor.is_meta:
            return None
        value = self._value(tensor)
        return None if value is _UNKNOWN else value

    def masked_elements(self, mask: torch.Tensor) -> Dim | None:
        """How many elements of a mask of attention let nothing through, as far as is known."""
        found = self.elements.hidden(mask)
        if not (found.is_whole if found is not None else mask.is_floating_point()):
            self.masks[line_running()] = None
        return None if found is None else found.hidden

    def sequence_starts(self, tensor: torch.Tensor) -> tuple[int, ...] | None:
        """Where packed sequences begin, if that is known."""
        value = self.value(tensor)
        if value is None:
            self.packings[line_running()] = None
        return None if value is None else tuple(value.tolist())

    def empty_like(self, tensor: torch.Tensor) -> FakeTensor:
        """A fake tensor of the same metadata, whose value is not known."""
        with no_modes():
            return self.fakes.like(tensor)

    def state(self, tensor: torch.Tensor) -> State:
        """What is known of a tensor."""
        value, element = self.value(tensor), self.elements.get(tensor)
        with no_modes():
            return None if value is None else value.clone(), self._origins.get(tensor), element

    def restore(self, tensor: torch.Tensor, state: State) -> None:
        """Know of a tensor what was known of another."""
        value, origins, element = state
        self.elements.assign(tensor, element)
        if not self.is_own(tensor) or (value is None and tensor not in self._values):
            return
        with no_modes():
            if value is None:
                self._forget([tensor])
            elif (own := self.value(tensor)) is None:
                self._values[tensor] = value.clone()
            else:
                own.copy_(value)
        if origins:
            self._origins[tensor] = origins

    def assign_truth(self, fake: torch.Tensor, *, whether: bool) -> None:
        """Know of all elements of a tensor whether something is so of them, as it always is."""
        if isinstance(fake, FakeTensor) and all(isinstance(size, int) for size in fake.shape):
            with no_modes():
                self._values[fake] = torch.tensor(whether).expand(fake.shape)

    def assume_value(self, fake: FakeTensor, value: torch.Tensor) -> None:
        """Go on as if a tensor had this value, if its own is not known."""
        if self._value(fake) is _UNKNOWN:
            self._values[fake] = value
            self._origins.pop(fake, None)
            self.assumed = True

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Let export and ``make_fx`` use this mode, not one of their own."""
        with tracing(TracingContext(self.mode)), Literals(self):
            yield

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run eagerly in this mode."""
        with self.tracing(), self.outside_of_a_graph():
            yield

    @contextlib.contextmanager
    def outside_of_a_graph(self) -> Iterator[None]:
        """Compute with fake tensors before there is a graph that could hold what is new."""
        shapes = self.symbols.shapes
        with self.mode, enable_python_dispatcher(), shapes.ignore_fresh_unbacked_symbols():
            yield

    def from_tensor(self, tensor: torch.Tensor, **options: Any) -> Any:
        """A fake tensor for a tensor of the model or an input.

        A fake stays what it is: export would make another of every input.
        """
        if self.is_own(tensor):
            return tensor
        weights = isinstance(tensor, nn.Parameter) or tensor.is_floating_point()
        if weights or not is_real(tensor) or tensor.numel() > LARGEST:
            return self._from_tensor(tensor, **options)
        # Strides and paddings that a module holds as a buffer decide sizes too.
        return self.fake_with_value(tensor, tensor.device)

    def literal(self, tensor: torch.Tensor) -> Any:
        """The value of a tensor as Python numbers, or the tensor if it has none."""
        value = self._value(tensor)
        if value is _UNKNOWN:
            return tensor
        self.note_dependence(tensor)
        with no_modes():
            return value.tolist()

    def note_derived(self, out: Any, args: Any) -> None:
        """Note that a size follows from values, as a result does."""
        self.dependences |= self._derive(out, args)

    def note_dependence(self, tensor: torch.Tensor) -> None:
        """Note that a size or a branch follows from a tensor's value."""
        self.dependences |= self._origins.get(tensor, set())

    def number(self, tensor: torch.Tensor) -> float:
        """A floating-point number as Python's; one that only data can give is supposed."""
        if (value := self._value(tensor)) is _UNKNOWN:
            self.numbers[line_running()] = None
            return DRAWN
        self.note_dependence(tensor)
        with no_modes():
            return float(value)

    def integer(self, tensor: torch.Tensor) -> int:
        """The same as a whole number."""
        if (value := self._value(tensor)) is _UNKNOWN:
            return self.sizes.whole_number()
        self.note_dependence(tensor)
        with no_modes():
            return int(value)

    def _number_for(self, expr: sympy.Basic) -> sympy.Basic | Exception | None:
        """A number that only data can give, for which Python asks; a condition is refused."""
        if not isinstance(expr, sympy.Expr):
            return self.sizes.refusal(expr)
        if expr.is_integer:
            return sympy.Integer(self.sizes.whole_number())
        self.numbers[line_running()] = None
        return sympy.Float(DRAWN)

    def dispatch(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator on fakes, and on values where they are all known."""
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload) or func.namespace == "prim":
            return self._dispatch(func, types, args, kwargs)
        if threading.get_ident() != self._thread:
            raise CaptureError(f"the forward computes in another thread, {UNCOUNTED}")
        if is_composite(func) and _FAKES.issuperset(types):
            with self.mode:
                return func.decompose(*args, **kwargs)
        if func._schema.is_mutable:
            args, kwargs = self._unwritten(args, kwargs)
        out = self._by_own_rule(func, args, kwargs)
        return self._followed(func, types, args, kwargs) if out is None else out

    def _by_own_rule(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator of which torch's rule for shapes says too little; ``None`` for others."""
        if self.sparse.in_use and self.sparse.takes(args, kwargs):
            return self.sparse.run(func, args, kwargs)
        rule = OWN_RULES.get(func)
        out = None if rule is None else rule(self, func, args, kwargs)
        if out is None and depends_on_values(func):
            value = self._compute(func, args, kwargs)
            if value is not _UNKNOWN:
                out = self._fake(value, args)
                self.note_derived(out, (args, kwargs))
        return out

    def _followed(self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator on fakes, and note what is known of its result."""
        fresh = len(self.symbols.shapes.fresh)
        out = self.sizes.made(func, args, kwargs)
        if out is None:
            out = self._dispatch(func, types, args, kwargs)
        if depends_on_values(func) or len(self.symbols.shapes.fresh) > fresh:
            out = self.sizes.finalize(func, args, kwargs, out, fresh)
        self.operators += isinstance(out, torch.Tensor)
        element = self.elements.follow(func, out, args, kwargs)
        self._note(func, out, args, kwargs)
        self._distinct.follow(func, args, out)
        if func._schema.is_mutable:
            self.elements.forget(func, args, kwargs)
        if element is not None and self._value(out) is _UNKNOWN:
            self.elements.assign(out, element)
        return out

    def _note(self, func: Any, out: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Remember what is known of the result of an operator."""
        if func in FILLED and are_small(out, self.largest):
            like = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype)
            self._remember(out, self._compute(func, (like, *args[1:]), kwargs))
        elif is_determined(func) and (func.is_view or are_small(out, self.largest)):
            self._remember(out, self._compute(func, args, kwargs))
            self._derive(out, (args, kwargs))
        elif func is torch.ops.aten.rand.default and are_small(out, 1):
            # One number: a layer asks whether it is dropped.
            self._remember(out, torch.full(out.shape, DRAWN, dtype=out.dtype))
            self._origins[out] = {CHANCE}
        elif func._schema.is_mutable:
            self._forget(args)

    def _unwritten(self, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        """Arguments of an operator that writes to some: no tensor with data is to be written to."""
        leaves = pytree.tree_leaves((args, kwargs))
        if any(isinstance(leaf, FakeTensor) for leaf in leaves) or not any(map(is_real, leaves)):
            return args, kwargs
        # The mode runs what has no fake tensor.
        return (
            pytree.tree_map_only(torch.Tensor, self._known_copy, args),
            pytree.tree_map_only(torch.Tensor, self._known_copy, dict(kwargs)),
        )

    def _known_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.fake_with_value(tensor, tensor.device)

    def _compute(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        values: Any = None
        unknown = any(self._value(tensor) is _UNKNOWN for tensor in tensors_in((args, kwargs)))
        if not unknown:
            values = pytree.tree_map(self._value, (args, kwargs))
            unknown = any(value is _UNKNOWN for value in pytree.tree_leaves(values))
        # A count never writes to a tensor of the model.
        if func._schema.is_mutable and (unknown or any(map(is_real, tensors_in(args)))):
            self._forget(args)
            return _UNKNOWN
        if unknown:
            return _UNKNOWN
        try:
            with no_modes():
                return func(*values[0], **values[1])
        except NotImplementedError:  # it has no kernel for the CPU, where values are
            return _UNKNOWN

    def _value(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        if isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool):
            return _UNKNOWN
        if not isinstance(leaf, torch.Tensor):
            return leaf
        # One that is not fake is a constant of the model's code.
        value = leaf if is_real(leaf) else self._values.get(leaf)
        large = value is leaf and leaf.numel() > LARGEST
        if value is None or large or memory_of(value) in self._stale:
            return _UNKNOWN
        return value

    def _remember(self, out: Any, value: Any) -> None:
        if value is not _UNKNOWN:
            for fake, known in zip(pytree.tree_leaves(out), pytree.tree_leaves(value), strict=True):
                if isinstance(fake, torch.Tensor):
                    self._values[fake] = known

    def _derive(self, out: Any, args: Any) -> set[str]:
        """What ``out`` follows from, as ``args`` do; it is noted."""
        origins: set[str] = set().union(*(self._origins.get(t, ()) for t in fakes_in(args)))
        if origins:
            for fake in fakes_in(out):
                self._origins[fake] = origins
        return origins

    def _forget(self, args: Any) -> None:
        """An operator writes something unknown: what shares the memory is unknown now."""
        for tensor in tensors_in(args):
            value = tensor if is_real(tensor) else self._values.get(tensor)
            if value is not None:
                self._stale.add(memory_of(value))

    def _fake(self, value: Any, args: Any) -> Any:
        device = tensors_in(args)[0].device
        return pytree.tree_map_only(torch.Tensor, lambda t: self.fake_with_value(t, device), value)
