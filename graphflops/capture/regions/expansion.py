"""From a graph in which a node stands for a layer to the calls of that layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from graphflops.capture.regions.export import BEGIN, END, MARKS
from graphflops.ir import OpCall, TensorMeta, Tensors

Found = tuple[OpCall, fx.Node]


@dataclass(slots=True)
class _Recorded:
    """The calls of a layer between its marks."""

    begin: fx.Node
    start: int
    end: fx.Node | None = None
    calls: list[Found] = field(default_factory=list)


@dataclass(slots=True)
class Expansion:
    """Repeats the calls of layers while a graph is walked.

    Attributes:
        path_of: From a node to the path of its module.
        source_of: From a node to the line that made the call.
    """

    path_of: Callable[[fx.Node], str | None]
    source_of: Callable[[fx.Node], str]
    _recorded: dict[int, _Recorded] = field(default_factory=dict)
    _times: Counter[str] = field(default_factory=Counter)

    def mark(self, node: fx.Node, found: list[Found]) -> None:
        """Begin or end a layer whose calls are found in between."""
        number: Any = node.args[1]
        if node.target is BEGIN:
            self._recorded[number] = _Recorded(node, len(found))
        elif node.target is END:
            recorded = self._recorded[number]
            recorded.end = node
            recorded.calls = found[recorded.start :]

    def repeat(self, node: fx.Node, found: list[Found]) -> None:
        """Add the calls of the layer that a node stands for."""
        number: Any = node.args[1]
        recorded = self._recorded[number]
        path = self.path_of(node) or ""
        self._times[path] += 1
        times = self._times[path]
        change = _Change(
            was=self.path_of(recorded.begin) or "",
            path=path,
            was_source=self.source_of(recorded.begin),
            source=self.source_of(node),
            suffix=f"@{path}" if times == 1 else f"@{path}@{times}",
            names=_names(recorded.begin, node),
        )
        for call, made_by in recorded.calls:
            found.append((change.of(call, len(found)), made_by))
        assert recorded.end is not None  # noqa: S101 - a layer is repeated after it has ended
        outputs: Any = recorded.end.args[0]
        for user in node.users:
            index: Any = user.args[1]
            # What uses it names the node that made it.
            user.name = change.name(outputs[index].name)


def _names(begin: fx.Node, node: fx.Node) -> dict[str, str]:
    """What the inputs of a recorded layer are called in another instance."""
    given: Any = begin.args[0]
    nodes: Any = node.args[0]
    places: Any = node.args[2]
    return {given[place].name: now.name for place, now in zip(places, nodes, strict=True)}


@dataclass(slots=True)
class _Change:
    """What is different in the calls of another instance."""

    was: str
    path: str
    was_source: str
    source: str
    suffix: str
    names: Mapping[str, str]

    def of(self, call: OpCall, index: int) -> OpCall:
        # What dataclasses.replace does, without checks that take twice as long.
        other = object.__new__(OpCall)
        other.__dict__.update(
            call.__dict__,
            index=index,
            path=moved(call.path, self.was, self.path),
            name=call.name + self.suffix,
            source=self.source if call.source == self.was_source else call.source,
            inputs={name: self._tensors(value) for name, value in call.inputs.items()},
            outputs=tuple([self._tensor(meta) for meta in call.outputs]),
        )
        return other

    def name(self, name: str) -> str:
        return self.names.get(name) or (name and name + self.suffix)

    def _tensor(self, meta: TensorMeta) -> TensorMeta:
        return TensorMeta(meta.shape, meta.dtype, meta.strides, self.name(meta.name))

    def _tensors(self, value: Tensors) -> Tensors:
        if isinstance(value, tuple):
            return tuple([item and self._tensor(item) for item in value])
        return self._tensor(value)


def recorded_layers(graph: fx.Graph) -> dict[int, list[fx.Node]]:
    """The nodes of each layer that was recorded in a graph, its first mark before them."""
    found: dict[int, list[fx.Node]] = {}
    open_layers: list[int] = []
    for node in graph.nodes:
        number: Any = node.args[1] if node.target in MARKS else None
        if node.target is BEGIN and number >= 0:
            open_layers.append(number)
            found[number] = []
        for layer in open_layers:
            found[layer].append(node)
        if node.target is END:
            open_layers.remove(number)
    return found


def moved(path: str, was: str, now: str) -> str:
    """A path below one module as it is below another; other paths stay."""
    return now + path[len(was) :] if path == was or path.startswith(was + ".") else path
