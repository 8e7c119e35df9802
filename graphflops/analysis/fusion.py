"""Fusion: operators that run as one kernel, and the bytes that then stay on chip.

The rule, on the calls of a pass in their order:

- a pointwise operator joins the kernel that the last of its inputs comes from, if that kernel is a
  chain of pointwise operators or ends with one after a contraction;
- a reduction (a sum, a softmax, a norm) joins a chain of pointwise operators, and ends it;
- all else is a kernel of its own.

Within a kernel each tensor is read once, what it makes itself is not read, and what no other
kernel and no other pass reads is not written. The operands of a contraction are read for
themselves: tiles of them pass by at another time than those of the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from graphflops.analysis.fusible_operators import Fusibility, distinct_inputs, fusibility
from graphflops.core.cost import Dim
from graphflops.core.ir import OpRecord, TensorMeta


@dataclass(slots=True, eq=False)
class FusedKernel:
    """Calls that run as one kernel.

    Attributes:
        records: Their records with a cost, in order.
        on_chip: Bytes that each of them reads and writes which do not reach the memory.
        kind: What can join it: pointwise operators to a chain of them and to a contraction,
            reductions to a chain.
        position: Number of kernels before it.
    """

    records: list[OpRecord]
    on_chip: list[Dim]
    kind: Fusibility
    position: int

    @property
    def main(self) -> OpRecord:
        """Record that stands for the kernel: its contraction, its reduction or its last one."""
        return self.records[0 if self.kind is Fusibility.CONTRACTION else -1]

    def add(self, record: OpRecord) -> None:
        """Append a record, of which all bytes reach the memory so far."""
        self.records.append(record)
        self.on_chip.append(0)


class _Version(NamedTuple):
    """Content of a storage until it is written into again."""

    storage: str
    number: int


@dataclass(slots=True)
class _Content:
    """Kernels that make and read the content of a storage.

    Attributes:
        maker: Kernel and position in it of the call that makes it.
        written: Bytes written by that call.
        reads: Reads of each kernel: position of the call, name of the tensor, bytes; none of
            those that are never on chip.
    """

    maker: tuple[FusedKernel, int] | None = None
    written: Dim = 0
    reads: defaultdict[FusedKernel, list[tuple[int, str, Dim]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def fuse(records: Iterable[OpRecord], kept: frozenset[str] = frozenset()) -> list[FusedKernel]:
    """Return the kernels of a pass in order; calls without cost are in none.

    Args:
        records: Records of the pass.
        kept: Names of storages that are read after the pass: its outputs, and what others read.
    """
    fusion = _Fusion(kept)
    for record in records:
        fusion.add(record)
    return fusion.finish()


class _Fusion:
    def __init__(self, kept: frozenset[str]) -> None:
        self._kernels: list[FusedKernel] = []
        self._kept = set(kept)
        self._aliases: dict[str, str] = {}
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self._contents: defaultdict[_Version, _Content] = defaultdict(_Content)

    def add(self, record: OpRecord) -> None:
        call, cost = record.call, record.cost
        inputs = list(distinct_inputs(call).values())
        if cost is None or not (cost.flops or cost.bytes_read or cost.bytes_written):
            self._alias(inputs, call.outputs)
            return
        kind = fusibility(call, cost)
        read = [(self._contents[self._version(tensor)], tensor) for tensor in inputs]
        kernel = self._kernel(kind, [content for content, _ in read])
        kernel.add(record)
        position = len(kernel.records) - 1
        for content, tensor in read:
            reads = content.reads[kernel]
            if kind in _JOINING:
                reads.append((position, tensor.name, tensor.nbytes))
        if kind is Fusibility.NONE:
            self._kept |= {self._storage(t) for name, t in call.tensors() if name in call.writes}
        for tensor in call.outputs:
            self._numbers[self._storage(tensor)] += bool(call.writes)
            content = self._contents[self._version(tensor)]
            content.maker, content.written = (kernel, position), tensor.nbytes

    def _kernel(self, kind: Fusibility, read: list[_Content]) -> FusedKernel:
        """Return the kernel that a call joins: that of the last input, or a new one.

        No kernel reads from a later one, so that they can run in their order.
        """
        makers = [content.maker[0] for content in read if content.maker is not None]
        last = max(makers, key=lambda kernel: kernel.position, default=None)
        if last is not None and last.kind in _JOINING.get(kind, ()):
            if kind is Fusibility.REDUCTION:
                last.kind = kind
            return last
        kernel = FusedKernel([], [], kind, len(self._kernels))
        self._kernels.append(kernel)
        return kernel

    def _alias(self, inputs: list[TensorMeta], outputs: tuple[TensorMeta, ...]) -> None:
        """Note that a call hands on its input: a view, a dropout in evaluation."""
        for tensor in outputs:
            if inputs and not tensor.storage:
                self._aliases[tensor.name] = self._storage(inputs[0])

    def _storage(self, tensor: TensorMeta) -> str:
        name = tensor.storage or tensor.name or f"#{id(tensor)}"
        return self._aliases.get(name, name)

    def _version(self, tensor: TensorMeta) -> _Version:
        storage = self._storage(tensor)
        return _Version(storage, self._numbers[storage])

    def finish(self) -> list[FusedKernel]:
        for version, content in self._contents.items():
            maker, position = content.maker or (None, 0)
            for kernel, reads in content.reads.items():
                seen: set[str] = set()
                for reader, name, nbytes in reads:
                    if kernel is maker or name in seen:
                        kernel.on_chip[reader] += nbytes
                    seen.add(name)
            is_read_elsewhere = version.storage in self._kept or set(content.reads) != {maker}
            if maker is not None and not is_read_elsewhere:
                maker.on_chip[position] += content.written
        return self._kernels


_JOINING = {
    Fusibility.POINTWISE: (Fusibility.POINTWISE, Fusibility.CONTRACTION),
    Fusibility.REDUCTION: (Fusibility.POINTWISE,),
}
"""Kinds of kernels that a call of a kind joins."""
