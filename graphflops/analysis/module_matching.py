"""Matching of the modules of two models, also where they were renamed, moved or wrapped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from graphflops.analysis.alignment import align
from graphflops.core.module_tree import ModuleNode

C = TypeVar("C")


class Calls(NamedTuple, Generic[C]):
    """Calls that a module makes itself, in order.

    Attributes:
        keys: A number for each call: equal numbers are equal calls.
        calls: The calls.
    """

    keys: tuple[int, ...] = ()
    calls: tuple[C, ...] = ()


class MatchNode(NamedTuple, Generic[C]):
    """Module of a tree to match.

    Attributes:
        module: The module.
        own: Calls that it makes itself.
        children: Submodules in registration order.
        content: Fingerprint of all calls below, whatever modules are called; that of a module
            which only wraps another is the other's. 0 if nothing is called.
    """

    module: ModuleNode
    own: Calls[C]
    children: tuple[MatchNode[C], ...]
    content: int

    @property
    def called(self) -> list[MatchNode[C]]:
        """Children below which something is called."""
        return [child for child in self.children if child.content]


_Nodes: TypeAlias = Sequence[MatchNode[C]]
_Rule: TypeAlias = Callable[[_Nodes[C], _Nodes[C]], Iterator[tuple[MatchNode[C], MatchNode[C]]]]


@dataclass(frozen=True, slots=True)
class Matching(Generic[C]):
    """Counterparts in two models.

    Attributes:
        modules: Pairs of modules; one of the two is ``None`` if the other was removed or added.
            A module that was wrapped is in two pairs, with the wrapper and with what it wraps.
        calls: Pairs of the own calls of modules, to align.
    """

    modules: list[tuple[MatchNode[C] | None, MatchNode[C] | None]] = field(default_factory=list)
    calls: list[tuple[Calls[C], Calls[C]]] = field(default_factory=list)


class Fingerprints:
    """Numbers for equal things: equal numbers are equal things, in all trees built with them."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable) -> int:
        """Return the number of a thing, 1 or more."""
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def tree(self, root: ModuleNode, own: Mapping[str, Calls[C]]) -> MatchNode[C]:
        """Return a module tree to match.

        Args:
            root: The module tree.
            own: Calls that modules make themselves, by path.
        """
        nothing: Calls[C] = Calls()

        def build(module: ModuleNode) -> MatchNode[C]:
            calls = own.get(module.path, nothing)
            children = tuple(map(build, module.children))
            contents = tuple(child.content for child in children if child.content)
            if calls.keys or len(contents) > 1:
                content = self.number((calls.keys, contents))
            else:
                content = contents[0] if contents else 0
            return MatchNode(module, calls, children, content)

        return build(root)


def match(before: MatchNode[C], after: MatchNode[C]) -> Matching[C]:
    """Match two trees, in time that is linear in modules and calls but for reordered children."""
    matching: Matching[C] = Matching()
    _match(before, after, matching)
    return matching


def _match(before: MatchNode[C], after: MatchNode[C], matching: Matching[C]) -> None:
    matching.modules.append((before, after))
    if before.content == after.content != 0:
        _match_equal(before, after, matching)
    elif (inner := _wrapped(before, after)) is not None:
        _alone(matching, None, after, inner)
        _match(before, inner, matching)
    elif (inner := _wrapped(after, before)) is not None:
        _alone(matching, before, None, inner)
        _match(inner, after, matching)
    else:
        matching.calls.append((before.own, after.own))
        _match_children(before.children, after.children, matching)


def _match_equal(before: MatchNode[C], after: MatchNode[C], matching: Matching[C]) -> None:
    """Match two modules with equal calls below, of which either may be wrapped."""
    chains = _chain(before), _chain(after)
    levels = min(map(len, chains))
    for one, other in zip(chains[0][-levels:], chains[1][-levels:], strict=True):
        if one is not before or other is not after:
            matching.modules.append((one, other))
        _match_children(
            [child for child in one.children if not child.content],
            [child for child in other.children if not child.content],
            matching,
        )
    for chain, removed in zip(chains, (True, False), strict=True):
        for node in chain[:-levels]:  # wrappers, which do nothing else
            for child in node.children:
                if not child.content:
                    _unmatched(child, matching, removed=removed)
    one, other = chains[0][-1], chains[1][-1]
    matching.calls.append((one.own, other.own))
    for pair in zip(one.called, other.called, strict=True):
        _match(*pair, matching)


def _chain(node: MatchNode[C]) -> list[MatchNode[C]]:
    """Return a module and what it wraps: it calls nothing itself and one child."""
    chain = [node]
    while not node.own.keys and len(called := node.called) == 1:
        node = called[0]
        chain.append(node)
    return chain


def _wrapped(node: MatchNode[C], other: MatchNode[C]) -> MatchNode[C] | None:
    """Return the child of another module that is this module, if it was put inside."""
    if not node.own.keys and len(node.called) < 2:  # noqa: PLR2004 - it only wraps something itself
        return None
    for child in other.called:
        if child.content == node.content:
            return child

    def common(candidate: MatchNode[C]) -> int:
        return len(names.intersection(child.module.name for child in candidate.called))

    names = {child.module.name for child in node.called}
    best = max(other.called, key=common, default=None)
    if best is None or common(best) <= common(other) or 2 * common(best) < len(names):
        return None
    return best


def _alone(
    matching: Matching[C],
    before: MatchNode[C] | None,
    after: MatchNode[C] | None,
    matched: MatchNode[C],
) -> None:
    """Add what a wrapper does besides calling the module that it wraps."""
    wrapper = before or after
    assert wrapper is not None  # noqa: S101 - one of the two is there
    nothing: Calls[C] = Calls()
    own = (wrapper.own, nothing) if before is not None else (nothing, wrapper.own)
    matching.calls.append(own)
    for child in wrapper.children:
        if child is not matched:
            _unmatched(child, matching, removed=before is not None)


def _unmatched(node: MatchNode[C], matching: Matching[C], *, removed: bool) -> None:
    nothing: Calls[C] = Calls()
    matching.modules.append((node, None) if removed else (None, node))
    matching.calls.append((node.own, nothing) if removed else (nothing, node.own))
    for child in node.children:
        _unmatched(child, matching, removed=removed)


def _match_children(
    before: Sequence[MatchNode[C]], after: Sequence[MatchNode[C]], matching: Matching[C]
) -> None:
    """Match the children of two modules.

    First those of equal name and content, then of equal content in order, then of equal name,
    then of equal class if both have as many of it left.
    """
    left, right = list(before), list(after)
    rules: tuple[_Rule[C], ...] = (_same_name_and_content, _same_content, _same_name, _same_class)
    counterpart: dict[int, MatchNode[C]] = {}
    for rule in rules:
        pairs = list(rule(left, right))
        counterpart |= {id(one): other for one, other in pairs}
        matched = {id(other) for _, other in pairs}
        left = [node for node in left if id(node) not in counterpart]
        right = [node for node in right if id(node) not in matched]
    for node in before:
        if id(node) in counterpart:
            _match(node, counterpart[id(node)], matching)
        else:
            _unmatched(node, matching, removed=True)
    for node in right:
        _unmatched(node, matching, removed=False)


def _same_name_and_content(
    before: _Nodes[C], after: _Nodes[C]
) -> Iterator[tuple[MatchNode[C], MatchNode[C]]]:
    return _of_equal_key(before, after, lambda node: (node.module.name, node.content))


def _same_content(
    before: _Nodes[C], after: _Nodes[C]
) -> Iterator[tuple[MatchNode[C], MatchNode[C]]]:
    left, right = ([node for node in nodes if node.content] for nodes in (before, after))
    contents = ([node.content for node in nodes] for nodes in (left, right))
    for i, j in align(*contents):
        yield left[i], right[j]


def _same_name(before: _Nodes[C], after: _Nodes[C]) -> Iterator[tuple[MatchNode[C], MatchNode[C]]]:
    return _of_equal_key(before, after, lambda node: node.module.name)


def _same_class(before: _Nodes[C], after: _Nodes[C]) -> Iterator[tuple[MatchNode[C], MatchNode[C]]]:
    by_class: defaultdict[str, list[MatchNode[C]]] = defaultdict(list)
    for node in after:
        by_class[node.module.module_class].append(node)
    for name, others in by_class.items():
        nodes = [node for node in before if node.module.module_class == name]
        if len(nodes) == len(others):
            yield from zip(nodes, others, strict=True)


def _of_equal_key(
    before: _Nodes[C], after: _Nodes[C], key: Callable[[MatchNode[C]], Hashable]
) -> Iterator[tuple[MatchNode[C], MatchNode[C]]]:
    others = {key(node): node for node in after}
    for node in before:
        if (other := others.pop(key(node), None)) is not None:
            yield node, other
