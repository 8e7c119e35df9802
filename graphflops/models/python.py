"""Models from Python code: ``FILE.py:NAME`` and ``package.module:NAME``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from graphflops.errors import ModelSpecError
from graphflops.models.extras import on_meta, repair_torchvision
from graphflops.models.inputs import floating_dtype, given_inputs, parameters_of, require_inputs
from graphflops.models.workload import Options, Workload, near


def attribute(name: str) -> Any:
    """What ``FILE.py:NAME`` or ``package.module:NAME`` stands for.

    Raises:
        ModelSpecError: There is no such file, module or name.
    """
    where, _, leaf = name.rpartition(":")
    if not where:
        raise ModelSpecError(
            f"{name!r} names nothing in Python. Write FILE.py:NAME or MODULE:NAME."
        )
    module = _load(where)
    found = getattr(module, leaf, None)
    if found is None:
        public = sorted(key for key in vars(module) if not key.startswith("_"))
        raise ModelSpecError(f"{where} has no {leaf!r}. {near(leaf, public)}".rstrip())
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
        named = dict(zip(parameters_of(model), args, strict=False)) | dict(kwargs)
        args, kwargs = (), given_inputs(model, named, options)
    require_inputs(model, args, kwargs)
    return Workload(model=model, args=args, kwargs=kwargs)


def _load(where: str) -> ModuleType:
    if where.endswith(".py") and not Path(where).is_file():
        raise ModelSpecError(
            f"{where} does not exist. Give the path of a Python file: FILE.py:NAME."
        )
    try:
        return _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        if repair_torchvision():  # what the file imports may have needed that
            return _load(where)
        raise ModelSpecError(
            f"{where} cannot be imported: {type(error).__name__}: {error}. Correct it, or run "
            "where its imports work."
        ) from error


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101 - a path ending in .py has a loader
    assert spec.loader is not None  # noqa: S101 - likewise
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the file look their module up.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _call(found: Any, name: str) -> Any:
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        with on_meta():
            return found()
    except Exception:  # noqa: BLE001 - some code computes while it builds: let it have real tensors
        try:
            return found()
        except Exception as error:
            msg = (
                f"{name} fails when called without arguments: {type(error).__name__}: {error}. "
                "Give a function that builds the model by itself."
            )
            raise ModelSpecError(msg) from error


def _unpack(found: Any, name: str) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    parts = found if isinstance(found, tuple) else (found,)
    model, args, kwargs = (*parts, (), {})[:3] if len(parts) != 2 else (*parts, {})  # noqa: PLR2004 - (model, args)
    fits = isinstance(model, nn.Module) and isinstance(args, tuple) and isinstance(kwargs, Mapping)
    if not fits:
        msg = (
            f"{name} gives a {type(model).__name__}, not a model. It must be an nn.Module, or "
            "return one or (model, args, kwargs)."
        )
        raise ModelSpecError(msg)
    return model, args, kwargs


def _cast(values: Any, dtype: torch.dtype) -> Any:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return torch.utils._pytree.tree_map_only(torch.Tensor, cast, values)
