"""Calls that need not run: computed twice, never used, the same for every input."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphflops.core.ir import Capture, OpCall, OpRecord, Status, TensorMeta
from graphflops.graph.dataflow import Use


@dataclass(frozen=True, kw_only=True)
class Waste:
    """Calls that need not run, without those that are free.

    Attributes:
        repeated: Records of calls that compute what an earlier call has, each with that of the
            earlier one.
        unused: Records of calls whose results nothing needs.
        constant: Records of calls that depend on no input: on weights and constants alone.
    """

    repeated: tuple[tuple[OpRecord, OpRecord], ...]
    unused: tuple[OpRecord, ...]
    constant: tuple[OpRecord, ...]


def find_waste(
    records: Sequence[OpRecord], uses: Sequence[Use], capture: Capture, random: Collection[int]
) -> Waste:
    """Find the calls of a graph that need not run.

    Args:
        records: Records of its calls.
        uses: Uses of tensors by them.
        capture: The capture, whose inputs and outputs are those of the graph.
        random: Positions of calls that draw random numbers: none is like another.
    """
    flow = _Flow(records, uses, capture, random)
    is_costly = [record.status is not Status.FREE for record in records]
    return Waste(
        repeated=tuple(
            (records[position], records[earlier])
            for position, earlier in flow.repeated()
            if is_costly[position]
        ),
        unused=tuple(records[position] for position in flow.unused() if is_costly[position]),
        constant=tuple(records[position] for position in flow.constant() if is_costly[position]),
    )


class _Flow:
    """Dataflow of a graph by positions of calls."""

    def __init__(
        self,
        records: Sequence[OpRecord],
        uses: Sequence[Use],
        capture: Capture,
        random: Collection[int],
    ) -> None:
        self._calls = [record.call for record in records]
        self._uses: list[list[Use]] = [[] for _ in records]
        for use in uses:
            self._uses[use.consumer].append(use)
        self._capture, self._random = capture, random
        self._made = {out.name for call in self._calls for out in call.outputs}

    def repeated(self) -> Iterator[tuple[int, int]]:
        """Yield the positions of calls that compute what an earlier one has, with that one's.

        The calls are numbered by value: two have one number if operator, arguments and the
        numbers of their tensors are equal, and neither writes or draws random numbers.
        """
        first: dict[Any, int] = {}
        numbers: list[int] = []
        for position, call in enumerate(self._calls):
            number = position
            if not call.writes and position not in self._random:
                number = first.setdefault(self._value_key(position, call, numbers), position)
            numbers.append(number)
            if number != position:
                yield position, number

    def _value_key(self, position: int, call: OpCall, numbers: Sequence[int]) -> Any:
        operands = tuple(
            (use.argument, self._value_of(use, numbers)) for use in self._uses[position]
        )
        attrs = repr(sorted(call.attrs.items()))
        return call.op, call.overload, attrs, operands, call.trip_count, call.phase

    def _value_of(self, use: Use, numbers: Sequence[int]) -> Any:
        if use.producer is None:
            return use.tensor.name
        producer = self._calls[use.producer]
        names = [out.name for out in producer.outputs]
        if use.tensor.name in names:
            return numbers[use.producer], names.index(use.tensor.name)
        # Another tensor in the memory that the producer wrote to.
        return use.producer, use.tensor.name

    def unused(self) -> Iterator[int]:
        """Yield the positions of calls from which nothing leads to an output or a kept write."""
        needed = self._writers_of_outputs() | {
            position
            for position, call in enumerate(self._calls)
            if any(self._is_kept(tensor) for name, tensor in call.tensors() if name in call.writes)
        }
        for position in range(len(self._calls) - 1, -1, -1):
            if position in needed:
                needed.update(u.producer for u in self._uses[position] if u.producer is not None)
        yield from (n for n in range(len(self._calls)) if n not in needed)

    def _writers_of_outputs(self) -> set[int]:
        """Return the positions of calls that the outputs come from, all writes included."""
        memory = {name for out in self._capture.outputs for name in (out.name, out.storage) if name}
        return {
            position
            for position, call in enumerate(self._calls)
            if any(out.name in memory for out in call.outputs)
            or any(
                tensor.name in memory or tensor.storage in memory
                for name, tensor in call.tensors()
                if name in call.writes
            )
        }

    def _is_kept(self, tensor: TensorMeta) -> bool:
        """Return True if a tensor lies in an input, a parameter or a buffer."""
        return (tensor.storage or tensor.name) not in self._made

    def constant(self) -> Iterator[int]:
        """Yield the positions of calls that no input leads to."""
        inputs = {name for name, _ in self._capture.inputs}
        varies: list[bool] = []
        for position, call in enumerate(self._calls):
            is_varying = (
                bool(call.writes)
                or position in self._random
                or any(
                    use.tensor.name in inputs if use.producer is None else varies[use.producer]
                    for use in self._uses[position]
                )
            )
            varies.append(is_varying)
        yield from (position for position, is_varying in enumerate(varies) if not is_varying)
