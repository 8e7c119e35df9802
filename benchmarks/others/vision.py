"""Models of images: open_clip, segmentation models, ultralytics, EfficientNet, kornia."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch

from benchmarks.others.case import Calls, Case, Model, Placement, model

e = torch.empty


def _clip(name: str, size: int = 224, length: int = 77) -> Case:
    def build() -> Model:
        import open_clip

        built = open_clip.create_model(name, device="meta")
        return model(built, e(2, 3, size, size), torch.ones(2, length, dtype=torch.long))

    return Case(build, on="moved")


def _segmentation(name: str, encoder: str, on: Placement = "meta", **settings: Any) -> Case:
    def build() -> Model:
        import segmentation_models_pytorch

        make = getattr(segmentation_models_pytorch, name)
        built = make(encoder_name=encoder, encoder_weights=None, **settings)
        return model(built, e(2, 3, 256, 256))

    return Case(build, on)


def _yolo(config: str, kind: str = "DetectionModel", size: int = 320) -> Case:
    def build() -> Model:
        tasks = import_module("ultralytics.nn.tasks")
        classes = {} if kind == "PoseModel" else {"nc": 80}
        built = getattr(tasks, kind)(f"{config}.yaml", ch=3, verbose=False, **classes)
        return Model(model=built, args=(torch.rand(1, 3, size, size),), trains=kind != "RTDETR")

    return Case(build, on="cpu")


def _efficientnet(name: str, size: int) -> Case:
    def build() -> Model:
        from efficientnet_pytorch import EfficientNet

        return model(EfficientNet.from_name(name), e(2, 3, size, size))

    return Case(build, on="moved")


def _kornia(module: str, name: str, *sizes: tuple[int, ...], **options: Any) -> Case:
    """A function of kornia."""

    def build() -> Model:
        function = getattr(import_module(f"kornia.{module}"), name)
        inputs = (torch.rand(*size) for size in sizes or ((2, 3, 64, 64),))
        return Model(model=Calls(partial(function, **options)), args=(*inputs,), trains=False)

    return Case(build, on="cpu")


def _features(name: str, *size: int, **settings: Any) -> Case:
    """A network of ``kornia.feature``."""

    def build() -> Model:
        made: Callable[..., Any] = getattr(import_module("kornia.feature"), name)
        return model(made(**settings), torch.rand(*size))

    return Case(build, on="cpu")


def _loftr() -> Model:
    from kornia.feature import LoFTR

    images = {name: torch.rand(1, 1, 96, 96) for name in ("image0", "image1")}
    return Model(model=LoFTR(pretrained=None), args=(images,), trains=False)


CASES: dict[str, Case] = {
    "open_clip ViT-B-32": _clip("ViT-B-32"),
    "open_clip ViT-B-16-quickgelu": _clip("ViT-B-16-quickgelu"),
    "open_clip RN50": _clip("RN50"),
    "open_clip convnext_base_w": _clip("convnext_base_w", 256),
    "open_clip ViT-B-16-SigLIP": _clip("ViT-B-16-SigLIP", length=64),
    "open_clip coca_ViT-B-32": _clip("coca_ViT-B-32", length=76),
    "open_clip MobileCLIP-S1": _clip("MobileCLIP-S1", 256),
    "smp Unet": _segmentation("Unet", "resnet34"),
    "smp UnetPlusPlus": _segmentation("UnetPlusPlus", "resnet34", decoder_attention_type="scse"),
    "smp DeepLabV3": _segmentation("DeepLabV3", "resnet34"),
    "smp DeepLabV3Plus": _segmentation("DeepLabV3Plus", "mobilenet_v2"),
    "smp FPN": _segmentation("FPN", "efficientnet-b3"),
    "smp PAN": _segmentation("PAN", "resnet34"),
    "smp Linknet": _segmentation("Linknet", "densenet121"),
    "smp MAnet": _segmentation("MAnet", "resnet34"),
    "smp PSPNet": _segmentation("PSPNet", "resnext50_32x4d"),
    "smp UPerNet": _segmentation("UPerNet", "tu-convnext_tiny"),
    "smp Segformer": _segmentation("Segformer", "mit_b2", "moved"),
    "smp DPT": _segmentation("DPT", "tu-vit_base_patch16_224.augreg_in21k", dynamic_img_size=True),
    "ultralytics yolov5s": _yolo("yolov5s"),
    "ultralytics yolov8n": _yolo("yolov8n"),
    "ultralytics yolov9t": _yolo("yolov9t"),
    "ultralytics yolov10n": _yolo("yolov10n"),
    "ultralytics yolo11n": _yolo("yolo11n"),
    "ultralytics yolo12n": _yolo("yolo12n"),
    "ultralytics yolo11n-seg": _yolo("yolo11n-seg", "SegmentationModel"),
    "ultralytics yolo11n-pose": _yolo("yolo11n-pose", "PoseModel"),
    "ultralytics rtdetr-l": _yolo("rtdetr-l", "RTDETRDetectionModel"),
    "EfficientNet b0": _efficientnet("efficientnet-b0", 224),
    "EfficientNet b4": _efficientnet("efficientnet-b4", 380),
    "kornia gaussian_blur2d": _kornia(
        "filters", "gaussian_blur2d", kernel_size=(7, 7), sigma=(1.5, 1.5)
    ),
    "kornia sobel": _kornia("filters", "sobel"),
    "kornia canny": _kornia("filters", "canny"),
    "kornia median_blur": _kornia("filters", "median_blur", kernel_size=(5, 5)),
    "kornia bilateral_blur": _kornia(
        "filters", "bilateral_blur", kernel_size=(5, 5), sigma_color=0.1, sigma_space=(1.5, 1.5)
    ),
    "kornia harris_response": _kornia("feature", "harris_response"),
    "kornia equalize_clahe": _kornia("enhance", "equalize_clahe"),
    "kornia rgb_to_lab": _kornia("color", "rgb_to_lab"),
    "kornia warp_affine": _kornia(
        "geometry.transform", "warp_affine", (2, 3, 64, 64), (2, 2, 3), dsize=(48, 48)
    ),
    "kornia HardNet": _features("HardNet", 16, 1, 32, 32, pretrained=False),
    "kornia DISK": _features("DISK", 1, 3, 64, 64),
    "kornia LoFTR": Case(_loftr, on="cpu"),
}
