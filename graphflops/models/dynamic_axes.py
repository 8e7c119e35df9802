"""Which axes of the inputs follow a size: found by making the inputs at two sizes."""

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
"""Sizes that can stay open, with the symbol and the option of each."""


def resolve_symbolic(
    name: str, options: Options, sizes: Iterable[str]
) -> tuple[Workload, dict[str, Any]]:
    """A model with inputs, and the axes of these that stay open.

    Args:
        name: A model name.
        options: Sizes, dtype, config overrides and inputs.
        sizes: Which of ``batch`` (``B``) and ``seq`` (``S``) are to stay open.

    Returns:
        The workload, and ``dynamic_shapes`` for :func:`graphflops.count`.

    Raises:
        ModelSpecError: There is no such size, or no input follows it.
    """
    # An axis of 1 would broadcast: it stands for no other size.
    options = replace(options, batch_size=max(options.batch_size or 0, 2))
    base = resolve(name, options)
    axes: dict[str, dict[int, Any]] = {}
    for size in sizes:
        if size not in _SIZES:
            msg = f"--symbolic knows no size {size!r}. Known: {', '.join(_SIZES)}."
            raise ModelSpecError(msg)
        symbol, option = _SIZES[size]
        before = getattr(options, option) or _tokens(base, size)
        more: dict[str, Any] = {option: before + 1}
        other = resolve(name, replace(options, **more))
        found = _following(base, other, Dim(symbol), before)
        if not found:
            msg = f"no input of {name} follows its {size} size. Leave it out of --symbolic."
            raise ModelSpecError(msg)
        for key, dims in found.items():
            axes.setdefault(key, {}).update(dims)
    return base, dict(axes)


def _tokens(workload: Workload, size: str) -> int:
    for key in ("input_ids", "decoder_input_ids"):
        if key in workload.kwargs:
            return int(workload.kwargs[key].shape[1])
    msg = f"the model reads no tokens, so no input follows --symbolic {size}. Leave it out."
    raise ModelSpecError(msg)


def _following(base: Workload, other: Workload, dim: Dim, size: int) -> dict[str, dict[int, Any]]:
    """Axes that grow by a step of the size, each as its linear function."""
    found: dict[str, dict[int, Any]] = {}
    for key, value in base.kwargs.items():
        if not isinstance(value, torch.Tensor):
            continue
        for axis, (few, many) in enumerate(zip(value.shape, other.kwargs[key].shape, strict=True)):
            if step := many - few:
                rest = few - step * size
                linear = dim if step == 1 else step * dim
                found.setdefault(key, {})[axis] = linear + rest if rest else linear
    return found
