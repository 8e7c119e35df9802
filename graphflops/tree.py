"""From priced records to the module hierarchy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graphflops.cost import OpCost
from graphflops.ir import Module, OpRecord, Parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleNode:
    """A module with what it costs.

    Attributes:
        path: Qualified name; ``""`` is the root.
        cls: Class name.
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
    cls: str
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
    own: defaultdict[str, OpCost] = defaultdict(OpCost)
    unknown: defaultdict[str, int] = defaultdict(int)
    for record in records:
        path = record.call.path
        if path not in known:
            known[path] = Module(path=path)
        if record.cost is None:
            unknown[path] += 1
        else:
            own[path] += record.cost
    children = _children(known)

    def build(path: str) -> tuple[ModuleNode, dict[int, Parameter]]:
        module = known[path]
        below = [build(child) for child in children[path]]
        mine = {p.identity: p for p in module.parameters}
        everything = dict(mine)
        for _, parameters in below:
            everything |= parameters
        node = ModuleNode(
            path=path,
            cls=module.cls,
            extra=module.extra,
            own=own[path],
            total=sum((child.total for child, _ in below), start=own[path]),
            params_own=sum(p.numel for p in mine.values()),
            params_total=sum(p.numel for p in everything.values()),
            params_trainable=sum(p.numel for p in everything.values() if p.trainable),
            param_bytes=sum(p.nbytes for p in everything.values()),
            children=tuple(child for child, _ in below),
            calls=module.calls,
            unknown=unknown[path] + sum(child.unknown for child, _ in below),
        )
        return node, everything

    return build("")[0]


def _children(known: dict[str, Module]) -> defaultdict[str, list[str]]:
    """Child paths of each path; parents that nobody named are added on the way."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for path in list(known):
        child = path
        while child:
            parent = child.rpartition(".")[0]
            if child in seen:
                break
            seen.add(child)
            children[parent].append(child)
            known.setdefault(parent, Module(path=parent))
            child = parent
    known.setdefault("", Module(path=""))
    return children
