"""Images and clips, in the layouts that vision towers take.

Every example gets one image (or one clip). Its size is the config's, ``--image-size`` or
224 x 224 pixels. Towers for images of any size take patches of all images in one row and a
grid that says whose they are.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import torch

from graphflops.errors import ModelSpecError
from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.tensors import filled, ones, repeated, valued

DEFAULT_IMAGE_SIZE = 224
# What detectors are trained and timed on; their own configs are silent about it.
DEFAULT_SCENE_SIZE = 640
DEFAULT_FRAMES = 8
REGIONS = 36


def pixel_values(subject: Subject) -> torch.Tensor | None:
    """One image for every example, if the model sees images."""
    films = "video" in subject.modalities and not subject.takes("pixel_values_videos")
    if not (films or subject.sees("image", "pixel_values")):
        return None
    layout = next(layout for fits, layout in _LAYOUTS if fits(subject))
    if layout is _nested:
        # Images among several need values: those that are all zero are padding, and left out.
        return filled(layout(subject), 1, subject.dtype)
    return subject.floats(*layout(subject))


def pixel_values_videos(subject: Subject) -> torch.Tensor | None:
    """One clip for every example, if the model sees nothing else."""
    if "pixel_values" in subject.made or not subject.sees("video", "pixel_values_videos"):
        return None
    return subject.floats(*clip_shape(subject))


def channels(subject: Subject) -> int:
    """Colours of an image: what the config says, else RGB."""
    return int(subject.setting("num_channels", "in_channels", "in_chans", kind="vision", default=3))


def image_size(subject: Subject) -> tuple[int, int]:
    """Height and width of an image.

    Raises:
        ModelSpecError: The size asked for does not divide into the model's patches.
    """
    asked = subject.options.image_size
    if subject.setting("num_queries") is not None:
        # A detector takes scenes of any size, whatever its backbone was trained on.
        said = getattr(subject.config, "image_size", None) or DEFAULT_SCENE_SIZE
    else:
        usual = _timm_size(subject) or DEFAULT_IMAGE_SIZE
        said = subject.setting(*_SIZES, kind="vision", default=usual)
    if asked is None:
        return _pair(said)
    unit = patch_size(subject) * merged(subject)
    if asked % unit:
        msg = (
            f"--image-size {asked} is not a multiple of {unit}, the patches of "
            f"{type(subject.model).__name__}. Try {max(unit, asked // unit * unit)}."
        )
        raise ModelSpecError(msg)
    return asked, asked


_SIZES = ("image_size", "img_size", "max_img_size")


def _timm_size(subject: Subject) -> int | None:
    """What a tower that timm has built was made for; the config has only its name."""
    configs = (getattr(module, "pretrained_cfg", None) for module in subject.model.modules())
    return next((config["input_size"][-1] for config in configs if config), None)


def patch_size(subject: Subject) -> int:
    """Pixels along a patch; 1 if the model has none."""
    size = subject.setting("patch_size", kind="vision", default=1)
    return _pair(size)[0] if isinstance(size, int | list | tuple) and size else 1


def patch_grid(subject: Subject) -> tuple[int, int]:
    """Rows and columns of patches of one image, in whole merged patches."""
    patch, merge = patch_size(subject), merged(subject)
    height, width = (max(1, round(side / (patch * merge))) * merge for side in image_size(subject))
    return height, width


def merged(subject: Subject) -> int:
    """Patches along the side of what becomes one token of a prompt."""
    size = subject.setting(*_MERGED, kind="vision", default=1)
    return max(_pair(size))


_MERGED = (
    *("spatial_merge_size", "merge_size", "merge_kernel_size"),
    *("downsample_factor", "pixel_shuffle_factor", "scale_factor", "pooling_kernel_size"),
)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if isinstance(size, list | tuple):
        return int(size[-2] if len(size) > 1 else size[0]), int(size[-1])
    return int(size), int(size)


def _plain(subject: Subject) -> tuple[int, ...]:
    return (subject.batch, channels(subject), *image_size(subject))


def _nested(subject: Subject) -> tuple[int, ...]:
    """Several images for an example, of which we give one, of a size that merges evenly."""
    patch = patch_size(subject)
    sides = [patch * patches for patches in patch_grid(subject)]
    return (subject.batch, 1, channels(subject), *sides)


def clip_shape(subject: Subject) -> tuple[int, ...]:
    """Frames of a clip for every example."""
    frames = subject.setting("num_frames", "frames_per_clip", kind="vision", default=DEFAULT_FRAMES)
    batch, *image = _plain(subject)
    return (batch, int(frames), *image)


def _packed(subject: Subject) -> tuple[int, ...]:
    """Patches of all images in one row, each flattened."""
    frames = subject.setting("temporal_patch_size", "patch_temporal", kind="vision", default=1)
    patches = subject.batch * math.prod(patch_grid(subject))
    return (patches, channels(subject) * int(frames) * patch_size(subject) ** 2)


def _padded(subject: Subject) -> tuple[int, ...]:
    """Patches of an image in one row for every example, each flattened."""
    patches = math.prod(patch_grid(subject))
    return (subject.batch, patches, channels(subject) * patch_size(subject) ** 2)


def _strip(subject: Subject) -> tuple[int, ...]:
    """Patches of all images side by side, as one image of a single row of patches."""
    patches = subject.batch * math.prod(patch_grid(subject))
    patch = patch_size(subject)
    return (1, channels(subject), patch, patches * patch)


def _tiles(subject: Subject) -> tuple[int, ...]:
    """The whole image and its tiles; the model's own code says how many."""
    batch, *image = _plain(subject)
    count = sys.modules[type(subject.model).__module__].image_size_to_num_patches
    tiles = count((image[1], image[2]), subject.setting("image_grid_pinpoints"), image[1])
    return (batch, int(tiles), *image)


def _media(subject: Subject) -> tuple[int, ...]:
    """Images, each in as many tiles as there can be: others are padding."""
    batch, *image = _plain(subject)
    return (batch, 1, int(subject.setting("max_num_tiles", kind="vision", default=1)), *image)


def _takes(*names: str) -> Callable[[Subject], bool]:
    return lambda subject: subject.takes(*names)


def _is_anyres(subject: Subject) -> bool:
    return bool(subject.setting("image_grid_pinpoints"))


def _is_clip(subject: Subject) -> bool:
    films = "video" in subject.modalities and "image" not in subject.modalities
    return films or subject.setting("num_frames", kind="vision") is not None


_LAYOUTS: tuple[tuple[Callable[[Subject], bool], Callable[[Subject], tuple[int, ...]]], ...] = (
    (_takes("grid_thw"), _packed),
    (_takes("image_grid_thw"), _packed),
    (_takes("spatial_shapes"), _padded),
    (_takes("pixel_position_ids"), _padded),
    (_takes("image_position_ids"), _padded),
    (_takes("target_sizes"), _strip),
    (_takes("aspect_ratio_ids"), _media),
    (_is_anyres, _tiles),
    (_takes("input_ids", "pixel_attention_mask"), _nested),
    (_is_clip, clip_shape),
    (lambda _: True, _plain),
)


def grid_thw(subject: Subject) -> torch.Tensor:
    """Frames, rows and columns of patches of each image. With values: sizes follow from them."""
    return subject.rows((1, *patch_grid(subject)))


def image_grid_thw(subject: Subject) -> torch.Tensor | None:
    """The same, for the images among other inputs."""
    return grid_thw(subject) if "pixel_values" in subject.made else None


def spatial_shapes(subject: Subject) -> torch.Tensor | None:
    """Rows and columns of patches of each image."""
    return _rows_and_columns(subject) if "pixel_values" in subject.made else None


def _rows_and_columns(subject: Subject) -> torch.Tensor:
    return subject.rows(patch_grid(subject))


def pixel_attention_mask(subject: Subject) -> torch.Tensor | None:
    """Which patches, where patches are the input, or pixels are no padding: all."""
    pixels = subject.made.get("pixel_values")
    if pixels is None:
        return None
    if subject.takes("spatial_shapes"):
        return ones(*pixels.shape[:2])
    return ones(*pixels.shape[:-3], *pixels.shape[-2:]).bool()


def patch_positions(subject: Subject) -> torch.Tensor | None:
    """Column and row of each patch of each image."""
    if "pixel_values" not in subject.made:
        return None
    axes = [*patch_grid(subject)]

    def grid() -> torch.Tensor:
        places = torch.cartesian_prod(*(torch.arange(size, device="cpu") for size in axes))
        return places.flip(1)[None]

    return repeated(valued((1, math.prod(axes), 2), grid), subject.batch)


def image_sizes(subject: Subject) -> torch.Tensor | None:
    """Height and width of each image before it was cut into tiles or padded."""
    # Towers that ask for them; what holds a tower only passes them on.
    parts = (part for part in subject.model.modules() if not hasattr(part, "get_image_features"))
    asked = any("image_sizes" in inspect.signature(part.forward).parameters for part in parts)
    if "pixel_values" not in subject.made or not (asked or _is_anyres(subject)):
        return None
    return subject.rows(image_size(subject))


def aspect_ratio_ids(subject: Subject) -> torch.Tensor | None:
    """How each image is tiled: the first way, one tile."""
    return ones(subject.batch, 1) if "pixel_values" in subject.made else None


def aspect_ratio_mask(subject: Subject) -> torch.Tensor | None:
    """Which tiles are no padding."""
    if "pixel_values" not in subject.made:
        return None
    return ones(*subject.made["pixel_values"].shape[:3])


def hidden_states(subject: Subject) -> torch.Tensor | None:
    """What towers for images of any size call their patches."""
    if not subject.takes("grid_thw"):
        return None
    return subject.floats(*_packed(subject))


def high_res_pixel_values(subject: Subject) -> torch.Tensor | None:
    """The same image for a second tower, in that tower's size."""
    if "pixel_values" not in subject.made:
        return None
    side = subject.setting("image_size", kind="high_res", default=1024)
    return subject.floats(subject.batch, channels(subject), *_pair(side))


def prompted(subject: Subject) -> torch.Tensor:
    """An image, or its mask, that shows what to do with the other one: of the same size."""
    return torch.ones_like(subject.made["pixel_values"])


def visual_features(subject: Subject) -> torch.Tensor | None:
    """What a detector saw: features of 36 regions, as many as LXMERT's gives."""
    wide = subject.setting("visual_feat_dim", "visual_embedding_dim", default=2048)
    return subject.floats(subject.batch, REGIONS, wide)


def visual_pos(subject: Subject) -> torch.Tensor:
    """Where those regions are: four coordinates each."""
    return subject.floats(subject.batch, REGIONS, 4)


def query_embeds(subject: Subject) -> torch.Tensor:
    """The learned queries of a querying transformer, which its parent model holds."""
    queries = subject.setting("num_query_tokens", default=32)
    return subject.floats(subject.batch, queries, subject.config.hidden_size)


def encoder_hidden_states(subject: Subject) -> torch.Tensor | None:
    """What those queries look at: an image of 16 x 16 patches and a summary."""
    if "query_embeds" not in subject.made:
        return None
    return subject.floats(subject.batch, 16 * 16 + 1, subject.config.encoder_hidden_size)


def input_points(subject: Subject) -> torch.Tensor:
    """One point on what is to be cut out of each image."""
    return subject.floats(subject.batch, 1, 1, 2)


def input_labels(subject: Subject) -> torch.Tensor:
    """That the point is on it, not beside it."""
    return ones(subject.batch, 1, 1)


def interpolate_pos_encoding(subject: Subject) -> bool | None:
    """Whether positions are stretched: for an image of another size than the model's."""
    asked = subject.options.image_size
    said = subject.setting(*_SIZES, kind="vision")
    return True if asked and said and _pair(said) != (asked, asked) else None


def merge_sizes(subject: Subject) -> torch.Tensor:
    """Patches along the side of a merged patch, by image."""
    return filled((subject.batch,), merged(subject))


RULES: dict[str, Callable[[Subject], Any]] = {
    "pixel_values": pixel_values,
    "pixel_values_videos": pixel_values_videos,
    "hidden_states": hidden_states,
    "grid_thw": grid_thw,
    "image_grid_thw": image_grid_thw,
    "interpolate_pos_encoding": interpolate_pos_encoding,
    "merge_sizes": merge_sizes,
    "image_merge_sizes": lambda s: merge_sizes(s) if "pixel_values" in s.made else None,
    "high_res_pixel_values": high_res_pixel_values,
    "prompt_pixel_values": prompted,
    "prompt_masks": prompted,
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
