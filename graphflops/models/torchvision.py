"""torchvision models: the resolver of ``torchvision:``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torchvision import __version__, models

from graphflops.errors import ModelSpecError
from graphflops.models import schemes
from graphflops.models.inputs import apply_user_inputs, floating_dtype, forward_parameters
from graphflops.models.inputs.tensors import meta_tensor
from graphflops.models.optional_dependencies import weightless
from graphflops.models.workload import Options, Workload

FRAMES = 16
"""Of a clip: what the video models were trained on."""
MOST_SCENES = 1_000
"""Images in the list that a detector takes: it goes through them in Python."""
FLOW_SIZE = (520, 960)
"""Height and width of a frame of video as optical flow is usually asked for."""


def resolve(name: str, options: Options) -> Workload:
    """Build a torchvision model without weights, and the images its default weights want.

    ``--set`` gives keywords of its constructor.

    Raises:
        ModelSpecError: torchvision has no such model, or cannot build it so.
    """
    options.forbid(
        "a torchvision model", "seq_len", "audio_seconds", "revision", "trust_remote_code"
    )
    if name not in models.list_models():
        hint = schemes.near(f"torchvision:{name}")
        raise ModelSpecError(f"torchvision {__version__} has no model {name!r}. {hint}".rstrip())
    dtype = floating_dtype(options.dtype) or torch.float32
    size = _size(name, options)
    model = _build(name, size, options).to(dtype)
    batch = options.batch_size or 1
    if _task(name) == "detection" and batch > MOST_SCENES:
        msg = (
            f"--batch-size {batch}: torchvision:{name} takes a list of images, one after the "
            f"other. Ask for at most {MOST_SCENES:,}."
        )
        raise ModelSpecError(msg)

    def image(*lead: int) -> torch.Tensor:
        return meta_tensor((*lead, *size), dtype)

    inputs: dict[str, Callable[[], tuple[Any, ...]]] = {
        "detection": lambda: ([image(3) for _ in range(batch)],),
        "optical flow": lambda: (image(batch, 3), image(batch, 3)),
        "video": lambda: (image(batch, 3, FRAMES),),
    }
    args = inputs.get(_task(name), lambda: (image(batch, 3),))()
    made = dict(zip(forward_parameters(model), args, strict=False))
    return Workload(model=model, kwargs=apply_user_inputs(model, made, options))


def known() -> Mapping[str, str]:
    """The models, each with what it is for."""
    return {name: _task(name) for name in models.list_models()}


def _task(name: str) -> str:
    """The package of ``torchvision.models`` that has the builder; classification has none."""
    place = models.get_model_builder(name).__module__.split(".")[2:]
    return place[0].replace("_", " ") if len(place) > 1 else "classification"


def _size(name: str, options: Options) -> tuple[int, int]:
    """Height and width the default weights were evaluated at."""
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
    # Position tables and windows are laid out for one size.
    if name.startswith("vit_"):
        keywords["image_size"] = size[0]
    elif name.startswith("maxvit"):
        keywords.setdefault("input_size", size)
    return weightless(f"torchvision:{name}", lambda: builder(**keywords))
