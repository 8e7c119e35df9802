"""Instances of a repeated layer: how one is called, and what was recorded of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.layer_reuse.attribute_log import Arguments
from graphflops.capture.layer_reuse.fingerprint import Fingerprint, NotComparable, surroundings
from graphflops.capture.layer_reuse.kv_caches import ABSENT, Place, grow

LEAST_CALLS = 9
"""Operator calls below which a layer is traced as fast as it is repeated."""


class Tracer(Protocol):
    """What records the calls of a layer and repeats them."""

    def ready(self) -> bool:
        """Whether calls that are made now are recorded where they can be repeated."""

    def traced(self, tensors: list[torch.Tensor]) -> list[Any]:
        """What stands for tensors in the recording; ``None`` for those that nothing does."""

    def begin(self, call: Call) -> Any:
        """Begin to record a call of a layer."""

    def end(self, mark: Any, call: Call, outputs: list[torch.Tensor]) -> Any | None:
        """What was recorded since, or ``None`` if it cannot be repeated.

        Args:
            mark: What ``begin`` has returned.
            call: The call.
            outputs: Tensors that it has made or written to.
        """

    def repeat(self, recorded: Any, call: Call, outputs: list[torch.Tensor]) -> None:
        """Add what was recorded again.

        Args:
            recorded: What ``end`` has returned.
            call: The call that it stands for.
            outputs: What comes out: new tensors, and inputs that are written to.
        """


@dataclass(slots=True)
class Call:
    """A call of a module, looked at before it runs.

    Attributes:
        module: The module.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        look: What all of these are like.
        like: What there is to compare beside the modules.
        inputs: What stands for the tensors in the recording.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    look: Fingerprint
    like: tuple[Any, ...]
    inputs: list[Any]

    @classmethod
    def of(
        cls, module: nn.Module, arguments: Arguments, known: ValueTracker, tracer: Tracer
    ) -> Call | None:
        """A call, or ``None`` if it cannot be known to be like another."""
        args, kwargs = arguments
        look = Fingerprint(known)
        try:
            look.subtree(module)
            like = (look.of(args), look.of(kwargs), surroundings(look.parts), _modes())
        except (NotComparable, RecursionError):
            return None
        return cls(module, args, kwargs, look, like, tracer.traced(look.tensors))

    def copy(self) -> Call:
        """Return the same call, of which more may be looked at."""
        return replace(self, look=self.look.copy(), inputs=self.inputs.copy())

    def entry(self, place: Place) -> Any:
        """What an entry of a cache is like."""
        entry = place.entry(self.look.caches)
        return entry if entry is ABSENT else self.look.of(entry)

    def place(self, place: Place) -> Place | None:
        """Where the entry is that this module has for its own, as another has one at ``place``."""
        if place.key is None:
            return place
        part, name = place.key
        index = self.look.parts[part].held.get(name)
        if type(index) is not int:
            return None
        grow(self.look.caches[place.cache], index)
        return Place(place.cache, place.held, index, place.key)


def _modes() -> tuple[Any, ...]:
    """What else decides on the work: gradients, autocast, the default dtype."""
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        *((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")),
    )


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor or a cache that a call got, as a result: its number."""

    number: int
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that a call made, as a result: its number."""

    number: int


@dataclass(slots=True, kw_only=True)
class RecordedLayer:
    """A recorded instance.

    Attributes:
        call: How it was called.
        reads: Attributes that it read, for each of its modules.
        passed: How its modules that returned what they got were called.
        outside: Attributes of other modules that it read, and what they were like.
        places: Entries of caches that it touched, and what they were like.
        results: What it returned and left in these entries, tensors as numbers.
        spec: How that is put together.
        made: The tensors it made.
        written: Numbers of inputs that it wrote to.
        after: What is known of the values of ``made`` and of these.
        recorded: What the tracer needs to repeat it.
        reused: How often that was done.
    """

    call: Call
    reads: list[set[str]]
    passed: dict[int, list[Arguments]]
    outside: list[tuple[dict[str, Any], str, Any]]
    places: list[tuple[Place, Any]]
    results: list[Any]
    spec: pytree.TreeSpec
    made: list[torch.Tensor]
    written: list[int]
    after: list[Any]
    recorded: Any
    reused: int = 0
