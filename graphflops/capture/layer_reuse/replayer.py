"""Decide whether a module call can be replayed from an earlier, equivalent one.

The tracer records and replays the operator calls; this module only decides. It is conservative:
a call that cannot be shown to be equivalent is traced.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.attribute_log import (
    ALL_ATTRIBUTES,
    Arguments,
    is_identity,
    is_logging,
    record_identity_call,
    record_read,
)
from graphflops.capture.layer_reuse.candidates import (
    CandidateGroup,
    find_candidates,
    may_repeat,
)
from graphflops.capture.layer_reuse.fingerprint import ModuleState
from graphflops.capture.layer_reuse.kv_caches import ABSENT
from graphflops.capture.layer_reuse.module_call import (
    InputRef,
    LayerTemplate,
    ModuleCall,
    OutputRef,
    Tracer,
)
from graphflops.capture.layer_reuse.module_dict import module_dict
from graphflops.capture.layer_reuse.recording import Recording, attribute_fingerprint
from graphflops.capture.named_modules import Modules
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import LayerReuse
from graphflops.runtime.interruption import raise_interruption

_MAX_TEMPLATES = 8
"""Largest number of templates in a group of candidates: a stack with more does not repeat."""
_MANY = 16
"""Number of siblings from which small modules, such as experts, are worth recording."""
_MIN_CALLS_OF_MANY = 2
_MAX_UNUSED = 3
"""Number of recordings never replayed after which further calls of a module are not recorded, nor
modules of scattered groups."""
_MAX_FAILURES = 3
"""Number of failed recordings after which a group of candidates is traced in full."""


class LayerReplayer:
    """Runner of a model's modules, which replays repeated layers.

    Args:
        modules: Modules of the model; empty if no layer is to be reused.
        values: Tracker of the values of its fake tensors.
        tracer: Recorder of the operator calls of a layer, which replays them.
        run: Runs a module.

    Attributes:
        seconds: Time spent on comparison and replay.
        tried: True if a candidate was checked.
        notes: Notes for the report: candidates whose check failed.
    """

    def __init__(
        self, modules: Modules, values: ValueTracker, tracer: Tracer, run: Callable[..., Any]
    ) -> None:
        self._values, self._tracer, self._run = values, tracer, run
        self._candidates = find_candidates(modules)
        self._is_on = bool(modules)
        self._calls: Counter[int] = Counter()
        self._templates: list[LayerTemplate] = []
        self._scattered: list[LayerTemplate | None] = []  # what was recorded of scattered groups
        self.seconds = 0.0
        self.tried = False
        self.notes: dict[str, None] = {}

    @property
    def counts(self) -> LayerReuse:
        """Number of replayed layers, and of templates that were replayed."""
        counts = [template.replay_count for template in self._templates if template.replay_count]
        return LayerReuse(layers=sum(counts), distinct=len(counts))

    def run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run a module, or replay an equivalent call."""
        if not self._is_on:
            return self._run(module, *args, **kwargs)
        attributes = module_dict(module)
        self._calls[id(attributes)] += 1
        group = self._candidates.get(id(attributes))
        if group is None and self._is_repeated(module) and may_repeat(module):
            group = self._candidates[id(attributes)] = CandidateGroup([module], uncalled=set())
        if group is not None and group.failures < _MAX_FAILURES and self._tracer.can_record():
            outputs = self._run_candidate(group, module, (args, kwargs))
        else:
            outputs = self._run(module, *args, **kwargs)
        if is_logging() and args and outputs is args[0]:
            record_identity_call(attributes, (args, kwargs), self._values.empty_like)
        return outputs

    def _run_candidate(self, group: CandidateGroup, module: nn.Module, arguments: Arguments) -> Any:
        group.uncalled.discard(id(module_dict(module)))
        is_worth_recording = self._is_worth_recording(group, module)
        if not (group.templates or is_worth_recording):
            args, kwargs = arguments
            return self._run(module, *args, **kwargs)
        self.tried = True
        call = match = None
        with self._checking(module):
            call = ModuleCall.of(module, arguments, self._values, self._tracer)
            # Cache entries that a nested layer accesses are logged by the outer layer.
            if call is not None and call.fingerprint.caches and is_logging():
                call = None
            if call is not None:
                matches = ((template, self._match(template, call)) for template in group.templates)
                match = next(((template, copy) for template, copy in matches if copy), None)
        if match is not None:
            return self._replay(*match)
        if call is None or not is_worth_recording:
            args, kwargs = arguments
            return self._run(module, *args, **kwargs)
        return self._record(group, call)

    def _is_worth_recording(self, group: CandidateGroup, module: nn.Module) -> bool:
        """Return True if a call like that of a module may follow."""
        if len(group.templates) >= _MAX_TEMPLATES:
            return False
        if group.is_scattered and _unused(self._scattered) >= _MAX_UNUSED:
            return False
        if group.uncalled:
            return True
        return self._is_repeated(module) and _unused(group.templates) < _MAX_UNUSED

    def _is_repeated(self, module: nn.Module) -> bool:
        """Return True if a module was called before, by the layer that is recorded if one is."""
        return self._calls[id(module_dict(module))] > 1 and self._tracer.can_repeat(module)

    def _record(self, group: CandidateGroup, call: ModuleCall) -> Any:
        if group.siblings >= _MANY:
            call.min_calls = _MIN_CALLS_OF_MANY
        recording = Recording(call, self._values, self._tracer)
        attributes = module_dict(call.module)
        others = (other for other in group.members if module_dict(other) is not attributes)
        # Within a recorded layer a module repeats if the layer itself calls it again.
        calls, self._calls = self._calls, Counter()
        outputs = recording.run(self._run, next(others, None))
        self._calls |= calls
        template = None
        with self._checking(call.module):
            template = recording.template(outputs)
        if group.is_scattered:
            self._scattered.append(template)
        if template is None:
            group.failures += 1
        else:
            group.templates.append(template)
            self._templates.append(template)
        return outputs

    def _match(self, template: LayerTemplate, call: ModuleCall) -> ModuleCall | None:
        """Return the call with its cache entries added, if equivalent to a template, else ``None``.

        The argument is not changed, so that it can be compared with other templates.
        """
        recorded = template.call
        states, other_states = recorded.fingerprint.modules, call.fingerprint.modules
        if len(states) != len(other_states) or recorded.key != call.key:
            return None
        # A module outside of this one is what it was for a sibling, but may change between calls.
        if recorded.module is call.module and call.fingerprint.has_outside_modules:
            return None
        is_equivalent = all(
            _is_equivalent(*pair)
            or _are_both_identity(*pair[:2], template.identity_calls.get(number, ()))
            for number, pair in enumerate(zip(states, other_states, template.reads, strict=True))
        )
        if not is_equivalent or any(
            attribute_fingerprint(attributes, name) != key
            for attributes, name, key in template.outside_reads
        ):
            return None
        if template.entries:
            call = call.copy()
        for location, key in template.entries:
            own_entry = call.translate(location)
            if own_entry is None or call.add_entry(own_entry) != key:
                return None
        call.input_versions.extend(
            self._tracer.tensor_versions(call.fingerprint.tensors[len(call.input_versions) :])
        )
        pairs = zip(recorded.input_versions, call.input_versions, strict=True)
        return call if all((ours is None) == (theirs is None) for ours, theirs in pairs) else None

    def _replay(self, template: LayerTemplate, call: ModuleCall) -> Any:
        fingerprint = call.fingerprint
        with self._checking():
            new_tensors = self._values.factory.empty_like_all(template.new_tensors)
            changed = [*new_tensors, *(fingerprint.tensors[n] for n in template.written_inputs)]
            self._tracer.replay(template.segment, call, changed)
            for tensor, state in zip(changed, template.value_states, strict=True):
                self._values.restore(tensor, state)

        def resolve(leaf: Any) -> Any:
            if isinstance(leaf, OutputRef):
                return new_tensors[leaf.number]
            if isinstance(leaf, InputRef):
                return (fingerprint.caches if leaf.is_cache else fingerprint.tensors)[leaf.number]
            return leaf

        outputs, states = pytree.tree_unflatten(map(resolve, template.results), template.spec)
        for (location, _), state in zip(template.entries, states, strict=True):
            if (own_entry := call.translate(location)) is not None:
                own_entry.set_state(fingerprint.caches, state)
        if is_logging():
            # An outer log is to have the reads of the template.
            for state, names in zip(fingerprint.modules, template.reads, strict=True):
                for name in names:
                    record_read(state.module_dict, name)
        template.replay_count += 1
        return outputs

    @contextlib.contextmanager
    def _checking(self, module: nn.Module | None = None) -> Iterator[None]:
        """Time the checks of a module in the block; if they fail, note that it is traced in full.

        Without a module an error is raised.
        """
        start = time.perf_counter()
        try:
            # Torch function modes are not to see what the checks call.
            with DisableTorchFunction():
                yield
        except Exception as error:
            raise_interruption(error)
            if module is None:
                raise
            name = type(module).__name__
            self.notes[f"Each {name} is traced in full: {type(error).__name__}: {error}."] = None
        finally:
            self.seconds += time.perf_counter() - start


def _unused(recorded: Sequence[LayerTemplate | None]) -> int:
    """Return the number of recordings that were never replayed, or yielded no template."""
    return sum(template is None or not template.replay_count for template in recorded)


def _is_equivalent(state: ModuleState, other: ModuleState, reads: set[str]) -> bool:
    """Return True if modules are equivalent, but for attributes that were not read."""
    if state.structure != other.structure:
        return False
    if state.attributes == other.attributes:
        return True
    return ALL_ATTRIBUTES not in reads and all(
        name not in reads
        for name in {**state.attributes, **other.attributes}
        if state.attributes.get(name, ABSENT) != other.attributes.get(name, ABSENT)
    )


def _are_both_identity(state: ModuleState, other: ModuleState, calls: Sequence[Arguments]) -> bool:
    """Return True if both modules return their input, as drop paths do in evaluation mode."""
    return (
        bool(calls)
        and state.structure == other.structure
        and all(is_identity(s.module, arguments) for s in (state, other) for arguments in calls)
    )
