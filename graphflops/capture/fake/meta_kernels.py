"""Operators whose results on fake tensors need no Python decomposition.

Torch runs a fake operator through layers of Python: several times its work on plain meta tensors,
and a hundred times that of a C++ kernel. For the operators here the kernel of the meta device, or a
rule on the layouts of the arguments, is proven to give the same results: shapes, strides, dtypes,
aliasing. ``tests/test_meta_kernels.py`` holds each against torch. Whatever is not plain goes
torch's way: symbolic sizes, sparse and conjugate tensors, several devices, an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.layouts import has_no_overlap, row_major
from graphflops.capture.fake.leaves import is_plain
from graphflops.capture.fake.result_layouts import RULES
from graphflops.capture.fake.result_recipes import ResultRecipes
from graphflops.capture.fake.result_rules import recipe_by_rule, shared_device
from graphflops.capture.torch_internals.dispatch import MetaKernelsOnly
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.runtime.interruption import raise_interruption

_ATEN = torch.ops.aten
_UPSAMPLE = (
    *(_ATEN.upsample_nearest1d.default, _ATEN.upsample_nearest2d.default),
    *(_ATEN.upsample_nearest3d.default, _ATEN._upsample_nearest_exact2d.default),
    *(_ATEN.upsample_linear1d.default, _ATEN.upsample_bilinear2d.default),
    *(_ATEN.upsample_trilinear3d.default, _ATEN.upsample_bicubic2d.default),
    *(_ATEN._upsample_bilinear2d_aa.default, _ATEN._upsample_bicubic2d_aa.default),
)
_IN_PLACE = (
    *(_ATEN.relu_.default, _ATEN.add_.Tensor, _ATEN.mul_.Tensor, _ATEN.sub_.Tensor),
    *(_ATEN.div_.Tensor, _ATEN.leaky_relu_.default, _ATEN.silu_.default),
    *(_ATEN.sigmoid_.default, _ATEN.tanh_.default, _ATEN.hardtanh_.default),
    *(_ATEN.fill_.Tensor, _ATEN.fill_.Scalar),
)
KERNELS = frozenset(
    {
        *(_ATEN.mm.default, _ATEN.bmm.default),
        *(_ATEN._softmax.default, _ATEN._log_softmax.default, _ATEN.silu.default),
        *(_ATEN.sum.dim_IntList, _ATEN.embedding.default, _ATEN._adaptive_avg_pool2d.default),
        *(_ATEN.max_pool2d_with_indices.default, _ATEN.avg_pool2d.default),
        *_UPSAMPLE,
        # Views.
        *(_ATEN.t.default, _ATEN.view.default, _ATEN.transpose.int, _ATEN.permute.default),
        *(_ATEN.unsqueeze.default, _ATEN.squeeze.dim, _ATEN.squeeze.dims, _ATEN.expand.default),
        *(_ATEN.slice.Tensor, _ATEN.select.int, _ATEN.detach.default, _ATEN.alias.default),
        *(_ATEN.split.Tensor, _ATEN.split_with_sizes.default, _ATEN.unbind.int),
        *(_ATEN.as_strided.default, _ATEN._unsafe_view.default),
        # Copies.
        _ATEN.stack.default,
        # Writes in place.
        *_IN_PLACE,
    }
    | RULES.keys()
    # A norm's decomposition asks for the device, and the kernel sees the meta device.
    - {_ATEN.native_layer_norm.default, _ATEN.native_group_norm.default}
    - {_ATEN.native_batch_norm.default, _ATEN._native_batch_norm_legit_no_training.default}
    - {_ATEN.native_layer_norm_backward.default, _ATEN.native_batch_norm_backward.default}
    - {_ATEN.roll.default, _ATEN.constant_pad_nd.default}
    - {_ATEN.convolution.default, _ATEN.convolution_backward.default}
    # Its kernel is Python, which asks for ``DTensor`` where no mode is active.
    - {_ATEN.masked_fill.Scalar}
)
"""Operators whose kernel of the meta device gives what torch makes of fake tensors."""


def _are_row_major(_: Any, inputs: list[FakeTensor]) -> bool:
    return all(tensor.stride() == row_major(tensor.shape) for tensor in inputs)


def _have_usual_strides(_: Any, inputs: list[FakeTensor]) -> bool:
    """Return True if no axis of one element has a stride of its own: kernels treat it variously."""
    return all(1 not in t.shape or t.stride() == row_major(t.shape) for t in inputs)


def _writes_once(args: Any, _: list[FakeTensor]) -> bool:
    """Return True if no element of the tensor that is written to is there twice."""
    return has_no_overlap(args[0].shape, args[0].stride())


def _keeps_rank(args: Any, _: list[FakeTensor]) -> bool:
    return bool(args[0].dim() == len(args[1]))


def _permute(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """Permute by transpositions; the kernel asks a fake tensor, in Python, for its device."""
    rank = x.dim()
    order = [dim % rank for dim in dims]
    if rank < 2 or sorted(order) != [*range(rank)] or order == sorted(order):  # noqa: PLR2004 - axes
        permuted: torch.Tensor = _ATEN.permute.default(x, dims)
        return permuted
    here = [*range(rank)]
    for axis, dim in enumerate(order):
        other = here.index(dim)
        if other != axis:
            x = _ATEN.transpose.int(x, axis, other)
            here[axis], here[other] = here[other], here[axis]
    return x


def _write(func: Any) -> Callable[..., Any]:
    """Return a function that writes nothing to a fake tensor; kernels are Python, which copies."""

    def write(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        fits = all(y.dtype == x.dtype and _broadcasts(y.shape, x.shape) for y in operands)
        is_usual = fits and x.dtype.is_floating_point and not x.requires_grad
        return x if is_usual else func(x, *args, **kwargs)

    return write


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    """Return True if a tensor of a shape may be written to one of another."""
    start = len(target) - len(shape)
    return start >= 0 and all(a in (1, b) for a, b in zip(shape, target[start:], strict=True))


_QUICKER: Mapping[Any, Callable[..., Any]] = {
    _ATEN.permute.default: _permute,
    **{func: _write(func) for func in _IN_PLACE if func is not _ATEN.fill_.Tensor},
}
"""Functions that do what a kernel does, in less time."""
_GUARDS: Mapping[Any, Callable[[Any, list[FakeTensor]], bool]] = {
    **dict.fromkeys(RULES, _have_usual_strides),
    **dict.fromkeys(_UPSAMPLE, _are_row_major),  # by the device and the number of channels
    **dict.fromkeys(_IN_PLACE, _writes_once),
    _ATEN.stack.default: _have_usual_strides,
    # The strides of axes of one element differ.
    _ATEN.view.default: _are_row_major,
    _ATEN._unsafe_view.default: _are_row_major,
    _ATEN.expand.default: _keeps_rank,
}
"""Conditions on arguments and tensors among them, by operator."""
OPERATORS = KERNELS | RULES.keys()
"""Operators that need no decomposition, for some arguments at least."""
DECLINED = object()
"""Result of a call that has to go torch's way."""
_ATOMS = frozenset(
    {int, float, bool, type(None), torch.dtype, torch.layout, torch.memory_format, str}
)


class MetaKernels:
    """Runs operators on fake tensors by their meta kernels.

    Args:
        mode: The mode of the tensors.
        factory: Factory of the mode's tensors.
    """

    def __init__(self, mode: FakeTensorMode, factory: FakeTensorFactory) -> None:
        self._mode, self._factory = mode, factory
        self._alone = MetaKernelsOnly(mode)
        self._recipes = ResultRecipes(factory)

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return the result of an operator of ``OPERATORS``, or ``DECLINED``."""
        inputs: list[FakeTensor] = []
        if not (self._collect(args, inputs) and self._collect(kwargs.values(), inputs) and inputs):
            return DECLINED
        if (device := shared_device(inputs)) is None:
            return DECLINED
        if (recipe := recipe_by_rule(func, args, kwargs, device)) is not None:
            return self._recipes.make(recipe, inputs)
        guard = _GUARDS.get(func)
        if func in KERNELS and (guard is None or guard(args, inputs)):
            return self._run_kernel(func, args, kwargs, device)
        return DECLINED

    def _run_kernel(
        self, func: Any, args: Any, kwargs: Mapping[str, Any], device: torch.device
    ) -> Any:
        try:
            with self._alone:
                out = _QUICKER.get(func, func)(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again, in torch's words
            raise_interruption(error)
            return DECLINED
        return self._wrap(out, device)

    def _collect(self, values: Iterable[Any], inputs: list[FakeTensor]) -> bool:
        """Add the tensors among arguments; return False if one of these is not plain."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                if not is_plain(value, self._mode):
                    return False
                inputs.append(value)
            elif kind is list or kind is tuple:
                if not self._collect(value, inputs):
                    return False
            elif kind not in _ATOMS:
                return False
        return True

    def _wrap(self, out: Any, device: torch.device) -> Any:
        """Return the results of a kernel as fake tensors; an argument is one."""
        if isinstance(out, list | tuple):
            return type(out)([self._wrap(item, device) for item in out])
        if type(out) is not torch.Tensor:
            return out
        return self._factory.make(out, device)
