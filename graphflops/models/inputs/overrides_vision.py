"""Vision models whose images no general rule can tell, each with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphflops.models.inputs import audio, text, vision
from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.tensors import filled, ids, ones

DRAFTED = 128  # tokens that a draft model goes on from
_CLIP_TOKENS = 77  # what every text for a CLIP tower is padded to

Rules = dict[str, Callable[[Subject], Any]]


def image(subject: Subject, *shape: int) -> torch.Tensor:
    """Pixels of some shape."""
    return subject.floats(*shape)


def _square(subject: Subject, side: int) -> torch.Tensor:
    return image(subject, subject.batch, vision.channels(subject), side, side)


def _fits_its_queries(subject: Subject) -> torch.Tensor:
    """Aria pools as many queries as are listed for a number of patches."""
    patches = min(subject.config.projector_patch_to_query_dict)
    return _square(subject, math.isqrt(int(patches)) * vision.patch_size(subject))


def _fits_its_scales(subject: Subject) -> torch.Tensor:
    """DepthPro cuts patches from ever smaller copies, the smallest of which is one patch."""
    return _square(
        subject, int(vision.patch_size(subject) / min(subject.config.scaled_images_ratios))
    )


def _pair(subject: Subject) -> torch.Tensor:
    """Two images, whose points are matched."""
    return image(subject, subject.batch, 2, vision.channels(subject), *vision.image_size(subject))


def _grey_pair(subject: Subject) -> torch.Tensor:
    """EfficientLoFTR was made for images of 640 x 480."""
    return image(subject, subject.batch, 2, 3, 480, 640)


def _patches_as_images(subject: Subject) -> torch.Tensor:
    """Kimi's tower takes patches as small images; others flatten them."""
    patches, patch = math.prod(vision.patch_grid(subject)), vision.patch_size(subject)
    return image(subject, subject.batch * patches, vision.channels(subject), patch, patch)


def _one_tile(subject: Subject) -> torch.Tensor:
    """Which tiles are no padding, for a model that masks no pixels."""
    return ones(subject.batch, 1).bool()


def _noise(subject: Subject) -> torch.Tensor:
    """A block of noise that a draft model denoises next to the states of the model it serves."""
    return image(subject, subject.batch, subject.config.block_size, subject.config.hidden_size)


def _context(subject: Subject) -> torch.Tensor:
    """States of several layers of that model, side by side."""
    return image(subject, subject.batch, DRAFTED, subject.model.encoder.fc.in_features)


def _over_both(subject: Subject) -> torch.Tensor:
    """The draft model attends to the context and to its own block."""
    return ones(subject.batch, DRAFTED + subject.config.block_size)


def _merged_patches(subject: Subject) -> torch.Tensor:
    """Inkling's tower takes merged patches as small images, colours last."""
    merge, patch = vision.merged(subject), vision.patch_size(subject)
    patches = subject.batch * math.prod(vision.patch_grid(subject))
    return image(subject, patches, merge * patch, merge * patch, vision.channels(subject))


def _row_of_patches(subject: Subject) -> torch.Tensor:
    """Fuyu has no tower: its patches go straight into the prompt."""
    patch = subject.config.patch_size
    patches = math.prod(side // patch for side in vision.image_size(subject))
    return image(subject, subject.batch, patches, patch**2 * vision.channels(subject))


def _several(subject: Subject) -> torch.Tensor:
    """Idefics takes several images for an example; it gets one."""
    return image(subject, subject.batch, 1, vision.channels(subject), *vision.image_size(subject))


def _clip(subject: Subject) -> torch.Tensor:
    frames = subject.setting("num_frames", kind="vision", default=4)
    return image(subject, subject.batch, frames, 3, *vision.image_size(subject))


def _sees_its_image(subject: Subject) -> torch.Tensor:
    """Which images each token attends to: its one."""
    return ones(*subject.made["input_ids"].shape, 1)


def _latents(subject: Subject) -> torch.Tensor:
    """The bare Perceiver takes what a preprocessor has made: a row of vectors."""
    return image(subject, subject.batch, 256, subject.config.d_model)


def _drawing(subject: Subject) -> torch.Tensor:
    """ImageGPT's tokens are the pixels of an image."""
    return ids(subject.batch, subject.config.n_positions)


def _task(subject: Subject) -> torch.Tensor:
    """OneFormer is told its task in a short text."""
    return ids(subject.batch, subject.config.task_seq_len)


def _half(subject: Subject) -> torch.Tensor:
    """SegGPT puts the example above the image: together they have the config's size."""
    height, width = vision.image_size(subject)
    return image(subject, subject.batch, vision.channels(subject), height // 2, width)


def _in_windows(subject: Subject) -> torch.Tensor:
    """RF-DETR cuts its patches into windows; 560 is what it was made for."""
    return _square(subject, 560)


def _film(subject: Subject) -> torch.Tensor:
    """Films with sound: a model that takes either asks for both."""
    return image(subject, *vision.clip_shape(subject))


def _soundtrack(subject: Subject) -> torch.Tensor:
    """A film with sound and a text: on a text and a film alone, PE's own forward fails."""
    return image(subject, *audio.clip(subject)["input_values"].shape)


def _unmasked(subject: Subject) -> torch.Tensor:
    """Encoders that mask whatever they are given, and fail where that is nothing."""
    return ones(*text.prompt(subject).shape)


def _where_the_image_is(subject: Subject) -> torch.Tensor:
    """Kosmos puts its image where a mask says, at the beginning, not where tokens say."""
    mask = torch.zeros_like(text.prompt(subject))
    mask[:, : subject.config.latent_query_num] = 1
    return mask


def _patches_with_places(subject: Subject) -> torch.Tensor:
    """Pix2Struct scales an image until it fills 2,048 patches: row, column, then the pixels."""
    pixels = subject.setting("patch_embed_hidden_size", kind="vision")
    return image(subject, subject.batch, 2048, 2 + pixels)


def _names_of_classes(subject: Subject) -> torch.Tensor:
    """OmDet-Turbo is told what to look for, two kinds of things in each image."""
    return ids(2 * subject.batch, _CLIP_TOKENS)


def _text_of_task(subject: Subject) -> torch.Tensor:
    return ids(subject.batch, _CLIP_TOKENS)


_OMDET: Rules = {
    "classes_input_ids": _names_of_classes,
    "classes_attention_mask": lambda s: torch.ones_like(_names_of_classes(s)),
    "tasks_input_ids": _text_of_task,
    "tasks_attention_mask": lambda s: torch.ones_like(_text_of_task(s)),
    "classes_structure": lambda s: filled((s.batch,), 2),
}


def _without(subject: Subject) -> None:
    """The default config has a vision part that does not fit its tokens."""
    del subject


CLASSES: dict[str, Rules] = {
    "AriaModel": {"pixel_values": _fits_its_queries},
    "DepthProModel": {"pixel_values": _fits_its_scales},
    "EfficientLoFTRModel": {"pixel_values": _grey_pair},
    "LightGlueForKeypointMatching": {"pixel_values": _pair},
    "Kimi_K25VisionModel": {"pixel_values": _patches_as_images},
    "Kimi_K25Model": {"pixel_values": _patches_as_images},
    "Inkling2VisionModel": {"pixel_values": _merged_patches},
    "Inkling2Model": {"pixel_values": _merged_patches},
    "PaddleOCRVLModel": {"pixel_values": _patches_as_images},
    "GraniteDoclingModel": {"pixel_attention_mask": _one_tile},
    "MuseGlimmerAssistantModel": {
        "noise_embeds": _noise,
        "context_hidden_states": _context,
        "attention_mask": _over_both,
    },
    "FuyuModel": {"pixel_values": _row_of_patches},
    "IdeficsModel": {"pixel_values": _several, "image_attention_mask": _sees_its_image},
    "InstructBlipVideoModel": {"pixel_values": _clip},
    "SegGptModel": {"pixel_values": _half},
    "RfDetrModel": {"pixel_values": _in_windows},
    "PeAudioVideoModel": {"pixel_values_videos": _film, "input_values": _soundtrack},
    "PeAudioVideoEncoder": {"pixel_values_videos": _film},
    "SwitchTransformersModel": {"attention_mask": _unmasked},
    "LongT5Model": {"attention_mask": _unmasked},
    "UdopModel": {"attention_mask": _unmasked},
    "Kosmos2Model": {"image_embeds_position_mask": _where_the_image_is},
    "T5Gemma2Model": {"pixel_values": _without},
    "PerceiverModel": {"inputs": _latents},
    "ImageGPTModel": {"input_ids": _drawing},
    "OneFormerModel": {"task_inputs": _task},
    "Pix2StructForConditionalGeneration": {"flattened_patches": _patches_with_places},
    "Pix2StructVisionModel": {"flattened_patches": _patches_with_places},
    "OmDetTurboForObjectDetection": _OMDET,
}
