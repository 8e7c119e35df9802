"""The rule of reuse: when an instance of a repeated layer does what an earlier one did.

How the calls of a layer are recorded and repeated is up to the tracer; this module only says
whether they may be. Never wrong, sometimes slower: what is not known to be alike is not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.attribute_log import (
    EVERYTHING,
    Arguments,
    is_watching,
    note,
    note_passed,
    passes,
)
from graphflops.capture.layer_reuse.candidates import Siblings, siblings_in
from graphflops.capture.layer_reuse.fingerprint import ModuleState
from graphflops.capture.layer_reuse.kv_caches import ABSENT
from graphflops.capture.layer_reuse.module_call import Call, Input, Output, RecordedLayer, Tracer
from graphflops.capture.layer_reuse.module_dict import variables
from graphflops.capture.layer_reuse.recording import Recording, like_now
from graphflops.capture.named_modules import Modules
from graphflops.core.ir import LayerReuse
from graphflops.runtime.interruption import raise_interruption

_KINDS = 8
"""Kinds of layers among siblings: a stack of more does not repeat itself."""
_FAILURES = 3
"""Siblings that turn out to be no region before the others are not tried."""


class LayerReplayer:
    """The repeated layers of a model, while it is traced.

    Args:
        modules: Those of the model; none if nothing is to be repeated.
        known: The values of its fake tensors.
        tracer: What records the calls of a layer and repeats them.
        run: What runs a module.

    Attributes:
        seconds: What looking at them has taken.
        tried: Whether a layer was looked at.
        notes: What a reader must know: which layers are too strange to be looked at.
    """

    def __init__(
        self, modules: Modules, known: ValueTracker, tracer: Tracer, run: Callable[..., Any]
    ) -> None:
        self._known, self._tracer, self._run = known, tracer, run
        self._siblings = siblings_in(modules)
        self._all: list[RecordedLayer] = []
        self.seconds = 0.0
        self.tried = False
        self.notes: dict[str, None] = {}

    @property
    def counts(self) -> LayerReuse:
        """How many layers were not traced again."""
        reused = [region.reused for region in self._all if region.reused]
        return LayerReuse(layers=sum(reused), distinct=len(reused))

    def run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run a module, or repeat what an earlier one did if it does the same."""
        held = variables(module)
        siblings = self._siblings.get(id(held))
        if siblings is not None and siblings.failures < _FAILURES and self._tracer.ready():
            return self._call(siblings, module, (args, kwargs))
        outputs = self._run(module, *args, **kwargs)
        if is_watching() and args and outputs is args[0]:
            note_passed(held, (args, kwargs))
        return outputs

    def _call(self, siblings: Siblings, module: nn.Module, arguments: Arguments) -> Any:
        siblings.waiting.discard(id(variables(module)))
        self.tried = True
        call = fitting = None
        with self._looking(module):
            call = Call.of(module, arguments, self._known, self._tracer)
            # Entries that a layer within a layer touches are the outer one's to note.
            if call is not None and call.look.caches and is_watching():
                call = None
            if call is not None:
                tried = ((region, self._fitting(region, call)) for region in siblings.regions)
                fitting = next(((region, same) for region, same in tried if same), None)
        if fitting is not None:
            return self._repeat(*fitting)
        if call is None or not siblings.waiting or len(siblings.regions) >= _KINDS:
            args, kwargs = arguments
            return self._run(module, *args, **kwargs)
        return self._record(siblings, call)

    def _record(self, siblings: Siblings, call: Call) -> Any:
        recording = Recording(call, self._known, self._tracer)
        held = variables(call.module)
        sibling = next(other for other in siblings.members if variables(other) is not held)
        outputs = recording.run(self._run, sibling)
        region = None
        with self._looking(call.module):
            region = recording.region(outputs)
        if region is None:
            siblings.failures += 1
        else:
            siblings.regions.append(region)
            self._all.append(region)
        return outputs

    def _fitting(self, region: RecordedLayer, call: Call) -> Call | None:
        """Return a call with all that was looked at, if it does what was recorded; else ``None``.

        The call itself stays as it is, to be compared with what else was recorded.
        """
        before = region.call
        parts, others = before.look.parts, call.look.parts
        if len(parts) != len(others) or before.like != call.like:
            return None
        alike = all(
            _alike(*them) or _both_pass(*them[:2], region.passed.get(number, ()))
            for number, them in enumerate(zip(parts, others, region.reads, strict=True))
        )
        if not alike or any(like_now(held, name) != was for held, name, was in region.outside):
            return None
        if region.places:
            call = call.copy()
        for place, was in region.places:
            here = call.place(place)
            if here is None or call.entry(here) != was:
                return None
        call.inputs.extend(self._tracer.traced(call.look.tensors[len(call.inputs) :]))
        pairs = zip(before.inputs, call.inputs, strict=True)
        return call if all((was is None) == (now is None) for was, now in pairs) else None

    def _repeat(self, region: RecordedLayer, call: Call) -> Any:
        look = call.look
        with self._looking():
            made = [self._known.empty_like(tensor) for tensor in region.made]
            changed = [*made, *(look.tensors[n] for n in region.written)]
            self._tracer.repeat(region.recorded, call, changed)
            for tensor, state in zip(changed, region.after, strict=True):
                self._known.restore(tensor, state)

        def result(found: Any) -> Any:
            if isinstance(found, Output):
                return made[found.number]
            if isinstance(found, Input):
                return (look.caches if found.cache else look.tensors)[found.number]
            return found

        outputs, states = pytree.tree_unflatten(map(result, region.results), region.spec)
        for (place, _), state in zip(region.places, states, strict=True):
            if (here := call.place(place)) is not None:
                here.put(look.caches, state)
        if is_watching():
            # As if they had been.
            for part, names in zip(look.parts, region.reads, strict=True):
                for name in names:
                    note(part.held, name)
        region.reused += 1
        return outputs

    @contextlib.contextmanager
    def _looking(self, module: nn.Module | None = None) -> Iterator[None]:
        """Look at a layer; if it is given and cannot be looked at, it is traced in full."""
        start = time.perf_counter()
        try:
            # Nobody who watches functions is to see what is looked at here.
            with torch._C.DisableTorchFunction():
                yield
        except Exception as error:
            raise_interruption(error)
            if module is None:
                raise
            kind = type(module).__name__
            self.notes[f"Each {kind} is traced in full: {type(error).__name__}: {error}."] = None
        finally:
            self.seconds += time.perf_counter() - start


def _alike(part: ModuleState, other: ModuleState, read: set[str]) -> bool:
    """Whether modules are alike, but for attributes that were not read."""
    if part.fixed != other.fixed:
        return False
    if part.plain == other.plain:
        return True
    return EVERYTHING not in read and all(
        name not in read
        for name in {**part.plain, **other.plain}
        if part.plain.get(name, ABSENT) != other.plain.get(name, ABSENT)
    )


def _both_pass(part: ModuleState, other: ModuleState, called: Sequence[Arguments]) -> bool:
    """Whether modules return what they get, as dropped paths do in evaluation, each its own."""
    return (
        bool(called)
        and part.fixed == other.fixed
        and all(passes(p.module, arguments) for p in (part, other) for arguments in called)
    )
