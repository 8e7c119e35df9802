"""Inputs made from what a model declares, and inputs given by the user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from graphflops.errors import ModelSpecError
from graphflops.models.workload import InputSpec, Options, near

DEFAULT_BATCH_SIZE = 1
DEFAULT_SEQ_LEN = 128


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
        inputs[name] = _tensor(spec, inputs.get(name), floating_dtype(options.dtype))
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


def _tensor(spec: InputSpec, replaced: object, floating: torch.dtype | None) -> torch.Tensor:
    if spec.dtype is not None:
        dtype = _dtype(spec.dtype)
    elif isinstance(replaced, torch.Tensor):
        dtype = replaced.dtype
    else:
        dtype = floating or torch.float32
    return torch.empty(spec.shape, dtype=dtype, device="meta")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if isinstance(found, torch.dtype):
        return found
    known = [key for key, value in vars(torch).items() if isinstance(value, torch.dtype)]
    msg = f"{name!r} is not a dtype. {near(name, known)}".rstrip()
    raise ModelSpecError(msg)


def transformers_inputs(model: nn.Module, config: Any, options: Options) -> dict[str, Any]:
    """Inputs for a transformers model: text and images, by what its config declares.

    Raises:
        ModelSpecError: The model's main input is of a kind that has no rule yet.
    """
    declared = parameters_of(model)
    batch = options.batch_size or DEFAULT_BATCH_SIZE
    text, vision = _part(config, "text_config"), _part(config, "vision_config")
    made: dict[str, Any] = {}
    for name, wanted, make in _RULES:
        if name in declared and wanted(model, config):
            made[name] = make(text, vision, batch, options)
    if "use_cache" in declared:
        # One forward pass: a cache would add copies that only generation needs.
        made["use_cache"] = False
    main = str(getattr(model, "main_input_name", "input_ids"))
    if main not in made and main not in options.inputs:
        msg = (
            f"{type(model).__name__} takes {main!r}, which is not made up from a config yet. "
            f"Give it: --input {main}=SHAPE[:DTYPE]."
        )
        raise ModelSpecError(msg)
    return given_inputs(model, made, options)


def _part(config: Any, name: str) -> Any:
    return getattr(config, name, None) or config


def _tokens(text: Any, _vision: Any, batch: int, options: Options) -> torch.Tensor:
    positions = getattr(text, "max_position_embeddings", None) or DEFAULT_SEQ_LEN
    length = options.seq_len or min(DEFAULT_SEQ_LEN, positions)
    return torch.zeros(batch, length, dtype=torch.int64, device="meta")


def _image(_text: Any, vision: Any, batch: int, options: Options) -> torch.Tensor:
    size = getattr(vision, "image_size", None) or 224
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = getattr(vision, "num_channels", None) or 3
    dtype = floating_dtype(options.dtype) or torch.float32
    return torch.zeros(batch, channels, height, width, dtype=dtype, device="meta")


def _has_text(model: Any, config: Any) -> bool:
    vocabulary = getattr(_part(config, "text_config"), "vocab_size", None)
    return model.main_input_name == "input_ids" or bool(vocabulary)


def _is_encoder_decoder(_model: Any, config: Any) -> bool:
    return bool(getattr(config, "is_encoder_decoder", False))


def _needs_image(model: Any, config: Any) -> bool:
    # A dual encoder needs both inputs; a generative model can be counted on text alone.
    dual = hasattr(config, "vision_config") and not (
        hasattr(config, "image_token_id") or hasattr(config, "image_token_index")
    )
    return model.main_input_name == "pixel_values" or dual


_Make = Callable[[Any, Any, int, Options], torch.Tensor]
_RULES: tuple[tuple[str, Callable[[Any, Any], bool], _Make], ...] = (
    ("input_ids", _has_text, _tokens),
    ("decoder_input_ids", _is_encoder_decoder, _tokens),
    ("pixel_values", _needs_image, _image),
)
