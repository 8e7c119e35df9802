"""Selection of the transformers class to build a config as."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from graphflops.errors import ModelNameError
from graphflops.models.workload import suggest

_TASK_CLASS_NAMES = [
    names_by_type
    for key, names_by_type in vars(modeling_auto).items()
    if key.startswith("MODEL_FOR_") and key.endswith("_NAMES")
]


def class_by_name(config: Any, name: str) -> Any:
    """Return a model class or ``AutoModel...`` class by name, if it takes the config.

    Raises:
        ModelSpecError: There is no such class, or it takes another config.
    """
    classes = {candidate.__name__: candidate for candidate in _classes(config)}
    candidate = classes.get(name) or getattr(transformers, name, None)
    auto_classes = {
        key: auto
        for key, auto in vars(modeling_auto).items()
        if key.startswith("AutoModel") and type(config) in (auto._model_mapping or ())
    }
    if name in auto_classes or getattr(candidate, "config_class", None) is type(config):
        return candidate
    problem = "has no model class"
    if candidate is not None:
        problem = f"cannot build a {config.model_type!r} as"
    choices = sorted(classes) or sorted(auto_classes)
    hint = suggest(name, choices) or f"Known: {', '.join(choices)}."
    raise ModelNameError(f"transformers {transformers.__version__} {problem} {name!r}. {hint}")


def default_class(config: Any) -> Any:
    """Return the class that a config names, or that ``AutoModel`` picks, or the nearest one.

    Many submodels and some tasks have a config and no ``AutoModel``: they are built as the first
    task class that transformers lists for them, else as the model class in their own code.

    Raises:
        ModelSpecError: transformers has no model for the config.
    """
    for name in getattr(config, "architectures", None) or ():
        if (architecture := getattr(transformers, name, None)) is not None:
            return architecture
    if type(config) in transformers.AutoModel._model_mapping:
        return transformers.AutoModel
    for name in task_names(config.model_type):
        if (candidate := getattr(transformers, name, None)) is not None:
            return candidate
    classes = _classes(config)
    if not classes:
        msg = (
            f"transformers has a config {config.model_type!r} but no model that is built from it "
            "alone. Give the type of the model it is part of."
        )
        raise ModelNameError(msg)
    return next(
        (candidate for candidate in classes if candidate.__name__.endswith("Model")), classes[0]
    )


def generation_class(config: Any) -> Any:
    """Return the default class if it generates, else an ``AutoModel`` class that does.

    Raises:
        ModelSpecError: transformers has no such class for the config.
    """
    default = default_class(config)
    if hasattr(default, "can_generate") and default.can_generate():
        return default
    for name in _GENERATION_CLASSES:
        candidate = getattr(transformers, name, None)
        if candidate is not None and type(config) in candidate._model_mapping:
            return candidate
    msg = (
        f"transformers has no model of type {config.model_type!r} that continues a prompt. Name "
        "one that does, such as hf:llama, hf:t5 or hf:llava."
    )
    raise ModelNameError(msg)


_GENERATION_CLASSES = (
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForCausalLM",
)


def task_names(model_type: str) -> list[str]:
    """Return the names of a type's task classes in transformers, common tasks first."""
    names = [by_type[model_type] for by_type in _TASK_CLASS_NAMES if model_type in by_type]
    return [name if isinstance(name, str) else name[0] for name in names]


def _classes(config: Any) -> list[Any]:
    """Return the model classes in the config's package that are built from this config alone."""
    package = importlib.import_module(type(config).__module__.rpartition(".")[0])
    modules = [
        importlib.import_module(f"{package.__name__}.{candidate.name}")
        for candidate in pkgutil.iter_modules(package.__path__)
        if candidate.name.startswith("modeling_")
    ]
    return [
        candidate
        for module in modules
        for candidate in vars(module).values()
        if _is_model(candidate, module, config)
    ]


def _is_model(candidate: Any, module: ModuleType, config: Any) -> bool:
    base: Any = transformers.PreTrainedModel
    return (
        isinstance(candidate, type)
        and issubclass(candidate, base)
        and candidate.__module__ == module.__name__
        and getattr(candidate, "config_class", None) is type(config)
        # The common base class of a file's models has no forward.
        and getattr(candidate, "forward", None) is not base.forward
    )
