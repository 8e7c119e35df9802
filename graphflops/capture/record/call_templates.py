"""Templates of operator calls: what all calls on arguments of the same metadata have in common.

A model calls the same operator on tensors of the same shapes again and again. From the second call
on, the result, what it allocates and the record of the call are made from those of the first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import torch

from graphflops.capture.fake.argument_keys import (
    argument_key,
    depends_on_metadata,
    is_cacheable,
)
from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import (
    VALUED_ARGUMENTS,
    bind_arguments,
    reads_known_values,
    schema_of,
    written_arguments,
)
from graphflops.capture.fake.result_recipes import (
    UNCACHEABLE,
    NewTensor,
    ResultRecipes,
    Several,
    new_tensors,
)
from graphflops.capture.fake.result_rules import recipe_by_rule, shared_device
from graphflops.capture.fake.shape_rules import FILL_OPERATORS, SHAPE_RULES, is_composite
from graphflops.capture.fake.storages import CallEvents
from graphflops.capture.record.aliasing import returns_written
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.invocation_log import InvocationLog
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.capture.torch_internals.dispatch import num_dispatch_modes
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.core.ir import OpCall, TensorMeta, Tensors, Value

_INDEX = torch.ops.aten.index.Tensor
_MAX_TEMPLATES = 100_000
"""Maximum number of templates, of all counts of the process."""


BoundArguments: TypeAlias = tuple[Mapping[str, Tensors], Mapping[str, Value]]
"""Tensor arguments and other arguments, by schema name."""
_TEMPLATES: dict[tuple[Any, ...], CallTemplate] = {}


class CallTemplate(NamedTuple):
    """Common part of the calls of an operator on arguments of the same metadata.

    Attributes:
        recipe: Recipe of the result.
        events: What the operator allocates and frees.
        versions: By how much the version of the first argument grows.
        inputs: Positions of the tensors among those of the arguments, by schema name.
        attrs: Other arguments, by schema name.
        outputs: Metadata of the results.
        is_view: True if the result is in the memory of an argument.
        description: The invocation, with descriptions of its tensors; None if these had known
            values.
    """

    recipe: Any
    events: CallEvents
    versions: int
    inputs: tuple[tuple[str, int | tuple[int, ...]], ...]
    attrs: Mapping[str, Value]
    outputs: tuple[TensorMeta, ...]
    is_view: bool
    description: Invocation | None

    def bind(
        self, inputs: list[FakeTensor], describe: Callable[[torch.Tensor], TensorMeta]
    ) -> BoundArguments:
        """Return the tensor arguments and the others of a call, by schema name.

        Args:
            inputs: The tensors among its arguments.
            describe: Function that returns the metadata of a tensor.
        """
        tensors: dict[str, Tensors] = {}
        for name, at in self.inputs:
            if isinstance(at, int):
                tensors[name] = describe(inputs[at])
            else:
                tensors[name] = tuple([describe(inputs[position]) for position in at])
        return tensors, self.attrs


class Execution(NamedTuple):
    """Operator that has run, with what the record of its call needs.

    Attributes:
        invocation: The operator, its arguments and result.
        bound: Its arguments by schema name, bound before it ran.
        description: The invocation, with descriptions of its tensors.
        results: Tensors of the result.
        template: Template of its call, if one like it has run before.
        first: What a template of the call would hold, if it has none yet.
    """

    invocation: Invocation
    bound: BoundArguments
    description: Invocation
    results: list[torch.Tensor]
    template: CallTemplate | None
    first: _FirstCall | None


class _FirstCall(NamedTuple):
    """First call on arguments of some metadata.

    Attributes:
        key: Key of its template.
        recipe: Recipe of the result.
        events: What it has allocated and freed.
        versions: By how much the version of the first argument has grown.
        is_tracked: True if something is known of the values of its arguments.
    """

    key: tuple[Any, ...]
    recipe: Any
    events: CallEvents
    versions: int
    is_tracked: bool


class CallTemplates:
    """Runs the operators of a tape, by the templates of their calls where they have some.

    Args:
        values: Tracker of the fake tensors.
        invocations: Log that describes invocations.
        describe: Function that returns the metadata of a named tensor.
    """

    def __init__(
        self,
        values: ValueTracker,
        invocations: InvocationLog,
        describe: Callable[[torch.Tensor], TensorMeta],
    ) -> None:
        self._values, self._invocations, self._describe = values, invocations, describe
        self._recipes = ResultRecipes(values.factory)
        self._thread = threading.get_ident()

    def run(
        self,
        func: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        execute: Callable[..., Any],
        *,
        is_below_autograd: bool,
    ) -> Execution:
        """Run an operator.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            execute: Function that runs it, if there is no template.
            is_below_autograd: True if no result is to be differentiated.
        """
        keyed = self._key(func, args, kwargs) if is_below_autograd else None
        if keyed is None:
            return self._run_first(func, args, kwargs, execute)
        key, inputs = keyed
        is_tracked = self._values.is_any_tracked(inputs)
        if is_tracked and (is_composite(func) or func is _INDEX):  # values are known within it
            return self._run_first(func, args, kwargs, execute)
        template, first = _TEMPLATES.get(key), None
        if template is not None:
            recipe, events, bound = *template[:2], template.bind(inputs, self._describe)
        elif (recipe := self._predict(func, args, kwargs, inputs)) is not None:
            events, bound = events_of(recipe), bind_arguments(func, args, kwargs, self._describe)
            first = _FirstCall(key, recipe, events, 0, is_tracked)
        else:
            return self._run_first(func, args, kwargs, execute, key, inputs, is_tracked=is_tracked)
        out = self._values.repeat(
            *(func, args, kwargs, inputs, recipe, events), is_tracked=is_tracked
        )
        for _ in range(0 if template is None else template.versions):
            torch.autograd.graph.increment_version(out)
        invocation = Invocation(func, args, kwargs, out)
        description = None if template is None or is_tracked else template.description
        if description is None:
            description = self._invocations.describe(invocation)
        return Execution(invocation, bound, description, tensors_in(out), template, first)

    @staticmethod
    def _predict(
        func: Any, args: Any, kwargs: Mapping[str, Any], inputs: Sequence[FakeTensor]
    ) -> NewTensor | Several | None:
        """Return the recipe of the result of an operator, if a rule knows it."""
        device = shared_device(inputs)
        return None if device is None else recipe_by_rule(func, args, kwargs, device)

    def store(self, first: _FirstCall, execution: Execution, call: OpCall) -> None:
        """Store the template of a call that has run.

        Args:
            first: What its execution has shown.
            execution: Its execution.
            call: The call.
        """
        func, args, kwargs, _ = execution.invocation
        if (inputs := _positions(func, args, kwargs, call.inputs)) is None:
            return
        if len(_TEMPLATES) >= _MAX_TEMPLATES:
            _TEMPLATES.clear()
        _TEMPLATES[first.key] = CallTemplate(
            inputs=inputs,
            attrs=call.attrs,
            outputs=call.outputs,
            is_view=call.is_view,
            recipe=first.recipe,
            events=first.events,
            versions=first.versions,
            description=None if first.is_tracked else execution.description,
        )

    def _key(
        self, func: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], list[FakeTensor]] | None:
        """Return the key of the template of a call, and the tensors among its arguments."""
        values, kind = self._values, _kind_of(func)
        if not kind.is_repeatable or num_dispatch_modes() > 1:
            return None
        if kind.reads_known_values and not _is_without_masks(func, args, kwargs):
            return None
        if func is _INDEX and not depends_on_metadata(func, args):
            return None
        keyed = argument_key(func, args, kwargs, values.mode)
        if keyed is None or not keyed[1] or threading.get_ident() != self._thread:
            return None
        key, inputs = keyed
        modes: tuple[bool, ...] = COUNT_FLAGS.below_autograd, COUNT_FLAGS.on_gpu
        if kind.is_composite:  # it may decompose in another way
            modes += torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
        return (*modes, *key), inputs

    def _run_first(  # noqa: PLR0913, PLR0917 - a call, and what is known of it
        self,
        func: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        execute: Callable[..., Any],
        key: tuple[Any, ...] | None = None,
        inputs: Sequence[FakeTensor] = (),
        *,
        is_tracked: bool = True,
    ) -> Execution:
        """Run an operator that has no template."""
        # Bound before it runs: an operator may change the shape of an argument.
        bound = bind_arguments(func, args, kwargs, self._describe)
        is_mutable, mark = func._schema.is_mutable, self._values.storages.mark()
        data_dependent_count = self._values.data_dependent_count
        version = args[0]._version if key is not None and is_mutable else 0
        out = execute(func, args, kwargs)
        first = None
        if key is not None and data_dependent_count == self._values.data_dependent_count:
            recipe = self._recipes.read(out, inputs)
            events = self._values.storages.call_events(mark, out)
            # What a composite knows of its result comes from values within it.
            is_known = is_composite(func) and self._values.is_any_tracked(tensors_in(out))
            if events is not None and not is_known and _has_usual_events(recipe, events):
                growth = args[0]._version - version if is_mutable else 0
                first = _FirstCall(key, recipe, events, growth, is_tracked)
        invocation = Invocation(func, args, kwargs, out)
        description = self._invocations.describe(invocation)
        return Execution(invocation, bound, description, tensors_in(out), None, first)


def events_of(recipe: NewTensor | Several) -> CallEvents:
    """Return the events of a call that allocates its results, and nothing else."""
    tensors = new_tensors(recipe)
    allocated = [tensor for tensor in tensors if tensor.view_of is None]
    numbers = iter(range(len(allocated)))
    return CallEvents(
        tuple((number, False) for number in range(len(allocated))),
        tuple((tensor.nbytes, tensor.dtype, tensor.device) for tensor in allocated),
        tuple(next(numbers) if tensor.view_of is None else None for tensor in tensors),
    )


def _has_usual_events(recipe: Any, events: CallEvents) -> bool:
    """Return True if a result can be made by a recipe, and all that is allocated for it is new."""
    if recipe is None or recipe is UNCACHEABLE:
        return False
    allocated = [tensor for tensor in new_tensors(recipe) if tensor.view_of is None]
    return len(allocated) == sum(number is not None for number in events.results)


def _positions(
    func: Any, args: Any, kwargs: Mapping[str, Any], bound: Mapping[str, Tensors]
) -> tuple[tuple[str, int | tuple[int, ...]], ...] | None:
    """Return the positions of tensor arguments among all tensors, in the order of the schema.

    None if a list holds others than tensors.
    """
    names = [name for name, _ in schema_of(func)]
    positions: dict[str, int | tuple[int, ...]] = {}
    count = 0
    for name, value in (*zip(names, args, strict=False), *kwargs.items()):
        if isinstance(value, torch.Tensor):
            positions[name] = count
            count += 1
        elif name in bound:
            if not all(isinstance(item, torch.Tensor) for item in value):
                return None
            positions[name] = tuple(range(count, count + len(value)))
            count += len(value)
    return tuple((name, positions[name]) for name in names if name in bound)


class _Kind(NamedTuple):
    """Properties of an operator; in one place, since torch hashes an operator in Python.

    Attributes:
        is_repeatable: True if its calls have templates.
        is_composite: True if it decomposes into others.
        reads_known_values: True if its work may depend on values.
    """

    is_repeatable: bool
    is_composite: bool
    reads_known_values: bool


@cache
def _kind_of(func: Any) -> _Kind:
    return _Kind(_is_repeatable(func), is_composite(func), reads_known_values(func))


def _is_repeatable(func: Any) -> bool:
    """Return True for an operator whose calls have templates."""
    if func is _INDEX:
        return True
    if not is_cacheable(func) or func in SHAPE_RULES or func in FILL_OPERATORS:
        return False
    return not func._schema.is_mutable or _writes_first_argument(func)


def _is_without_masks(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Return True for a call of attention that is priced by shapes alone, and runs by them."""
    if is_composite(func) and not COUNT_FLAGS.on_gpu:
        return False  # on a CPU the kernel depends on flags of torch
    names = [name for name, _ in schema_of(func)]
    given = (*zip(names, args, strict=False), *kwargs.items())
    return all(value is None for name, value in given if name in VALUED_ARGUMENTS)


def _writes_first_argument(func: Any) -> bool:
    """Return True for an operator that writes to its first argument alone, and returns it."""
    first, *_ = schema_of(func)
    return written_arguments(func) == (first[0],) and returns_written(func)


class Overload(NamedTuple):
    """Overload of an operator, as the record of a call names it.

    Attributes:
        op: Name of the packet, e.g. ``"aten::add"``.
        name: Name of the overload.
        node_name: Name of its nodes in a graph.
        writes: Names of the arguments that it writes to.
    """

    op: str
    name: str
    node_name: str
    writes: tuple[str, ...]


@cache
def overload_of(func: Any) -> Overload:
    """Return how the record of a call names an operator."""
    # "_at_" begins the suffix of a replay.
    node_name = func._opname.replace("_at_", "_at")
    return Overload(func._schema.name, func._overloadname, node_name, written_arguments(func))
