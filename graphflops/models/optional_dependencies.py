"""Optional packages: imported when a name asks for them, with the line that installs them."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from graphflops.errors import ModelSpecError


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ModelSpecError: It is not installed, or does not import.
    """
    try:
        repair_torchvision()
        return importlib.import_module(package)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        wrong = f"{extra}: names need {package}"
        if not isinstance(error, ModuleNotFoundError):
            wrong += f", which is installed but does not import ({reason})"
        elif error.name != package:
            wrong += f", which lacks {error.name}"
        raise ModelSpecError(f"{wrong}. Run: pip install 'graphflops[{extra}]'") from error


def repair_torchvision() -> bool:
    """Let torchvision import where its compiled part was built for another torch.

    Without that part, the shape functions that torchvision registers on import find no
    operators to belong to, and it fails, and all of timm and most of transformers with it. A
    count needs no kernels: with those declared that detectors call, what is written in Python
    works.

    Returns:
        Whether that was so; a torchvision that is missing or broken otherwise stays as it is.
    """
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - whoever needs it imports it and says what is wrong
        if "operator torchvision::nms does not exist" not in str(error):
            return False
        for name, schema in _SCHEMAS.items():
            torch.library.define(f"torchvision::{name}", schema)
        _let_run(importlib.import_module("torchvision"))
        return True
    return False


_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
}


def _let_run(torchvision: Any) -> None:
    """Let torchvision call the operators that were declared, which have no kernels."""
    shape = importlib.import_module("torchvision._meta_registrations").meta_roi_align
    torch.library.register_fake("torchvision::roi_align", shape)
    # The function of this name stands in the package's place for the module.
    module: Any
    for module in (torchvision.extension, sys.modules["torchvision.ops.roi_align"]):
        module._has_ops = lambda: True


@contextlib.contextmanager
def copy_to_meta() -> Iterator[None]:
    """Build without weights; what is made of written numbers keeps its value.

    Some modules hold their stride or padding as a tensor, and sizes follow from it.
    """
    with torch.device("meta"), _MadeOn("cpu", torch.tensor):
        yield


def built_on_meta(build: Callable[[], Any]) -> Any:
    """What a function builds :func:`copy_to_meta`, or plainly on meta if it mixes the two."""
    try:
        with copy_to_meta():
            return build()
    except Exception:  # noqa: BLE001 - if that was not the reason, it fails again
        with torch.device("meta"):
            return build()


class _MadeOn(TorchFunctionMode):
    """One of torch's factories makes its tensors on a device, whatever the context says."""

    def __init__(self, device: str, factory: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._device, self._factory = device, factory

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is self._factory:
            kwargs["device"] = self._device
        return func(*args, **kwargs)


def weightless(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model on the meta device, whatever its constructor does.

    Most are content there. One that computes with tensors (widths from a ``linspace``) is
    built with only its weights on meta: the room that layers make with ``torch.empty``.

    Raises:
        ModelSpecError: The constructor fails.
    """
    try:
        with copy_to_meta():
            return build().eval()
    except Exception:  # noqa: BLE001 - if that was not the reason, it fails again
        try:
            with _MadeOn("meta", torch.empty):
                return build().eval().to("meta")
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".!") or type(error).__name__
            msg = f"{name} cannot be built so: {reason}. Correct --set or --image-size."
            raise ModelSpecError(msg) from error
