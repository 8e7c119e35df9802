"""Which class of transformers a config is built as."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from graphflops.errors import ModelSpecError
from graphflops.models.workload import near

_AUTO = [
    names
    for key, names in vars(modeling_auto).items()
    if key.startswith("MODEL_FOR_") and key.endswith("_NAMES")
]


def chosen_class(config: Any, name: str) -> Any:
    """The class of that name, if it takes the config: a model's own or an ``AutoModel...``.

    Raises:
        ModelSpecError: There is no such class, or it takes another config.
    """
    own = {found.__name__: found for found in _classes(config)}
    found = own.get(name) or getattr(transformers, name, None)
    automatic = {
        key: auto
        for key, auto in vars(modeling_auto).items()
        if key.startswith("AutoModel") and type(config) in (auto._model_mapping or ())
    }
    if name in automatic or getattr(found, "config_class", None) is type(config):
        return found
    wrong = "has no model class" if found is None else f"cannot build a {config.model_type!r} as"
    fits = sorted(own) or sorted(automatic)
    hint = near(name, fits) or f"Known: {', '.join(fits)}."
    raise ModelSpecError(f"transformers {transformers.__version__} {wrong} {name!r}. {hint}")


def usual_class(config: Any) -> Any:
    """The class for a config: what it names, what ``AutoModel`` picks, or the nearest to that.

    Many parts and some tasks have a config and no ``AutoModel``: they are built as the first
    task that transformers lists for them, else as the model in their own code.

    Raises:
        ModelSpecError: transformers has no model for the config.
    """
    for name in getattr(config, "architectures", None) or ():
        if (named := getattr(transformers, name, None)) is not None:
            return named
    if type(config) in transformers.AutoModel._model_mapping:
        return transformers.AutoModel
    for name in task_names(config.model_type):
        if (found := getattr(transformers, name, None)) is not None:
            return found
    own = _classes(config)
    if not own:
        msg = (
            f"transformers has a config {config.model_type!r} but no model that is built from it "
            "alone. Give the type of the model it is part of."
        )
        raise ModelSpecError(msg)
    return next((found for found in own if found.__name__.endswith("Model")), own[0])


def generating_class(config: Any) -> Any:
    """The class that continues a prompt: the usual one if it does, else one for the task.

    Raises:
        ModelSpecError: transformers has none for the config.
    """
    usual = usual_class(config)
    if hasattr(usual, "can_generate") and usual.can_generate():
        return usual
    for name in _GENERATING:
        found = getattr(transformers, name, None)
        if found is not None and type(config) in found._model_mapping:
            return found
    msg = (
        f"transformers has no model of type {config.model_type!r} that continues a prompt. Name "
        "one that does, such as hf:llama, hf:t5 or hf:llava."
    )
    raise ModelSpecError(msg)


_GENERATING = (
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForCausalLM",
)


def task_names(model_type: str) -> list[str]:
    """Names of the classes that transformers lists for a type by task, the usual ones first."""
    listed = [names[model_type] for names in _AUTO if model_type in names]
    return [name if isinstance(name, str) else name[0] for name in listed]


def _classes(config: Any) -> list[Any]:
    """The models in the code next to a config that are built from just that config."""
    package = importlib.import_module(type(config).__module__.rpartition(".")[0])
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
        if found.name.startswith("modeling_")
    ]
    return [
        found
        for module in modules
        for found in vars(module).values()
        if _is_model(found, module, config)
    ]


def _is_model(found: Any, module: ModuleType, config: Any) -> bool:
    base: Any = transformers.PreTrainedModel
    return (
        isinstance(found, type)
        and issubclass(found, base)
        and found.__module__ == module.__name__
        and getattr(found, "config_class", None) is type(config)
        # The common base of a file's models has no forward.
        and getattr(found, "forward", None) is not base.forward
    )
