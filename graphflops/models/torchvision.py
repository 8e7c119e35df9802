"""Resolver of ``torchvision:``: torchvision models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torchvision import __version__, models

from graphflops.errors import InputError, ModelNameError
from graphflops.models import schemes
from graphflops.models.inputs import apply_user_inputs, floating_dtype, forward_parameters
from graphflops.models.inputs.tensors import meta_tensor
from graphflops.models.optional_dependencies import build_without_weights
from graphflops.models.workload import Options, Workload

FRAMES = 16
"""Frames of a clip, as in the training of the video models."""
MAX_DETECTION_BATCH = 1_000
"""Most images in the list that a detector takes, which it loops over in Python."""
FLOW_SIZE = (520, 960)
"""Typical height and width of a video frame for optical flow."""


def resolve(name: str, options: Options) -> Workload:
    """Build a torchvision model without weights, and images of its default weights' size.

    ``--set`` sets keywords of its constructor.

    Raises:
        ModelSpecError: torchvision has no such model, or cannot build it with these options.
    """
    options.forbid(
        "a torchvision model", "seq_len", "audio_seconds", "revision", "trust_remote_code"
    )
    if name not in models.list_models():
        hint = schemes.suggest_model_names(f"torchvision:{name}")
        raise ModelNameError(f"torchvision {__version__} has no model {name!r}. {hint}".rstrip())
    dtype = floating_dtype(options.dtype) or torch.float32
    size = _size(name, options)
    model = _build(name, size, options).to(dtype)
    batch = options.batch_size or 1
    if _task(name) == "detection" and batch > MAX_DETECTION_BATCH:
        msg = (
            f"--batch-size {batch}: torchvision:{name} takes a list of images, one after the "
            f"other. Ask for at most {MAX_DETECTION_BATCH:,}."
        )
        raise InputError(msg)

    def image(*leading: int) -> torch.Tensor:
        return meta_tensor((*leading, *size), dtype)

    inputs: dict[str, Callable[[], tuple[Any, ...]]] = {
        "detection": lambda: ([image(3) for _ in range(batch)],),
        "optical flow": lambda: (image(batch, 3), image(batch, 3)),
        "video": lambda: (image(batch, 3, FRAMES),),
    }
    args = inputs.get(_task(name), lambda: (image(batch, 3),))()
    kwargs = dict(zip(forward_parameters(model), args, strict=False))
    return Workload(model=model, kwargs=apply_user_inputs(model, kwargs, options))


def known() -> Mapping[str, str]:
    """Return the models with their tasks."""
    return {name: _task(name) for name in models.list_models()}


def _task(name: str) -> str:
    """Return the subpackage of ``torchvision.models`` with the builder, or ``classification``."""
    packages = models.get_model_builder(name).__module__.split(".")[2:]
    return packages[0].replace("_", " ") if len(packages) > 1 else "classification"


def _size(name: str, options: Options) -> tuple[int, int]:
    """Return the height and width of images in the evaluation of the default weights."""
    default = getattr(models.get_model_weights(name), "DEFAULT", None)
    preset = getattr(getattr(default, "transforms", None), "keywords", {})
    fallback = {"optical flow": FLOW_SIZE, "detection": 800}.get(_task(name), 224)
    size = preset.get("crop_size") or preset.get("resize_size") or fallback
    size = options.image_size or options.overrides.get("image_size", size)
    return (size, size) if isinstance(size, int) else tuple(size)


def _build(name: str, size: tuple[int, int], options: Options) -> Any:
    builder = models.get_model_builder(name)
    keywords = dict(options.overrides)
    if "weights_backbone" in inspect.signature(builder).parameters:
        keywords["weights_backbone"] = None
    # Position tables and windows have a fixed size.
    if name.startswith("vit_"):
        keywords["image_size"] = size[0]
    elif name.startswith("maxvit"):
        keywords.setdefault("input_size", size)
    return build_without_weights(f"torchvision:{name}", lambda: builder(**keywords))
