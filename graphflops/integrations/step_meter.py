"""Utilization of training steps: exact counts of batches over measured seconds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from graphflops.analysis.device_names import device_by_driver_name
from graphflops.analysis.devices import Device, device
from graphflops.capture.torch_internals.trees import pytree
from graphflops.counting.training import count_training
from graphflops.errors import GraphFlopsError, ModelSpecError

_TERA = 10**12


class StepFlops(NamedTuple):
    """FLOPs of forward and backward: those of the model, and those with recomputation."""

    model: int = 0
    hardware: int = 0


@dataclass(kw_only=True)
class StepMeter:
    """TFLOP/s, MFU and HFU of one device of a training run.

    A batch is counted when its shapes are first seen. Counts and checkpoints, evaluations and
    whatever else :meth:`pause` announces are not in the seconds.

    Attributes:
        device: Device, or its name; by default the GPU that torch runs on, if it is a known one.
        dtype: Dtype whose peak rate is the denominator; by default that of most of the products.
        convention: How attention counts: in full (``"exact"``), or without what its masks hide
            (``"causal"``).
        devices_per_batch: Devices that share a batch of this process, as under tensor or pipeline
            parallelism.
    """

    device: Device | str | None = None
    dtype: str | None = None
    convention: str = "exact"
    devices_per_batch: int = 1
    _peak: float | None = None
    _counted: dict[Hashable, StepFlops] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _model_flops: int = 0
    _hardware_flops: int = 0
    _is_complete: bool = True
    _seconds: float = 0.0
    _mark: float | None = None

    def __post_init__(self) -> None:
        if self.devices_per_batch < 1:
            msg = f"devices_per_batch is {self.devices_per_batch}. Give 1 or more."
            raise ModelSpecError(msg)
        if isinstance(self.device, str):
            self.device = device(self.device)

    def resume(self) -> None:
        """Start the clock, unless it runs."""
        if self._mark is None:
            self._mark = time.perf_counter()

    def pause(self) -> None:
        """Leave out the time since the last step ended; the clock starts with the next one."""
        self._mark = None

    def end_step(self) -> None:
        """Add the time since the last step ended."""
        now = time.perf_counter()
        if self._mark is not None:
            self._seconds += now - self._mark
        self._mark = now

    def observe(
        self,
        model: nn.Module,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        loss: Callable[[Any], torch.Tensor] | None = None,
    ) -> None:
        """Add the FLOPs of a batch, counted if its shapes are new.

        Args:
            model: Model that it goes through.
            args: Its positional inputs.
            kwargs: Its keyword inputs.
            loss: Function from the output to what is differentiated, as of ``count_training``.
        """
        start = time.perf_counter()
        key = _signature(model, args, kwargs)
        if key not in self._counted:
            self._counted[key] = self._count(model, args, kwargs, loss)
        flops = self._counted[key]
        self._model_flops += flops.model
        self._hardware_flops += flops.hardware
        self._is_complete &= flops.model > 0
        if self._mark is not None:
            self._mark += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Return TFLOP/s, MFU and HFU of a device since the last reading, and start anew.

        There is no MFU and no HFU for a device without a known peak, and nothing at all for a
        batch that could not be counted; a warning said so.
        """
        model, hardware, seconds = self._model_flops, self._hardware_flops, self._seconds
        is_complete, self._is_complete = self._is_complete, True
        self._model_flops = self._hardware_flops = 0
        self._seconds = 0.0
        if not (is_complete and model and seconds):
            return {}
        rate = model / seconds / self.devices_per_batch
        metrics = {"tflops_per_device": rate / _TERA}
        if self._peak is not None:
            metrics["mfu"] = rate / self._peak
            metrics["hfu"] = hardware / seconds / self.devices_per_batch / self._peak
        return metrics

    def _count(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        loss: Callable[[Any], torch.Tensor] | None,
    ) -> StepFlops:
        try:
            step = count_training(
                model, args, kwargs, loss=loss, convention=self.convention, on_unknown="ignore"
            )
            flops = StepFlops(int(step.model_flops), int(step.hardware_flops))
        except (GraphFlopsError, TypeError) as error:
            # A size that is not known makes an expression, of which int() is a TypeError.
            self._warn("count", f"a batch cannot be counted, and nothing is logged: {error}")
            return StepFlops()
        if not step.complete:
            names = ", ".join(step.unsupported_ops())
            self._warn("unsupported", f"calls without a price are left out of FLOPs: {names}.")
        self._find_peak(step.dtype)
        return flops

    def _find_peak(self, dtype: str) -> None:
        found = self.device if isinstance(self.device, Device) else self._detect()
        if found is None:
            return
        try:
            self._peak = found.rate(self.dtype or _matrix_dtype(dtype, found), matrix=True)
        except ModelSpecError as error:
            self._warn("device", f"MFU is left out: {error}")

    def _detect(self) -> Device | None:
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
        if (found := device_by_driver_name(name)) is None:
            msg = f"no peak rate of {name} is known, and MFU is left out. Give device=NAME."
            self._warn("device", msg)
        return found

    def _warn(self, subject: str, message: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            warnings.warn(message, UserWarning, stacklevel=2)


def _matrix_dtype(dtype: str, on: Device) -> str:
    """Return the dtype that products of float32 are computed in: tf32 if torch is allowed to."""
    allowed = torch.get_float32_matmul_precision() != "highest"
    return "tf32" if dtype == "float32" and allowed and "tf32" in on.matrix else dtype


def _signature(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> Hashable:
    """Return what the cost of a batch depends on: shapes, modes, and what is trained."""
    leaves, structure = pytree.tree_flatten((args, dict(kwargs or {})))
    shapes = tuple(
        (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else type(leaf)
        for leaf in leaves
    )
    trained = hash(tuple(parameter.requires_grad for parameter in model.parameters()))
    return id(model), model.training, trained, shapes, str(structure)
