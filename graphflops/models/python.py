"""Models from Python code: ``FILE.py:NAME`` and ``package.module:NAME``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.arguments import model_inputs
from graphflops.errors import InputError, ModelNameError, ModelSpecError
from graphflops.models.inputs import (
    apply_user_inputs,
    floating_dtype,
    forward_parameters,
    require_inputs,
)
from graphflops.models.optional_dependencies import meta_init
from graphflops.models.user_code import failure_reason, load_module
from graphflops.models.workload import Options, Workload, suggest


def load_attribute(name: str) -> Any:
    """Return the object that ``FILE.py:NAME`` or ``package.module:NAME`` names.

    Raises:
        ModelSpecError: There is no such file, module or name.
    """
    location, _, leaf = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    if not location:
        raise ModelNameError(
            f"{name!r} names nothing in Python. Write FILE.py:NAME or MODULE:NAME."
        )
    module = load_module(location)
    if not leaf:
        hint = _model_hint(module, location)
        raise ModelNameError(f"{location} is a file of Python code. {hint}")
    value = getattr(module, leaf, None)
    if value is None:
        public = sorted(key for key in vars(module) if not key.startswith("_"))
        hint = suggest(leaf, public) or _model_hint(module, location)
        raise ModelNameError(f"{location} has no {leaf!r}. {hint}")
    return value


def resolve(name: str, options: Options) -> Workload:
    """Load a module instance, a module class, or a function that returns a model.

    A class or function is called without arguments on the meta device, so that no weights
    are allocated (on its own device if that fails). It may return a model, or
    ``(model, args)`` or ``(model, args, kwargs)``.

    Raises:
        ModelSpecError: There is no such file, module or name, or it does not return a model.
    """
    options.forbid(
        "a model from Python code",
        *("batch_size", "seq_len", "image_size", "audio_seconds"),
        *("overrides", "revision", "trust_remote_code"),
    )
    value = load_attribute(name)
    model, args, kwargs = _unpack(_build(value, name), name)
    dtype = floating_dtype(options.dtype)
    if dtype is not None:
        model = model.to(dtype)
        args, kwargs = _cast(args, dtype), _cast(kwargs, dtype)
    if options.inputs:
        # All by name, because the user's inputs may replace positional ones.
        named = dict(zip(forward_parameters(model), args, strict=False)) | dict(kwargs)
        args, kwargs = (), apply_user_inputs(model, named, options)
    require_inputs(model, args, kwargs)
    return Workload(model=model, args=args, kwargs=kwargs)


def _build(value: Any, name: str) -> Any:
    if isinstance(value, nn.Module) or not callable(value):
        return value
    try:
        with meta_init():
            return value()
    except (Exception, SystemExit):  # noqa: BLE001 - some constructors compute with real tensors
        try:
            return value()
        except (Exception, SystemExit) as error:
            msg = (
                f"{name} fails when called without arguments: {failure_reason(error)}. Give a "
                "function that builds the model by itself."
            )
            raise ModelSpecError(msg) from error


def _unpack(value: Any, name: str) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    model, *rest = value if isinstance(value, tuple) and value else (value,)
    if not isinstance(model, nn.Module) or len(rest) > 2:  # noqa: PLR2004 - args and kwargs
        kind = f"{len(rest) + 1} values" if len(rest) > 2 else f"a {type(model).__name__}"  # noqa: PLR2004 - likewise
        msg = (
            f"{name} gives {kind}, not a model. It must be an nn.Module, or return one or "
            "(model, args, kwargs)."
        )
        raise ModelSpecError(msg)
    args, kwargs = (*rest, (), {})[:2] if len(rest) != 1 else (*rest, {})
    try:
        return model, *model_inputs(args, kwargs)
    except ModelSpecError as error:
        raise InputError(f"{name} gives a model with inputs, but {error}") from error


def _model_hint(module: ModuleType, location: str) -> str:
    """Return a sentence with the names in a module that build a model without arguments."""

    def builds_model(key: str, value: Any) -> bool:
        if key.startswith("_") or isinstance(value, nn.Module):
            return isinstance(value, nn.Module)
        if getattr(value, "__module__", None) != module.__name__ or not callable(value):
            return False
        if isinstance(value, type) and not issubclass(value, nn.Module):
            return False
        try:
            parameters = inspect.signature(value).parameters.values()
        except (TypeError, ValueError):
            return False
        variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        return all(p.default is not p.empty or p.kind in variadic for p in parameters)

    names = [f"{location}:{key}" for key, value in vars(module).items() if builds_model(key, value)]
    if not names:
        return (
            "Nothing in it gives a model by itself: add a function without parameters that "
            f"returns one, and give {location}:NAME."
        )
    return f"Name what gives the model: {', '.join(names[:20])}."


def _cast(values: Any, dtype: torch.dtype) -> Any:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return pytree.tree_map_only(torch.Tensor, cast, values)
