"""transformers models, built from a config on the meta device. The only room with transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from graphflops.errors import ModelSpecError
from graphflops.models.inputs import floating_dtype, transformers_inputs
from graphflops.models.workload import Options, Workload, near

try:
    import transformers
except ImportError as error:
    msg = "hf: names need transformers. Run: pip install 'graphflops[hf]'"
    raise ModelSpecError(msg) from error


def resolve(name: str, options: Options) -> Workload:
    """Build a transformers model from a config file, its folder, or a model type.

    The class is the first of the config's ``architectures`` (so a causal language model has
    its head), else the one ``AutoModel`` picks.

    Raises:
        ModelSpecError: No such file or type, a config without a type, or an unknown key.
    """
    values = _config_values(name)
    model_type = values.pop("model_type", None)
    if model_type is None:
        msg = f'the config {name} has no \'model_type\'. Add one, e.g. "model_type": "llama".'
        raise ModelSpecError(msg)
    config_class = _config_class(str(model_type))
    for key, value in options.overrides.items():
        _override(values, config_class, key, value)
    try:
        config = config_class.from_dict(values)
        model = _build(config, floating_dtype(options.dtype))
    except ModelSpecError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = (
            f"transformers cannot build {model_type!r} from this config: {reason} "
            "Correct the config or --set."
        )
        raise ModelSpecError(msg) from error
    kwargs, notes = transformers_inputs(model, config, options)
    return Workload(model=model, kwargs=kwargs, notes=notes)


def _config_values(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.is_dir():
        path /= "config.json"
    if not path.is_file():
        if path.suffix == ".json" or "/" in name:
            msg = (
                f"{path} does not exist. Give a config.json, its folder, or a model type such as "
                "hf:bert."
            )
            raise ModelSpecError(msg)
        return {"model_type": name}
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        msg = f"{path} is not JSON: {error}. Give a transformers config.json."
        raise ModelSpecError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path} holds no JSON object. Give a transformers config.json."
        raise ModelSpecError(msg)
    return values


def _config_class(model_type: str) -> Any:
    known = transformers.CONFIG_MAPPING
    if model_type in known:
        return known[model_type]
    hint = near(model_type, sorted(known.keys()))
    msg = (
        f"transformers {transformers.__version__} has no model type {model_type!r}. {hint}".rstrip()
    )
    raise ModelSpecError(msg)


def _override(values: dict[str, Any], config_class: Any, key: str, value: Any) -> None:
    """Set a config key before the config is built, so that what depends on it follows."""
    known: Any = config_class().to_dict()
    target: Any = values
    *parents, leaf = key.split(".")
    for part in parents:
        known = known.get(part) if isinstance(known, Mapping) else None
        # What is not overridden stays as this config has it, not as a part of the type has it.
        target = (
            target.setdefault(part, dict(known)) if known and isinstance(target, dict) else None
        )
    if not isinstance(known, Mapping) or not isinstance(target, dict):
        msg = (
            f"--set {key}: the config of {config_class.__name__} has no part {'.'.join(parents)!r}."
        )
        raise ModelSpecError(msg)
    if leaf not in known and leaf not in target:
        hint = near(leaf, sorted(known))
        raise ModelSpecError(
            f"--set {key}: {config_class.__name__} has no such key. {hint}".rstrip()
        )
    target[leaf] = value


def _build(config: Any, dtype: torch.dtype | None) -> Any:
    named = getattr(config, "architectures", None) or ()
    model_class = next((getattr(transformers, name, None) for name in named), None)
    options = {} if dtype is None else {"dtype": dtype}
    with torch.device("meta"):
        if model_class is not None:
            return model_class._from_config(config, **options).eval()
        return transformers.AutoModel.from_config(config, **options).eval()
