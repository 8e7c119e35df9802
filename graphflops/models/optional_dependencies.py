"""Imports of optional packages, and constructors that run without weights."""

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

from graphflops.errors import ModelNameError, ModelSpecError


def require(
    package: str, extra: str, import_package: Callable[[], ModuleType] | None = None
) -> ModuleType:
    """Import an optional package.

    Args:
        package: Name of the package.
        extra: Extra of graphflops that installs it.
        import_package: Imports it; by default as any module, after torchvision was repaired.

    Raises:
        ModelSpecError: It is not installed, or does not import.
    """
    try:
        if import_package is not None:
            return import_package()
        repair_torchvision()
        return importlib.import_module(package)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        problem = f"{extra}: names need {package}"
        if not isinstance(error, ModuleNotFoundError):
            problem += f", which is installed but does not import ({reason})"
        elif error.name != package:
            problem += f", which lacks {error.name}"
        raise ModelNameError(f"{problem}. Run: pip install 'graphflops[{extra}]'") from error


def repair_torchvision() -> bool:
    """Repair a torchvision whose compiled extension was built for another version of torch.

    Without the extension, the meta kernels that torchvision registers on import find no
    operators, so its import fails, and with it timm's and much of transformers'. A count needs
    no kernels: once the operators that detectors call are defined, the Python code works.

    Returns:
        True if it was repaired; a torchvision that is missing or broken otherwise stays as it is.
    """
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - the code that needs it imports it and reports the error
        if not _lacks_operators(error):
            return False
        _define_operators()
        _enable_operators(importlib.import_module("torchvision"))
        return True
    return False


def run_torchvision(module: ModuleType, run: Callable[[ModuleType], None]) -> None:
    """Run the code of torchvision, repaired as by :func:`repair_torchvision`."""
    try:
        run(module)
    except Exception as error:
        if not _lacks_operators(error):
            raise
        _define_operators()
        run(module)
        _enable_operators(module)


def _lacks_operators(error: Exception) -> bool:
    return "operator torchvision::nms does not exist" in str(error)


def _define_operators() -> None:
    for name, schema in _SCHEMAS.items():
        torch.library.define(f"torchvision::{name}", schema)


_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
}


def _enable_operators(torchvision: Any) -> None:
    """Enable torchvision's calls of the operators that are defined without kernels."""
    meta_roi_align = importlib.import_module("torchvision._meta_registrations").meta_roi_align
    torch.library.register_fake("torchvision::roi_align", meta_roi_align)
    # In the package, the function of this name hides the module.
    module: Any
    for module in (torchvision.extension, sys.modules["torchvision.ops.roi_align"]):
        module._has_ops = lambda: True


@contextlib.contextmanager
def meta_init() -> Iterator[None]:
    """Create tensors on meta, except for ``torch.tensor``, whose tensors keep their values.

    Some modules have their stride or padding as a tensor, which sizes depend on.
    """
    with torch.device("meta"), _FactoryDevice("cpu", torch.tensor):
        yield


def build_on_meta(build: Callable[[], Any]) -> Any:
    """Return a model built under :func:`meta_init`, or entirely on meta if it mixes devices."""
    try:
        with meta_init():
            return build()
    except Exception:  # noqa: BLE001 - if that was not the reason, it fails again
        with torch.device("meta"):
            return build()


class _FactoryDevice(TorchFunctionMode):
    """Mode in which a factory function of torch creates its tensors on a given device."""

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


def build_without_weights(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model on the meta device, even if its constructor computes with tensors.

    A constructor that does (widths from a ``linspace``) runs with only the weights on meta,
    which layers allocate with ``torch.empty``.

    Raises:
        ModelSpecError: The constructor fails.
    """
    try:
        with meta_init():
            return build().eval()
    except Exception:  # noqa: BLE001 - if that was not the reason, it fails again
        try:
            with _FactoryDevice("meta", torch.empty):
                return build().eval().to("meta")
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".!") or type(error).__name__
            msg = f"{name} cannot be built so: {reason}. Correct --set or --image-size."
            raise ModelSpecError(msg) from error
