"""Recordings of a layer's forward and backward pass, and the instances replayed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from graphflops.capture.fake.value_lookup import TensorState
from graphflops.capture.layer_reuse.attribute_log import Arguments
from graphflops.capture.layer_reuse.forward_replay import TapeSegment
from graphflops.capture.record.gradients import Edge
from graphflops.core.call_sequence import Block, Relocation
from graphflops.core.ir import OpCall
from graphflops.core.storage_events import EventBlock, EventRepeat


class NotEquivalentError(Exception):
    """A replayed layer turned out not to be equivalent."""


@dataclass(frozen=True, slots=True)
class InputNumber:
    """Place of a tensor among the arguments of a recorded layer.

    Attributes:
        number: Number of the tensor in the fingerprint.
    """

    number: int


@dataclass(frozen=True, slots=True)
class CacheNumber:
    """Place of a cache among the arguments of a recorded layer.

    Attributes:
        number: Number of the cache in the fingerprint.
    """

    number: int


class InputCopy(NamedTuple):
    """Tensor like an argument of a recorded layer.

    Attributes:
        tensor: Tensor of its metadata.
        state: Its tracked value.
        requires_grad: True if it requires a gradient.
        storage: Name of its storage.
    """

    tensor: torch.Tensor
    state: TensorState
    requires_grad: bool
    storage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardSegment:
    """Recording of a backward pass of a layer, relocated to the first instance.

    Attributes:
        block: Its operator calls.
        gradients: A tensor like the gradient of each input, ``None`` where there is none.
        gradient_names: Names of these gradients.
        gradient_storages: Numbers of their storages.
        passed_on: For each gradient, number of the incoming one in whose memory it lies.
        incoming_names: Names of the incoming gradients.
        incoming_storages: Numbers of their storages.
        input_storages: Numbers of the storages of the inputs, by their numbers.
        first_storage: Number of the first storage that the forward pass of the layer allocated.
        events: Its storage events.
    """

    block: Block[OpCall]
    gradients: list[torch.Tensor | None]
    gradient_names: list[str]
    gradient_storages: list[int | None]
    passed_on: list[int | None]
    incoming_names: list[str]
    incoming_storages: list[int]
    input_storages: Mapping[int, int]
    first_storage: int
    events: EventBlock


@dataclass(frozen=True, slots=True)
class TrainingSegment(TapeSegment):
    """Recording of a layer on the tape of a training step.

    Attributes:
        input_numbers: Numbers of the tensors that get a gradient from it.
        output_kinds: For each tensor it created or wrote to: True if it requires a gradient, True
            if it depends on inputs of the model.
        arguments: Its arguments, with ``InputNumber`` in place of tensors, ``CacheNumber`` in
            place of caches.
        caches: Copies of the caches among them, with entries as they were before it ran.
        copies: Tensors like those of its arguments that are no parameters, by number.
        saved_inputs: Numbers of those that it saves for its backward pass.
        saved_outputs: Positions of the outputs that it saves.
        backward: Its backward passes, by the metadata of the incoming gradients.
    """

    input_numbers: list[int]
    output_kinds: list[tuple[bool, bool]]
    arguments: Arguments
    caches: Sequence[Any]
    copies: Mapping[int, InputCopy]
    saved_inputs: list[int]
    saved_outputs: list[int]
    backward: dict[Any, BackwardSegment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedLayer:
    """A replayed instance of a layer.

    Attributes:
        segment: Recording of the layer.
        module: The instance.
        relocation: Relocation from the recorded instance to this one.
        events: Storage events of its forward pass.
        weights: Parameters among its inputs, by number.
        edges: Gradient edges of its other inputs, by number.
        storages: Numbers of the storages of these, by number.
        input_dependent: Numbers of those that depend on inputs of the model.
        held: Storages of inputs and outputs that it saves for its backward pass.
    """

    segment: TrainingSegment
    module: nn.Module
    relocation: Relocation
    events: EventRepeat
    weights: Mapping[int, torch.Tensor]
    edges: Mapping[int, Edge | None]
    storages: Mapping[int, int]
    input_dependent: frozenset[int]
    held: list[Any]
