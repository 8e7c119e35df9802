"""Sparse tensors under fake tensors: how much they store, and what is made of them.

torch's fake sparse tensors store nothing, and its shape rules know few operators on them. Here
each has a pattern: a real tensor whose elements lie where its own do. What an operator makes
of fake tensors has the pattern that it makes of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.source_lines import line_running
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.core.ir import SparseStorage
from graphflops.errors import CaptureError

_aten: Any = torch.ops.aten
_PATTERN = "graphflops_pattern"
_ROWS = {torch.sparse_csr, torch.sparse_bsr}


class Known(IntEnum):
    """What is known of where the elements of a sparse tensor lie."""

    NOTHING = 0
    COUNT = 1
    PLACES = 2


@dataclass(frozen=True, slots=True)
class Pattern:
    """The sparsity pattern of a tensor.

    Attributes:
        sample: A tensor with memory, of its layout and shape.
        known: What the sample tells: where its elements lie, how many there are, or neither.
    """

    sample: torch.Tensor
    known: Known


def is_sparse(tensor: torch.Tensor) -> bool:
    """Return True for a tensor of a sparse layout."""
    return tensor.layout is not torch.strided and not tensor.is_mkldnn


def pattern_of(tensor: torch.Tensor) -> Pattern:
    """Return the pattern of a sparse tensor."""
    found: Pattern | None = vars(tensor).get(_PATTERN)
    if found is not None:
        return found
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        # One that was moved to meta has lost all that it stored.
        is_whole = not isinstance(tensor, FakeTensor) and _parts(tensor)[-1].numel()
        known = Known.COUNT if is_whole else Known.NOTHING
        return Pattern(_without_data(tensor, "cpu"), known)
    with no_modes():
        return Pattern(tensor.detach(), Known.PLACES)


def storage_of(tensor: torch.Tensor) -> SparseStorage | None:
    """Return what a sparse tensor stores; nothing of a dense one."""
    if not is_sparse(tensor):
        return None
    pattern = pattern_of(tensor)
    if pattern.known is Known.NOTHING:
        return SparseStorage(None)
    with no_modes():
        *indices, values = _parts(pattern.sample)
        return SparseStorage(values.numel(), sum(index.nbytes for index in indices))


def _parts(sample: torch.Tensor) -> list[torch.Tensor]:
    """Return the indices and the values of a sparse tensor."""
    if sample.layout is torch.sparse_coo:
        return [sample._indices(), sample._values()]
    if sample.layout in _ROWS:
        return [sample.crow_indices(), sample.col_indices(), sample.values()]
    return [sample.ccol_indices(), sample.row_indices(), sample.values()]


def _without_data(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Return a tensor that stores as much as a sparse one, nobody knows where."""
    form: Any = {"dtype": tensor.dtype, "layout": tensor.layout, "device": device}
    made: torch.Tensor
    with no_modes():
        parts = [torch.zeros_like(part, device=device) for part in _parts(tensor)]
        if tensor.layout is torch.sparse_coo:
            dims = tensor.sparse_dim(), tensor.dense_dim(), tensor.shape
            made = _aten._sparse_coo_tensor_with_dims_and_tensors(*dims, *parts, **form)
            made._coalesced_(tensor.is_coalesced())
        else:
            made = _aten._sparse_compressed_tensor_unsafe(*parts, tensor.shape, **form)
    return made


MAKERS = frozenset(
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
"""Operators that make sparse tensors of dense ones."""
READ_VALUES = frozenset(
    {
        *(_aten._to_sparse.default, _aten._to_sparse.sparse_dim, _aten._to_sparse_csr.default),
        *(_aten._to_sparse_csc.default, _aten._to_sparse_bsr.default),
        *(_aten._to_sparse_bsc.default, _aten._spdiags.default),
    }
)
"""Those whose result stores what is not zero; of the others, it stores all values they get."""
_INDICES = {
    *(_aten.indices.default, _aten._indices.default, _aten.crow_indices.default),
    *(_aten.col_indices.default, _aten.ccol_indices.default, _aten.row_indices.default),
}
_ACCESSORS = _INDICES | {_aten.values.default, _aten._values.default, _aten._nnz.default}
# Whatever lies where: as many elements come out as go in.
_KEEP_COUNT = (
    (MAKERS - READ_VALUES)
    | _ACCESSORS
    | {
        *(_aten.t.default, _aten.transpose.int, _aten.permute.default, _aten.unsqueeze.default),
        *(_aten.clone.default, _aten.detach.default, _aten.alias.default),
        *(_aten._to_copy.default, _aten._sparse_softmax.default, _aten.sparse_mask.default),
        *(_aten._sparse_log_softmax.default, _aten.sparse_sampled_addmm.default),
    }
)
# With a dense operand their result is what it is of dense ones alone.
_DENSE_RESULT = {
    **{product: product for product in (_aten.mm.default, _aten.mv.default, _aten.bmm.default)},
    **{scaled: scaled for scaled in (_aten.addmm.default, _aten.addmv.default)},
    _aten._sparse_addmm.default: _aten.addmm.default,
    _aten._to_dense.default: _aten.clone.default,
}


class SparseRules:
    """What operators make of sparse fake tensors.

    Attributes:
        in_use: Whether there is a sparse tensor.

    Args:
        mode: The mode of the fake tensors.
        value: From a dense tensor to its value, if that is known.
    """

    def __init__(
        self, mode: FakeTensorMode, value: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> None:
        self.in_use = False
        self._mode, self._value, self._rule = mode, value, mode.dispatch

    def fake(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return a fake tensor whose elements lie where those of a real one do."""
        self.in_use = True
        return self._fake(pattern_of(tensor), device)

    def size(self, indices: torch.Tensor, values: torch.Tensor) -> tuple[int, ...]:
        """Return the smallest size that a sparse tensor of some indices has.

        Raises:
            CaptureError: The indices are not known.
        """
        value = self._value(indices)
        if value is None:
            at = line_running()
            raise CaptureError(
                f"torch.sparse_coo_tensor{f' at {at}' if at else ''} is given no size, and the "
                "indices that it follows from are computed. Give it a size."
            )
        with no_modes():
            return (*(int(last) + 1 for last in value.amax(1)), *values.shape[1:])

    def takes(self, args: Any, kwargs: Mapping[str, Any]) -> bool:
        """Return True if a tensor among some arguments is sparse."""
        return any(map(is_sparse, tensors_in((args, kwargs))))

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return what an operator makes of fake tensors some of which are sparse.

        Raises:
            CaptureError: A size follows from where elements lie, and that is not known.
        """
        self.in_use = True
        sparse = [is_sparse(tensor) for tensor in tensors_in((args, kwargs))]
        if func in _DENSE_RESULT and (len(sparse) == 1 or not all(sparse)):
            args = pytree.tree_map_only(torch.Tensor, self._densified, args)
            return self._rule(_DENSE_RESULT[func], (), args[: len(sparse)], kwargs)
        known = self._known(func, args, kwargs)
        if known is Known.NOTHING and func in _ACCESSORS:
            at = line_running()
            raise CaptureError(
                f"how much a sparse tensor stores is asked for{f' at {at}' if at else ''}, and it "
                "follows from values that nobody knows. Give the model the sparse tensor itself "
                "as an input."
            )
        return self._sampled(func, args, kwargs, known)

    def _sampled(self, func: Any, args: Any, kwargs: Mapping[str, Any], known: Known) -> Any:
        """Run an operator on samples; its result as fake tensors."""
        fakes: dict[int, torch.Tensor] = {}

        def sample(tensor: torch.Tensor) -> torch.Tensor:
            found = self._sample(tensor)
            if func._schema.is_mutable:
                found = found.clone()
            fakes[id(found)] = tensor
            return found

        with no_modes():
            own_args, own_kwargs = pytree.tree_map_only(torch.Tensor, sample, (args, dict(kwargs)))
            result = func(*_on_cpu(own_args), **_on_cpu(own_kwargs))
        device = next((tensor.device for tensor in tensors_in(args)), torch.device("cpu"))

        def fake(made: torch.Tensor) -> torch.Tensor:
            if not is_sparse(made):
                return self._dense(made, device)
            pattern = Pattern(made, known)
            if (given := fakes.get(id(made))) is None:
                return self._fake(pattern, device)
            vars(given)[_PATTERN] = pattern
            return given

        return pytree.tree_map_only(torch.Tensor, fake, result)

    def _known(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Known:
        """Return what is known of where the elements of a result lie."""
        tensors = tensors_in((args, kwargs))
        sparse = [tensor for tensor in tensors if is_sparse(tensor)]
        known = min((pattern_of(tensor).known for tensor in sparse), default=Known.PLACES)
        decides = [t for t in tensors if not is_sparse(t) and self._decides(func, t)]
        if any(self._value(tensor) is None for tensor in decides):
            known = min(known, Known.COUNT)
        is_pointwise = torch.Tag.pointwise in func.tags and len(sparse) == 1
        keeps = func in _KEEP_COUNT or is_pointwise
        return Known.NOTHING if known is Known.COUNT and not keeps else known

    def _decides(self, func: Any, tensor: torch.Tensor) -> bool:
        """Return True if values of a dense operand may say where elements of the result lie."""
        return not tensor.is_floating_point() or func in READ_VALUES

    def _sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor with memory in place of a fake one."""
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

    def _fake(self, pattern: Pattern, device: torch.device) -> torch.Tensor:
        like = _without_data(pattern.sample, "meta")
        with no_modes():
            fake = FakeTensor(self._mode, like, device)
        vars(fake)[_PATTERN] = pattern
        return fake

    def _densified(self, tensor: torch.Tensor) -> torch.Tensor:
        if not is_sparse(tensor):
            return tensor
        with no_modes():
            like = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            return FakeTensor(self._mode, like, tensor.device)

    def _dense(self, made: torch.Tensor, device: torch.device) -> torch.Tensor:
        with no_modes():
            like = torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device="meta")
            return FakeTensor(self._mode, like, device)


def _on_cpu(tree: Any) -> Any:
    """Return arguments as they are where samples lie."""
    return pytree.tree_map_only(torch.device, lambda _: torch.device("cpu"), tree)
