"""Calls in which a repeated layer stands once, and is unfolded where somebody looks.

A transformer is one layer times its depth. What its calls cost is known from one instance and
the number of them; the calls of the others are written out when they are asked for.
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
    """From the calls of one instance of a layer to those of another.

    Attributes:
        was: The path of the one.
        path: The path of the other.
        was_source: The line that calls the one.
        source: The line that calls the other.
        names: Of the tensors that the other gets, by the names of those that the one got.
        suffix: What names of tensors end in in the other.
        dropped: What they end in in the one.
    """

    was: str
    path: str
    was_source: str
    source: str
    names: Mapping[str, str]
    suffix: str
    dropped: str = ""

    def of(self, call: OpCall, index: int) -> OpCall:
        """The call that stands in the place of one."""
        # What dataclasses.replace does, without checks that take twice as long.
        other = object.__new__(OpCall)
        other.__dict__.update(
            call.__dict__,
            index=index,
            same_as=call.template_index,
            module_path=self.moved(call.module_path),
            name=self._own(call.name),
            source_line=self.source if call.source_line == self.was_source else call.source_line,
            inputs={name: self._tensors(value) for name, value in call.inputs.items()},
            outputs=tuple([self._tensor(meta) for meta in call.outputs]),
        )
        return other

    @overload
    def apply(self, item: OpCall, shift: int) -> OpCall: ...
    @overload
    def apply(self, item: OpRecord, shift: int) -> OpRecord: ...
    def apply(self, item: OpCall | OpRecord, shift: int) -> OpCall | OpRecord:
        """The same of a call or of its record, which costs the same, some places further on."""
        if isinstance(item, OpCall):
            return self.of(item, item.index + shift)
        call = self.of(item.call, item.call.index + shift)
        return OpRecord(call=call, status=item.status, cost=item.cost, parts=item.parts)

    def name(self, name: str) -> str:
        """The name of the tensor that stands in the place of one."""
        return self.names.get(name) or (name and self._own(name))

    def moved(self, path: str) -> str:
        """The path that stands in the place of one; what is outside of the layer stays."""
        return moved(path, self.was, self.path)

    def _own(self, name: str) -> str:
        return name.removesuffix(self.dropped) + self.suffix

    def _tensor(self, meta: TensorMeta) -> TensorMeta:
        # Not by `replace`, which takes three times as long.
        return TensorMeta(
            *(meta.shape, meta.dtype, meta.strides, self.name(meta.name)),
            *(meta.sparse, meta.masked_elements, meta.known_values),
        )

    def _tensors(self, value: Tensors) -> Tensors:
        if isinstance(value, tuple):
            return tuple([item and self._tensor(item) for item in value])
        return self._tensor(value)


def moved(path: str, was: str, now: str) -> str:
    """A path below one module as it is below another; other paths stay."""
    return now + path[len(was) :] if path == was or path.startswith(was + ".") else path


@dataclass(slots=True, eq=False)
class Block(Generic[T]):
    """What was recorded of a layer; it is like itself alone, and so a key of caches.

    Attributes:
        start: The index of its first call.
        items: Its calls, or the records of them.
        length: How many that are, repetitions written out.
    """

    start: int
    items: tuple[T | Repeat[T], ...]
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = length(self.items)


@dataclass(frozen=True, slots=True, eq=False)
class Repeat(Generic[T]):
    """A block again, for another instance of the layer.

    Attributes:
        start: The index of its first call.
        block: What is repeated.
        change: What is different.
    """

    start: int
    block: Block[T]
    change: Relocation

    def expand(self) -> Iterator[T]:
        """Its calls, or their records."""
        shift = self.start - self.block.start
        for item in expand(self.block.items):
            yield self.change.apply(item, shift)


def expand(items: Iterable[T | Repeat[T]]) -> Iterator[T]:
    """Calls or records one after the other, repetitions written out."""
    for item in items:
        if isinstance(item, Repeat):
            yield from item.expand()
        else:
            yield item


def length(items: Iterable[T | Repeat[T]]) -> int:
    """How many there are, repetitions written out."""
    return sum(item.block.length if isinstance(item, Repeat) else 1 for item in items)


class CallSequence(Sequence[T]):
    """Calls or records in order, with the repetitions among them.

    Attributes:
        items: Single ones, and repetitions of a layer before.
    """

    def __init__(self, items: Iterable[T | Repeat[T]]) -> None:
        self.items: tuple[T | Repeat[T], ...] = tuple(items)

    @classmethod
    def of(cls, several: Iterable[T]) -> CallSequence[T]:
        """Some calls or records, as they are if they are folded already."""
        return several if isinstance(several, CallSequence) else cls(several)

    @cached_property
    def _all(self) -> tuple[T, ...]:
        return tuple(expand(self.items))

    def __len__(self) -> int:
        return length(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self._all[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return repr(self._all)

    def map_items(self, change: Callable[[T], Iterable[U]]) -> CallSequence[U]:
        """What becomes of each; what is repeated is changed once.

        Args:
            change: From one to what takes its place: one, none or several.
        """

        @cache
        def changed(block: Block[T]) -> Block[U]:
            return Block(block.start, tuple(through(block.items)))

        def through(items: Iterable[T | Repeat[T]]) -> Iterator[U | Repeat[U]]:
            for item in items:
                if not isinstance(item, Repeat):
                    yield from change(item)
                elif (block := changed(item.block)).items:
                    yield Repeat(item.start, block, item.change)

        return CallSequence(through(self.items))

    def distinct(self) -> Iterator[T]:
        """All, but for each block that is repeated once."""
        seen: set[Block[T]] = set()

        def through(items: Iterable[T | Repeat[T]]) -> Iterator[T]:
            for item in items:
                if not isinstance(item, Repeat):
                    yield item
                elif item.block not in seen:
                    seen.add(item.block)
                    yield from through(item.block.items)

        return through(self.items)

    def expand_where(self, where: Callable[[T], bool]) -> CallSequence[T]:
        """The same, without repetitions that repeat something of a kind.

        Args:
            where: Whether one is of that kind.
        """

        @cache
        def has(block: Block[T]) -> bool:
            return any(map(is_or_has, block.items))

        def is_or_has(item: T | Repeat[T]) -> bool:
            return has(item.block) if isinstance(item, Repeat) else where(item)

        def through() -> Iterator[T | Repeat[T]]:
            for item in self.items:
                if isinstance(item, Repeat) and has(item.block):
                    yield from item.expand()
                else:
                    yield item

        return CallSequence(through())
