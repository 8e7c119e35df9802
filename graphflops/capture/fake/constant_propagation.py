"""Constant propagation: values of fake tensors that follow from known inputs.

Models read small integer tensors (patch grids, masks) in Python: operators on these run for real.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import nn

from graphflops.capture.fake import shape_rules
from graphflops.capture.fake.argument_keys import depends_on_metadata
from graphflops.capture.fake.data_sizes import DataSizes
from graphflops.capture.fake.dispatch_cache import DispatchCache
from graphflops.capture.fake.distinct_values import DistinctValues
from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.known_values import MAX_VALUE_NUMEL, KnownValues
from graphflops.capture.fake.leaves import are_small, is_real, tensors_in
from graphflops.capture.fake.mask_elements import SymbolicElements
from graphflops.capture.fake.metadata import written_tensors
from graphflops.capture.fake.result_recipes import ResultRecipes
from graphflops.capture.fake.sparse_tensors import SparseRules
from graphflops.capture.fake.storages import CallEvents, StorageTracker
from graphflops.capture.fake.symbolic_shapes import SymbolicShapes
from graphflops.capture.fake.torch_function_overrides import TorchFunctionOverrides
from graphflops.capture.fake.value_lookup import ASSUMED_FLOAT, INPUTS, RANDOM, UNKNOWN, TensorState
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.count_flags import THREAD_NOT_COUNTED
from graphflops.capture.torch_internals.dispatch import enable_python_dispatcher
from graphflops.capture.torch_internals.fake_mode import (
    FakeTensor,
    FakeTensorMode,
    TracingContext,
    intercept,
    tracing,
)
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.cost import Dim
from graphflops.errors import CaptureError

_DEVICE, _FAKE_ONLY = torch.ops.prim.device.default, frozenset({FakeTensor})


class ValueTracker:
    """Values of the fake tensors of a mode.

    Not a mode: higher-order operators accept none but ``FakeTensorMode``.

    Attributes:
        mode: The mode; it calls back on every operator.
        symbols: Symbolic sizes of the inputs in the mode.
        sizes: Data-dependent sizes.
        distinct: Bounds on the number of distinct values of integer tensors.
        dependences: Origins on which a size or a branch depends: values of inputs, random numbers.
        max_numel: Largest ``numel`` of a value that is computed.
        has_assumed_values: True if a value was assumed for a tensor without one.
        operator_count: Number of operator calls that returned a fake tensor.
        data_dependent_count: Number of those whose results may depend on more than metadata.
        unknown_floats: Lines of the model that made a Python float of an unknown value.
        sparse: Shape rules of operators on sparse tensors.
        unknown_masks: Lines of the model with attention under a mask that is not fully known.
        unknown_packings: Lines with attention within packed sequences of unknown lengths.
        elements: Symbolic elements of tensors that are too large to have a value, or symbolic.
        factory: Factory of the fake tensors of the mode.
        num_ranks: Number of ranks over which weights are distributed.
        storages: Storages that operators allocate, with their lifetimes.
        function_overrides: Overrides of torch functions that read values.
    """

    def __init__(self) -> None:
        shape_env = SymbolicShapes()
        self.symbols = shape_env.symbols
        shape_env.resolve = self._resolve_data_dependent
        self.mode = mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=shape_env)
        self.distinct = DistinctValues(self.value)
        self.sizes = DataSizes(mode, self.value, self.distinct)
        self.has_assumed_values, self.num_ranks = False, 1
        self.operator_count = self.data_dependent_count = 0
        self.unknown_floats: dict[str, None] = {}
        self.unknown_masks: dict[str, None] = {}
        self.unknown_packings: dict[str, None] = {}
        self.dependences: set[str] = set()
        self.max_numel = MAX_VALUE_NUMEL
        self._known = KnownValues()
        self.elements = SymbolicElements(self.value, MAX_VALUE_NUMEL)
        self._tracked = [
            tensors.entries
            for tensors in (*self._known.maps, *self.elements.maps, *self.distinct.maps)
        ]
        self._thread, self.storages = threading.get_ident(), StorageTracker()
        self.sparse = SparseRules(mode, self.value)
        self.factory = FakeTensorFactory(mode)
        self._recipes = ResultRecipes(self.factory)
        self.function_overrides = TorchFunctionOverrides(self)
        self._dispatch, self._from_tensor = DispatchCache(mode, self.factory).run, mode.from_tensor
        run = self.storages.watch(self.dispatch)
        intercept(mode, dispatch=run, from_tensor=self.from_tensor)
        vars(mode)["value_tracker"] = self

    def fake_with_value(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return a fake tensor on a device that has the value of ``tensor``."""
        with self.mode:
            fake = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
            )
        with no_modes():
            self._known.assign(fake, tensor.clone())
        return fake

    def assign(self, fake: torch.Tensor, value: torch.Tensor) -> None:
        """Assign a value to a fake tensor, without a copy: operators write to ``value`` itself."""
        self._known.assign(fake, value)

    def fake_input_with_value(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return the fake tensor of an input: other values of it may give another count."""
        fake = self.fake_with_value(tensor, device)
        self._known.origins[fake] = {INPUTS}
        return fake

    def owns(self, leaf: object) -> bool:
        """Return True for a fake tensor of this mode."""
        return isinstance(leaf, FakeTensor) and leaf.fake_mode is self.mode

    def value(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the value of a tensor, if it is known."""
        if not self.owns(tensor) and tensor.is_meta:
            return None
        value = self._known.lookup(tensor)
        return None if value is UNKNOWN else value

    def masked_elements(self, mask: torch.Tensor) -> Dim | None:
        """Return the number of elements of an attention mask that certainly hide a score."""
        count = self.elements.count_hidden(mask)
        if not (count.is_complete if count is not None else mask.is_floating_point()):
            self.unknown_masks[current_source_line()] = None
        return None if count is None else count.hidden

    def sequence_starts(self, tensor: torch.Tensor) -> tuple[int, ...] | None:
        """Return the offsets of packed sequences, if they are known."""
        value = self.value(tensor)
        if value is None:
            self.unknown_packings[current_source_line()] = None
        return None if value is None else tuple(value.tolist())

    def empty_like(self, tensor: torch.Tensor) -> FakeTensor:
        """Return a fake tensor of the same metadata, without a value."""
        with no_modes():
            return self.factory.empty_like(tensor)

    def state(self, tensor: torch.Tensor) -> TensorState:
        """Return the value of a tensor, its origins and its symbolic element."""
        value, element = self.value(tensor), self.elements.get(tensor)
        with no_modes():
            copy = None if value is None else value.clone()
        return copy, self._known.origins.get(tensor), element

    def restore(self, tensor: torch.Tensor, state: TensorState) -> None:
        """Give a tensor the state of another."""
        value, origins, element = state
        self.elements.assign(tensor, element)
        if not self.owns(tensor) or (value is None and not self._known.has_had_value(tensor)):
            return
        with no_modes():
            if value is None:
                self._known.invalidate([tensor])
            elif (current := self.value(tensor)) is None:
                self._known.assign(tensor, value.clone())
            else:
                current.copy_(value)
        if origins:
            self._known.origins[tensor] = origins

    def assign_bool(self, fake: torch.Tensor, *, value: bool) -> None:
        """Assign one truth value to all elements of a tensor, whatever the data."""
        if isinstance(fake, FakeTensor) and all(isinstance(size, int) for size in fake.shape):
            with no_modes():
                self._known.assign(fake, torch.tensor(value).expand(fake.shape))

    def assume_value(self, fake: FakeTensor, value: torch.Tensor) -> None:
        """Assume a value for a tensor whose value is not known."""
        if self._known.lookup(fake) is UNKNOWN:
            self._known.assign(fake, value)
            self._known.origins.discard(fake)
            self.has_assumed_values = True

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Make export and ``make_fx`` use this mode instead of one of their own."""
        with tracing(TracingContext(self.mode)), self.function_overrides:
            yield

    @contextlib.contextmanager
    def eager(self) -> Iterator[None]:
        """Run eagerly in this mode."""
        with self.tracing(), self.outside_graph():
            yield

    @contextlib.contextmanager
    def outside_graph(self) -> Iterator[None]:
        """Run under this mode before there is a graph that could hold new symbols."""
        shape_env = self.symbols.shape_env
        with self.mode, enable_python_dispatcher(), shape_env.ignore_fresh_unbacked_symbols():
            yield

    def from_tensor(self, tensor: torch.Tensor, **options: Any) -> Any:
        """Return the fake tensor of a tensor: itself if it is fake (export would make another)."""
        if self.owns(tensor):
            return tensor
        is_weight = isinstance(tensor, nn.Parameter) or tensor.is_floating_point()
        if is_weight or not is_real(tensor) or tensor.numel() > MAX_VALUE_NUMEL:
            return self._from_tensor(tensor, **options)
        # Strides and paddings that a module holds as a buffer decide sizes too.
        return self.fake_with_value(tensor, tensor.device)

    def as_literal(self, tensor: torch.Tensor) -> Any:
        """Return the value of a tensor as Python numbers, or the tensor if it has none."""
        value = self._known.lookup(tensor)
        if value is UNKNOWN:
            return tensor
        self.note_dependence(tensor)
        with no_modes():
            return value.tolist()

    def note_derived(self, out: Any, args: Any) -> None:
        """Record that a size of a result, and the result itself, follow from values of ``args``."""
        self.dependences |= self._known.propagate_origins(out, args)

    def note_dependence(self, tensor: torch.Tensor) -> None:
        """Record that a size or a branch follows from a tensor's value."""
        self.dependences |= self._known.origins.get(tensor) or set()

    def as_float(self, tensor: torch.Tensor) -> float:
        """Return a tensor as a Python float; one that only data can give is assumed."""
        if (value := self._known.lookup(tensor)) is UNKNOWN:
            self.unknown_floats[current_source_line()] = None
            return ASSUMED_FLOAT
        self.note_dependence(tensor)
        with no_modes():
            return float(value)

    def as_int(self, tensor: torch.Tensor) -> int:
        """Return a tensor as a Python int; one that only data can give is assumed."""
        if (value := self._known.lookup(tensor)) is UNKNOWN:
            return self.sizes.assume_int()
        self.note_dependence(tensor)
        with no_modes():
            return int(value)

    def _resolve_data_dependent(self, expr: sympy.Basic) -> sympy.Basic | Exception | None:
        """Return a value for a number that only data can give, or the refusal of a condition."""
        if not isinstance(expr, sympy.Expr):
            return self.sizes.refusal(expr)
        if expr.is_integer:
            return sympy.Integer(self.sizes.assume_int())
        self.unknown_floats[current_source_line()] = None
        return sympy.Float(ASSUMED_FLOAT)

    def dispatch(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator on fake tensors, and on their values where all are known."""
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload) or func.namespace == "prim":
            return self._dispatch(func, types, args, kwargs)
        if threading.get_ident() != self._thread:
            raise CaptureError(f"the forward computes in another thread, {THREAD_NOT_COUNTED}")
        if shape_rules.is_composite(func) and _FAKE_ONLY.issuperset(types):
            with self.mode:
                return func.decompose(*args, **kwargs)
        if func._schema.is_mutable:
            args, kwargs = self._fake_real(args, kwargs)
        out = self._run_shape_rule(func, args, kwargs)
        self.data_dependent_count += out is not None or not depends_on_metadata(func, args)
        return self._run_tracked(func, types, args, kwargs) if out is None else out

    def _run_shape_rule(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator by our own shape rule; return None if it has none."""
        if self.sparse.in_use and self.sparse.applies(args, kwargs):
            return self.sparse.run(func, args, kwargs)
        rule = shape_rules.SHAPE_RULES.get(func)
        out = None if rule is None else rule(self, func, args, kwargs)
        if out is None and shape_rules.depends_on_values(func):
            value = self._known.compute(func, args, kwargs)
            if value is not UNKNOWN:
                out = self._fake_from_value(value, args)
                self.note_derived(out, (args, kwargs))
        return out

    def _run_tracked(self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator on fake tensors, and propagate what is known of their values."""
        num_symbols = len(self.symbols.shape_env.new_symbols)
        out = self.sizes.run(func, args, kwargs)
        if out is None:
            out = self._dispatch(func, types, args, kwargs)
        has_new_symbols = len(self.symbols.shape_env.new_symbols) > num_symbols
        if has_new_symbols or shape_rules.depends_on_values(func):
            out = self.sizes.finalize(func, args, kwargs, out, num_symbols)
        self._propagate(func, out, args, kwargs)
        return out

    def repeat(  # noqa: PLR0913, PLR0917 - a call, and what is known of it
        self,
        func: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        inputs: Sequence[FakeTensor],
        recipe: Any,
        events: CallEvents,
        *,
        is_tracked: bool,
    ) -> Any:
        """Return the result of an operator that depends on the metadata of its arguments alone.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            inputs: The tensors among the arguments.
            recipe: Recipe of the result.
            events: What the operator allocates and frees.
            is_tracked: True if something is known of the values of one of these.
        """
        out = self._recipes.make(recipe, inputs)
        self.storages.repeat_call(events, out)
        writes = self.elements and func._schema.is_mutable
        if is_tracked or writes or self.distinct.concerns(func, out):
            self._propagate(func, out, args, kwargs)
        else:
            self.operator_count += 1
        return out

    def is_any_tracked(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Return True if something is known of the values of one of some tensors."""
        keys = list(map(id, tensors))
        return any(entries and not entries.keys().isdisjoint(keys) for entries in self._tracked)

    def _propagate(self, func: Any, out: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Propagate values, elements and bounds from the arguments of an operator to its result."""
        self.operator_count += isinstance(out, torch.Tensor)
        element, is_mutable = None, func._schema.is_mutable
        if is_mutable:  # of what is there before the write
            element = self.elements.propagate(func, out, args, kwargs)
        self._propagate_value(func, out, args, kwargs)
        if not is_mutable and self._known.lookup(out) is UNKNOWN:
            element = self.elements.propagate(func, out, args, kwargs)
        self.distinct.propagate(func, args, out)
        if is_mutable:
            self.elements.invalidate(func, args, kwargs)
        if element in {sympy.true, sympy.false} and not out.dim():
            self.assign_bool(out, value=bool(element))
        elif element is not None and self._known.lookup(out) is UNKNOWN:
            self.elements.assign(out, element)

    def _propagate_value(self, func: Any, out: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Compute the value of an operator's result, if it is known."""
        if func in shape_rules.FILL_OPERATORS and are_small(out, self.max_numel):
            like = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype)
            self._known.assign(out, self._known.compute(func, (like, *args[1:]), kwargs))
        elif shape_rules.is_determined(func) and (func.is_view or are_small(out, self.max_numel)):
            values = self._known.compute(func, args, kwargs)
            if values is not UNKNOWN:
                self._known.assign(out, values)
                self._known.propagate_origins(out, (args, kwargs))
        elif func is torch.ops.aten.rand.default and are_small(out, 1):
            # A single number: stochastic depth, which decides whether a layer is dropped.
            self._known.assign(out, torch.full(out.shape, ASSUMED_FLOAT, dtype=out.dtype))
            self._known.origins[out] = {RANDOM}
        elif func._schema.is_mutable:
            self._known.invalidate(written_tensors(func, args, kwargs))

    def _fake_real(self, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        """Return arguments of an in-place operator, fake so that no tensor with data is written."""
        leaves = pytree.tree_leaves((args, kwargs))
        if any(isinstance(leaf, FakeTensor) for leaf in leaves) or not any(map(is_real, leaves)):
            return args, kwargs
        # Without a fake argument the mode would run the operator for real.
        copies: tuple[Any, Mapping[str, Any]] = pytree.tree_map_only(
            torch.Tensor, lambda t: self.fake_with_value(t, t.device), (args, dict(kwargs))
        )
        return copies

    def _fake_from_value(self, value: Any, args: Any) -> Any:
        device = tensors_in(args)[0].device
        return pytree.tree_map_only(torch.Tensor, lambda t: self.fake_with_value(t, device), value)
