"""Dataflow: which call produces each tensor that a call uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphflops.core.ir import OpCall, TensorMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Use of a tensor by a call.

    Attributes:
        consumer: Position of the call that uses it.
        argument: Schema name of the argument.
        tensor: The tensor.
        producer: Position of the call that the tensor's value comes from: the last one that wrote
            to its memory, or else the one that returned it. ``None`` for an input, a parameter,
            a buffer or a constant.
    """

    consumer: int
    argument: str
    tensor: TensorMeta
    producer: int | None


def uses(calls: Sequence[OpCall]) -> Iterator[Use]:
    """Yield each use of a tensor by a call, in order.

    A write in place counts as producing all tensors in the memory that it writes to, views
    included.

    Example:
        >>> x, y = TensorMeta((2,), name="x"), TensorMeta((2,), name="relu")
        >>> relu = OpCall(op="aten::relu", inputs={"self": x}, outputs=(y,), name="relu")
        >>> exp = OpCall(op="aten::exp", inputs={"self": y}, name="exp")
        >>> [(use.producer, use.consumer, use.tensor.name) for use in uses([relu, exp])]
        [(None, 0, 'x'), (0, 1, 'relu')]
    """
    versions = _Versions()
    for position, call in enumerate(calls):
        written = []
        for argument, tensor in call.tensors():
            yield Use(
                consumer=position,
                argument=argument,
                tensor=tensor,
                producer=versions.producer(tensor),
            )
            if argument in call.writes:
                written.append(tensor)
        versions.record(position, call, written)


class _Versions:
    """Positions of the calls that the values of tensors come from."""

    def __init__(self) -> None:
        self._returned: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._storages: dict[str, str] = {}

    def producer(self, tensor: TensorMeta) -> int | None:
        """Return the position of the call that the value of a tensor comes from."""
        positions = (
            self._returned.get(tensor.name),
            self._written.get(self._storage(tensor)),
        )
        return max((p for p in positions if p is not None), default=None)

    def record(self, position: int, call: OpCall, written: Sequence[TensorMeta]) -> None:
        """Record what a call returns and what it has written to."""
        for tensor in written:
            self._written[self._storage(tensor)] = position
        for out in call.outputs:
            self._storages.setdefault(out.name, self._storage(out))
            self._returned[out.name] = position

    def _storage(self, tensor: TensorMeta) -> str:
        # What the call that returned a tensor says of its memory holds: of a repeated layer,
        # later calls see only a copy of its results.
        if tensor.name in self._storages:
            return self._storages[tensor.name]
        name = tensor.storage or tensor.name
        return self._storages.get(name, name)
