"""Values of tensors that are known, and where they are from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from graphflops.capture.fake.leaves import fakes_in, is_real, storage_ref, tensors_in
from graphflops.capture.fake.metadata import written_tensors
from graphflops.capture.fake.tensor_map import TensorMap
from graphflops.capture.fake.value_lookup import UNKNOWN, lookup_all
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree

# Large enough for the positions and masks of a long prompt, too small for results on pixels.
MAX_VALUE_NUMEL = 1 << 20


class KnownValues:
    """Values of fake tensors, and the origins that they follow from.

    Attributes:
        origins: Origins of tensors: values of inputs, random numbers.
    """

    def __init__(self) -> None:
        self._values: TensorMap[torch.Tensor] = TensorMap()
        self.origins: TensorMap[set[str]] = TensorMap()
        # Weak references, not addresses: another storage could reuse the same address.
        self._stale: set[StorageWeakRef] = set()

    def lookup(self, leaf: Any) -> Any:
        """Return the value of a leaf of a pytree, or ``UNKNOWN``."""
        if type(leaf) is not FakeTensor:
            if isinstance(leaf, torch.device):
                return torch.device("cpu")
            if isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool):
                return UNKNOWN
            if not isinstance(leaf, torch.Tensor):
                return leaf
            # A tensor that is not fake is a constant of the model's code.
            if is_real(leaf):
                is_known = leaf.numel() <= MAX_VALUE_NUMEL and storage_ref(leaf) not in self._stale
                return leaf if is_known else UNKNOWN
        value = self._values.get(leaf)
        is_stale = value is not None and bool(self._stale) and storage_ref(value) in self._stale
        return UNKNOWN if value is None or is_stale else value

    def compute(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return the result of an operator on known values, or ``UNKNOWN``.

        What it writes to has an unknown value from then on, unless it could run.
        """
        values = lookup_all(self.lookup, (args, kwargs))
        # A count never writes to a tensor of the model.
        if func._schema.is_mutable and (values is UNKNOWN or any(map(is_real, tensors_in(args)))):
            self.invalidate(written_tensors(func, args, kwargs))
            return UNKNOWN
        if values is UNKNOWN:
            return UNKNOWN
        try:
            with no_modes():
                return func(*values[0], **values[1])
        except NotImplementedError:  # no kernel for the CPU, where values are
            return UNKNOWN

    def has_had_value(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor has a value, or had one that a write has changed."""
        return tensor in self._values

    @property
    def maps(self) -> tuple[TensorMap[Any], ...]:
        """Maps of the tensors of whose value something is known."""
        return self._values, self.origins

    def assign(self, out: Any, values: Any) -> None:
        """Assign values to the tensors of a result; ``UNKNOWN`` changes nothing."""
        if values is not UNKNOWN and type(out) is FakeTensor:
            self._values[out] = values
        elif values is not UNKNOWN:
            for fake, leaf in zip(pytree.tree_leaves(out), pytree.tree_leaves(values), strict=True):
                if isinstance(fake, torch.Tensor):
                    self._values[fake] = leaf

    def invalidate(self, tensors: Iterable[torch.Tensor]) -> None:
        """Forget the values in the storages of tensors: an operator writes unknown data there."""
        for tensor in tensors:
            value = tensor if is_real(tensor) else self._values.get(tensor)
            if value is not None:
                self._stale.add(storage_ref(value))

    def propagate_origins(self, out: Any, args: Any) -> set[str]:
        """Assign the origins of ``args`` to ``out``, and return them."""
        if not self.origins:
            return set()
        origins: set[str] = set().union(*(self.origins.get(t) or () for t in fakes_in(args)))
        if origins:
            for fake in fakes_in(out):
                self.origins[fake] = origins
        return origins
