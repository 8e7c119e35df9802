"""Images and video clips, in the layouts that vision towers take.

Every example gets one image (or one clip). Its size is the config's, ``--image-size`` or
224 x 224 pixels. Towers for images of any size take the patches of all images packed in one
sequence, and the patch grid of each image.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import torch

from graphflops.errors import InputError
from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.tensors import full, materialize_if_small, ones, repeat_batch

DEFAULT_IMAGE_SIZE = 224
# Size that detectors are trained and benchmarked on; their configs do not state it.
DEFAULT_SCENE_SIZE = 640
DEFAULT_FRAMES = 8
REGION_COUNT = 36


def pixel_values(context: InputContext) -> torch.Tensor | None:
    """Return one image per example, if the model takes images."""
    takes_video = "video" in context.modalities and not context.declares("pixel_values_videos")
    if not (takes_video or context.needs_input("image", "pixel_values")):
        return None
    layout = next(layout for fits, layout in _LAYOUTS if fits(context))
    if layout is _image_lists:
        # Images in a list need values: all-zero images are padding, which the model drops.
        return full(layout(context), 1, context.dtype)
    return context.floats(*layout(context))


def pixel_values_videos(context: InputContext) -> torch.Tensor | None:
    """Return one clip per example, if the model takes clips and no images."""
    if "pixel_values" in context.inputs or not context.needs_input("video", "pixel_values_videos"):
        return None
    return context.floats(*clip_shape(context))


def channels(context: InputContext) -> int:
    """Return the number of colour channels: the config's, else 3."""
    return int(context.setting("num_channels", "in_channels", "in_chans", kind="vision", default=3))


def image_size(context: InputContext) -> tuple[int, int]:
    """Return the height and width of an image.

    Raises:
        InputError: The size asked for does not divide into the model's patches.
    """
    requested = context.options.image_size
    if context.setting("num_queries") is not None:
        # A detector takes images of any size, independent of its backbone's training size.
        config_size = getattr(context.config, "image_size", None) or DEFAULT_SCENE_SIZE
    else:
        usual = _timm_size(context) or DEFAULT_IMAGE_SIZE
        config_size = context.setting(*_SIZE_KEYS, kind="vision", default=usual)
    if requested is None:
        return _height_width(config_size)
    unit = patch_size(context) * merge_size(context)
    if requested % unit:
        msg = (
            f"--image-size {requested} is not a multiple of {unit}, the patches of "
            f"{type(context.model).__name__}. Try {max(unit, requested // unit * unit)}."
        )
        raise InputError(msg)
    return requested, requested


_SIZE_KEYS = ("image_size", "img_size", "max_img_size")


def _timm_size(context: InputContext) -> int | None:
    """Return the size that a timm backbone is designed for; the config has only its name."""
    configs = (getattr(module, "pretrained_cfg", None) for module in context.model.modules())
    return next((config["input_size"][-1] for config in configs if config), None)


def patch_size(context: InputContext) -> int:
    """Return the side of a patch in pixels; 1 if the model has no patches."""
    size = context.setting("patch_size", kind="vision", default=1)
    return _height_width(size)[0] if isinstance(size, int | list | tuple) and size else 1


def patch_grid(context: InputContext) -> tuple[int, int]:
    """Return the rows and columns of patches of one image, multiples of the merge size."""
    patch, merge = patch_size(context), merge_size(context)
    height, width = (max(1, round(side / (patch * merge))) * merge for side in image_size(context))
    return height, width


def merge_size(context: InputContext) -> int:
    """Return the side, in patches, of the square that is merged into one token."""
    size = context.setting(*_MERGE_KEYS, kind="vision", default=1)
    return max(_height_width(size))


_MERGE_KEYS = (
    *("spatial_merge_size", "merge_size", "merge_kernel_size"),
    *("downsample_factor", "pixel_shuffle_factor", "scale_factor", "pooling_kernel_size"),
)


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if isinstance(size, list | tuple):
        return int(size[-2] if len(size) > 1 else size[0]), int(size[-1])
    return int(size), int(size)


def _single_image(context: InputContext) -> tuple[int, ...]:
    return (context.batch, channels(context), *image_size(context))


def _image_lists(context: InputContext) -> tuple[int, ...]:
    """Return a list of one image per example, whose patches merge evenly."""
    patch = patch_size(context)
    sides = [patch * patches for patches in patch_grid(context)]
    return (context.batch, 1, channels(context), *sides)


def clip_shape(context: InputContext) -> tuple[int, ...]:
    """Return the shape of one clip of frames per example."""
    frames = context.setting("num_frames", "frames_per_clip", kind="vision", default=DEFAULT_FRAMES)
    batch, *image = _single_image(context)
    return (batch, int(frames), *image)


def _packed_patches(context: InputContext) -> tuple[int, ...]:
    """Return the shape of the flattened patches of all images, packed in one sequence."""
    frames = context.setting("temporal_patch_size", "patch_temporal", kind="vision", default=1)
    patches = context.batch * math.prod(patch_grid(context))
    return (patches, channels(context) * int(frames) * patch_size(context) ** 2)


def _padded_patches(context: InputContext) -> tuple[int, ...]:
    """Return the shape of the flattened patches of one image per example."""
    patches = math.prod(patch_grid(context))
    return (context.batch, patches, channels(context) * patch_size(context) ** 2)


def _patch_strip(context: InputContext) -> tuple[int, ...]:
    """Return the shape of one image that holds the patches of all images in a single row."""
    patches = context.batch * math.prod(patch_grid(context))
    patch = patch_size(context)
    return (1, channels(context), patch, patches * patch)


def _tiles(context: InputContext) -> tuple[int, ...]:
    """Return the shape of an image and its tiles, which the model's own code counts."""
    batch, *image = _single_image(context)
    count = sys.modules[type(context.model).__module__].image_size_to_num_patches
    tiles = count((image[1], image[2]), context.setting("image_grid_pinpoints"), image[1])
    return (batch, int(tiles), *image)


def _tiled_media(context: InputContext) -> tuple[int, ...]:
    """Return the shape of images with the maximum number of tiles, padding included."""
    batch, *image = _single_image(context)
    return (batch, 1, int(context.setting("max_num_tiles", kind="vision", default=1)), *image)


def _declares(*names: str) -> Callable[[InputContext], bool]:
    return lambda context: context.declares(*names)


def _is_anyres(context: InputContext) -> bool:
    return bool(context.setting("image_grid_pinpoints"))


def _is_clip(context: InputContext) -> bool:
    takes_video = "video" in context.modalities and "image" not in context.modalities
    return takes_video or context.setting("num_frames", kind="vision") is not None


_LAYOUTS: tuple[
    tuple[Callable[[InputContext], bool], Callable[[InputContext], tuple[int, ...]]], ...
] = (
    (_declares("grid_thw"), _packed_patches),
    (_declares("image_grid_thw"), _packed_patches),
    (_declares("spatial_shapes"), _padded_patches),
    (_declares("pixel_position_ids"), _padded_patches),
    (_declares("image_position_ids"), _padded_patches),
    (_declares("target_sizes"), _patch_strip),
    (_declares("aspect_ratio_ids"), _tiled_media),
    (_is_anyres, _tiles),
    (_declares("input_ids", "pixel_attention_mask"), _image_lists),
    (_is_clip, clip_shape),
    (lambda _: True, _single_image),
)


def grid_thw(context: InputContext) -> torch.Tensor:
    """Return frames, rows and columns of each image, with values: sizes depend on them."""
    return context.repeat_values((1, *patch_grid(context)))


def image_grid_thw(context: InputContext) -> torch.Tensor | None:
    """Return :func:`grid_thw`, if the inputs include images."""
    return grid_thw(context) if "pixel_values" in context.inputs else None


def spatial_shapes(context: InputContext) -> torch.Tensor | None:
    """Return the rows and columns of patches of each image."""
    return _rows_and_columns(context) if "pixel_values" in context.inputs else None


def _rows_and_columns(context: InputContext) -> torch.Tensor:
    return context.repeat_values(patch_grid(context))


def pixel_attention_mask(context: InputContext) -> torch.Tensor | None:
    """Return a mask without padding, of patches where they are the input, else of pixels."""
    pixels = context.inputs.get("pixel_values")
    if pixels is None:
        return None
    if context.declares("spatial_shapes"):
        return ones(*pixels.shape[:2])
    return ones(*pixels.shape[:-3], *pixels.shape[-2:]).bool()


def patch_positions(context: InputContext) -> torch.Tensor | None:
    """Return the column and row of each patch of each image."""
    if "pixel_values" not in context.inputs:
        return None
    axes = [*patch_grid(context)]

    def grid() -> torch.Tensor:
        positions = torch.cartesian_prod(*(torch.arange(size, device="cpu") for size in axes))
        return positions.flip(1)[None]

    return repeat_batch(materialize_if_small((1, math.prod(axes), 2), grid), context.batch)


def image_sizes(context: InputContext) -> torch.Tensor | None:
    """Return the height and width of each image before tiling or padding."""
    # Only the modules that use them count; a parent of the tower passes them on.
    parts = (part for part in context.model.modules() if not hasattr(part, "get_image_features"))
    requested = any("image_sizes" in inspect.signature(part.forward).parameters for part in parts)
    if "pixel_values" not in context.inputs or not (requested or _is_anyres(context)):
        return None
    return context.repeat_values(image_size(context))


def aspect_ratio_ids(context: InputContext) -> torch.Tensor | None:
    """Return the index of each image's aspect ratio: the first, one tile."""
    return ones(context.batch, 1) if "pixel_values" in context.inputs else None


def aspect_ratio_mask(context: InputContext) -> torch.Tensor | None:
    """Return a mask of tiles without padding."""
    if "pixel_values" not in context.inputs:
        return None
    return ones(*context.inputs["pixel_values"].shape[:3])


def hidden_states(context: InputContext) -> torch.Tensor | None:
    """Return the patches, under the name that towers for images of any size have for them."""
    if not context.declares("grid_thw"):
        return None
    return context.floats(*_packed_patches(context))


def high_res_pixel_values(context: InputContext) -> torch.Tensor | None:
    """Return the image in the size of a second tower."""
    if "pixel_values" not in context.inputs:
        return None
    side = context.setting("image_size", kind="high_res", default=1024)
    return context.floats(context.batch, channels(context), *_height_width(side))


def prompt_image(context: InputContext) -> torch.Tensor:
    """Return the prompt of an image model: an image or mask of the same size."""
    return torch.ones_like(context.inputs["pixel_values"])


def visual_features(context: InputContext) -> torch.Tensor | None:
    """Return features of 36 regions, the number that LXMERT's detector returns."""
    width = context.setting("visual_feat_dim", "visual_embedding_dim", default=2048)
    return context.floats(context.batch, REGION_COUNT, width)


def visual_pos(context: InputContext) -> torch.Tensor:
    """Return four coordinates for each of those regions."""
    return context.floats(context.batch, REGION_COUNT, 4)


def query_embeds(context: InputContext) -> torch.Tensor:
    """Return the learned queries of a querying transformer, parameters of its parent."""
    queries = context.setting("num_query_tokens", default=32)
    return context.floats(context.batch, queries, context.config.hidden_size)


def encoder_hidden_states(context: InputContext) -> torch.Tensor | None:
    """Return the states that those queries attend to: 16 x 16 patches and a class token."""
    if "query_embeds" not in context.inputs:
        return None
    return context.floats(context.batch, 16 * 16 + 1, context.config.encoder_hidden_size)


def input_points(context: InputContext) -> torch.Tensor:
    """Return one point on the object to segment in each image."""
    return context.floats(context.batch, 1, 1, 2)


def input_labels(context: InputContext) -> torch.Tensor:
    """Return labels of the points: 1 for a point on the object."""
    return ones(context.batch, 1, 1)


def interpolate_pos_encoding(context: InputContext) -> bool | None:
    """Return True if the image has another size than the model's, so positions are resized."""
    requested = context.options.image_size
    config_size = context.setting(*_SIZE_KEYS, kind="vision")
    if requested and config_size and _height_width(config_size) != (requested, requested):
        return True
    return None


def merge_sizes(context: InputContext) -> torch.Tensor:
    """Return the merge size of each image."""
    return full((context.batch,), merge_size(context))


RULES: dict[str, Callable[[InputContext], Any]] = {
    "pixel_values": pixel_values,
    "pixel_values_videos": pixel_values_videos,
    "hidden_states": hidden_states,
    "grid_thw": grid_thw,
    "image_grid_thw": image_grid_thw,
    "interpolate_pos_encoding": interpolate_pos_encoding,
    "merge_sizes": merge_sizes,
    "image_merge_sizes": lambda s: merge_sizes(s) if "pixel_values" in s.inputs else None,
    "high_res_pixel_values": high_res_pixel_values,
    "prompt_pixel_values": prompt_image,
    "prompt_masks": prompt_image,
    "visual_feats": visual_features,
    "visual_embeds": visual_features,
    "visual_pos": visual_pos,
    "query_embeds": query_embeds,
    "encoder_hidden_states": encoder_hidden_states,
    "input_points": input_points,
    "input_labels": input_labels,
    "spatial_shapes": spatial_shapes,
    "target_sizes": spatial_shapes,
    "pixel_position_ids": patch_positions,
    "image_position_ids": patch_positions,
    "pixel_attention_mask": pixel_attention_mask,
    "image_sizes": image_sizes,
    "aspect_ratio_ids": aspect_ratio_ids,
    "aspect_ratio_mask": aspect_ratio_mask,
}
