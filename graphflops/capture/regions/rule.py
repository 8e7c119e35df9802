"""The rule of reuse: when an instance of a repeated layer does what an earlier one did.

How the calls of a layer are recorded and repeated is up to the tracer; this module only says
whether they may be. Never wrong, sometimes slower: what is not known to be alike is not.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from graphflops.capture.regions.caches import ABSENT, Place, Touched, grow, is_cache, touching
from graphflops.capture.regions.likeness import (
    Likeness,
    Part,
    Unlike,
    surroundings,
    variables,
)
from graphflops.capture.regions.reads import (
    EVERYTHING,
    Arguments,
    Watch,
    is_watching,
    note,
    note_passed,
    passes,
    watched,
)
from graphflops.capture.values import KnownValues
from graphflops.ir import LayersReused

_KINDS = 8
"""Kinds of layers among siblings: a stack of more does not repeat itself."""
_FAILURES = 3
"""Siblings that turn out to be no region before the others are not tried."""


class Tracer(Protocol):
    """What records the calls of a layer and repeats them."""

    def ready(self) -> bool:
        """Whether calls that are made now are recorded where they can be repeated."""

    def traced(self, tensors: list[torch.Tensor]) -> list[Any]:
        """What stands for tensors in the recording; ``None`` for those that nothing does."""

    def begin(self) -> Any:
        """Begin to record a layer."""

    def end(
        self, mark: Any, inputs: list[Any], outputs: list[torch.Tensor]
    ) -> Any | None:
        """What was recorded since, or ``None`` if it cannot be repeated.

        Args:
            mark: What ``begin`` has returned.
            inputs: What stood for the tensors that the layer sees.
            outputs: Tensors that the layer has made or written to.
        """

    def repeat(self, recorded: Any, inputs: list[Any], outputs: list[torch.Tensor]) -> None:
        """Add what was recorded again.

        Args:
            recorded: What ``end`` has returned.
            inputs: What stands for the tensors that this layer sees.
            outputs: What comes out: new tensors, and inputs that are written to.
        """


@dataclass(slots=True)
class _Call:
    """A call of a module, looked at before it runs.

    Attributes:
        look: What module and arguments are like.
        like: What there is to compare beside the modules.
        inputs: What stands for the tensors in the recording.
    """

    look: Likeness
    like: tuple[Any, ...]
    inputs: list[Any]


@dataclass(frozen=True, slots=True)
class _Input:
    """A tensor or a cache that the call got, as a result: its number."""

    number: int
    cache: bool = False


@dataclass(frozen=True, slots=True)
class _Output:
    """A tensor that the call made, as a result: its number."""

    number: int


@dataclass(slots=True)
class _Region:
    """A recorded instance.

    Attributes:
        call: How it was called.
        reads: Attributes that it read, for each of its modules.
        passed: How its modules that returned what they got were called.
        outside: Attributes of other modules that it read, and what they were like.
        places: Entries of caches that it touched.
        results: What it returned and left in these entries, tensors as numbers.
        spec: How that is put together.
        made: The tensors it made.
        written: Numbers of inputs that it wrote to.
        after: Values of these and of ``made``, where they are known.
        calls: How often modules ran: its own by number, others by identity.
        recorded: What the tracer needs to repeat it.
        reused: How often that was done.
    """

    call: _Call
    reads: list[set[str]]
    passed: dict[int, list[Arguments]]
    outside: list[tuple[dict[str, Any], str, Any]]
    places: list[tuple[Place, Any]]
    results: list[Any]
    spec: pytree.TreeSpec
    made: list[torch.Tensor]
    written: list[int]
    after: list[Any]
    calls: list[tuple[int, int]]
    foreign_calls: dict[int, int]
    recorded: Any
    reused: int = 0


@dataclass(slots=True)
class _Siblings:
    """Children of one parent that are built alike.

    Attributes:
        members: The children.
        waiting: Those that have not been called yet.
        regions: What was recorded of them.
        failures: How often that was in vain.
    """

    members: list[nn.Module]
    waiting: set[int]
    regions: list[_Region] = field(default_factory=list)
    failures: int = 0


class Regions:
    """The repeated layers of a model, while it is traced."""

    def __init__(
        self, model: nn.Module, known: KnownValues, calls: Counter[int], tracer: Tracer
    ) -> None:
        self._known = known
        self._calls = calls
        self._tracer = tracer
        self._siblings = _siblings(model)
        self._all: list[_Region] = []

    @property
    def tried(self) -> bool:
        """Whether a layer was recorded."""
        return bool(self._all)

    @property
    def counts(self) -> LayersReused:
        """How many layers were not traced again."""
        reused = [region.reused for region in self._all if region.reused]
        return LayersReused(layers=sum(reused), kinds=len(reused))

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Reuse repeated layers until the block ends."""
        original: Any = nn.Module._call_impl

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            held = variables(module)
            siblings = self._siblings.get(id(held))
            if siblings is not None and siblings.failures < _FAILURES and self._tracer.ready():
                return self._call(siblings, original, module, args, kwargs)
            outputs = original(module, *args, **kwargs)
            if is_watching() and args and outputs is args[0]:
                note_passed(held, args, kwargs)
            return outputs

        nn.Module._call_impl = call  # type: ignore[method-assign]  # as fx exchanges __call__
        try:
            yield
        finally:
            nn.Module._call_impl = original  # type: ignore[method-assign]

    def _call(
        self,
        siblings: _Siblings,
        original: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        siblings.waiting.discard(id(variables(module)))
        with torch._C.DisableTorchFunction():
            call = self._look(module, args, kwargs)
            # Entries that a layer within a layer touches are the outer one's to note.
            if call is not None and not (call.look.caches and is_watching()):
                for region in siblings.regions:
                    if self._fits(region, call):
                        return self._repeat(region, call)
        hopeless = not siblings.waiting or len(siblings.regions) >= _KINDS
        if call is None or hopeless or (call.look.caches and is_watching()):
            return original(module, *args, **kwargs)
        return self._record(siblings, call, original, module, args, kwargs)

    def _look(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Call | None:
        look = Likeness(self._known)
        try:
            look.subtree(module)
            like = (look.of(args), look.of(kwargs), surroundings(look.parts), _modes())
        except (Unlike, RecursionError):
            return None
        return _Call(look, like, self._tracer.traced(look.tensors))

    def _fits(self, region: _Region, call: _Call) -> bool:
        before = region.call
        parts, others = before.look.parts, call.look.parts
        if len(parts) != len(others) or before.like != call.like:
            return False
        alike = all(
            _alike(*them) or _both_pass(*them[:2], region.passed.get(number, ()))
            for number, them in enumerate(zip(parts, others, region.reads, strict=True))
        )
        if not alike or any(_like_now(held, name) != was for held, name, was in region.outside):
            return False
        for place, was in region.places:
            here = _place(place, call.look)
            if here is None or _entry(here, call.look) != was:
                return False
        traced = self._tracer.traced(call.look.tensors[len(call.inputs) :])
        call.inputs.extend(traced)
        return [i is None for i in before.inputs] == [i is None for i in call.inputs]

    def _record(
        self,
        siblings: _Siblings,
        call: _Call,
        original: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        look = call.look
        watch = Watch(_indices(look, module, siblings.members) if look.caches else {})
        for _, index in watch.indices.values():
            for cache in look.caches:
                grow(cache, index)
        places: list[tuple[Place, Any]] = []
        states: list[Any] = []

        def see(place: Place) -> None:
            with torch._C.DisableTorchFunction():
                states.append(place.state(look.caches))
                places.append((place, _entry(place, look)))
                call.inputs.extend(self._tracer.traced(look.tensors[len(call.inputs) :]))

        touched = Touched(see)
        ran, chance, fresh = self._calls.copy(), _chance(), self._fresh()
        held = [dict(part.held) for part in look.parts]
        mark = self._tracer.begin()
        with watched(watch), touching(look.caches, touched):
            outputs = original(module, *args, **kwargs)
        clean = not (watch.wrote or touched.beyond or chance != _chance() or fresh != self._fresh())
        with torch._C.DisableTorchFunction():
            region = None
            if clean and all(map(_untouched, held, look.parts)):
                after = self._look(module, args, kwargs)
                kept = all(
                    place.key is not None or _same_entry(place.state(look.caches), state)
                    for (place, _), state in zip(places, states, strict=True)
                )
                if kept and after is not None and _same_state(call, after):
                    region = self._region(call, watch, places, outputs, mark, ran)
        if region is None:
            siblings.failures += 1
        else:
            siblings.regions.append(region)
            self._all.append(region)
        return outputs

    def _region(
        self,
        call: _Call,
        watch: Watch,
        places: list[tuple[Place, Any]],
        outputs: Any,
        mark: Any,
        ran: Counter[int],
    ) -> _Region | None:
        look = call.look
        before = list(call.inputs)
        states = [place.state(look.caches) for place, _ in places]
        caches = {id(cache): number for number, cache in enumerate(look.caches)}
        inputs = {id(tensor): number for number, tensor in enumerate(look.tensors)}
        leaves, spec = pytree.tree_flatten((outputs, states), lambda leaf: id(leaf) in caches)
        made: list[torch.Tensor] = []
        made_at: dict[int, int] = {}
        results: list[Any] = []
        for leaf in leaves:
            if id(leaf) in caches:
                results.append(_Input(caches[id(leaf)], cache=True))
            elif id(leaf) in inputs:
                results.append(_Input(inputs[id(leaf)]))
            elif self._known.is_own(leaf):
                if id(leaf) not in made_at:
                    made_at[id(leaf)] = len(made)
                    made.append(leaf)
                results.append(_Output(made_at[id(leaf)]))
            elif leaf is ABSENT or isinstance(leaf, _RETURNED):
                results.append(leaf)
            else:
                return None
        storages = [tensor.untyped_storage()._cdata for tensor in (*made, *look.tensors)]
        if len(set(storages[: len(made)])) < len(made) or set(storages[: len(made)]) & set(
            storages[len(made) :]
        ):
            return None
        if any(tensor.requires_grad for tensor in made):
            return None
        now = self._tracer.traced(look.tensors)
        written = [n for n, (was, is_) in enumerate(zip(before, now, strict=True)) if was is not is_]
        written += [n for n in range(len(now)) if n not in written and look.has_changed(n)]
        changed = [*made, *(look.tensors[n] for n in written)]
        recorded = self._tracer.end(mark, before, changed)
        if recorded is None:
            return None
        own = {id(part.held): number for number, part in enumerate(look.parts)}
        counted = self._calls - ran
        return _Region(
            call=call,
            reads=[watch.read.get(id(part.held), set()) for part in look.parts],
            passed={own[key]: calls for key, calls in watch.passed.items() if key in own},
            outside=[
                (watch.held[key], name, _like_now(watch.held[key], name))
                for key, names in watch.read.items()
                if key not in own
                for name in names
            ],
            places=places,
            results=results,
            spec=spec,
            made=made,
            written=written,
            after=[self._known.state(tensor) for tensor in changed],
            calls=[(own[key], n) for key, n in counted.items() if key in own],
            foreign_calls={key: n for key, n in counted.items() if key not in own},
            recorded=recorded,
        )

    def _repeat(self, region: _Region, call: _Call) -> Any:
        look = call.look
        made = [self._known.another(tensor) for tensor in region.made]
        changed = [*made, *(look.tensors[number] for number in region.written)]
        self._tracer.repeat(region.recorded, call.inputs, changed)
        for tensor, state in zip(changed, region.after, strict=True):
            self._known.restore(tensor, state)
        leaves = []
        for result in region.results:
            if isinstance(result, _Output):
                leaves.append(made[result.number])
            elif isinstance(result, _Input):
                leaves.append((look.caches if result.cache else look.tensors)[result.number])
            else:
                leaves.append(result)
        outputs, states = pytree.tree_unflatten(leaves, region.spec)
        for (place, _), state in zip(region.places, states, strict=True):
            here = _place(place, look)
            if here is not None:
                here.put(look.caches, state)
        for number, times in region.calls:
            self._calls[id(look.parts[number].held)] += times
        self._calls.update(region.foreign_calls)
        for part, names in zip(look.parts, region.reads, strict=True):
            for name in names:
                note(part.held, name)
        region.reused += 1
        return outputs

    def _fresh(self) -> int:
        """How many sizes have come up that follow from data."""
        return int(self._known.symbols.shapes.unbacked_symint_counter)


_RETURNED = (int, float, bool, str, type(None), torch.SymInt, torch.dtype, torch.device)


def _siblings(model: nn.Module) -> dict[int, _Siblings]:
    """Children that may repeat one another, by the identity of their attribute dictionaries."""
    found: dict[int, _Siblings] = {}
    shapes: dict[int, int] = {}
    numbers: dict[Any, int] = {}
    with torch._C.DisableTorchFunction():
        _outline(model, shapes, numbers)
    for parent in model.modules():
        kinds: dict[int, list[nn.Module]] = {}
        for child in parent.children():
            if child._modules or not type(child).__module__.startswith("torch.nn"):
                kinds.setdefault(shapes[id(child)], []).append(child)
        for members in kinds.values():
            if len(members) > 1:
                siblings = _Siblings(members, waiting={id(variables(m)) for m in members})
                found |= dict.fromkeys(siblings.waiting, siblings)
    return found


def _outline(module: nn.Module, shapes: dict[int, int], numbers: dict[Any, int]) -> int:
    """A number that modules have in common if they are built alike, and all below them."""
    if id(module) not in shapes:
        outline = (
            type(module),
            tuple(
                (name, None if tensor is None else (tensor.dtype, _shape(tensor)))
                for name, tensor in module._parameters.items()
            ),
            tuple(
                (name, None if child is None else _outline(child, shapes, numbers))
                for name, child in module._modules.items()
            ),
        )
        shapes[id(module)] = numbers.setdefault(outline, len(numbers))
    return shapes[id(module)]


def _shape(tensor: torch.Tensor) -> Any:
    # A parameter that has no shape yet is of none that repeats.
    return id(tensor) if is_lazy(tensor) else tuple(tensor.shape)


def _alike(part: Part, other: Part, read: set[str]) -> bool:
    """Whether modules are alike, but for attributes that were not read."""
    if part.fixed != other.fixed:
        return False
    if part.plain == other.plain:
        return True
    if EVERYTHING in read:
        return False
    return all(
        name not in read
        for name in {**part.plain, **other.plain}
        if part.plain.get(name, ABSENT) != other.plain.get(name, ABSENT)
    )


def _both_pass(part: Part, other: Part, called: Sequence[Arguments]) -> bool:
    """Whether modules return what they get, as dropped paths do in evaluation, each its own."""
    modules = (part.module, other.module)
    return (
        bool(called)
        and part.fixed == other.fixed
        and all(passes(module, arguments) for module in modules for arguments in called)
    )


def _untouched(held: dict[str, Any], part: Part) -> bool:
    """Whether a module's attributes are the very ones they were."""
    now = part.held
    return len(held) == len(now) and all(now.get(name) is value for name, value in held.items())


def _same_state(before: _Call, after: _Call) -> bool:
    """Whether a call has left modules and arguments as they were."""
    look, again = before.look, after.look
    return (
        before.like[2:] == after.like[2:]
        and all(a.plain == b.plain for a, b in zip(look.parts, again.parts, strict=True))
        # Those in entries of caches follow.
        and all(a is b for a, b in zip(look.tensors, again.tensors, strict=False))
        and before.like[:2] == after.like[:2]
    )


def _same_entry(state: Any, other: Any) -> bool:
    if isinstance(state, dict) and isinstance(other, dict):
        return state.keys() == other.keys() and all(state[k] is other[k] for k in state)
    return state is other


def _like_now(held: dict[str, Any], name: str) -> Any:
    if name == EVERYTHING or name not in held:
        return (name, name in held)
    try:
        return Likeness(None).of(held[name])
    except Unlike:
        return object()


def _entry(place: Place, look: Likeness) -> Any:
    """What an entry of a cache is like."""
    return look.of(place.entry(look.caches)) if place.entry(look.caches) is not ABSENT else ABSENT


def _place(place: Place, look: Likeness) -> Place | None:
    """Where the entry is that another module has for its own."""
    if place.key is None:
        return place
    part, name = place.key
    index = look.parts[part].held.get(name)
    if type(index) is not int:
        return None
    here = Place(place.cache, place.held, index, place.key)
    grow(look.caches[place.cache], index)
    return here


def _indices(
    look: Likeness, module: nn.Module, members: list[nn.Module]
) -> dict[tuple[int, str], tuple[int, int]]:
    """Whole numbers that are attributes of a module and others in a sibling.

    By the identity of the attribute dictionary they are in; the number of the module and the
    value.
    """
    held = variables(module)
    sibling = next(member for member in members if variables(member) is not held)
    own = Likeness(None)
    try:
        own.subtree(sibling)
    except Unlike:
        return {}
    if len(own.parts) != len(look.parts):
        return {}
    return {
        (id(part.held), name): (number, value)
        for number, (part, other) in enumerate(zip(look.parts, own.parts, strict=True))
        for name, value in part.held.items()
        if type(value) is int and type(n := other.held.get(name)) is int and n != value
    }


def _modes() -> tuple[Any, ...]:
    """What else decides on the work: gradients, autocast, the default dtype."""
    devices = ("cpu", "cuda")
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        *((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices),
    )


def _chance() -> tuple[Any, ...]:
    """The state of Python's and numpy's random numbers."""
    numpy: Any = sys.modules.get("numpy")
    state = numpy.random.get_state()[1:3] if numpy else ()
    return random.getstate(), *((state[0].tobytes(), state[1]) if state else ())
