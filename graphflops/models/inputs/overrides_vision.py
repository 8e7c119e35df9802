"""Rules of single vision models that the general rules do not fit, with reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphflops.models.inputs import audio, text, vision
from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.tensors import full, ids, ones

DRAFT_CONTEXT_LENGTH = 128  # tokens before the block of a draft model
_CLIP_TOKENS = 77  # padded length of every text for a CLIP tower

Rules = dict[str, Callable[[InputContext], Any]]


def image(context: InputContext, *shape: int) -> torch.Tensor:
    """Return pixels of a shape."""
    return context.floats(*shape)


def _square(context: InputContext, side: int) -> torch.Tensor:
    return image(context, context.batch, vision.channels(context), side, side)


def _image_for_queries(context: InputContext) -> torch.Tensor:
    """Return an image with a number of patches that Aria's config lists queries for."""
    patches = min(context.config.projector_patch_to_query_dict)
    return _square(context, math.isqrt(int(patches)) * vision.patch_size(context))


def _image_for_scales(context: InputContext) -> torch.Tensor:
    """Return an image whose smallest scaled copy is one patch: DepthPro patches all copies."""
    return _square(
        context, int(vision.patch_size(context) / min(context.config.scaled_images_ratios))
    )


def _image_pair(context: InputContext) -> torch.Tensor:
    """Return two images, whose points are matched."""
    return image(context, context.batch, 2, vision.channels(context), *vision.image_size(context))


def _vga_pair(context: InputContext) -> torch.Tensor:
    """Return two images of 640 x 480 pixels, the size EfficientLoFTR is designed for."""
    return image(context, context.batch, 2, 3, 480, 640)


def _patches_as_images(context: InputContext) -> torch.Tensor:
    """Return patches as small images, as Kimi's tower takes them; others flatten them."""
    patches, patch = math.prod(vision.patch_grid(context)), vision.patch_size(context)
    return image(context, context.batch * patches, vision.channels(context), patch, patch)


def _one_tile(context: InputContext) -> torch.Tensor:
    """Return a mask of tiles, for a model that masks tiles instead of pixels."""
    return ones(context.batch, 1).bool()


def _noise(context: InputContext) -> torch.Tensor:
    """Return the noise block that a draft model denoises, given states of its target model."""
    return image(context, context.batch, context.config.block_size, context.config.hidden_size)


def _context_states(context: InputContext) -> torch.Tensor:
    """Return the concatenated states of several layers of the target model."""
    return image(context, context.batch, DRAFT_CONTEXT_LENGTH, context.model.encoder.fc.in_features)


def _context_and_block_mask(context: InputContext) -> torch.Tensor:
    """Return a mask of the draft model's context and block."""
    return ones(context.batch, DRAFT_CONTEXT_LENGTH + context.config.block_size)


def _merged_patches(context: InputContext) -> torch.Tensor:
    """Return merged patches as small images, channels last, as Inkling's tower takes them."""
    merge, patch = vision.merge_size(context), vision.patch_size(context)
    patches = context.batch * math.prod(vision.patch_grid(context))
    return image(context, patches, merge * patch, merge * patch, vision.channels(context))


def _row_of_patches(context: InputContext) -> torch.Tensor:
    """Return patches, which go straight into Fuyu's prompt: it has no vision tower."""
    patch = context.config.patch_size
    patches = math.prod(side // patch for side in vision.image_size(context))
    return image(context, context.batch, patches, patch**2 * vision.channels(context))


def _image_list(context: InputContext) -> torch.Tensor:
    """Return a list of one image per example; Idefics takes several."""
    return image(context, context.batch, 1, vision.channels(context), *vision.image_size(context))


def _clip(context: InputContext) -> torch.Tensor:
    frames = context.setting("num_frames", kind="vision", default=4)
    return image(context, context.batch, frames, 3, *vision.image_size(context))


def _image_attention_mask(context: InputContext) -> torch.Tensor:
    """Return a mask by which each token attends to its one image."""
    return ones(*context.inputs["input_ids"].shape, 1)


def _latents(context: InputContext) -> torch.Tensor:
    """Return the preprocessor's output, a sequence of vectors: a bare Perceiver has none."""
    return image(context, context.batch, 256, context.config.d_model)


def _pixel_tokens(context: InputContext) -> torch.Tensor:
    """Return the pixels of an image, which are ImageGPT's tokens."""
    return ids(context.batch, context.config.n_positions)


def _task(context: InputContext) -> torch.Tensor:
    """Return the short text that tells OneFormer its task."""
    return ids(context.batch, context.config.task_seq_len)


def _half_image(context: InputContext) -> torch.Tensor:
    """Return an image of half the config's height: SegGPT puts its example above it."""
    height, width = vision.image_size(context)
    return image(context, context.batch, vision.channels(context), height // 2, width)


def _windowed_image(context: InputContext) -> torch.Tensor:
    """Return an image of 560 x 560 pixels, RF-DETR's size, which divides into its windows."""
    return _square(context, 560)


def _video(context: InputContext) -> torch.Tensor:
    """Return a video; a model that takes video or audio needs both."""
    return image(context, *vision.clip_shape(context))


def _soundtrack(context: InputContext) -> torch.Tensor:
    """Return the audio of the video; PE's own forward fails on text and video alone."""
    return image(context, *audio.extractor_outputs(context)["input_values"].shape)


def _full_mask(context: InputContext) -> torch.Tensor:
    """Return a mask of ones, for encoders that fail without a mask."""
    return ones(*text.prompt(context).shape)


def _image_position_mask(context: InputContext) -> torch.Tensor:
    """Return the mask of image positions, which Kosmos has instead of placeholder tokens."""
    mask = torch.zeros_like(text.prompt(context))
    mask[:, : context.config.latent_query_num] = 1
    return mask


def _patches_with_positions(context: InputContext) -> torch.Tensor:
    """Return 2,048 patches (row, column, pixels), which Pix2Struct scales an image to fill."""
    pixels = context.setting("patch_embed_hidden_size", kind="vision")
    return image(context, context.batch, 2048, 2 + pixels)


def _class_names(context: InputContext) -> torch.Tensor:
    """Return the names of the classes that OmDet-Turbo detects, two for each image."""
    return ids(2 * context.batch, _CLIP_TOKENS)


def _task_text(context: InputContext) -> torch.Tensor:
    return ids(context.batch, _CLIP_TOKENS)


_OMDET: Rules = {
    "classes_input_ids": _class_names,
    "classes_attention_mask": lambda s: torch.ones_like(_class_names(s)),
    "tasks_input_ids": _task_text,
    "tasks_attention_mask": lambda s: torch.ones_like(_task_text(s)),
    "classes_structure": lambda s: full((s.batch,), 2),
}


def _token_types(context: InputContext) -> torch.Tensor | None:
    """Return token types, which Molmo2 requires in training, of text alone too."""
    types = text.mm_token_type_ids(context)
    if types is None and context.options.trains:
        types = ids(*context.inputs["input_ids"].shape)
    return types


def _axial_prompt(context: InputContext) -> torch.Tensor | None:
    """Return a prompt of all positions in training, where Reformer does not pad to its axes."""
    config, options = context.config, context.options
    if options.trains and options.seq_len is None and config.axial_pos_embds:
        return ids(context.batch, math.prod(config.axial_pos_shape))
    return text.input_ids(context)


def _omit(context: InputContext) -> None:
    """Omit an image: the default config's vision part does not fit its tokens."""
    del context


CLASSES: dict[str, Rules] = {
    "AriaModel": {"pixel_values": _image_for_queries},
    "DepthProModel": {"pixel_values": _image_for_scales},
    "EfficientLoFTRModel": {"pixel_values": _vga_pair},
    "LightGlueForKeypointMatching": {"pixel_values": _image_pair},
    "Kimi_K25VisionModel": {"pixel_values": _patches_as_images},
    "Kimi_K25Model": {"pixel_values": _patches_as_images},
    "Inkling2VisionModel": {"pixel_values": _merged_patches},
    "Inkling2Model": {"pixel_values": _merged_patches},
    "PaddleOCRVLModel": {"pixel_values": _patches_as_images},
    "GraniteDoclingModel": {"pixel_attention_mask": _one_tile},
    "MuseGlimmerAssistantModel": {
        "noise_embeds": _noise,
        "context_hidden_states": _context_states,
        "attention_mask": _context_and_block_mask,
    },
    "FuyuModel": {"pixel_values": _row_of_patches},
    "IdeficsModel": {"pixel_values": _image_list, "image_attention_mask": _image_attention_mask},
    "InstructBlipVideoModel": {"pixel_values": _clip},
    "SegGptModel": {"pixel_values": _half_image},
    "RfDetrModel": {"pixel_values": _windowed_image},
    "PeAudioVideoModel": {"pixel_values_videos": _video, "input_values": _soundtrack},
    "PeAudioVideoEncoder": {"pixel_values_videos": _video},
    "SwitchTransformersModel": {"attention_mask": _full_mask},
    "LongT5Model": {"attention_mask": _full_mask},
    "UdopModel": {"attention_mask": _full_mask},
    "Molmo2Model": {"mm_token_type_ids": _token_types},
    "ReformerModel": {"input_ids": _axial_prompt},
    "Kosmos2Model": {"image_embeds_position_mask": _image_position_mask},
    "T5Gemma2Model": {"pixel_values": _omit},
    "PerceiverModel": {"inputs": _latents},
    "ImageGPTModel": {"input_ids": _pixel_tokens},
    "OneFormerModel": {"task_inputs": _task},
    "Pix2StructForConditionalGeneration": {"flattened_patches": _patches_with_positions},
    "Pix2StructVisionModel": {"flattened_patches": _patches_with_positions},
    "OmDetTurboForObjectDetection": _OMDET,
}
