"""Sequences of calls in which a repeated layer is stored once and expanded on demand.

A transformer is one layer times its depth. The cost of its calls follows from one instance and
the number of instances; the calls of the other instances are built only if they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Generic, TypeVar, overload

from graphflops.core.ir import OpCall, OpRecord, TensorMeta, Tensors

T = TypeVar("T", OpCall, OpRecord)
U = TypeVar("U", OpCall, OpRecord)


@dataclass(frozen=True, slots=True)
class Relocation:
    """Mapping of the calls of one instance of a layer to those of another instance.

    Attributes:
        from_path: Module path of the first instance.
        to_path: Module path of the second instance.
        from_line: Source line that calls the first instance.
        to_line: Source line that calls the second instance.
        names: Names of the second instance's input tensors by those of the first's.
        to_suffix: Suffix of names of tensors computed in the second instance.
        from_suffix: Suffix of names of tensors computed in the first instance.
    """

    from_path: str
    to_path: str
    from_line: str
    to_line: str
    names: Mapping[str, str]
    to_suffix: str
    from_suffix: str = ""

    def relocate(self, call: OpCall, index: int) -> OpCall:
        """Return the call of the second instance that corresponds to one of the first."""
        # As dataclasses.replace does, without its checks, which take twice as long.
        other = object.__new__(OpCall)
        other.__dict__.update(
            call.__dict__,
            index=index,
            same_as=call.template_index,
            module_path=self.map_path(call.module_path),
            name=self._replace_suffix(call.name),
            source_line=self.to_line if call.source_line == self.from_line else call.source_line,
            inputs={name: self._map_tensors(value) for name, value in call.inputs.items()},
            outputs=tuple([self._map_tensor(meta) for meta in call.outputs]),
        )
        return other

    @overload
    def apply(self, item: OpCall, shift: int) -> OpCall: ...
    @overload
    def apply(self, item: OpRecord, shift: int) -> OpRecord: ...
    def apply(self, item: OpCall | OpRecord, shift: int) -> OpCall | OpRecord:
        """Return the call or record of the second instance, its index shifted.

        A record keeps its cost: equal calls cost the same.
        """
        if isinstance(item, OpCall):
            return self.relocate(item, item.index + shift)
        call = self.relocate(item.call, item.call.index + shift)
        return OpRecord(call=call, status=item.status, cost=item.cost, parts=item.parts)

    def map_name(self, name: str) -> str:
        """Return the name of the second instance's tensor for one of the first's."""
        return self.names.get(name) or (name and self._replace_suffix(name))

    def map_path(self, path: str) -> str:
        """Return the path in the second instance; paths outside of the layer are unchanged."""
        return replace_prefix(path, self.from_path, self.to_path)

    def _replace_suffix(self, name: str) -> str:
        return name.removesuffix(self.from_suffix) + self.to_suffix

    def _map_tensor(self, meta: TensorMeta) -> TensorMeta:
        name, storage = self.map_name(meta.name), meta.storage and self.map_name(meta.storage)
        # Not by `replace`, which takes three times as long.
        return TensorMeta(
            *(meta.shape, meta.dtype, meta.strides, name),
            *(meta.sparse, meta.masked_elements, meta.known_values),
            # What is a view in the first instance may be none in the second.
            "" if storage == name else storage,
        )

    def _map_tensors(self, value: Tensors) -> Tensors:
        if isinstance(value, tuple):
            return tuple([item and self._map_tensor(item) for item in value])
        return self._map_tensor(value)


def replace_prefix(path: str, prefix: str, replacement: str) -> str:
    """Replace a module path, or the leading part of one; other paths are unchanged."""
    is_inside = path == prefix or path.startswith(prefix + ".")
    return replacement + path[len(prefix) :] if is_inside else path


@dataclass(slots=True, eq=False)
class Block(Generic[T]):
    """Recorded calls of one instance of a layer; compared by identity, as a key of caches.

    Attributes:
        start: Index of its first call.
        items: Its calls or their records.
        length: Number of them, repeats expanded.
    """

    start: int
    items: tuple[T | Repeat[T], ...]
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = length(self.items)


@dataclass(frozen=True, slots=True, eq=False)
class Repeat(Generic[T]):
    """Repeat of a block for another instance of the layer.

    Attributes:
        start: Index of its first call.
        block: Calls of the first instance.
        relocation: Mapping from the first instance to this one.
    """

    start: int
    block: Block[T]
    relocation: Relocation

    @property
    def shift(self) -> int:
        """Difference between the indices of its calls and those of the block's."""
        return self.start - self.block.start

    def expand(self) -> Iterator[T]:
        """Yield the calls of this instance, or their records."""
        shift = self.shift
        for item in expand(self.block.items):
            yield self.relocation.apply(item, shift)


def expand(items: Iterable[T | Repeat[T]]) -> Iterator[T]:
    """Yield calls or records in order, repeats expanded."""
    for item in items:
        if isinstance(item, Repeat):
            yield from item.expand()
        else:
            yield item


def length(items: Iterable[T | Repeat[T]]) -> int:
    """Return the number of calls or records, repeats expanded."""
    return sum(item.block.length if isinstance(item, Repeat) else 1 for item in items)


class CallSequence(Sequence[T]):
    """Calls or records in order, with repeats of layers unexpanded.

    Attributes:
        items: Single calls or records, and repeats of a block.
    """

    def __init__(self, items: Iterable[T | Repeat[T]]) -> None:
        self.items: tuple[T | Repeat[T], ...] = tuple(items)

    @classmethod
    def of(cls, items: Iterable[T]) -> CallSequence[T]:
        """Return a sequence of calls or records; one that is a CallSequence already, as it is."""
        return items if isinstance(items, CallSequence) else cls(items)

    @cached_property
    def _expanded(self) -> tuple[T, ...]:
        return tuple(expand(self.items))

    def __len__(self) -> int:
        return length(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._expanded)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self._expanded[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._expanded == tuple(other)

    def __hash__(self) -> int:
        return hash(self._expanded)

    def __repr__(self) -> str:
        return repr(self._expanded)

    def map_items(self, function: Callable[[T], Iterable[U]]) -> CallSequence[U]:
        """Return the results of a function of each item; a repeated block is mapped once.

        Args:
            function: Function from an item to its replacements: one, none or several.
        """

        @cache
        def map_block(block: Block[T]) -> Block[U]:
            return Block(block.start, tuple(map_all(block.items)))

        def map_all(items: Iterable[T | Repeat[T]]) -> Iterator[U | Repeat[U]]:
            for item in items:
                if not isinstance(item, Repeat):
                    yield from function(item)
                elif (block := map_block(item.block)).items:
                    yield Repeat(item.start, block, item.relocation)

        return CallSequence(map_all(self.items))

    def distinct(self) -> Iterator[T]:
        """Yield all items, but those of a repeated block once."""
        visited: set[Block[T]] = set()

        def walk(items: Iterable[T | Repeat[T]]) -> Iterator[T]:
            for item in items:
                if not isinstance(item, Repeat):
                    yield item
                elif item.block not in visited:
                    visited.add(item.block)
                    yield from walk(item.block.items)

        return walk(self.items)

    def expand_where(self, predicate: Callable[[T], bool]) -> CallSequence[T]:
        """Return the sequence with repeats expanded that contain items of some kind.

        Args:
            predicate: Function that returns True for an item of that kind.
        """

        @cache
        def contains(block: Block[T]) -> bool:
            return any(map(matches, block.items))

        def matches(item: T | Repeat[T]) -> bool:
            return contains(item.block) if isinstance(item, Repeat) else predicate(item)

        def expand_matching() -> Iterator[T | Repeat[T]]:
            for item in self.items:
                if isinstance(item, Repeat) and contains(item.block):
                    yield from item.expand()
                else:
                    yield item

        return CallSequence(expand_matching())
