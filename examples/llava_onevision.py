"""LLaVA-OneVision-7B looking at one large image: 16 crops, 7,405 prompt tokens.

    graphflops count examples/llava_onevision.py:prefill --depth 3
    graphflops generate examples/llava_onevision.py:reported --new-tokens 7 --convention calflops

The image is cut into a 3 x 5 grid of crops and the whole image once more. Each crop gives
27 x 27 patches; the grid's are pooled to fit ``anyres_max_9``, and a newline token ends each
row. How many placeholder tokens the prompt needs follows from the image size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

CONFIG = Path(__file__).parent / "configs" / "llava-onevision-7b"
CROPS = 16
PROMPT_TOKENS = 7405
# Height and width of an image whose best grid is 3 rows of 5 crops of 384 pixels.
IMAGE_SIZE = (3 * 384, 5 * 384)


def prefill() -> tuple[torch.nn.Module, tuple[()], dict[str, Any]]:
    """The model on the meta device and the inputs of its first forward pass."""
    config = LlavaOnevisionConfig.from_pretrained(CONFIG)
    with torch.device("meta"):
        model = LlavaOnevisionForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
        inputs = {
            "input_ids": torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64),
            "pixel_values": torch.zeros(1, CROPS, 3, 384, 384, dtype=torch.bfloat16),
        }
    # The grid of crops is computed from this input, so it needs its values.
    inputs["image_sizes"] = torch.tensor([IMAGE_SIZE], device="cpu")
    return model.eval(), (), {**inputs, "use_cache": False, "logits_to_keep": 1}


class Qwen2RotaryEmbedding(nn.Module):
    """Rotary positions as transformers computed them then: angles by a matrix product."""

    def __init__(self, today: Any) -> None:
        super().__init__()
        self.inv_freq = nn.Buffer(today.inv_freq, persistent=False)
        self.attention_scaling: float = today.attention_scaling

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines for B x T positions: B x T x width each."""
        inverse = self.inv_freq[None, :, None].float().expand(position_ids.shape[0], -1, 1)
        angles = (inverse @ position_ids[:, None, :].float()).transpose(1, 2)
        both = torch.cat((angles, angles), dim=-1)
        cos, sin = both.cos() * self.attention_scaling, both.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def reported() -> tuple[torch.nn.Module, tuple[()], dict[str, Any]]:
    """The same, as a published calflops report has it."""
    model, args, inputs = prefill()
    language_model: Any = model.get_submodule("model.language_model")
    language_model.rotary_emb = Qwen2RotaryEmbedding(language_model.rotary_emb)
    return model, args, inputs
