"""Recording an instance of a repeated layer, to see whether it may be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.attribute_log import EVERYTHING, Watch, watched
from graphflops.capture.layer_reuse.fingerprint import Fingerprint, ModuleState, NotComparable
from graphflops.capture.layer_reuse.kv_caches import ABSENT, Place, Touched, grow, touching
from graphflops.capture.layer_reuse.module_call import Call, Input, Output, RecordedLayer, Tracer
from graphflops.capture.torch_internals.random_numbers import GENERATORS

_RETURNED = (int, float, bool, str, type(None), torch.SymInt, torch.dtype, torch.device)


class Recording:
    """Runs a call and notes what it depends on."""

    def __init__(self, call: Call, known: ValueTracker, tracer: Tracer) -> None:
        self._call, self._known, self._tracer = call, known, tracer
        self._watch = Watch()
        self._touched = Touched(self._see)
        self._places: list[tuple[Place, Any]] = []
        self._states: list[Any] = []

    def run(self, forward: Callable[..., Any], sibling: nn.Module) -> Any:
        """Run the call.

        Args:
            forward: What runs a module.
            sibling: Another instance, to see which attributes may say what number one has.
        """
        call, look = self._call, self._call.look
        if look.caches:
            self._watch.indices = _indices(look, sibling)
            for _, index in self._watch.indices.values():
                for cache in look.caches:
                    grow(cache, index)
        self._chance, self._fresh = GENERATORS.drawn(), self._sizes()
        self._held = [dict(part.held) for part in look.parts]
        self._mark = self._tracer.begin(self._call)
        with watched(self._watch), touching(look.caches, self._touched):
            return forward(call.module, *call.args, **call.kwargs)

    def region(self, outputs: Any) -> RecordedLayer | None:
        """What was recorded, or ``None`` if it may not be repeated."""
        if not self._is_clean():
            return None
        found = self._results(outputs)
        if found is None:
            return None
        results, spec, made = found
        call, look = self._call, self._call.look
        now = self._tracer.traced(look.tensors)
        pairs = enumerate(zip(call.inputs, now, strict=True))
        written = [n for n, (was, is_) in pairs if was != is_ or look.has_changed(n)]
        changed = [*made, *(look.tensors[n] for n in written)]
        recorded = self._tracer.end(self._mark, call, changed)
        if recorded is None:
            return None
        own = {id(part.held): number for number, part in enumerate(look.parts)}
        watch = self._watch
        return RecordedLayer(
            call=call,
            reads=[watch.read.get(id(part.held), set()) for part in look.parts],
            passed={own[key]: calls for key, calls in watch.passed.items() if key in own},
            outside=[
                (watch.held[key], name, like_now(watch.held[key], name))
                for key, names in watch.read.items()
                if key not in own
                for name in names
            ],
            places=self._places,
            results=results,
            spec=spec,
            made=made,
            written=written,
            after=[self._known.state(tensor) for tensor in changed],
            recorded=recorded,
        )

    def _see(self, place: Place) -> None:
        """Look at an entry of a cache before it is touched."""
        with torch._C.DisableTorchFunction():
            call = self._call
            self._states.append(place.state(call.look.caches))
            self._places.append((place, call.entry(place)))
            call.inputs.extend(self._tracer.traced(call.look.tensors[len(call.inputs) :]))

    def _sizes(self) -> int:
        """How many sizes have come up that follow from data: each instance has its own."""
        return int(self._known.symbols.shape_env.unbacked_symint_counter)

    def _is_clean(self) -> bool:
        """Whether all that has changed is in entries of caches, and in tensors."""
        call, look = self._call, self._call.look
        if self._watch.wrote or self._touched.beyond or self._fresh != self._sizes():
            return False
        if self._chance != GENERATORS.drawn() or not all(
            map(_is_untouched, self._held, look.parts)
        ):
            return False
        for (place, _), state in zip(self._places, self._states, strict=True):
            # Its own entry may change; that of a certain layer would change once.
            if place.key is None and not _is_same(place.state(look.caches), state):
                return False
        after = Call.of(call.module, (call.args, call.kwargs), self._known, self._tracer)
        return (
            after is not None
            and call.like == after.like
            and all(map(_has_same_attributes, look.parts, after.look.parts))
            # Those in entries of caches follow.
            and all(a is b for a, b in zip(look.tensors, after.look.tensors, strict=False))
        )

    def _results(
        self, outputs: Any
    ) -> tuple[list[Any], pytree.TreeSpec, list[torch.Tensor]] | None:
        """What the call returned and left in caches; the tensors it made."""
        look = self._call.look
        states = [place.state(look.caches) for place, _ in self._places]
        caches = {id(cache): Input(n, cache=True) for n, cache in enumerate(look.caches)}
        known: dict[int, Any] = {id(tensor): Input(n) for n, tensor in enumerate(look.tensors)}
        leaves, spec = pytree.tree_flatten((outputs, states), lambda leaf: id(leaf) in caches)
        known |= caches
        made: list[torch.Tensor] = []
        for leaf in leaves:
            if id(leaf) in known or leaf is ABSENT or isinstance(leaf, _RETURNED):
                continue
            if not self._known.owns(leaf):
                return None
            known[id(leaf)] = Output(len(made))
            made.append(leaf)
        if _share_memory(made, look.tensors):
            return None
        return [known.get(id(leaf), leaf) for leaf in leaves], spec, made


def _share_memory(made: list[torch.Tensor], given: list[torch.Tensor]) -> bool:
    own = {tensor.untyped_storage()._cdata for tensor in made}
    return len(own) < len(made) or any(t.untyped_storage()._cdata in own for t in given)


def _is_untouched(held: dict[str, Any], part: ModuleState) -> bool:
    """Whether a module's attributes are the very ones they were."""
    now = part.held
    return len(held) == len(now) and all(now.get(name) is value for name, value in held.items())


def _has_same_attributes(part: ModuleState, after: ModuleState) -> bool:
    return part.plain == after.plain


def _is_same(state: Any, other: Any) -> bool:
    if isinstance(state, dict) and isinstance(other, dict):
        return state.keys() == other.keys() and all(state[k] is other[k] for k in state)
    return state is other


def like_now(held: dict[str, Any], name: str) -> Any:
    """What an attribute of a module is like at this moment."""
    if name == EVERYTHING or name not in held:
        return (name, name in held)
    try:
        return Fingerprint(None).of(held[name])
    except NotComparable:
        return object()


def _indices(look: Fingerprint, sibling: nn.Module) -> dict[tuple[int, str], tuple[int, int]]:
    """Whole numbers that are attributes of a module and others in a sibling.

    By the identity of the attribute dictionary they are in; the number of the module and the
    value.
    """
    other = Fingerprint(None)
    try:
        other.subtree(sibling)
    except NotComparable:
        return {}
    if len(other.parts) != len(look.parts):
        return {}
    return {
        (id(part.held), name): (number, value)
        for number, (part, twin) in enumerate(zip(look.parts, other.parts, strict=True))
        for name, value in part.held.items()
        if type(value) is int and type(n := twin.held.get(name)) is int and n != value
    }
