"""Vision transformers of vit-pytorch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from benchmarks.others.case import Case, Model, model

e = torch.empty
_USUAL = {
    "image_size": 256,
    "patch_size": 32,
    "num_classes": 1000,
    "dim": 512,
    "depth": 4,
    "heads": 8,
    "mlp_dim": 1024,
}


def _vit(module: str, name: str, *size: int, usual: bool = True, **settings: Any) -> Case:
    """A class of a module, with the usual settings and others, and one image."""

    def build() -> Model:
        made = getattr(import_module(f"vit_pytorch.{module}"), name)
        return model(made(**(_USUAL if usual else {}) | settings), e(*(size or (1, 3, 256, 256))))

    return Case(build)


def _own(module: str, name: str, size: int = 224, **settings: Any) -> Case:
    return _vit(module, name, 1, 3, size, size, usual=False, num_classes=1000, **settings)


def _packed() -> Model:
    from vit_pytorch.na_vit import NaViT

    built = NaViT(**_USUAL, token_dropout_prob=None)
    images = [[torch.rand(3, 256, 256), torch.rand(3, 128, 128)], [torch.rand(3, 128, 256)]]
    return model(built, images)


def _stages(name: str, number: int, *values: Any) -> dict[str, Any]:
    return {f"s{i}_{name}": value for i, value in zip(range(1, number + 1), values, strict=True)}


_CVT = {
    **_stages("emb_dim", 3, 64, 192, 384),
    **_stages("emb_kernel", 3, 7, 3, 3),
    **_stages("emb_stride", 3, 4, 2, 2),
    **_stages("heads", 3, 1, 3, 4),
    **_stages("depth", 3, 1, 2, 4),
}

CASES: dict[str, Case] = {
    "ViT": _vit("vit", "ViT"),
    "SimpleViT": _vit("simple_vit", "SimpleViT"),
    "SimpleViT, 3d": _vit(
        "simple_vit_3d",
        "SimpleViT",
        1,
        3,
        8,
        128,
        128,
        usual=False,
        image_size=128,
        image_patch_size=16,
        frames=8,
        frame_patch_size=2,
        num_classes=10,
        dim=256,
        depth=2,
        heads=4,
        mlp_dim=512,
    ),
    "SimpleViT, Fourier": _vit("simple_vit_with_fft", "SimpleViT", freq_patch_size=8),
    "ViT, 1d": _vit(
        "vit_1d",
        "ViT",
        1,
        3,
        256,
        usual=False,
        seq_len=256,
        patch_size=16,
        num_classes=10,
        dim=256,
        depth=2,
        heads=4,
        mlp_dim=512,
    ),
    "DeepViT": _vit("deepvit", "DeepViT"),
    "CaiT": _vit("cait", "CaiT", cls_depth=2),
    "XCiT": _vit("xcit", "XCiT", cls_depth=2),
    "ViT, parallel": _vit("parallel_vit", "ViT"),
    "ViT, patch merger": _vit("vit_with_patch_merger", "ViT"),
    "ViT, small data sets": _vit("vit_for_small_dataset", "ViT"),
    "ViT, normalized": _vit("normalized_vit", "nViT"),
    "RvT": _vit("rvt", "RvT"),
    "T2TViT": _own(
        "t2t",
        "T2TViT",
        dim=512,
        image_size=224,
        depth=3,
        heads=8,
        mlp_dim=512,
        t2t_layers=((7, 4), (3, 2), (3, 2)),
    ),
    "CrossViT": _own(
        "cross_vit",
        "CrossViT",
        256,
        image_size=256,
        depth=2,
        sm_dim=192,
        sm_patch_size=16,
        sm_enc_depth=2,
        lg_dim=384,
        lg_patch_size=64,
        lg_enc_depth=2,
    ),
    "CvT": _own("cvt", "CvT", **_CVT),
    "MaxViT": _own(
        "max_vit",
        "MaxViT",
        dim_conv_stem=64,
        dim=96,
        dim_head=32,
        depth=(1, 1, 2, 1),
        window_size=7,
    ),
    "NesT": _own(
        "nest",
        "NesT",
        image_size=224,
        patch_size=4,
        dim=96,
        heads=3,
        num_hierarchies=3,
        block_repeats=(2, 2, 4),
    ),
    "LeViT": _own(
        "levit",
        "LeViT",
        image_size=224,
        stages=3,
        dim=(256, 384, 512),
        depth=2,
        heads=(4, 6, 8),
        mlp_mult=2,
    ),
    "MobileViT": _own(
        "mobile_vit",
        "MobileViT",
        256,
        image_size=(256, 256),
        dims=[96, 120, 144],
        channels=[16, 32, 48, 48, 64, 64, 80, 80, 96, 96, 384],
    ),
    "PiT": _own(
        "pit",
        "PiT",
        image_size=224,
        patch_size=14,
        dim=256,
        depth=(2, 2, 2),
        heads=8,
        mlp_dim=512,
    ),
    "RegionViT": _own("regionvit", "RegionViT", depth=(1, 1, 2, 1)),
    "ScalableViT": _own(
        "scalable_vit",
        "ScalableViT",
        256,
        dim=64,
        heads=(2, 4, 8, 16),
        depth=(1, 1, 2, 1),
        reduction_factor=(8, 4, 2, 1),
        window_size=(64, 32, None, None),
    ),
    "SepViT": _own("sep_vit", "SepViT", dim=32, depth=(1, 1, 2, 1), heads=(1, 2, 4, 8)),
    "TwinsSVT": _own("twins_svt", "TwinsSVT", s3_depth=2, s4_depth=1),
    "CrossFormer": _own("crossformer", "CrossFormer", depth=(1, 1, 2, 1)),
    "ViViT": _vit(
        "vivit",
        "ViViT",
        1,
        3,
        16,
        128,
        128,
        usual=False,
        image_size=128,
        image_patch_size=16,
        frames=16,
        frame_patch_size=2,
        num_classes=1000,
        dim=512,
        spatial_depth=2,
        temporal_depth=2,
        heads=8,
        mlp_dim=1024,
    ),
    "NaViT": Case(_packed, on="cpu"),
}
