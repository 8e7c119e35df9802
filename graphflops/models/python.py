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
from graphflops.errors import ModelSpecError
from graphflops.models.inputs import (
    apply_user_inputs,
    floating_dtype,
    forward_parameters,
    require_inputs,
)
from graphflops.models.optional_dependencies import copy_to_meta
from graphflops.models.user_code import load, reason_of
from graphflops.models.workload import Options, Workload, near


def attribute(name: str) -> Any:
    """What ``FILE.py:NAME`` or ``package.module:NAME`` stands for.

    Raises:
        ModelSpecError: There is no such file, module or name.
    """
    where, _, leaf = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    if not where:
        raise ModelSpecError(
            f"{name!r} names nothing in Python. Write FILE.py:NAME or MODULE:NAME."
        )
    module = load(where)
    if not leaf:
        raise ModelSpecError(f"{where} is a file of Python code. {_choices(module, where)}")
    found = getattr(module, leaf, None)
    if found is None:
        public = sorted(key for key in vars(module) if not key.startswith("_"))
        hint = near(leaf, public) or _choices(module, where)
        raise ModelSpecError(f"{where} has no {leaf!r}. {hint}")
    return found


def resolve(name: str, options: Options) -> Workload:
    """Load a module instance, a module class, or a function that returns a model.

    A class or function is called without arguments on the meta device, so that no weights
    are made (on its own device if that fails). It may return a model, or
    ``(model, args)`` or ``(model, args, kwargs)``.

    Raises:
        ModelSpecError: There is no such file, module or name, or it gives no model.
    """
    options.forbid(
        "a model from Python code",
        *("batch_size", "seq_len", "image_size", "audio_seconds"),
        *("overrides", "revision", "trust_remote_code"),
    )
    found = attribute(name)
    model, args, kwargs = _unpack(_call(found, name), name)
    dtype = floating_dtype(options.dtype)
    if dtype is not None:
        model = model.to(dtype)
        args, kwargs = _cast(args, dtype), _cast(kwargs, dtype)
    if options.inputs:
        # By name, wherever they stood: given inputs replace positional ones too.
        named = dict(zip(forward_parameters(model), args, strict=False)) | dict(kwargs)
        args, kwargs = (), apply_user_inputs(model, named, options)
    require_inputs(model, args, kwargs)
    return Workload(model=model, args=args, kwargs=kwargs)


def _call(found: Any, name: str) -> Any:
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        with copy_to_meta():
            return found()
    except (Exception, SystemExit):  # noqa: BLE001 - some code computes while it builds: let it have real tensors
        try:
            return found()
        except (Exception, SystemExit) as error:
            msg = (
                f"{name} fails when called without arguments: {reason_of(error)}. Give a function "
                "that builds the model by itself."
            )
            raise ModelSpecError(msg) from error


def _unpack(found: Any, name: str) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    model, *rest = found if isinstance(found, tuple) and found else (found,)
    if not isinstance(model, nn.Module) or len(rest) > 2:  # noqa: PLR2004 - args and kwargs
        what = f"{len(rest) + 1} values" if len(rest) > 2 else f"a {type(model).__name__}"  # noqa: PLR2004 - likewise
        msg = (
            f"{name} gives {what}, not a model. It must be an nn.Module, or return one or "
            "(model, args, kwargs)."
        )
        raise ModelSpecError(msg)
    args, kwargs = (*rest, (), {})[:2] if len(rest) != 1 else (*rest, {})
    try:
        return model, *model_inputs(args, kwargs)
    except ModelSpecError as error:
        raise ModelSpecError(f"{name} gives a model with inputs, but {error}") from error


def _choices(module: ModuleType, where: str) -> str:
    """A sentence on what in a module gives a model by itself."""

    def fits(key: str, value: Any) -> bool:
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

    names = [f"{where}:{key}" for key, value in vars(module).items() if fits(key, value)]
    if not names:
        return (
            "Nothing in it gives a model by itself: add a function without parameters that "
            f"returns one, and give {where}:NAME."
        )
    return f"Name what gives the model: {', '.join(names[:20])}."


def _cast(values: Any, dtype: torch.dtype) -> Any:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return pytree.tree_map_only(torch.Tensor, cast, values)
