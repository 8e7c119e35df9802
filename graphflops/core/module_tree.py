"""From priced records to the module hierarchy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.cost import OpCost
from graphflops.core.ir import Module, OpRecord, Parameter


class ModuleNode(NamedTuple):
    """A module with what it costs.

    Attributes:
        path: Qualified name; ``""`` is the root.
        module_class: Class name.
        extra: What the class adds to its own ``repr``.
        own: Cost of the calls the module makes itself.
        total: ``own`` plus the totals of all children.
        params_own: Parameters of the module itself, tied ones once.
        params_total: Parameters of the whole subtree, tied ones once.
        params_trainable: Those of ``params_total`` that require a gradient.
        param_bytes: Bytes of ``params_total``.
        children: Submodules in registration order.
        calls: How often the module was called; ``None`` where it was not recorded.
        unknown: Calls in the subtree without a price; the totals are lower bounds then.
    """

    path: str
    module_class: str
    extra: str
    own: OpCost
    total: OpCost
    params_own: int
    params_total: int
    params_trainable: int
    param_bytes: int
    children: tuple[ModuleNode, ...]
    calls: int | None
    unknown: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def walk(self, depth: int | None = None) -> Iterator[ModuleNode]:
        """This module and all below it, parents first, down to ``depth`` levels if given."""
        yield self
        if depth != 0:
            for child in self.children:
                yield from child.walk(None if depth is None else depth - 1)


def roll_up(records: Iterable[OpRecord], modules: Iterable[Module]) -> ModuleNode:
    """Sum records into a module tree.

    Args:
        records: Priced calls; each belongs to the module at its path.
        modules: The modules in registration order. Modules that only a record or a longer
            path mentions are added.

    Returns:
        The root. A module's total is the sum over its subtree; a module called twice has
        both calls in its own cost.
    """
    known = {module.path: module for module in modules}
    own = _by_path(records)
    for path in own.keys() - known.keys():
        known[path] = Module(path=path)
    children = _children(known)
    again = _held_again(known)

    def build(path: str) -> ModuleNode:
        below = tuple([build(child) for child in children.get(path, ())])
        return _node(known[path], own.get(path, _NOTHING), below, again.get(path, ()))

    return build("")


def _node(
    module: Module, own: Sum, below: tuple[ModuleNode, ...], again: Iterable[Parameter]
) -> ModuleNode:
    """A module with what it costs.

    Args:
        module: The module.
        own: What its own calls cost.
        below: Its children.
        again: Parameters that the sum over these counts too often.
    """
    total, unknown = own
    mine = trainable = nbytes = 0
    for parameter in {p.identity: p for p in module.parameters}.values():
        mine += parameter.numel
        trainable += parameter.numel * parameter.trainable
        nbytes += parameter.nbytes
    params = mine
    for child in below:
        total += child.total
        params += child.params_total
        trainable += child.params_trainable
        nbytes += child.param_bytes
        unknown += child.unknown
    for parameter in again:
        params -= parameter.numel
        trainable -= parameter.numel * parameter.trainable
        nbytes -= parameter.nbytes
    return ModuleNode(
        path=module.path,
        module_class=module.module_class,
        extra=module.extra,
        own=own.cost,
        total=total,
        params_own=mine,
        params_total=params,
        params_trainable=trainable,
        param_bytes=nbytes,
        children=below,
        calls=module.calls,
        unknown=unknown,
    )


def _held_again(modules: Mapping[str, Module]) -> dict[str, list[Parameter]]:
    """Parameters that a sum over a module and its children counts too often, by path.

    Tied ones: each as often as it is in the sum beyond once.
    """
    holders: defaultdict[int, dict[str, Parameter]] = defaultdict(dict)
    for module in modules.values():
        for parameter in module.parameters:
            holders[parameter.identity][module.path] = parameter
    found: defaultdict[str, list[Parameter]] = defaultdict(list)
    for tied in (paths for paths in holders.values() if len(paths) > 1):
        parts: defaultdict[str, set[str]] = defaultdict(set)
        for path in tied:
            part = path
            parts[path].add("")  # its own
            while part:
                parent = part.rpartition(".")[0]
                parts[parent].add(part)
                part = parent
        parameter = next(iter(tied.values()))
        for path, several in parts.items():
            found[path] += [parameter] * (len(several) - 1)
    return found


class Sum(NamedTuple):
    """What some calls cost, and how many of them have no price."""

    cost: OpCost
    unknown: int


_NOTHING = Sum(OpCost(), 0)


def summed(records: Iterable[OpRecord]) -> Sum:
    """What records come to; a layer that is repeated is summed once."""

    @cache
    def repeated(block: Block[OpRecord]) -> Sum:
        return through(block.items)

    def through(items: Iterable[OpRecord | Repeat[OpRecord]]) -> Sum:
        cost, unknown = _NOTHING
        for item in items:
            if isinstance(item, Repeat):
                more = repeated(item.block)
                cost, unknown = cost + more.cost, unknown + more.unknown
            elif item.cost is None:
                unknown += 1
            else:
                cost += item.cost
        return Sum(cost, unknown)

    return through(CallSequence.of(records).items)


def _by_path(records: Iterable[OpRecord]) -> dict[str, Sum]:
    """What calls cost by the module that makes them; a layer that is repeated is summed once."""

    @cache
    def repeated(block: Block[OpRecord]) -> dict[str, Sum]:
        return through(block.items)

    def through(items: Iterable[OpRecord | Repeat[OpRecord]]) -> dict[str, Sum]:
        found: dict[str, Sum] = {}

        def count(path: str, cost: OpCost, unknown: int) -> None:
            known = found.get(path)
            if known is not None:
                cost, unknown = known.cost + cost, known.unknown + unknown
            found[path] = Sum(cost, unknown)

        for item in items:
            if isinstance(item, Repeat):
                for path, own in repeated(item.block).items():
                    count(item.change.moved(path), *own)
            elif item.cost is None:
                count(item.call.module_path, OpCost(), 1)
            else:
                count(item.call.module_path, item.cost, 0)
        return found

    return through(CallSequence.of(records).items)


def _children(known: dict[str, Module]) -> defaultdict[str, list[str]]:
    """Child paths of each path; parents that nobody named are added on the way."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for path in list(known):
        child = path
        while child and child not in seen:
            parent = child.rpartition(".")[0]
            seen.add(child)
            children[parent].append(child)
            if parent not in known:
                known[parent] = Module(path=parent)
            child = parent
    if "" not in known:
        known[""] = Module(path="")
    return children
