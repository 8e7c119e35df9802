"""From a graph in which a node stands for a layer to the calls of that layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from graphflops.capture.regions.change import Change, Suffixes
from graphflops.capture.regions.export import BEGIN, END, MARKS
from graphflops.ir import OpCall

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
    _suffixes: Suffixes = field(default_factory=Suffixes)

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
        change = Change(
            was=self.path_of(recorded.begin) or "",
            path=path,
            was_source=self.source_of(recorded.begin),
            source=self.source_of(node),
            names=_names(recorded.begin, node),
            suffix=self._suffixes.next(path),
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
