"""Resolver of ``hf:``: transformers models, built from a config on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import dynamic_module_utils
from transformers.models.auto import configuration_auto, modeling_auto

from graphflops.errors import ModelNameError, ModelSpecError
from graphflops.models import schemes
from graphflops.models.hub import LoadedConfig, load_config, strip_code
from graphflops.models.inputs import floating_dtype, transformers_inputs
from graphflops.models.model_class import class_by_name, default_class, generation_class, task_names
from graphflops.models.optional_dependencies import build_on_meta
from graphflops.models.workload import Options, Workload, suggest


def resolve(name: str, options: Options) -> Workload:
    """Build a transformers model from a model type, a config on this machine or on the hub.

    The class is the one after ``@``, else the first of the config's ``architectures`` (so a
    causal language model has its head), else the class that ``AutoModel`` picks, or the nearest
    one.

    Raises:
        ModelSpecError: No such file, type or class, a config without a type, an unknown key,
            or code that the user has not allowed to run.
    """
    # A path may contain an @.
    location, _, class_name = (name, "", "") if Path(name).exists() else name.partition("@")
    loaded = load_config(location, options)
    config_class = _config_class(loaded, location, options)
    values = dict(loaded.values) if options.trust_remote_code else strip_code(loaded.values)
    for key, value in options.overrides.items():
        _set_key(values, config_class, key, value)
    dtype = floating_dtype(options.dtype)
    try:
        config = config_class.from_dict(values)
        model_class = _model_class(config, class_name, loaded, options)
        # AutoModel... has from_config, a model class _from_config, which does the same.
        build = getattr(model_class, "from_config", None) or model_class._from_config
        dtype_option = {} if dtype is None else {"dtype": dtype}
        model = build_on_meta(lambda: build(config, **dtype_option)).eval()
    except ModelSpecError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        msg = (
            f"transformers cannot build {config_class.model_type!r} from this config: {reason}. "
            "Correct the config or --set."
        )
        raise ModelSpecError(msg) from error
    kwargs, notes = transformers_inputs(model, config, options)
    return Workload(model=model, kwargs=kwargs, notes=notes)


def known() -> Mapping[str, str]:
    """Return the model types with their default classes, or their configs without a class."""
    configs = configuration_auto.CONFIG_MAPPING_NAMES
    classes = modeling_auto.MODEL_MAPPING_NAMES
    return {
        name: _first(classes[name]) if name in classes else next(iter(task_names(name)), config)
        for name, config in sorted(configs.items())
    }


def _first(names: str | tuple[str, ...]) -> str:
    return names if isinstance(names, str) else names[0]


def _config_class(loaded: LoadedConfig, location: str, options: Options) -> Any:
    code = loaded.values.get("auto_map") or {}
    if options.trust_remote_code and "AutoConfig" in code:
        return _remote_class(code["AutoConfig"], loaded, options)
    model_type = loaded.values.get("model_type")
    if model_type in transformers.CONFIG_MAPPING:
        return transformers.CONFIG_MAPPING[model_type]
    if code:
        msg = (
            f"{location} is built by Python code that comes with it. If you trust its authors, "
            "allow that code to run: --trust-remote-code."
        )
    elif model_type is None:
        msg = f'the config {location} has no \'model_type\'. Add one, e.g. "model_type": "llama".'
    else:
        msg = f"transformers {transformers.__version__} has no model type {model_type!r}."
        hint = schemes.suggest_model_names(f"hf:{model_type}")
        msg = f"{msg} {hint or '`graphflops models hf:` lists all.'}"
    raise ModelNameError(msg)


def _model_class(config: Any, class_name: str, loaded: LoadedConfig, options: Options) -> Any:
    code = (loaded.values.get("auto_map") or {}) if options.trust_remote_code else {}
    models = {name: reference for name, reference in code.items() if name.startswith("AutoModel")}
    default_names = [*(config.architectures or ()), "AutoModel", *models]
    for candidate in [class_name] if class_name else default_names:
        for auto_name, reference in models.items():
            if candidate in {auto_name, reference.rpartition(".")[2]}:
                return _remote_class(reference, loaded, options)
    if class_name:
        return class_by_name(config, class_name)
    return generation_class(config) if options.generates else default_class(config)


def _remote_class(reference: str, loaded: LoadedConfig, options: Options) -> Any:
    try:
        return dynamic_module_utils.get_class_from_dynamic_module(
            reference, loaded.code_location, revision=options.revision
        )
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        msg = (
            f"the code of {loaded.code_location} cannot be loaded: {reason}. Install what it "
            "needs, or leave out --trust-remote-code."
        )
        raise ModelSpecError(msg) from error


def _set_key(values: dict[str, Any], config_class: Any, key: str, value: Any) -> None:
    """Set a config key before the config is built, so that dependent values follow."""
    default: Any = config_class()
    keys: Any = default.to_dict()
    target: Any = values
    *parents, leaf = key.split(".")
    for part in parents:
        default = getattr(default, part, None)
        keys = keys.get(part) if isinstance(keys, Mapping) else None
        if isinstance(target, dict):
            target = target.setdefault(part, _non_default_values(default))
        else:
            target = None
    if not isinstance(keys, Mapping) or not isinstance(target, dict):
        msg = (
            f"--set {key}: the config of {config_class.__name__} has no part {'.'.join(parents)!r}."
        )
        raise ModelSpecError(msg)
    if leaf not in keys and leaf not in target:
        hint = suggest(leaf, sorted(keys))
        raise ModelSpecError(
            f"--set {key}: {config_class.__name__} has no such key. {hint}".rstrip()
        )
    target[leaf] = value


def _non_default_values(part: Any) -> dict[str, Any]:
    """Return the values of a subconfig that differ from its type's defaults.

    The others must not be set: lists with an entry per layer are derived from them.
    """
    if not hasattr(part, "to_dict"):
        return dict(part or {})
    defaults = type(part)().to_dict()
    values = part.to_dict()
    return {k: v for k, v in values.items() if k == "model_type" or defaults.get(k) != v}
