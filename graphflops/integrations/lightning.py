"""Callback for the ``Trainer`` of Lightning."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from graphflops.analysis.devices import Device
from graphflops.integrations.step_meter import StepMeter

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:  # the package under its older name
    from pytorch_lightning import Callback, LightningModule, Trainer

_TRAINER_STATE = (
    *("current_epoch", "global_step", "global_rank", "local_rank", "world_size", "training"),
    *("max_epochs", "max_steps", "accumulate_grad_batches", "log_every_n_steps", "num_devices"),
)
"""What a counted step may ask of its trainer."""
_PRECISIONS = {"bf16": "bfloat16", "16": "float16"}


class UtilizationCallback(Callback):  # type: ignore[misc]  # imported under one of two names
    """Log TFLOP/s, MFU and HFU: ``Trainer(callbacks=[UtilizationCallback("h100-sxm")])``.

    Every ``log_every_n_steps`` steps it logs ``tflops_per_device``, ``mfu`` and ``hfu``, means
    since it last did. FLOPs are those of :func:`graphflops.count_training` of the module's
    ``training_step`` on the batches of this process, each shape counted once; all passes of a step
    with gradient accumulation are in it. Time of validation and of counting is left out.

    Args:
        device: Device, or its name; by default the GPU that torch runs on. Without a known peak
            rate, MFU and HFU are left out, and a warning says so.
        dtype: Dtype whose peak rate is the denominator; by default that of the trainer's mixed
            precision, else the model's.
        convention: How attention counts: in full (``"exact"``) or without what its masks hide
            (``"causal"``).
        devices_per_batch: Devices that share a batch of a process, as under tensor or pipeline
            parallelism.
        training_step: Function from module and batch to the loss, in place of the module's own:
            with manual optimization that one runs the backward pass itself, and cannot be counted.

    Example:
        >>> trainer = Trainer(callbacks=[UtilizationCallback("h100-sxm")])  # doctest: +SKIP
    """

    def __init__(
        self,
        device: Device | str | None = None,
        *,
        dtype: str | None = None,
        convention: str = "exact",
        devices_per_batch: int = 1,
        training_step: Callable[[Any, Any], torch.Tensor] | None = None,
    ) -> None:
        self._meter = StepMeter(
            device=device, dtype=dtype, convention=convention, devices_per_batch=devices_per_batch
        )
        self._training_step = training_step
        self._step: _TrainingStep | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the dtype of mixed precision, and the module's step."""
        self._step = _TrainingStep(pl_module, self._training_step)
        precision, _, kind = str(trainer.precision).partition("-")
        if self._meter.dtype is None and kind in {"mixed", "true"}:
            self._meter.dtype = _PRECISIONS.get(precision)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, and count the batch."""
        del trainer, pl_module, batch_idx
        self._meter.resume()
        if self._step is not None:
            self._meter.observe(self._step, (batch,), loss=_loss)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock; log where the trainer does."""
        del pl_module, outputs, batch
        is_logged = (
            trainer.global_step > 0
            and trainer.global_step % trainer.log_every_n_steps == 0
            and (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        )
        if is_logged and torch.cuda.is_available():
            torch.cuda.synchronize()
        self._meter.end_step()
        if is_logged and (metrics := self._meter.read()):
            self.log_dict(metrics, on_step=True, on_epoch=False, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the time of a validation."""
        del trainer, pl_module
        self._meter.pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        del trainer, pl_module
        self._meter.pause()


class _TrainingStep(nn.Module):
    """A ``training_step`` as a module, on a copy of its module that logs nothing."""

    def __init__(
        self, module: LightningModule, step: Callable[[Any, Any], torch.Tensor] | None
    ) -> None:
        super().__init__()
        self.module = copy.copy(module)  # shares its parameters and submodules
        # What a trainer holds cannot be copied: loaders, loggers, processes.
        self.module._trainer = SimpleNamespace(
            **{name: getattr(module.trainer, name) for name in _TRAINER_STATE}
        )
        self.module.log = self.module.log_dict = _log_nothing
        self._step = step
        names = inspect.signature(module.training_step).parameters
        self._further = (0,) if "batch_idx" in names else ()

    def forward(self, batch: Any) -> Any:
        """Return what the step returns."""
        if self._step is not None:
            return self._step(self.module, batch)
        return self.module.training_step(batch, *self._further)


def _log_nothing(*_: Any, **__: Any) -> None:
    """Log nothing."""


def _loss(output: Any) -> torch.Tensor:
    """Return the loss of what a ``training_step`` returns: a tensor, or a table with it."""
    loss: torch.Tensor = output["loss"] if isinstance(output, dict) else output
    return loss
