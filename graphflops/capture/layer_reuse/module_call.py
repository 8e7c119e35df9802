"""Module calls as candidates for layer reuse, and templates recorded from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.attribute_log import Arguments
from graphflops.capture.layer_reuse.fingerprint import Fingerprint, NotComparable
from graphflops.capture.layer_reuse.kv_caches import ABSENT, EntryLocation, create_entry
from graphflops.capture.layer_reuse.outside_state import outside_state
from graphflops.capture.layer_reuse.unread_arguments import without_unread_integers
from graphflops.capture.torch_internals.trees import pytree

MIN_CALLS = 9
"""Number of operator calls below which a layer is traced as fast as it is replayed."""


class Tracer(Protocol):
    """Recorder of the operator calls of a layer, which replays them for other instances."""

    def can_record(self) -> bool:
        """Return True if calls made now are recorded where they can be replayed."""

    def can_repeat(self, module: nn.Module) -> bool:
        """Return True if a further call of the same module can be replayed from an earlier one."""

    def tensor_versions(self, tensors: list[torch.Tensor]) -> list[Any]:
        """Return the versions of tensors in the recording; ``None`` for those not in it."""

    def begin(self, call: ModuleCall) -> Any:
        """Begin to record a call of a layer."""

    def end(self, start: Any, call: ModuleCall, outputs: list[torch.Tensor]) -> Any | None:
        """Return the segment recorded since ``begin``, or ``None`` if it cannot be replayed.

        Args:
            start: Result of ``begin``.
            call: The call.
            outputs: Tensors that the call has created or written to.
        """

    def replay(self, segment: Any, call: ModuleCall, outputs: list[torch.Tensor]) -> None:
        """Add a recorded segment again, for another call.

        Args:
            segment: Result of ``end``.
            call: The call that is replayed.
            outputs: Outputs of the call: new tensors, and inputs that are written to.
        """


@dataclass(slots=True)
class ModuleCall:
    """A call of a module, with its fingerprint before it runs.

    Attributes:
        module: The module.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        fingerprint: Fingerprint of the module and its arguments.
        key: Fingerprints of all but the modules: arguments, globals, modes of torch.
        input_versions: Versions of the fingerprint's tensors in the recording.
        min_calls: Number of operator calls below which it is not recorded.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    fingerprint: Fingerprint
    key: tuple[Any, ...]
    input_versions: list[Any]
    min_calls: int = MIN_CALLS

    @classmethod
    def of(
        cls, module: nn.Module, arguments: Arguments, values: ValueTracker, tracer: Tracer
    ) -> ModuleCall | None:
        """Return a call, or ``None`` if it has no fingerprint."""
        args, kwargs = arguments
        fingerprint = Fingerprint(values)
        try:
            fingerprint.add_module(module)
            key = (
                *map(fingerprint.add, without_unread_integers(module, arguments)),
                outside_state(type(state.module) for state in fingerprint.modules),
                _modes(),
            )
        except (NotComparable, RecursionError):
            return None
        return cls(
            module, args, kwargs, fingerprint, key, tracer.tensor_versions(fingerprint.tensors)
        )

    def copy(self) -> ModuleCall:
        """Return a copy of the call, to whose fingerprint more may be added."""
        return replace(
            self, fingerprint=self.fingerprint.copy(), input_versions=self.input_versions.copy()
        )

    def without_tensors(self) -> ModuleCall:
        """Return the call without its arguments, for others to be compared with it."""
        fingerprint = Fingerprint(self.fingerprint.values, self.fingerprint.modules)
        return replace(self, args=(), kwargs={}, fingerprint=fingerprint)

    def add_entry(self, location: EntryLocation) -> Any:
        """Add a cache entry to the fingerprint, and return its fingerprint."""
        entry = location.entry(self.fingerprint.caches)
        return entry if entry is ABSENT else self.fingerprint.add(entry)

    def translate(self, location: EntryLocation) -> EntryLocation | None:
        """Return the location of this module's own entry, from that of another's."""
        if location.key is None:
            return location
        number, name, added = location.key
        index = self.fingerprint.modules[number].module_dict.get(name)
        if type(index) is not int:
            return None
        index += added
        create_entry(self.fingerprint.caches[location.cache], index)
        return EntryLocation(location.cache, location.attribute, index, location.key)


def _modes() -> tuple[Any, ...]:
    """Return modes of torch that affect a trace: gradients, the default dtype, autocast."""
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        *((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")),
    )


@dataclass(frozen=True, slots=True)
class InputRef:
    """Reference from a result to an input of the call.

    Attributes:
        number: Number of the tensor or cache in the fingerprint.
        is_cache: True if it is a cache.
    """

    number: int
    is_cache: bool = False


@dataclass(frozen=True, slots=True)
class OutputRef:
    """Reference from a result to a new tensor of the call.

    Attributes:
        number: Number of the tensor.
    """

    number: int


@dataclass(slots=True, kw_only=True)
class LayerTemplate:
    """A recorded layer, from which equivalent instances are replayed.

    Attributes:
        call: The recorded call, without its arguments.
        reads: Attributes that it read, for each of its modules.
        identity_calls: Arguments of calls of its modules that returned their input, by number
            of the module.
        outside_reads: Attributes of other modules that it read, with their fingerprints.
        entries: Cache entries that it accessed, with their fingerprints before.
        results: Leaves of its outputs and of these entries afterwards, tensors as references.
        spec: Tree structure of the results.
        new_tensors: Tensors like those that it created.
        written_inputs: Numbers of the inputs that it wrote to.
        value_states: Tracked values of ``new_tensors`` and of the written inputs.
        segment: The tracer's recording.
        replay_count: Number of replays.
    """

    call: ModuleCall
    reads: list[set[str]]
    identity_calls: dict[int, list[Arguments]]
    outside_reads: list[tuple[dict[str, Any], str, Any]]
    entries: list[tuple[EntryLocation, Any]]
    results: list[Any]
    spec: pytree.TreeSpec
    new_tensors: list[torch.Tensor]
    written_inputs: list[int]
    value_states: list[Any]
    segment: Any
    replay_count: int = 0
