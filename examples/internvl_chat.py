"""InternVL2-1B answering a question about one large image: 9 tiles, 2,480 prompt tokens.

    graphflops generate examples/internvl_chat.py:chat --new-tokens 58 --logits-to-keep 0 \
        --convention calflops

The model as its authors published it, module for module: InternViT-300M with LayerScale, a
pixel shuffle that makes 256 tokens of each tile, a projector, and Qwen2-0.5B with attention
written out. The vision part follows OpenGVLab's ``modeling_intern_vit.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from transformers.activations import ACT2FN

TILES = 9
TOKENS_PER_TILE = 256
PROMPT_TOKENS = 2480
IMAGE_TOKEN = 151_648
WIDTH, HEADS, LAYERS, MLP_WIDTH, IMAGE_SIZE, PATCH_SIZE = 1024, 16, 24, 4096, 448, 14


class InternVisionEmbeddings(nn.Module):
    """Patches of a tile, a class token before them, and positions."""

    def __init__(self) -> None:
        super().__init__()
        patches = (IMAGE_SIZE // PATCH_SIZE) ** 2
        self.class_embedding = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.patch_embedding = nn.Conv2d(3, WIDTH, PATCH_SIZE, PATCH_SIZE)
        self.position_embedding = nn.Parameter(torch.empty(1, patches + 1, WIDTH))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """From tiles x 3 x 448 x 448 to tiles x 1025 x 1024."""
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding


class InternAttention(nn.Module):
    """Self-attention, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = (WIDTH // HEADS) ** -0.5
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.attn_drop = nn.Dropout(0.0)
        self.proj_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As many vectors as come in."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        x = (self.attn_drop(attn) @ v).transpose(1, 2).reshape(b, n, c)
        out: torch.Tensor = self.proj_drop(self.proj(x))
        return out


class InternMLP(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.act = ACT2FN["gelu"]
        self.fc1 = nn.Linear(WIDTH, MLP_WIDTH)
        self.fc2 = nn.Linear(MLP_WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each vector by itself."""
        out: torch.Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class InternVisionEncoderLayer(nn.Module):
    """A layer whose two branches are scaled (LayerScale)."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = InternAttention()
        self.mlp = InternMLP()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.ls1 = nn.Parameter(torch.empty(WIDTH))
        self.ls2 = nn.Parameter(torch.empty(WIDTH))
        self.drop_path1 = nn.Identity()
        self.drop_path2 = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As many vectors as come in."""
        x = x + self.drop_path1(self.attn(self.norm1(x)) * self.ls1)
        out: torch.Tensor = x + self.drop_path2(self.mlp(self.norm2(x)) * self.ls2)
        return out


class InternVisionEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(InternVisionEncoderLayer() for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Through all of them."""
        for layer in self.layers:
            x = layer(x)
        return x


class InternVisionModel(nn.Module):
    """InternViT-300M."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = InternVisionEmbeddings()
        self.encoder = InternVisionEncoder()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """From tiles to vectors."""
        out: torch.Tensor = self.encoder(self.embeddings(pixel_values))
        return out


class InternVLChatModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # untyped there
    """Vision model, projector and language model."""

    config_class = Qwen2Config
    _supports_sdpa = True

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.vision_model = InternVisionModel()
        self.language_model = Qwen2ForCausalLM(config)
        shuffled = 4 * WIDTH
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(shuffled),
            nn.Linear(shuffled, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )

    def get_input_embeddings(self) -> nn.Module:
        """Those of the language model."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits; features of the tiles take the places of the image tokens."""
        embeddings = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            places = (input_ids == IMAGE_TOKEN).unsqueeze(-1).expand_as(embeddings)
            embeddings = embeddings.masked_scatter(places, self.image_features(pixel_values))
        return self.language_model(inputs_embeds=embeddings, **kwargs)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """256 vectors for each tile, without its class token."""
        x = self.vision_model(pixel_values)[:, 1:]
        side = IMAGE_SIZE // PATCH_SIZE
        x = x.reshape(x.shape[0], side, side // 2, 2 * WIDTH).permute(0, 2, 1, 3)
        x = x.reshape(x.shape[0], side // 2, side // 2, 4 * WIDTH).permute(0, 2, 1, 3)
        out: torch.Tensor = self.mlp1(x.reshape(x.shape[0], -1, 4 * WIDTH))
        return out


def chat() -> tuple[nn.Module, tuple[()], dict[str, Any]]:
    """The model on the meta device and the inputs of its first pass."""
    config = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151_655,
        rope_theta=1_000_000.0,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        model = InternVLChatModel(config).eval()
        pixels = torch.empty(TILES, 3, IMAGE_SIZE, IMAGE_SIZE)
    tokens = torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64)
    tokens[:, : TILES * TOKENS_PER_TILE] = IMAGE_TOKEN
    return model, (), {"input_ids": tokens, "pixel_values": pixels}
