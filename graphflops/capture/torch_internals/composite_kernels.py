"""Kernels of composite operators, as the device that a model is counted for chooses them.

Under fake tensors torch decomposes a composite operator by Python functions, where it has any, and
else in C++, which asks for the device of the tensors. Tensors on meta have none: their fakes lie
on the CPU, and a model on meta is counted as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.capture.torch_internals.operators import DispatchKey
from graphflops.runtime.patches import Patches

_COMPOSITE, _AUTOGRAD = DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd
_ABSENT: Any = object()
_MAX_FLASH_WIDTH = 256
_HALF = (torch.float16, torch.bfloat16)
_MASK_ALIGNMENT = 16


class KernelPatch:
    """Patch of the Python kernel by which an operator runs under fake tensors.

    Args:
        operator: The operator.
        key: Its dispatch key.
        kernel: The kernel; it takes the one before, and the arguments.
    """

    def __init__(self, operator: Any, key: DispatchKey, kernel: Callable[..., Any]) -> None:
        self._operator, self._key, self._kernel = operator, key, kernel
        self._original = self._replacement = _ABSENT

    def install(self, patches: Patches) -> None:
        """Set the kernel."""
        kernels: dict[Any, Any] = self._operator.py_kernels
        original = kernels.get(self._key, _ABSENT)
        if original is self._replacement and original is not _ABSENT:
            return
        before = self._run_builtin if original is _ABSENT else original

        def run(*args: Any, **kwargs: Any) -> Any:
            return (
                self._kernel(before, *args, **kwargs)
                if patches.is_held()
                else before(*args, **kwargs)
            )

        self._original = original
        self._replacement = kernels[self._key] = run
        self._operator._dispatch_cache.clear()

    def remove(self) -> None:
        """Restore the kernel before."""
        kernels: dict[Any, Any] = self._operator.py_kernels
        if self._replacement is not _ABSENT and kernels.get(self._key) is self._replacement:
            if self._original is _ABSENT:
                del kernels[self._key]
            else:
                kernels[self._key] = self._original
            self._operator._dispatch_cache.clear()
        self._original = self._replacement = _ABSENT

    def _run_builtin(self, *args: Any, **kwargs: Any) -> Any:
        return self._operator._op_dk(self._key, *args, **kwargs)


def _dropout(before: Any, x: torch.Tensor, p: float, train: bool) -> Any:
    # The kernel returns its input where it drops nothing; the decomposition in Python makes a copy.
    return before(x, p, train) if p and train else x


def _attention(before: Any, *args: Any, **kwargs: Any) -> Any:
    return gpu_attention(*args, **kwargs) if COUNT_FLAGS.on_gpu else before(*args, **kwargs)


def _in_one(before: Any, *args: Any, operator: Any, key: DispatchKey) -> Any:
    """Run the one operator that torch runs, where its decomposition in Python runs many.

    The decomposition takes symbolic sizes, as not all kernels do.
    """
    return before(*args) if any(map(_is_symbolic, args)) else operator._op_dk(key, *args)


def _is_symbolic(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value._has_symbolic_sizes_strides
    if isinstance(value, list | tuple):
        return any(map(_is_symbolic, value))
    return isinstance(value, torch.SymInt | torch.SymFloat)


def gpu_attention(  # noqa: PLR0913, PLR0917 - the schema's
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT002 - likewise
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention by the kernel that torch chooses on a GPU: flash, memory-efficient or none.

    The rules are those of ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` under the
    default order of the backends, for cards from Ampere on.

    Args:
        query: Queries, ... x L x D.
        key: Keys, ... x S x D.
        value: Values, ... x S x D_v.
        attn_mask: Mask or bias, broadcastable to ... x L x S.
        dropout_p: Probability that a weight is dropped.
        is_causal: True for a lower triangle.
        scale: Factor of the scores.
        enable_gqa: True if several heads of queries may share one of keys and values.
    """
    dense = _has_dense_rows(query, key, value, attn_mask)
    if dense and _is_flash(query, value, attn_mask):
        return _flash(query, key, value, dropout_p, is_causal, scale)
    if dense and _is_efficient(query, key, value):
        bias = None if attn_mask is None else _bias(query, key, attn_mask)
        needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        out, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale
        )
        return out
    out, _ = torch.ops.aten._scaled_dot_product_attention_math(
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        None,
        scale=scale,
        enable_gqa=enable_gqa,
    )
    return out


def _has_dense_rows(*tensors: torch.Tensor | None) -> bool:
    return all(x is None or x.shape[-1] == 1 or x.stride(-1) == 1 for x in tensors)


def _is_flash(query: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> bool:
    width = query.shape[-1]
    fits = query.dim() == 4 and width == value.shape[-1] and width <= _MAX_FLASH_WIDTH  # noqa: PLR2004 - batch, heads, tokens, width
    return mask is None and fits and query.dtype in _HALF


def _flash(  # noqa: PLR0913, PLR0917 - what the kernel takes
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Any:
    width = query.shape[-1]
    if scale is None:
        scale = width**-0.5
    if missing := -width % 8:
        query, key, value = (torch.nn.functional.pad(x, (0, missing)) for x in (query, key, value))
    out, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, scale=scale
    )
    return out[..., :width] if missing else out


def _is_efficient(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    alignment = 8 if query.dtype in _HALF else 4
    aligned = not (query.shape[-1] % alignment or value.shape[-1] % alignment)
    return query.dim() == 4 and query.shape[1] == key.shape[1] == value.shape[1] and aligned  # noqa: PLR2004 - as above


def _bias(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return a mask as what is added to the scores, its rows aligned."""
    if mask.dtype is torch.bool:
        hidden = torch.scalar_tensor(float("-inf"), dtype=query.dtype, device=mask.device)
        mask = torch.where(mask, 0.0, hidden)
    length = key.shape[-2]
    if isinstance(length, int) and (missing := -length % _MASK_ALIGNMENT):
        mask = torch.nn.functional.pad(mask, (0, missing))[..., :length]
    return mask.expand(*query.shape[:-1], length)


ATEN: Any = torch.ops.aten
_UPSAMPLE = (
    *(ATEN.upsample_nearest1d.vec, ATEN.upsample_nearest2d.vec, ATEN.upsample_nearest3d.vec),
    *(ATEN.upsample_linear1d.vec, ATEN.upsample_bilinear2d.vec, ATEN.upsample_trilinear3d.vec),
    *(ATEN.upsample_bicubic2d.vec, ATEN._upsample_bilinear2d_aa.vec),
    *(ATEN._upsample_bicubic2d_aa.vec, ATEN._upsample_nearest_exact2d.vec),
)
_DIFFERENTIABLE = (
    *(ATEN.upsample_nearest1d.default, ATEN.upsample_nearest2d.default),
    *(ATEN.upsample_nearest3d.default, ATEN._upsample_nearest_exact1d.default),
    *(ATEN._upsample_nearest_exact2d.default, ATEN._upsample_nearest_exact3d.default),
    *(ATEN.upsample_bilinear2d.default, ATEN.upsample_bicubic2d.default),
    *(ATEN.hardshrink.default, ATEN.softshrink.default),
    *(ATEN.multi_margin_loss.default, ATEN.multilabel_margin_loss_forward.default),
)
"""Operators with a derivative of their own, which torch decomposes above autograd in Python."""


def _one_operator(operator: Any, key: DispatchKey, own_key: DispatchKey) -> KernelPatch:
    return KernelPatch(operator, key, partial(_in_one, operator=operator, key=own_key))


COMPOSITE_KERNELS = (
    KernelPatch(ATEN.dropout.default, _COMPOSITE, _dropout),
    KernelPatch(ATEN.dropout.default, _AUTOGRAD, _dropout),
    KernelPatch(ATEN.scaled_dot_product_attention.default, _COMPOSITE, _attention),
    *(_one_operator(op, key, _COMPOSITE) for op in _UPSAMPLE for key in (_COMPOSITE, _AUTOGRAD)),
    *(_one_operator(op, _AUTOGRAD, _AUTOGRAD) for op in _DIFFERENTIABLE),
)
"""Patches of a counting thread."""
