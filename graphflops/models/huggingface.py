"""transformers models, built from a config on the meta device: the resolver of ``hf:``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import dynamic_module_utils
from transformers.models.auto import configuration_auto, modeling_auto

from graphflops.errors import ModelSpecError
from graphflops.models import schemes
from graphflops.models.hub import Config, find_config, without_code
from graphflops.models.inputs import floating_dtype, transformers_inputs
from graphflops.models.model_class import chosen_class, generating_class, task_names, usual_class
from graphflops.models.optional_dependencies import built_on_meta
from graphflops.models.workload import Options, Workload, near


def resolve(name: str, options: Options) -> Workload:
    """Build a transformers model from a model type, a config on this machine or on the hub.

    The class is the one after ``@``, else the first of the config's ``architectures`` (so a
    causal language model has its head), else the one ``AutoModel`` picks or what comes
    closest to it.

    Raises:
        ModelSpecError: No such file, type or class, a config without a type, an unknown key,
            or code that nobody allowed to run.
    """
    # A path may have an @ of its own.
    where, _, head = (name, "", "") if Path(name).exists() else name.partition("@")
    found = find_config(where, options)
    config_class = _config_class(found, where, options)
    values = dict(found.values) if options.trust_remote_code else without_code(found.values)
    for key, value in options.overrides.items():
        _override(values, config_class, key, value)
    dtype = floating_dtype(options.dtype)
    try:
        config = config_class.from_dict(values)
        model_class = _model_class(config, head, found, options)
        # AutoModel... has from_config, a class of its own _from_config: the same thing.
        build = getattr(model_class, "from_config", None) or model_class._from_config
        options_of_build = {} if dtype is None else {"dtype": dtype}
        model = built_on_meta(lambda: build(config, **options_of_build)).eval()
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
    """The model types, each with the class it is built as, or its config where that is open."""
    configs = configuration_auto.CONFIG_MAPPING_NAMES
    listed = modeling_auto.MODEL_MAPPING_NAMES
    return {
        name: _first(listed[name]) if name in listed else next(iter(task_names(name)), config)
        for name, config in sorted(configs.items())
    }


def _first(listed: str | tuple[str, ...]) -> str:
    return listed if isinstance(listed, str) else listed[0]


def _config_class(found: Config, where: str, options: Options) -> Any:
    code = found.values.get("auto_map") or {}
    if options.trust_remote_code and "AutoConfig" in code:
        return _remote(code["AutoConfig"], found, options)
    model_type = found.values.get("model_type")
    if model_type in transformers.CONFIG_MAPPING:
        return transformers.CONFIG_MAPPING[model_type]
    if code:
        msg = (
            f"{where} is built by Python code that comes with it. If you trust its authors, "
            "allow that code to run: --trust-remote-code."
        )
    elif model_type is None:
        msg = f'the config {where} has no \'model_type\'. Add one, e.g. "model_type": "llama".'
    else:
        msg = f"transformers {transformers.__version__} has no model type {model_type!r}."
        hint = schemes.near(f"hf:{model_type}")
        msg = f"{msg} {hint or '`graphflops models hf:` lists all.'}"
    raise ModelSpecError(msg)


def _model_class(config: Any, head: str, found: Config, options: Options) -> Any:
    code = (found.values.get("auto_map") or {}) if options.trust_remote_code else {}
    models = {place: path for place, path in code.items() if place.startswith("AutoModel")}
    for wanted in [head] if head else [*(config.architectures or ()), "AutoModel", *models]:
        for place, path in models.items():
            if wanted in {place, path.rpartition(".")[2]}:
                return _remote(path, found, options)
    if head:
        return chosen_class(config, head)
    return generating_class(config) if options.generates else usual_class(config)


def _remote(reference: str, found: Config, options: Options) -> Any:
    try:
        return dynamic_module_utils.get_class_from_dynamic_module(
            reference, found.home, revision=options.revision
        )
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        msg = (
            f"the code of {found.home} cannot be loaded: {reason}. Install what it needs, or "
            "leave out --trust-remote-code."
        )
        raise ModelSpecError(msg) from error


def _override(values: dict[str, Any], config_class: Any, key: str, value: Any) -> None:
    """Set a config key before the config is built, so that what depends on it follows."""
    default: Any = config_class()
    known: Any = default.to_dict()
    target: Any = values
    *parents, leaf = key.split(".")
    for part in parents:
        default = getattr(default, part, None)
        known = known.get(part) if isinstance(known, Mapping) else None
        target = target.setdefault(part, _said(default)) if isinstance(target, dict) else None
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


def _said(part: Any) -> dict[str, Any]:
    """What a config says of its part, without what the part's own type says anyway.

    The rest must not be written down: lists with an entry for each layer follow from it.
    """
    if not hasattr(part, "to_dict"):
        return dict(part or {})
    usual = type(part)().to_dict()
    said = part.to_dict()
    return {k: v for k, v in said.items() if k == "model_type" or usual.get(k) != v}
