"""Matching of the modules of two models, also where they were renamed, moved or wrapped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from graphflops.analysis.alignment import align
from graphflops.analysis.own_calls import Fingerprints, OwnCalls
from graphflops.core.module_tree import ModuleNode


class MatchNode(NamedTuple):
    """Module of a tree to match.

    Attributes:
        module: The module.
        own: Calls that it makes itself.
        children: Submodules in registration order.
        content: Fingerprint of all calls below, whatever modules are called; that of a module
            which only wraps another is the other's. 0 if nothing is called.
    """

    module: ModuleNode
    own: OwnCalls
    children: tuple[MatchNode, ...]
    content: int

    @property
    def called(self) -> list[MatchNode]:
        """Children below which something is called."""
        return [child for child in self.children if child.content]


_Nodes: TypeAlias = Sequence[MatchNode]
_Rule: TypeAlias = Callable[[_Nodes, _Nodes], Iterator[tuple[MatchNode, MatchNode]]]


@dataclass(frozen=True, slots=True)
class Matching:
    """Counterparts in two models.

    Attributes:
        modules: Pairs of modules; one of the two is ``None`` if the other was removed or added.
            A module that was wrapped is in two pairs, with the wrapper and with what it wraps.
        calls: Pairs of the own calls of modules, to align.
    """

    modules: list[tuple[MatchNode | None, MatchNode | None]] = field(default_factory=list)
    calls: list[tuple[OwnCalls, OwnCalls]] = field(default_factory=list)


def match_tree(
    root: ModuleNode, own: Mapping[str, OwnCalls], fingerprints: Fingerprints
) -> MatchNode:
    """Return a module tree to match.

    Args:
        root: The module tree.
        own: Calls that modules make themselves, by path.
        fingerprints: Numbers of equal modules, shared by the trees that are matched.
    """
    nothing = OwnCalls()

    def build(module: ModuleNode) -> MatchNode:
        calls = own.get(module.path, nothing)
        children = tuple(map(build, module.children))
        contents = tuple(child.content for child in children if child.content)
        if calls.keys or len(contents) > 1:
            content = fingerprints.number((calls.keys, contents))
        else:
            content = contents[0] if contents else 0
        return MatchNode(module, calls, children, content)

    return build(root)


def match(before: MatchNode, after: MatchNode) -> Matching:
    """Match two trees, in time that is linear in modules and calls but for reordered children."""
    matching: Matching = Matching()
    _match(before, after, matching)
    return matching


def _match(before: MatchNode, after: MatchNode, matching: Matching) -> None:
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


def _match_equal(before: MatchNode, after: MatchNode, matching: Matching) -> None:
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


def _chain(node: MatchNode) -> list[MatchNode]:
    """Return a module and what it wraps: it calls nothing itself and one child."""
    chain = [node]
    while not node.own.keys and len(called := node.called) == 1:
        node = called[0]
        chain.append(node)
    return chain


def _wrapped(node: MatchNode, other: MatchNode) -> MatchNode | None:
    """Return the child of another module that is this module, if it was put inside."""
    if not node.own.keys and len(node.called) < 2:  # noqa: PLR2004 - it only wraps something itself
        return None
    for child in other.called:
        if child.content == node.content:
            return child

    def common(candidate: MatchNode) -> int:
        return len(names.intersection(child.module.name for child in candidate.called))

    names = {child.module.name for child in node.called}
    best = max(other.called, key=common, default=None)
    if best is None or common(best) <= common(other) or 2 * common(best) < len(names):
        return None
    return best


def _alone(
    matching: Matching,
    before: MatchNode | None,
    after: MatchNode | None,
    matched: MatchNode,
) -> None:
    """Add what a wrapper does besides calling the module that it wraps."""
    wrapper = before or after
    assert wrapper is not None  # noqa: S101 - one of the two is there
    nothing = OwnCalls()
    own = (wrapper.own, nothing) if before is not None else (nothing, wrapper.own)
    matching.calls.append(own)
    for child in wrapper.children:
        if child is not matched:
            _unmatched(child, matching, removed=before is not None)


def _unmatched(node: MatchNode, matching: Matching, *, removed: bool) -> None:
    nothing = OwnCalls()
    matching.modules.append((node, None) if removed else (None, node))
    matching.calls.append((node.own, nothing) if removed else (nothing, node.own))
    for child in node.children:
        _unmatched(child, matching, removed=removed)


def _match_children(
    before: Sequence[MatchNode], after: Sequence[MatchNode], matching: Matching
) -> None:
    """Match the children of two modules.

    First those of equal name and content, then of equal content in order, then of equal name,
    then of equal class if both have as many of it left.
    """
    left, right = list(before), list(after)
    rules: tuple[_Rule, ...] = (_same_name_and_content, _same_content, _same_name, _same_class)
    counterpart: dict[int, MatchNode] = {}
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


def _same_name_and_content(before: _Nodes, after: _Nodes) -> Iterator[tuple[MatchNode, MatchNode]]:
    return _of_equal_key(before, after, lambda node: (node.module.name, node.content))


def _same_content(before: _Nodes, after: _Nodes) -> Iterator[tuple[MatchNode, MatchNode]]:
    left, right = ([node for node in nodes if node.content] for nodes in (before, after))
    contents = ([node.content for node in nodes] for nodes in (left, right))
    for i, j in align(*contents):
        yield left[i], right[j]


def _same_name(before: _Nodes, after: _Nodes) -> Iterator[tuple[MatchNode, MatchNode]]:
    return _of_equal_key(before, after, lambda node: node.module.name)


def _same_class(before: _Nodes, after: _Nodes) -> Iterator[tuple[MatchNode, MatchNode]]:
    by_class: defaultdict[str, list[MatchNode]] = defaultdict(list)
    for node in after:
        by_class[node.module.module_class].append(node)
    for name, others in by_class.items():
        nodes = [node for node in before if node.module.module_class == name]
        if len(nodes) == len(others):
            yield from zip(nodes, others, strict=True)


def _of_equal_key(
    before: _Nodes, after: _Nodes, key: Callable[[MatchNode], Hashable]
) -> Iterator[tuple[MatchNode, MatchNode]]:
    others = {key(node): node for node in after}
    for node in before:
        if (other := others.pop(key(node), None)) is not None:
            yield node, other
