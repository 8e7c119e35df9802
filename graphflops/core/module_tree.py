"""Module trees: costs of priced records rolled up to the module hierarchy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.cost import OpCost, total_of
from graphflops.core.ir import Module, OpRecord, Parameter


class ModuleNode(NamedTuple):
    """Module with its cost.

    Attributes:
        path: Qualified name; ``""`` is the root.
        module_class: Class name.
        extra: ``extra_repr()`` of the module.
        own: Cost of the calls that the module makes itself.
        total: ``own`` plus the totals of all children.
        params_own: Number of parameters of the module itself, tied ones once.
        params_total: Number of parameters of the whole subtree, tied ones once.
        params_trainable: Number of parameters in ``params_total`` that require a gradient.
        param_bytes: Bytes of ``params_total``.
        children: Submodules in registration order.
        calls: Number of calls of the module; ``None`` if it was not recorded.
        unknown: Number of calls in the subtree without a price; if not 0, totals are lower bounds.
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
        """Last part of the path."""
        return self.path.rpartition(".")[2]

    def walk(self, depth: int | None = None) -> Iterator[ModuleNode]:
        """Yield the module and its descendants, parents first, down to ``depth`` levels."""
        yield self
        if depth != 0:
            for child in self.children:
                yield from child.walk(None if depth is None else depth - 1)


def path_depth(path: str) -> int:
    """Return the number of levels that a module path is below the root.

    Example:
        >>> path_depth(""), path_depth("encoder.layers.0")
        (0, 3)
    """
    return path.count(".") + 1 if path else 0


def roll_up(records: Iterable[OpRecord], modules: Iterable[Module]) -> ModuleNode:
    """Roll records up to a module tree.

    Args:
        records: Priced calls; each belongs to the module at its path.
        modules: Modules in registration order. A module that occurs only in the path of a
            record or of another module is added.

    Returns:
        The root. The total of a module is the sum over its subtree; a module called twice has
        both calls in its own cost.
    """
    by_path = {module.path: module for module in modules}
    own_costs = _costs_by_path(records)
    for path in own_costs.keys() - by_path.keys():
        by_path[path] = Module(path=path)
    children = _children(by_path)
    duplicates = _duplicate_parameters(by_path)

    def build(path: str) -> ModuleNode:
        nodes = tuple([build(child) for child in children.get(path, ())])
        own = own_costs.get(path, _ZERO)
        return _node(by_path[path], own, nodes, duplicates.get(path, ()))

    return build("")


def _node(
    module: Module,
    own: CostSum,
    children: tuple[ModuleNode, ...],
    duplicates: Iterable[Parameter],
) -> ModuleNode:
    """Return the node of a module.

    Args:
        module: Module.
        own: Cost of its own calls.
        children: Nodes of its children.
        duplicates: Parameters that the sum over module and children counts too often.
    """
    total, unknown = own
    params_own = trainable = nbytes = 0
    for parameter in {p.identity: p for p in module.parameters}.values():
        params_own += parameter.numel
        trainable += parameter.numel * parameter.trainable
        nbytes += parameter.nbytes
    params = params_own
    for child in children:
        total += child.total
        params += child.params_total
        trainable += child.params_trainable
        nbytes += child.param_bytes
        unknown += child.unknown
    for parameter in duplicates:
        params -= parameter.numel
        trainable -= parameter.numel * parameter.trainable
        nbytes -= parameter.nbytes
    return ModuleNode(
        path=module.path,
        module_class=module.module_class,
        extra=module.extra,
        own=own.cost,
        total=total,
        params_own=params_own,
        params_total=params,
        params_trainable=trainable,
        param_bytes=nbytes,
        children=children,
        calls=module.calls,
        unknown=unknown,
    )


def _duplicate_parameters(modules: Mapping[str, Module]) -> dict[str, list[Parameter]]:
    """Return parameters that a sum over a module and its children counts too often, by path.

    These are tied parameters, each as often as the sum counts it beyond once.
    """
    by_identity: defaultdict[int, dict[str, Parameter]] = defaultdict(dict)
    for module in modules.values():
        for parameter in module.parameters:
            by_identity[parameter.identity][module.path] = parameter
    duplicates: defaultdict[str, list[Parameter]] = defaultdict(list)
    for tied in (owners for owners in by_identity.values() if len(owners) > 1):
        # By path, the children that have the parameter; "" stands for the module itself.
        addends: defaultdict[str, set[str]] = defaultdict(set)
        for path in tied:
            child = path
            addends[path].add("")
            while child:
                parent = child.rpartition(".")[0]
                addends[parent].add(child)
                child = parent
        parameter = next(iter(tied.values()))
        for path, children in addends.items():
            duplicates[path] += [parameter] * (len(children) - 1)
    return duplicates


class CostSum(NamedTuple):
    """Sum of the costs of calls.

    Attributes:
        cost: Cost of the calls that have a price.
        unknown: Number of calls without a price.
    """

    cost: OpCost
    unknown: int


_ZERO = CostSum(OpCost(), 0)


def sum_costs(records: Iterable[OpRecord]) -> CostSum:
    """Return the sum of costs of records; a repeated layer is summed once."""

    @cache
    def sum_block(block: Block[OpRecord]) -> CostSum:
        return sum_items(block.items)

    def sum_items(items: Iterable[OpRecord | Repeat[OpRecord]]) -> CostSum:
        costs, unknown = [], 0
        for item in items:
            if isinstance(item, Repeat):
                block = sum_block(item.block)
                costs.append(block.cost)
                unknown += block.unknown
            elif item.cost is None:
                unknown += 1
            else:
                costs.append(item.cost)
        return CostSum(total_of(costs), unknown)

    return sum_items(CallSequence.of(records).items)


def _costs_by_path(records: Iterable[OpRecord]) -> dict[str, CostSum]:
    """Return costs of calls by the module that makes them; a repeated layer is summed once."""

    @cache
    def sum_block(block: Block[OpRecord]) -> dict[str, CostSum]:
        return sum_items(block.items)

    def sum_items(items: Iterable[OpRecord | Repeat[OpRecord]]) -> dict[str, CostSum]:
        costs: dict[str, CostSum] = {}

        def add(path: str, cost: OpCost, unknown: int) -> None:
            previous = costs.get(path)
            if previous is not None:
                cost, unknown = previous.cost + cost, previous.unknown + unknown
            costs[path] = CostSum(cost, unknown)

        for item in items:
            if isinstance(item, Repeat):
                for path, own in sum_block(item.block).items():
                    add(item.relocation.map_path(path), *own)
            elif item.cost is None:
                add(item.call.module_path, OpCost(), 1)
            else:
                add(item.call.module_path, item.cost, 0)
        return costs

    return sum_items(CallSequence.of(records).items)


def _children(modules: dict[str, Module]) -> defaultdict[str, list[str]]:
    """Return child paths by path; parents that are missing are added to ``modules``."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    visited: set[str] = set()
    for path in list(modules):
        child = path
        while child and child not in visited:
            parent = child.rpartition(".")[0]
            visited.add(child)
            children[parent].append(child)
            if parent not in modules:
                modules[parent] = Module(path=parent)
            child = parent
    if "" not in modules:
        modules[""] = Module(path="")
    return children
