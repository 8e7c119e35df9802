"""Fake sparse tensors with sparsity patterns, and shape rules for operators on them.

torch's fake sparse tensors store nothing, and few of its shape rules support them. Here each
fake tensor has a pattern, a real sparse tensor with the same indices. An operator runs on the
patterns, and its result is the pattern of the fake result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import SparseStorage
from graphflops.errors import CaptureError

_aten: Any = torch.ops.aten
_PATTERN = "graphflops_pattern"
_ROWS = {torch.sparse_csr, torch.sparse_bsr}


class KnownPart(IntEnum):
    """Known part of a sparsity pattern: nothing, the number of elements, or their indices."""

    NOTHING = 0
    NNZ = 1
    INDICES = 2


@dataclass(frozen=True, slots=True)
class SparsityPattern:
    """Sparsity pattern of a tensor.

    Attributes:
        sample: Real sparse tensor of the same layout and shape.
        known_part: Part of the sample's pattern that is that of the tensor.
    """

    sample: torch.Tensor
    known_part: KnownPart


def is_sparse(tensor: torch.Tensor) -> bool:
    """Return True for a tensor of a sparse layout."""
    return tensor.layout is not torch.strided and not tensor.is_mkldnn


def pattern_of(tensor: torch.Tensor) -> SparsityPattern:
    """Return the pattern of a sparse tensor."""
    pattern: SparsityPattern | None = vars(tensor).get(_PATTERN)
    if pattern is not None:
        return pattern
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        # A tensor that was moved to meta has lost its elements.
        has_elements = not isinstance(tensor, FakeTensor) and _components(tensor)[-1].numel()
        known_part = KnownPart.NNZ if has_elements else KnownPart.NOTHING
        return SparsityPattern(_zeros_like(tensor, "cpu"), known_part)
    with no_modes():
        return SparsityPattern(tensor.detach(), KnownPart.INDICES)


def sparse_storage(tensor: torch.Tensor) -> SparseStorage | None:
    """Return the stored elements and index bytes of a sparse tensor; None for a dense one."""
    if not is_sparse(tensor):
        return None
    pattern = pattern_of(tensor)
    if pattern.known_part is KnownPart.NOTHING:
        return SparseStorage(None)
    with no_modes():
        *indices, values = _components(pattern.sample)
        return SparseStorage(values.numel(), sum(index.nbytes for index in indices))


def _components(sample: torch.Tensor) -> list[torch.Tensor]:
    """Return the indices and the values of a sparse tensor."""
    if sample.layout is torch.sparse_coo:
        return [sample._indices(), sample._values()]
    if sample.layout in _ROWS:
        return [sample.crow_indices(), sample.col_indices(), sample.values()]
    return [sample.ccol_indices(), sample.row_indices(), sample.values()]


def _zeros_like(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Return a sparse tensor with as many elements, at meaningless indices."""
    options: Any = {"dtype": tensor.dtype, "layout": tensor.layout, "device": device}
    zeros: torch.Tensor
    with no_modes():
        parts = [torch.zeros_like(part, device=device) for part in _components(tensor)]
        if tensor.layout is torch.sparse_coo:
            dims = tensor.sparse_dim(), tensor.dense_dim(), tensor.shape
            zeros = _aten._sparse_coo_tensor_with_dims_and_tensors(*dims, *parts, **options)
            zeros._coalesced_(tensor.is_coalesced())
        else:
            zeros = _aten._sparse_compressed_tensor_unsafe(*parts, tensor.shape, **options)
    return zeros


SPARSE_CONSTRUCTORS = frozenset(
    {
        *(_aten.sparse_coo_tensor.size, _aten._sparse_coo_tensor_with_dims.default),
        _aten._sparse_coo_tensor_with_dims_and_tensors.default,
        _aten.sparse_compressed_tensor.comp_plain_value_size,
        _aten._sparse_compressed_tensor_unsafe.default,
        _aten._sparse_compressed_tensor_with_dims.default,
        *(_aten._to_sparse.default, _aten._to_sparse.sparse_dim, _aten._to_sparse_csr.default),
        *(_aten._to_sparse_csc.default, _aten._to_sparse_bsr.default),
        *(_aten._to_sparse_bsc.default, _aten._spdiags.default),
    }
)
"""Operators that construct sparse tensors from dense ones."""
VALUE_DEPENDENT = frozenset(
    {
        *(_aten._to_sparse.default, _aten._to_sparse.sparse_dim, _aten._to_sparse_csr.default),
        *(_aten._to_sparse_csc.default, _aten._to_sparse_bsr.default),
        *(_aten._to_sparse_bsc.default, _aten._spdiags.default),
    }
)
"""Constructors that store the nonzero values; the others store all the values they are given."""
_INDICES = {
    *(_aten.indices.default, _aten._indices.default, _aten.crow_indices.default),
    *(_aten.col_indices.default, _aten.ccol_indices.default, _aten.row_indices.default),
}
_ACCESSORS = _INDICES | {_aten.values.default, _aten._values.default, _aten._nnz.default}
# Operators that return as many elements as they get, whatever the indices.
_NNZ_PRESERVING = (
    (SPARSE_CONSTRUCTORS - VALUE_DEPENDENT)
    | _ACCESSORS
    | {
        *(_aten.t.default, _aten.transpose.int, _aten.permute.default, _aten.unsqueeze.default),
        *(_aten.clone.default, _aten.detach.default, _aten.alias.default),
        *(_aten._to_copy.default, _aten._sparse_softmax.default, _aten.sparse_mask.default),
        *(_aten._sparse_log_softmax.default, _aten.sparse_sampled_addmm.default),
    }
)
# Operators that return a dense tensor if an operand is dense, with the operator that gives it.
_DENSE_RESULT = {
    **{product: product for product in (_aten.mm.default, _aten.mv.default, _aten.bmm.default)},
    **{scaled: scaled for scaled in (_aten.addmm.default, _aten.addmv.default)},
    _aten._sparse_addmm.default: _aten.addmm.default,
    _aten._to_dense.default: _aten.clone.default,
}


class SparseRules:
    """Shape rules of operators on fake sparse tensors.

    Attributes:
        in_use: True if a fake sparse tensor was made.

    Args:
        mode: Mode of the fake tensors.
        value: Function that returns the value of a dense tensor, if it is known.
    """

    def __init__(
        self, mode: FakeTensorMode, value: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> None:
        self.in_use = False
        self._mode, self._value, self._dispatch = mode, value, mode.dispatch

    def fake(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return the fake tensor of a real one, with its sparsity pattern."""
        self.in_use = True
        return self._fake(pattern_of(tensor), device)

    def size(self, indices: torch.Tensor, values: torch.Tensor) -> tuple[int, ...]:
        """Return the smallest size of a sparse tensor with some indices.

        Raises:
            CaptureError: The indices are not known.
        """
        value = self._value(indices)
        if value is None:
            line = current_source_line()
            raise CaptureError(
                f"torch.sparse_coo_tensor{f' at {line}' if line else ''} is given no size, and the "
                "indices that it follows from are computed. Give it a size."
            )
        with no_modes():
            return (*(int(last) + 1 for last in value.amax(1)), *values.shape[1:])

    def applies(self, args: Any, kwargs: Mapping[str, Any]) -> bool:
        """Return True if any tensor among the arguments is sparse."""
        return any(map(is_sparse, tensors_in((args, kwargs))))

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return the result of an operator on fake tensors some of which are sparse.

        Raises:
            CaptureError: A size follows from the indices of elements, and they are not known.
        """
        self.in_use = True
        sparse = [is_sparse(tensor) for tensor in tensors_in((args, kwargs))]
        if func in _DENSE_RESULT and (len(sparse) == 1 or not all(sparse)):
            args = pytree.tree_map_only(torch.Tensor, self._as_dense, args)
            return self._dispatch(_DENSE_RESULT[func], (), args[: len(sparse)], kwargs)
        known_part = self._known_part(func, args, kwargs)
        if known_part is KnownPart.NOTHING and func in _ACCESSORS:
            line = current_source_line()
            raise CaptureError(
                f"how much a sparse tensor stores is asked for{f' at {line}' if line else ''}, and "
                "it follows from values that nobody knows. Give the model the sparse tensor itself "
                "as an input."
            )
        return self._run_on_samples(func, args, kwargs, known_part)

    def _run_on_samples(
        self, func: Any, args: Any, kwargs: Mapping[str, Any], known_part: KnownPart
    ) -> Any:
        """Run an operator on samples, and return its result as fake tensors."""
        fakes: dict[int, torch.Tensor] = {}

        def to_sample(tensor: torch.Tensor) -> torch.Tensor:
            sample = self._sample(tensor)
            if func._schema.is_mutable:
                sample = sample.clone()
            fakes[id(sample)] = tensor
            return sample

        with no_modes():
            samples, sample_kwargs = pytree.tree_map_only(
                torch.Tensor, to_sample, (args, dict(kwargs))
            )
            result = func(*_on_cpu(samples), **_on_cpu(sample_kwargs))
        device = next((tensor.device for tensor in tensors_in(args)), torch.device("cpu"))

        def to_fake(sample: torch.Tensor) -> torch.Tensor:
            if not is_sparse(sample):
                return self._fake_dense(sample, device)
            pattern = SparsityPattern(sample, known_part)
            if (argument := fakes.get(id(sample))) is None:
                return self._fake(pattern, device)
            vars(argument)[_PATTERN] = pattern
            return argument

        return pytree.tree_map_only(torch.Tensor, to_fake, result)

    def _known_part(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> KnownPart:
        """Return the part of a result's pattern that is known."""
        tensors = tensors_in((args, kwargs))
        sparse = [tensor for tensor in tensors if is_sparse(tensor)]
        parts = (pattern_of(tensor).known_part for tensor in sparse)
        known_part = min(parts, default=KnownPart.INDICES)
        deciding = [t for t in tensors if not is_sparse(t) and self._decides_pattern(func, t)]
        if any(self._value(tensor) is None for tensor in deciding):
            known_part = min(known_part, KnownPart.NNZ)
        is_pointwise = torch.Tag.pointwise in func.tags and len(sparse) == 1
        keeps_nnz = func in _NNZ_PRESERVING or is_pointwise
        return KnownPart.NOTHING if known_part is KnownPart.NNZ and not keeps_nnz else known_part

    def _decides_pattern(self, func: Any, tensor: torch.Tensor) -> bool:
        """Return True if values of a dense operand may decide the indices of the result."""
        return not tensor.is_floating_point() or func in VALUE_DEPENDENT

    def _sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a real tensor in place of a fake one."""
        if is_sparse(tensor):
            return pattern_of(tensor).sample
        value = self._value(tensor)
        if value is not None:
            return value
        if tensor._has_symbolic_sizes_strides:
            raise CaptureError(
                "a sparse tensor is made of one with symbolic sizes: where its elements lie is "
                "not known for all of them. Give sizes as numbers."
            )
        shape = tuple(tensor.shape)
        if tensor.is_floating_point() or tensor.is_complex():
            return torch.ones((), dtype=tensor.dtype).expand(shape)
        return torch.zeros(shape, dtype=tensor.dtype)

    def _fake(self, pattern: SparsityPattern, device: torch.device) -> torch.Tensor:
        meta = _zeros_like(pattern.sample, "meta")
        with no_modes():
            fake = FakeTensor(self._mode, meta, device)
        vars(fake)[_PATTERN] = pattern
        return fake

    def _as_dense(self, tensor: torch.Tensor) -> torch.Tensor:
        if not is_sparse(tensor):
            return tensor
        with no_modes():
            meta = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            return FakeTensor(self._mode, meta, tensor.device)

    def _fake_dense(self, dense: torch.Tensor, device: torch.device) -> torch.Tensor:
        with no_modes():
            shape, strides = dense.shape, dense.stride()
            meta = torch.empty_strided(shape, strides, dtype=dense.dtype, device="meta")
            return FakeTensor(self._mode, meta, device)


def _on_cpu(tree: Any) -> Any:
    """Return arguments with every device replaced by the CPU, where samples are."""
    return pytree.tree_map_only(torch.device, lambda _: torch.device("cpu"), tree)
