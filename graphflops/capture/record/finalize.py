"""Finish a capture: resolve symbolic sizes, collect notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.value_lookup import ASSUMED_FLOAT, INPUTS, RANDOM
from graphflops.capture.transformers_compat import caches_in
from graphflops.capture.unfused_attention import mark_masked_products
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import NamedTensors, OpCall, TensorMeta
from graphflops.core.storage_events import StorageEvents
from graphflops.core.substitution import Substitution

_DEPENDS_ON_INPUTS = (
    "Some sizes follow from values of the inputs: with other values it may cost otherwise."
)
ASSUMED_EXPERTS = (
    "Which experts tokens go to is up to the weights: they are supposed to go to all in turn."
)

_DEPENDS_ON_CHANCE = (
    f"Random numbers that decide what runs are taken to be {ASSUMED_FLOAT}: a layer that is "
    "dropped more rarely is kept."
)
_MAX_QUOTED = 40  # characters of the longest condition that a note quotes


def resolve_symbols(
    values: ValueTracker,
    calls: CallSequence[OpCall],
    inputs: NamedTensors,
    outputs: tuple[TensorMeta, ...],
) -> tuple[CallSequence[OpCall], NamedTensors, tuple[TensorMeta, ...]]:
    """Return calls, inputs and outputs with resolved symbols, and the products that masks hide.

    A size may be a symbol in one call, and be specialized to a number by a later one.
    """
    calls = mark_masked_products(calls)
    if not (sizes := values.symbols.finalize()):
        return calls, inputs, outputs
    substitution = Substitution(sizes)
    resolved_inputs = tuple((name, substitution.tensor(meta)) for name, meta in inputs)
    resolved_calls = calls.map_items(lambda call: (substitution.call(call),))
    return resolved_calls, resolved_inputs, tuple(map(substitution.tensor, outputs))


def storage_events(
    values: ValueTracker,
    *,
    gradients: Mapping[str, torch.Tensor] | None = None,
    outputs: Any = None,
    on_gpu: bool = False,
) -> StorageEvents:
    """Return the storage events of a capture, with resolved symbols.

    Args:
        values: Tracker of the fake tensors.
        gradients: Gradients by the names of the parameters.
        outputs: Outputs of the model, among which caches may be.
        on_gpu: True if the CPU, where the fake tensors are, stands for a GPU.
    """
    caches = tensors_in(caches_in(outputs))
    events = values.storages.events(gradients, caches, on_gpu=on_gpu)
    sizes = values.symbols.finalize()
    return events.map_sizes(Substitution(sizes).dim) if sizes else events


def collect_notes(values: ValueTracker) -> tuple[str, ...]:
    """Return the notes of a report on a graph.

    Raises:
        FixedSizeError: A size declared symbolic was specialized to a number.
    """
    symbols = values.symbols
    symbols.refuse_fixed()
    # Conditions that the user has declared need no note.
    conditions = [str(c) for c in symbols.assumptions() if c not in symbols.declared]
    short = [condition for condition in conditions if len(condition) <= _MAX_QUOTED]
    if more := len(conditions) - len(short):
        short.append(f"{more} longer conditions on sizes are met")
    caught = symbols.shape_env.swallowed_refusals()
    sentences = {
        f"Weights are distributed over {values.num_ranks} ranks: operators count as on one device, "
        "of whole tensors; collectives as one rank calls them. A training step has all gradients "
        "under weights.": values.num_ranks > 1,
        _DEPENDS_ON_INPUTS: INPUTS in values.dependences,
        _DEPENDS_ON_CHANCE: RANDOM in values.dependences,
        ASSUMED_EXPERTS: values.has_assumed_values,
        f"Numbers that only data can give are taken to be {ASSUMED_FLOAT}, at "
        f"{', '.join(values.unknown_floats)}: with others, what follows from them may cost "
        "otherwise.": values.unknown_floats,
        f"What attention masks hide is not known in full, at {', '.join(values.unknown_masks)}: "
        "flops_masked has what is known.": values.unknown_masks,
        f"Where packed sequences begin is not known, at {', '.join(values.unknown_packings)}: each "
        "counts as long as the longest.": values.unknown_packings,
        f"Costs hold where {', '.join(short)}.": short,
        f"Values that depend on data were asked for at {', '.join(caught)}: the model caught the "
        "refusal and went on another way, which it may not do on data.": caught,
    }
    return tuple(sentence for sentence, applies in sentences.items() if applies)
