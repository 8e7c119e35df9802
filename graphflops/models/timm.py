"""Resolver of ``timm:``: timm models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config

from graphflops.errors import ModelNameError
from graphflops.models import schemes
from graphflops.models.inputs import apply_user_inputs, floating_dtype, forward_parameters
from graphflops.models.inputs.tensors import meta_tensor
from graphflops.models.optional_dependencies import build_without_weights
from graphflops.models.workload import Options, Workload


def resolve(name: str, options: Options) -> Workload:
    """Build a timm model without weights, and an image of its pretrained config's size.

    ``--set`` sets keywords of its constructor.

    Raises:
        ModelSpecError: timm has no such model, or cannot build it with these options.
    """
    options.forbid("a timm model", "seq_len", "audio_seconds", "revision", "trust_remote_code")
    if not timm.is_model(name):
        hint = schemes.suggest_model_names(f"timm:{name}")
        raise ModelNameError(f"timm {timm.__version__} has no model {name!r}. {hint}".rstrip())
    model = _build(name, options)
    dtype = floating_dtype(options.dtype) or torch.float32
    shape = (options.batch_size or 1, *_image_shape(model, options))
    inputs = {forward_parameters(model)[0]: meta_tensor(shape, dtype)}
    return Workload(model=model.to(dtype), kwargs=apply_user_inputs(model, inputs, options))


def known() -> Mapping[str, str]:
    """Return the architectures with the modules of timm that define them."""
    modules = {
        name: module for module in timm.list_modules() for name in timm.list_models(module=module)
    }
    return {name: modules.get(name, "") for name in timm.list_models()}


def _build(name: str, options: Options) -> Any:
    keywords = dict(options.overrides)
    has_fixed_size = timm.get_pretrained_cfg_value(name, "fixed_input_size")
    if options.image_size and has_fixed_size:
        # Position tables and windows have a fixed size.
        keywords.setdefault("img_size", options.image_size)
    return build_without_weights(f"timm:{name}", lambda: timm.create_model(name, **keywords))


def _image_shape(model: Any, options: Options) -> tuple[int, int, int]:
    channels, height, width = resolve_model_data_config(model)["input_size"]
    size = options.image_size or options.overrides.get("img_size", (height, width))
    height, width = (size, size) if isinstance(size, int) else size
    return options.overrides.get("in_chans", channels), height, width
