"""Inputs of the user, checked against the signature of a model's forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from graphflops.errors import InputError
from graphflops.models.inputs.tensors import meta_tensor
from graphflops.models.workload import InputSpec, Options, suggest


def floating_dtype(name: str | None) -> torch.dtype | None:
    """Return a floating-point dtype by its name.

    Raises:
        InputError: There is no such dtype, or it is not floating-point.
    """
    if name is None:
        return None
    dtype = _dtype(name)
    if not dtype.is_floating_point:
        msg = f"--dtype {name} is not a floating-point type. Try float32, bfloat16 or float16."
        raise InputError(msg)
    return dtype


def apply_user_inputs(
    model: nn.Module, defaults: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    """Return the default inputs, updated with the user's.

    Raises:
        InputError: The model has no input of a name.
    """
    parameters = forward_parameters(model)
    inputs = dict(defaults)
    for name, spec in options.inputs.items():
        if name not in parameters:
            hint = suggest(name, parameters)
            msg = f"{type(model).__name__} takes no input named {name!r}. {hint}".rstrip()
            raise InputError(msg)
        inputs[name] = user_tensor(spec, inputs.get(name), floating_dtype(options.dtype))
    return inputs


def require_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Check that every required input of a model is present.

    A graph that has the shapes it was traced with needs none.

    Raises:
        InputError: An input without a default is missing.
    """
    if not (args or kwargs) and isinstance(model, fx.GraphModule) and _has_shapes(model.graph):
        return
    declared = list(inspect.signature(model.forward).parameters.values())[len(args) :]
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    missing = [
        p.name
        for p in declared
        if p.default is p.empty and p.kind not in variadic and p.name not in kwargs
    ]
    if missing:
        flags = " ".join(f"--input {name}=SHAPE[:DTYPE]" for name in missing)
        msg = f"{type(model).__name__} needs inputs: {', '.join(missing)}. Give {flags}."
        raise InputError(msg)


def _has_shapes(graph: fx.Graph) -> bool:
    metas = [node.meta for node in graph.find_nodes(op="placeholder")]
    return all("val" in meta or "example_value" in meta for meta in metas)


def forward_parameters(model: nn.Module) -> list[str]:
    """Return the names of the inputs that a model's forward declares."""
    declared = inspect.signature(model.forward).parameters.values()
    return [p.name for p in declared if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]


def user_tensor(spec: InputSpec, replaced: object, floating: torch.dtype | None) -> torch.Tensor:
    """Return the user's tensor, by default of the dtype of the tensor it replaces."""
    if spec.dtype is not None:
        dtype = _dtype(spec.dtype)
    elif isinstance(replaced, torch.Tensor):
        dtype = replaced.dtype
    else:
        dtype = floating or torch.float32
    return meta_tensor(spec.shape, dtype)


def _dtype(name: str) -> torch.dtype:
    plain = name.lower().removeprefix("torch.")
    dtype = getattr(torch, _ALIASES.get(plain, plain), None)
    if isinstance(dtype, torch.dtype):
        return dtype
    names = [key for key, value in vars(torch).items() if isinstance(value, torch.dtype)]
    common = ", ".join((*_COMMON_DTYPES, *_ALIASES))
    hint = suggest(plain, names) or f"Known: {common}, and all of torch's."
    raise InputError(f"{name!r} is not a dtype. {hint}")


_COMMON_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")
_ALIASES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
}
"""Common short names of dtypes with torch's names; torch itself has ``half`` and ``double``."""
