"""Records of the tensors on a tape, by identity; no tensor is kept alive by its record.

A tape that held on to tensors would hide when PyTorch frees them.
"""

from __future__ import annotations

from weakref import ref

import torch

from graphflops.core.ir import TensorMeta


class TensorRecord(ref[torch.Tensor]):
    """Weak reference to a tensor, with what a tape knows about the tensor.

    Attributes:
        key: Id of the tensor, unique while it is alive.
        name: Name of the tensor; empty until it has one.
        meta: Its metadata, if a call has used it since it was named.
        depends_on_inputs: True if the tensor depends on inputs of the model.
    """

    __slots__ = ("depends_on_inputs", "key", "meta", "name")
    key: int
    name: str
    meta: TensorMeta | None
    depends_on_inputs: bool
    # A reference compares by its tensor, which a record outlives.
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class TensorRecords:
    """Records of the tensors that are alive."""

    def __init__(self) -> None:
        self._records: dict[int, TensorRecord] = {}

    def find(self, tensor: torch.Tensor) -> TensorRecord | None:
        """Return the record of a tensor, if it has one."""
        return self._records.get(id(tensor))

    def of(self, tensor: torch.Tensor) -> TensorRecord:
        """Return the record of a tensor; a new one has no name."""
        key = id(tensor)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = TensorRecord(tensor, self._forget)
            record.key, record.name, record.meta, record.depends_on_inputs = key, "", None, False
        return record

    def name_of(self, tensor: torch.Tensor) -> str:
        """Return the name of a tensor, or ``""`` if it has none yet."""
        record = self._records.get(id(tensor))
        return "" if record is None else record.name

    def names(self) -> list[str]:
        """Return the names of the tensors, in the order of their records."""
        return [record.name for record in self._records.values() if record.name]

    def _forget(self, record: ref[torch.Tensor]) -> None:
        key = record.key  # type: ignore[attr-defined]  # a TensorRecord
        if self._records.get(key) is record:
            del self._records[key]
