"""Savings of memory: what sharding by FSDP and checkpoints of layers take off a training step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphflops.analysis.live_tensors import Category, LiveTensor
from graphflops.analysis.optimizer_memory import OptimizerMemory
from graphflops.analysis.storage_levels import StorageLevels
from graphflops.core.ir import OpCall, Phase

GATHERED_LAYERS = 2
"""Layers whose weights FSDP holds in full at a time: the one that runs, and the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """Bytes by which the peak of a training step is lower; 0 if it is not.

    Attributes:
        sharding: By FSDP, on each of ``ranks`` devices: weights, gradients and the state of the
            optimizer are divided. Weights in no repeated layer stay gathered, as do those of two
            layers at a time and the gradients of one.
        checkpointing: By a checkpoint of each repeated layer: what its forward pass makes is
            dropped, but for what others read, until its backward pass computes it again.
        ranks: Number of devices.
        layers: Number of repeated layers.
    """

    sharding: int
    checkpointing: int
    ranks: int
    layers: int


class SavingsEstimate:
    """Estimate of what a training step would take otherwise, from its storage events.

    Args:
        levels: Its levels, in numbers.
        labels: What each storage is for, by its number.
        calls: Its calls, by index.
        optimizer: Memory of the optimizer.
    """

    def __init__(
        self,
        levels: StorageLevels,
        labels: Mapping[int, LiveTensor],
        calls: Sequence[OpCall],
        optimizer: OptimizerMemory,
    ) -> None:
        self._levels, self._labels = levels, labels
        self._calls, self._optimizer = calls, optimizer
        self._weights = {
            label.name: label.nbytes
            for label in labels.values()
            if label.category is Category.PARAMETERS
        }
        self._layers = repeated_layers(self._weights)

    def savings(self, ranks: int) -> Savings:
        """Return the savings with a number of devices."""
        peak = self._peak(np.ones(len(self._levels.events.calls)), 1)
        sharded = checkpointed = peak
        if self._layers:
            sharded = self._sharded_peak(ranks)
            checkpointed = self._checkpointed_peak()
        return Savings(
            sharding=max(peak - sharded, 0),
            checkpointing=max(peak - checkpointed, 0),
            ranks=ranks,
            layers=len(self._layers),
        )

    def _changes(self) -> NDArray[np.float64]:
        """Return the bytes that each event adds or takes."""
        signs = np.where(self._levels.events.is_release, -1.0, 1.0)
        changes: NDArray[np.float64] = signs * self._levels.sizes[:, 0]
        return changes

    def _peak(self, shares: NDArray[np.float64], ranks: int, gathered: float = 0.0) -> int:
        """Return the peak if of each storage only a share is there, and of the optimizer's."""
        state = self._optimizer.state / ranks
        levels = np.cumsum(self._changes() * shares) + state
        highest = float(levels.max(initial=state)) + gathered
        last = float(levels[-1]) if len(levels) else state
        return round(max(highest, last + self._optimizer.temporaries / ranks))

    def _sharded_peak(self, ranks: int) -> int:
        divided = (Category.PARAMETERS, Category.GRADIENTS)
        shares = [
            1 / ranks if self._labels[storage].category in divided else 1.0
            for storage in self._levels.events.storages.tolist()
        ]
        in_layers = Counter[str]()
        for name, nbytes in self._weights.items():
            in_layers[_layer_of(name, self._layers)] += nbytes
        outside = in_layers.pop("", 0)
        gathered = outside + (GATHERED_LAYERS + 1) * max(in_layers.values())
        return self._peak(np.array(shares), ranks, gathered * (ranks - 1) / ranks)

    def _checkpointed_peak(self) -> int:
        """Return the peak if what a layer makes is there only within its forward and backward."""
        spans = self._spans()
        changes, calls = self._changes(), self._levels.events.calls
        kept = self._read_outside()
        for position in np.flatnonzero(~self._levels.events.is_release).tolist():
            label = self._labels[int(self._levels.events.storages[position])]
            layer = _layer_of(label.module_path, self._layers)
            if label.category is not Category.ACTIVATIONS or layer not in spans:
                continue
            end, again = spans[layer]
            if label.name in kept or calls[position] > end:
                continue
            changes[np.searchsorted(calls, end, side="right")] -= label.nbytes
            changes[np.searchsorted(calls, again)] += label.nbytes
        levels = np.cumsum(changes) + self._optimizer.state
        return round(max(float(levels.max()), float(levels[-1]) + self._optimizer.temporaries))

    def _spans(self) -> dict[str, tuple[int, int]]:
        """Return the last forward call and the first later one of each layer."""
        ends: dict[str, int] = {}
        starts: dict[str, int] = {}
        for call in self._calls:
            layer = _layer_of(call.module_path, self._layers)
            if call.phase is Phase.FORWARD:
                ends[layer] = call.index
            else:
                starts.setdefault(layer, call.index)
        return {layer: (ends[layer], starts[layer]) for layer in ends.keys() & starts if layer}

    def _read_outside(self) -> set[str]:
        """Return the results that a forward call outside of their layer reads."""
        made = {
            label.name: _layer_of(label.module_path, self._layers)
            for label in self._labels.values()
            if label.category is Category.ACTIVATIONS
        }
        found = set()
        for call in self._calls:
            if call.phase is not Phase.FORWARD:
                continue
            layer = _layer_of(call.module_path, self._layers)
            names = (tensor.storage or tensor.name for _, tensor in call.tensors())
            found |= {name for name in names if made.get(name, layer) != layer}
        return found


def repeated_layers(weights: Mapping[str, int]) -> frozenset[str]:
    """Return the paths of layers that stand beside layers with the same weights, outermost ones.

    Args:
        weights: Bytes of the parameters by qualified name.

    Example:
        >>> weights = {f"layers.{i}.mlp.{name}": 4 for i in range(2) for name in ("w", "b")}
        >>> sorted(repeated_layers({**weights, "head.0.w": 4, "head.1.w": 8}))
        ['layers.0', 'layers.1']
    """
    members: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, nbytes in weights.items():
        for path in _indexed_prefixes(name):
            members[path].append((name.removeprefix(path), nbytes))
    siblings: defaultdict[tuple[str, tuple[tuple[str, int], ...]], list[str]] = defaultdict(list)
    for path, inside in members.items():
        siblings[path.rpartition(".")[0], tuple(sorted(inside))].append(path)
    repeated = {path for paths in siblings.values() if len(paths) > 1 for path in paths}
    return frozenset(path for path in repeated if not _is_inside_one(path, repeated))


def _indexed_prefixes(name: str) -> Iterator[str]:
    """Yield the paths within a name that end in a number, as of a member of a list."""
    parts = name.split(".")
    for end, part in enumerate(parts[:-1], start=1):
        if part.isdigit():
            yield ".".join(parts[:end])


def _is_inside_one(path: str, layers: Iterable[str]) -> bool:
    return any(path.startswith(layer + ".") for layer in layers)


def _layer_of(path: str, layers: frozenset[str]) -> str:
    """Return the layer that a path is in; an empty one for none."""
    while path and path not in layers:
        path = path.rpartition(".")[0]
    return path
