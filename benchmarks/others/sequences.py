"""Models of text and sound: x-transformers, mambapy, speechbrain, torchaudio."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from benchmarks.others.case import Case, Model, Placement, model

e = torch.empty
WORDS, LENGTH = 1000, 128


def _ids(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.long)


def _x(kind: str = "Decoder", **settings: Any) -> Case:
    """A stack of x-transformers with an embedding."""

    def build() -> Model:
        package = import_module("x_transformers")
        layers = getattr(package, kind)(dim=256, depth=3, heads=8, **settings)
        built = package.TransformerWrapper(num_tokens=WORDS, max_seq_len=256, attn_layers=layers)
        return model(built, torch.randint(0, WORDS, (2, LENGTH)))

    return Case(build, on="cpu")


def _x_both() -> Model:
    package = import_module("x_transformers")
    sizes = {
        f"{part}_{name}": size
        for part in ("enc", "dec")
        for name, size in (("num_tokens", 256), ("depth", 2), ("heads", 8), ("max_seq_len", LENGTH))
    }
    built = package.XTransformer(dim=256, **sizes)
    return model(built, _ids(1, LENGTH), _ids(1, LENGTH))


def _x_autoregressive() -> Model:
    package = import_module("x_transformers")
    layers = package.Decoder(dim=256, depth=2, heads=8)
    inner = package.TransformerWrapper(num_tokens=WORDS, max_seq_len=256, attn_layers=layers)
    return model(package.AutoregressiveWrapper(inner), torch.randint(0, WORDS, (2, LENGTH + 1)))


def _x_vision() -> Model:
    package = import_module("x_transformers")
    layers = package.Encoder(dim=256, depth=2, heads=8)
    built = package.ViTransformerWrapper(
        image_size=128, patch_size=16, num_classes=10, attn_layers=layers
    )
    return model(built, torch.rand(1, 3, 128, 128))


def _mamba(**settings: Any) -> Case:
    def build() -> Model:
        package = import_module("mambapy.mamba")
        config = package.MambaConfig(d_model=128, n_layers=3, **settings)
        return model(package.Mamba(config), e(2, 64, 128))

    return Case(build)


def _speechbrain(
    module: str,
    name: str,
    *inputs: Callable[[], torch.Tensor],
    on: Placement = "meta",
    **settings: Any,
) -> Case:
    def build() -> Model:
        made = getattr(import_module(f"speechbrain.lobes.models.{module}"), name)
        return model(made(**settings), *(make() for make in inputs))

    return Case(build, on)


def _asr(encoder: str, attention: str) -> Case:
    return _speechbrain(
        "transformer.TransformerASR",
        "TransformerASR",
        lambda: e(2, 100, 80),
        lambda: _ids(2, 20),
        tgt_vocab=WORDS,
        input_size=80,
        d_model=256,
        nhead=4,
        num_encoder_layers=3,
        num_decoder_layers=2,
        d_ffn=1024,
        encoder_module=encoder,
        attention_type=attention,
        normalize_before=True,
        causal=False,
    )


def _dual_path() -> Model:
    package = import_module("speechbrain.lobes.models.dual_path")
    blocks = [package.SBTransformerBlock(1, 64, 4) for _ in range(2)]
    built = package.Dual_Path_Model(
        num_spks=2,
        in_channels=64,
        out_channels=64,
        num_layers=2,
        K=50,
        intra_model=blocks[0],
        inter_model=blocks[1],
    )
    return model(built, e(1, 64, 500))


def _torchaudio(
    name: str,
    *inputs: Callable[[], Any],
    on: Placement = "meta",
    room: str = "models",
    **settings: Any,
) -> Case:
    def build() -> Model:
        made = getattr(import_module(f"torchaudio.{room}"), name)(**settings)
        trains = room == "models"
        return Model(model=made, args=tuple(make() for make in inputs), trains=trains)

    return Case(build, on)


def _lengths(*lengths: int) -> torch.Tensor:
    return torch.tensor(lengths)


CASES: dict[str, Case] = {
    "x-transformers decoder": _x(rotary_pos_emb=True, use_rmsnorm=True, ff_glu=True),
    "x-transformers flash, ALiBi": _x(attn_flash=True, alibi_pos_bias=True, attn_num_mem_kv=4),
    "x-transformers encoder": _x("Encoder"),
    "x-transformers grouped queries": _x(attn_kv_heads=2),
    "x-transformers T5 bias, sandwich": _x(rel_pos_bias=True, sandwich_coef=1),
    "x-transformers top-k, talking heads": _x(attn_sparse_topk=8, attn_pre_talking_heads=True),
    "x-transformers macaron": _x("Encoder", macaron=True),
    "x-transformers XTransformer": Case(_x_both, on="cpu"),
    "x-transformers autoregressive": Case(_x_autoregressive, on="cpu"),
    "x-transformers ViT": Case(_x_vision, on="cpu"),
    "mambapy Mamba, loop": _mamba(pscan=False),
    "mambapy Mamba, scan": _mamba(pscan=True),
    "speechbrain ECAPA_TDNN": _speechbrain(
        "ECAPA_TDNN", "ECAPA_TDNN", lambda: e(2, 200, 80), input_size=80, lin_neurons=192
    ),
    "speechbrain Xvector": _speechbrain(
        "Xvector", "Xvector", lambda: e(2, 100, 40), in_channels=40
    ),
    "speechbrain CRDNN": _speechbrain(
        "CRDNN", "CRDNN", lambda: e(2, 100, 80), on="cpu", input_size=80
    ),
    "speechbrain conformer": _asr("conformer", "RelPosMHAXL"),
    "speechbrain transformer": _asr("transformer", "regularMHA"),
    "speechbrain branchformer": _asr("branchformer", "RelPosMHAXL"),
    "speechbrain dual path": Case(_dual_path),
    "torchaudio wav2vec2_base": _torchaudio("wav2vec2_base", lambda: e(1, 16000), aux_num_out=32),
    "torchaudio wavlm_base": _torchaudio("wavlm_base", lambda: e(1, 16000)),
    "torchaudio Conformer": _torchaudio(
        "Conformer",
        lambda: torch.rand(2, 100, 80),
        lambda: _lengths(100, 80),
        on="cpu",
        input_dim=80,
        num_heads=4,
        ffn_dim=256,
        num_layers=3,
        depthwise_conv_kernel_size=31,
    ),
    "torchaudio ConvTasNet": _torchaudio("ConvTasNet", lambda: e(1, 1, 16000)),
    "torchaudio DeepSpeech": _torchaudio("DeepSpeech", lambda: e(1, 1, 100, 40), n_feature=40),
    "torchaudio Wav2Letter": _torchaudio("Wav2Letter", lambda: e(1, 1, 4000)),
    "torchaudio WaveRNN": _torchaudio(
        "WaveRNN",
        lambda: e(1, 1, 2800),
        lambda: e(1, 1, 128, 18),
        upsample_scales=[5, 5, 8],
        n_classes=512,
        hop_length=200,
        n_res_block=2,
    ),
    "torchaudio Tacotron2": _torchaudio(
        "Tacotron2",
        lambda: _ids(2, 20),
        lambda: _lengths(20, 18),
        lambda: torch.rand(2, 80, 12),
        lambda: _lengths(12, 10),
        on="cpu",
    ),
    "torchaudio HDemucs": _torchaudio(
        "hdemucs_low", lambda: torch.rand(1, 2, 44100), on="cpu", sources=["drums", "voice"]
    ),
    "torchaudio MelSpectrogram": _torchaudio(
        "MelSpectrogram", lambda: torch.rand(1, 16000), on="cpu", room="transforms"
    ),
    "torchaudio MFCC": _torchaudio(
        "MFCC", lambda: torch.rand(1, 16000), on="cpu", room="transforms"
    ),
}
