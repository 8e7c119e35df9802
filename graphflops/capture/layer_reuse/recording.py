"""Recording of a layer as a template, if its replay would be equivalent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.attribute_log import (
    ALL_ATTRIBUTES,
    AttributeLog,
    log_attributes,
)
from graphflops.capture.layer_reuse.fingerprint import Fingerprint, ModuleState, NotComparable
from graphflops.capture.layer_reuse.kv_caches import (
    ABSENT,
    CacheAccessLog,
    EntryLocation,
    create_entry,
    log_cache_access,
)
from graphflops.capture.layer_reuse.module_call import (
    InputRef,
    LayerTemplate,
    ModuleCall,
    OutputRef,
    Tracer,
)
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction
from graphflops.capture.torch_internals.random_numbers import GENERATORS
from graphflops.capture.torch_internals.trees import pytree

_CONSTANT_TYPES = (int, float, bool, str, type(None), torch.SymInt, torch.dtype, torch.device)


class Recording:
    """Run of a module call that logs its dependences and side effects."""

    def __init__(self, call: ModuleCall, values: ValueTracker, tracer: Tracer) -> None:
        self._call, self._values, self._tracer = call, values, tracer
        self._attribute_log = AttributeLog()
        self._cache_log = CacheAccessLog()
        self._entries: list[tuple[EntryLocation, Any]] = []
        self._entry_states: list[Any] = []

    def run(self, forward: Callable[..., Any], sibling: nn.Module | None) -> Any:
        """Run the call.

        Args:
            forward: Runs a module.
            sibling: Another candidate, if there is one: integer attributes that differ from its
                own may be the layer index.
        """
        call, fingerprint = self._call, self._call.fingerprint
        if fingerprint.caches and sibling is not None:
            self._attribute_log.index_attributes = _index_attributes(fingerprint, sibling)
            for _, index in self._attribute_log.index_attributes.values():
                for cache in fingerprint.caches:
                    create_entry(cache, index)
        self._random_draws, self._data_size_count = GENERATORS.drawn(), self._count_data_sizes()
        self._attributes = [dict(state.module_dict) for state in fingerprint.modules]
        self._start = self._tracer.begin(self._call)
        with (
            log_attributes(self._attribute_log),
            log_cache_access(fingerprint.caches, self._cache_log, self._record_entry),
        ):
            return forward(call.module, *call.args, **call.kwargs)

    def template(self, outputs: Any) -> LayerTemplate | None:
        """Return the template, or ``None`` if the call may not be replayed."""
        if not self._has_no_side_effects():
            return None
        parts = self._results(outputs)
        if parts is None:
            return None
        results, spec, new_tensors = parts
        call, fingerprint = self._call, self._call.fingerprint
        versions = self._tracer.tensor_versions(fingerprint.tensors)
        pairs = enumerate(zip(call.input_versions, versions, strict=True))
        written_inputs = [
            n for n, (before, after) in pairs if before != after or fingerprint.has_changed(n)
        ]
        changed = [*new_tensors, *(fingerprint.tensors[n] for n in written_inputs)]
        segment = self._tracer.end(self._start, call, changed)
        if segment is None:
            return None
        numbers = {
            id(state.module_dict): number for number, state in enumerate(fingerprint.modules)
        }
        log = self._attribute_log
        return LayerTemplate(
            call=call.without_tensors(),
            reads=[log.reads.get(id(state.module_dict), set()) for state in fingerprint.modules],
            identity_calls={
                numbers[key]: calls for key, calls in log.identity_calls.items() if key in numbers
            },
            outside_reads=[
                (log.module_dicts[key], name, attribute_fingerprint(log.module_dicts[key], name))
                for key, names in log.reads.items()
                if key not in numbers
                for name in names
            ],
            entries=self._entries,
            results=results,
            spec=spec,
            # Copies: the layer's own tensors are freed when the model lets go of them.
            new_tensors=self._values.factory.empty_like_all(new_tensors),
            written_inputs=written_inputs,
            value_states=[self._values.state(tensor) for tensor in changed],
            segment=segment,
        )

    def _can_copy(self, new_tensors: list[torch.Tensor]) -> bool:
        """Return False for views of one tensor of a symbolic size or with a known value."""
        storages = [tensor.untyped_storage()._cdata for tensor in new_tensors]
        return all(
            storages.count(storage) == 1
            or not (tensor._has_symbolic_sizes_strides or self._values.value(tensor) is not None)
            for tensor, storage in zip(new_tensors, storages, strict=True)
        )

    def _record_entry(self, location: EntryLocation) -> None:
        """Record a cache entry before its first access."""
        with DisableTorchFunction():
            call = self._call
            self._entry_states.append(location.state(call.fingerprint.caches))
            self._entries.append((location, call.add_entry(location)))
            call.input_versions.extend(
                self._tracer.tensor_versions(call.fingerprint.tensors[len(call.input_versions) :])
            )

    def _count_data_sizes(self) -> int:
        """Return the number of data-dependent sizes so far: each instance has its own."""
        return int(self._values.symbols.shape_env.unbacked_symint_counter)

    def _has_no_side_effects(self) -> bool:
        """Return True if the call has changed nothing but cache entries and tensors."""
        call, fingerprint = self._call, self._call.fingerprint
        if (
            self._attribute_log.has_writes
            or self._attribute_log.has_outside_state
            or self._cache_log.accesses_whole_cache
            or self._data_size_count != self._count_data_sizes()
        ):
            return False
        if self._random_draws != GENERATORS.drawn() or not all(
            map(_has_same_values, self._attributes, fingerprint.modules)
        ):
            return False
        for (location, _), state in zip(self._entries, self._entry_states, strict=True):
            # The layer's own entry may change; one selected by a constant would change only once.
            if location.key is None and not _is_same_state(
                location.state(fingerprint.caches), state
            ):
                return False
        after = ModuleCall.of(call.module, (call.args, call.kwargs), self._values, self._tracer)
        return (
            after is not None
            and call.key == after.key
            and all(map(_has_same_attributes, fingerprint.modules, after.fingerprint.modules))
            # Tensors of cache entries follow in the first list only.
            and all(
                a is b for a, b in zip(fingerprint.tensors, after.fingerprint.tensors, strict=False)
            )
        )

    def _results(
        self, outputs: Any
    ) -> tuple[list[Any], pytree.TreeSpec, list[torch.Tensor]] | None:
        """Return the leaves of outputs and cache entries, their tree spec, and the new tensors."""
        fingerprint = self._call.fingerprint
        states = [location.state(fingerprint.caches) for location, _ in self._entries]
        caches = {
            id(cache): InputRef(n, is_cache=True) for n, cache in enumerate(fingerprint.caches)
        }
        references: dict[int, Any] = {
            id(tensor): InputRef(n) for n, tensor in enumerate(fingerprint.tensors)
        }
        leaves, spec = pytree.tree_flatten((outputs, states), lambda leaf: id(leaf) in caches)
        references |= caches
        new_tensors: list[torch.Tensor] = []
        for leaf in leaves:
            if id(leaf) in references or leaf is ABSENT or isinstance(leaf, _CONSTANT_TYPES):
                continue
            if not self._values.owns(leaf):
                return None
            references[id(leaf)] = OutputRef(len(new_tensors))
            new_tensors.append(leaf)
        if _are_in_memory(new_tensors, fingerprint.tensors) or not self._can_copy(new_tensors):
            return None
        return [references.get(id(leaf), leaf) for leaf in leaves], spec, new_tensors


def _are_in_memory(tensors: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Return True if a tensor shares its storage with one of others."""
    storages = {tensor.untyped_storage()._cdata for tensor in tensors}
    return any(other.untyped_storage()._cdata in storages for other in others)


def _has_same_values(before: dict[str, Any], state: ModuleState) -> bool:
    """Return True if a module's attributes are the same objects as before."""
    after = state.module_dict
    return len(before) == len(after) and all(
        after.get(name) is value for name, value in before.items()
    )


def _has_same_attributes(state: ModuleState, after: ModuleState) -> bool:
    return state.attributes == after.attributes


def _is_same_state(state: Any, other: Any) -> bool:
    if isinstance(state, dict) and isinstance(other, dict):
        return state.keys() == other.keys() and all(state[k] is other[k] for k in state)
    return state is other


def attribute_fingerprint(attributes: dict[str, Any], name: str) -> Any:
    """Return the current fingerprint of a module attribute."""
    if name == ALL_ATTRIBUTES or name not in attributes:
        return (name, name in attributes)
    try:
        return Fingerprint(None).add(attributes[name])
    except NotComparable:
        return object()


def _index_attributes(
    fingerprint: Fingerprint, sibling: nn.Module
) -> dict[tuple[int, str], tuple[int, int]]:
    """Return integer attributes whose values differ in a sibling.

    Keys are the id of the attribute dictionary and the name; values the number of the module and
    the integer.
    """
    other = Fingerprint(None)
    try:
        other.add_module(sibling)
    except NotComparable:
        return {}
    if len(other.modules) != len(fingerprint.modules):
        return {}
    return {
        (id(state.module_dict), name): (number, value)
        for number, (state, other_state) in enumerate(
            zip(fingerprint.modules, other.modules, strict=True)
        )
        for name, value in state.module_dict.items()
        if type(value) is int and type(n := other_state.module_dict.get(name)) is int and n != value
    }
