"""Dynamic axes of inputs, detected by comparing the inputs of two sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.export import Dim

from graphflops.errors import ModelSpecError
from graphflops.models.schemes import resolve
from graphflops.models.workload import Options, Workload

_SIZES = {"batch": ("B", "batch_size"), "seq": ("S", "seq_len")}
"""Sizes that can be symbolic, with the symbol and the option of each."""


def resolve_symbolic(
    name: str, options: Options, sizes: Iterable[str]
) -> tuple[Workload, dict[str, Any]]:
    """Resolve a model name, with symbolic axes of the inputs.

    Args:
        name: A model name.
        options: Sizes, dtype, config overrides and inputs.
        sizes: Sizes to keep symbolic: ``batch`` (``B``), ``seq`` (``S``) or both.

    Returns:
        The workload, and ``dynamic_shapes`` for :func:`graphflops.count`.

    Raises:
        ModelSpecError: There is no such size, or no input follows it.
    """
    # An axis of size 1 would broadcast, so its graph would hold for no other size.
    sample = replace(options, batch_size=max(options.batch_size or 0, 2))
    try:
        base = resolve(name, sample)
    except ModelSpecError as error:
        if options.batch_size is not None or "--batch-size" not in str(error):
            raise
        msg = (
            f"sizes of {name} cannot be kept open: its inputs are what its own code makes. Count "
            "it with numbers, or give dynamic_shapes in Python."
        )
        raise ModelSpecError(msg) from error
    options = sample
    axes: dict[str, dict[int, Any]] = {}
    for size in sizes:
        if size not in _SIZES:
            msg = f"--symbolic knows no size {size!r}. Known: {', '.join(_SIZES)}."
            raise ModelSpecError(msg)
        symbol, option = _SIZES[size]
        length = getattr(options, option) or _prompt_length(base, size)
        changed_option: dict[str, Any] = {option: length + 1}
        other = resolve(name, replace(options, **changed_option))
        dims_by_input = _dynamic_axes(base, other, Dim(symbol), length)
        if not dims_by_input:
            msg = f"no input of {name} follows its {size} size. Leave it out of --symbolic."
            raise ModelSpecError(msg)
        for key, dims in dims_by_input.items():
            axes.setdefault(key, {}).update(dims)
    return base, dict(axes)


def _prompt_length(workload: Workload, size: str) -> int:
    for key in ("input_ids", "decoder_input_ids"):
        if key in workload.kwargs:
            return int(workload.kwargs[key].shape[1])
    msg = f"the model reads no tokens, so no input follows --symbolic {size}. Leave it out."
    raise ModelSpecError(msg)


def _dynamic_axes(
    base: Workload, other: Workload, dim: Dim, size: int
) -> dict[str, dict[int, Any]]:
    """Return the axes that depend on the size, each as a linear function of it."""
    dims: dict[str, dict[int, Any]] = {}
    for key, value in base.kwargs.items():
        if not isinstance(value, torch.Tensor):
            continue
        shapes = zip(value.shape, other.kwargs[key].shape, strict=True)
        for axis, (length, next_length) in enumerate(shapes):
            if step := next_length - length:
                offset = length - step * size
                linear = dim if step == 1 else step * dim
                dims.setdefault(key, {})[axis] = linear + offset if offset else linear
    return dims
