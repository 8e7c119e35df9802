"""Models of diffusers: U-Nets, transformers of images and videos, autoencoders."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.others.case import Calls, Case, Model, model

e = torch.empty
TEXT, LAYERS = 77, 4


def _one() -> torch.Tensor:
    return torch.ones(1, dtype=torch.long)


def _tokens(length: int, width: int) -> torch.Tensor:
    return e(1, length, width)


def _named(name: str, settings: dict[str, Any] | None = None, **inputs: Any) -> Model:
    import diffusers

    return Model(model=getattr(diffusers, name)(**(settings or {})), kwargs=inputs)


def _unet(**settings: Any) -> Any:
    import diffusers

    return diffusers.UNet2DConditionModel(**settings)


_SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_WIDE = (128, 256, 512, 512)
_KL = {
    "block_out_channels": _WIDE,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}


def _encoder(name: str, x: torch.Tensor, **settings: Any) -> Model:
    vae = _named(name, settings).model
    return model(Calls(lambda vae, x: vae.encode(x).latent_dist.mode(), vae), x)


def _decoder(name: str, z: torch.Tensor, **settings: Any) -> Model:
    vae = _named(name, settings).model
    return model(Calls(lambda vae, z: vae.decode(z).sample, vae), z)


_LAYERS = {"num_layers": LAYERS}

CASES: dict[str, Case] = {
    "UNet of Stable Diffusion 1.5": Case(
        lambda: model(
            _unet(sample_size=64, cross_attention_dim=768), e(2, 4, 64, 64), 10, e(2, TEXT, 768)
        )
    ),
    "UNet of SDXL": Case(
        lambda: model(
            _unet(**_SDXL),
            *(e(1, 4, 128, 128), 10, e(1, TEXT, 2048)),
            added_cond_kwargs={"text_embeds": e(1, 1280), "time_ids": e(1, 6)},
        )
    ),
    "UNet2DModel": Case(lambda: _named("UNet2DModel", sample=e(1, 3, 64, 64), timestep=10)),
    "UNet1DModel": Case(
        lambda: _named(
            "UNet1DModel", {"extra_in_channels": 16}, sample=e(1, 2, 16384), timestep=_one()
        )
    ),
    "UNet3DConditionModel": Case(
        lambda: _named(
            "UNet3DConditionModel",
            sample=e(1, 4, 4, 32, 32),
            timestep=10,
            encoder_hidden_states=_tokens(TEXT, 1024),
        )
    ),
    "UNetSpatioTemporalConditionModel": Case(
        lambda: _named(
            "UNetSpatioTemporalConditionModel",
            sample=e(1, 4, 8, 32, 32),
            timestep=_one(),
            encoder_hidden_states=_tokens(1, 1024),
            added_time_ids=e(1, 3),
        )
    ),
    "ControlNetModel": Case(
        lambda: _named(
            "ControlNetModel",
            {"cross_attention_dim": 768},
            sample=e(2, 4, 64, 64),
            timestep=10,
            encoder_hidden_states=e(2, TEXT, 768),
            controlnet_cond=e(2, 3, 512, 512),
        )
    ),
    "FluxTransformer2DModel": Case(
        lambda: _named(
            "FluxTransformer2DModel",
            {"guidance_embeds": True, "num_layers": LAYERS, "num_single_layers": LAYERS},
            hidden_states=e(1, 1024, 64),
            encoder_hidden_states=e(1, 256, 4096),
            pooled_projections=e(1, 768),
            timestep=e(1),
            guidance=e(1),
            img_ids=e(1024, 3),
            txt_ids=e(256, 3),
        )
    ),
    "ChromaTransformer2DModel": Case(
        lambda: _named(
            "ChromaTransformer2DModel",
            {"num_layers": LAYERS, "num_single_layers": LAYERS},
            hidden_states=e(1, 256, 64),
            encoder_hidden_states=e(1, 64, 4096),
            timestep=e(1),
            img_ids=e(256, 3),
            txt_ids=e(64, 3),
        )
    ),
    "SD3Transformer2DModel": Case(
        lambda: _named(
            "SD3Transformer2DModel",
            {
                **_LAYERS,
                "num_attention_heads": 24,
                "attention_head_dim": 64,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 1536,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 192,
            },
            hidden_states=e(1, 16, 64, 64),
            encoder_hidden_states=e(1, 154, 4096),
            pooled_projections=e(1, 2048),
            timestep=e(1),
        )
    ),
    "DiTTransformer2DModel": Case(
        lambda: _named(
            "DiTTransformer2DModel",
            {**_LAYERS, "in_channels": 4, "out_channels": 8, "sample_size": 32},
            hidden_states=e(1, 4, 32, 32),
            timestep=_one(),
            class_labels=_one(),
        )
    ),
    "PixArtTransformer2DModel": Case(
        lambda: _named(
            "PixArtTransformer2DModel",
            {**_LAYERS, "sample_size": 64, "caption_channels": 4096},
            hidden_states=e(1, 4, 64, 64),
            encoder_hidden_states=e(1, 120, 4096),
            timestep=_one(),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            encoder_attention_mask=e(1, 120),
        )
    ),
    "AuraFlowTransformer2DModel": Case(
        lambda: _named(
            "AuraFlowTransformer2DModel",
            {"num_mmdit_layers": 2, "num_single_dit_layers": 2},
            hidden_states=e(1, 4, 64, 64),
            encoder_hidden_states=e(1, 64, 2048),
            timestep=e(1),
        )
    ),
    "SanaTransformer2DModel": Case(
        lambda: _named(
            "SanaTransformer2DModel",
            _LAYERS,
            hidden_states=e(1, 32, 32, 32),
            encoder_hidden_states=e(1, 64, 2304),
            timestep=_one(),
        )
    ),
    "QwenImageTransformer2DModel": Case(
        lambda: _named(
            "QwenImageTransformer2DModel",
            _LAYERS,
            hidden_states=e(1, 1024, 64),
            encoder_hidden_states=e(1, 128, 3584),
            encoder_hidden_states_mask=torch.ones(1, 128, dtype=torch.bool),
            timestep=e(1),
            img_shapes=[(1, 32, 32)],
        )
    ),
    "PriorTransformer": Case(
        lambda: _named(
            "PriorTransformer",
            _LAYERS,
            hidden_states=e(1, 768),
            timestep=_one(),
            proj_embedding=e(1, 768),
            encoder_hidden_states=e(1, TEXT, 768),
        )
    ),
    "WanTransformer3DModel": Case(
        lambda: _named(
            "WanTransformer3DModel",
            {**_LAYERS, "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960},
            hidden_states=e(1, 16, 5, 32, 32),
            timestep=_one(),
            encoder_hidden_states=e(1, 128, 4096),
        )
    ),
    "CogVideoXTransformer3DModel": Case(
        lambda: _named(
            "CogVideoXTransformer3DModel",
            _LAYERS,
            hidden_states=e(1, 13, 16, 60, 90),
            timestep=_one(),
            encoder_hidden_states=e(1, 226, 4096),
        )
    ),
    "LTXVideoTransformer3DModel": Case(
        lambda: _named(
            "LTXVideoTransformer3DModel",
            _LAYERS,
            hidden_states=e(1, 128, 128),
            encoder_hidden_states=e(1, 64, 4096),
            timestep=_one(),
            encoder_attention_mask=torch.ones(1, 64, dtype=torch.bool),
            num_frames=2,
            height=8,
            width=8,
        )
    ),
    "AutoencoderKL, encoder": Case(lambda: _encoder("AutoencoderKL", e(1, 3, 256, 256), **_KL)),
    "AutoencoderKL, decoder": Case(lambda: _decoder("AutoencoderKL", e(1, 4, 32, 32), **_KL)),
    "AutoencoderKL, sampled": Case(
        lambda: _named("AutoencoderKL", _KL, sample=e(1, 3, 128, 128), sample_posterior=True)
    ),
    "AutoencoderTiny": Case(lambda: _named("AutoencoderTiny", sample=e(1, 3, 128, 128))),
    "AutoencoderDC": Case(lambda: _named("AutoencoderDC", sample=e(1, 3, 128, 128))),
    "VQModel": Case(lambda: _named("VQModel", sample=e(1, 3, 64, 64))),
    "AutoencoderOobleck": Case(lambda: _named("AutoencoderOobleck", sample=e(1, 2, 8192))),
    "AutoencoderKLWan, encoder": Case(lambda: _encoder("AutoencoderKLWan", e(1, 3, 5, 64, 64))),
    "AutoencoderKLTemporalDecoder": Case(
        lambda: _named(
            "AutoencoderKLTemporalDecoder",
            {name: _KL[name] for name in ("block_out_channels", "down_block_types")},
            sample=e(2, 3, 64, 64),
            num_frames=2,
        ),
        on="cpu",
    ),
}
