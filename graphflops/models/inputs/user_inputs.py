"""Inputs given by the user, and what a model's forward declares."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graphflops.errors import ModelSpecError
from graphflops.models.inputs.tensors import blank
from graphflops.models.workload import InputSpec, Options, near


def floating_dtype(name: str | None) -> torch.dtype | None:
    """A floating-point dtype by its name.

    Raises:
        ModelSpecError: There is no such dtype, or it is not floating-point.
    """
    if name is None:
        return None
    found = _dtype(name)
    if not found.is_floating_point:
        msg = f"--dtype {name} is not a floating-point type. Try float32, bfloat16 or float16."
        raise ModelSpecError(msg)
    return found


def given_inputs(model: nn.Module, made: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The inputs that were made, with the user's own put over them.

    Raises:
        ModelSpecError: The model takes no input of a given name.
    """
    known = parameters_of(model)
    inputs = dict(made)
    for name, spec in options.inputs.items():
        if name not in known:
            hint = near(name, known)
            msg = f"{type(model).__name__} takes no input named {name!r}. {hint}".rstrip()
            raise ModelSpecError(msg)
        inputs[name] = given_tensor(spec, inputs.get(name), floating_dtype(options.dtype))
    return inputs


def require_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Check that a model gets every input its forward needs.

    Raises:
        ModelSpecError: An input without a default is not given.
    """
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
        raise ModelSpecError(msg)


def parameters_of(model: nn.Module) -> list[str]:
    """Names of the inputs that a model's forward declares."""
    declared = inspect.signature(model.forward).parameters.values()
    return [p.name for p in declared if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]


def given_tensor(spec: InputSpec, replaced: object, floating: torch.dtype | None) -> torch.Tensor:
    """A tensor as the user gave it, by default of the dtype of the one it replaces."""
    if spec.dtype is not None:
        dtype = _dtype(spec.dtype)
    elif isinstance(replaced, torch.Tensor):
        dtype = replaced.dtype
    else:
        dtype = floating or torch.float32
    return blank(spec.shape, dtype)


def _dtype(name: str) -> torch.dtype:
    plain = name.lower().removeprefix("torch.")
    found = getattr(torch, _ALIASES.get(plain, plain), None)
    if isinstance(found, torch.dtype):
        return found
    known = [key for key, value in vars(torch).items() if isinstance(value, torch.dtype)]
    hint = near(plain, known) or f"Known: {', '.join((*_USUAL, *_ALIASES))}, and all of torch's."
    raise ModelSpecError(f"{name!r} is not a dtype. {hint}")


_USUAL = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")
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
"""What people write, by torch's own name of it; torch itself knows ``half`` and ``double``."""
