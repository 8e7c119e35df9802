"""Callback for the ``Trainer`` of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from graphflops.analysis.devices import Device
from graphflops.errors import ModelSpecError
from graphflops.integrations.step_meter import StepMeter

if TYPE_CHECKING:
    from transformers import Trainer


class UtilizationCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Log TFLOP/s, MFU and HFU of a ``Trainer``: ``UtilizationCallback(...).add_to(trainer)``.

    Where the trainer logs its loss it logs ``tflops_per_device``, ``mfu`` and ``hfu`` as well,
    means since it last did. FLOPs are those of :func:`graphflops.count_training`, of the batches
    that this process trains on, each shape counted once; all passes of a step with gradient
    accumulation are in it. Time of evaluations, checkpoints and of counting is left out.

    Batches are seen through ``trainer.floating_point_ops``, which the trainer calls with each of
    them and whose result stays what it was: the model gets no hooks, and its run is the same.

    Args:
        device: Device, or its name; by default the GPU that torch runs on. Without a known peak
            rate, MFU and HFU are left out, and a warning says so.
        dtype: Dtype whose peak rate is the denominator; by default ``bfloat16`` or ``float16`` as
            the trainer's arguments say, else the model's.
        convention: How attention counts: in full (``"exact"``) or without what its masks hide
            (``"causal"``).
        devices_per_batch: Devices that share a batch of a process, as under tensor or pipeline
            parallelism. Data parallelism, FSDP and ZeRO have one batch for each device: 1.

    Example:
        >>> callback = UtilizationCallback("h100-sxm", convention="causal")
        >>> callback.add_to(trainer)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        device: Device | str | None = None,
        *,
        dtype: str | None = None,
        convention: str = "exact",
        devices_per_batch: int = 1,
    ) -> None:
        self._meter = StepMeter(
            device=device, dtype=dtype, convention=convention, devices_per_batch=devices_per_batch
        )
        self._trainer: Trainer | None = None

    def add_to(self, trainer: Trainer) -> None:
        """Add it to a trainer, before the callbacks that report what is logged."""
        self._trainer = trainer
        trainer.callback_handler.callbacks.insert(0, self)
        if self._meter.dtype is None and (trainer.args.bf16 or trainer.args.fp16):
            self._meter.dtype = "bfloat16" if trainer.args.bf16 else "float16"
        if trainer.args.n_gpu > 1:  # DataParallel: one process splits its batch
            self._meter.devices_per_batch *= trainer.args.n_gpu

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Watch the batches of a run."""
        trainer = self._trainer
        if trainer is None:
            msg = (
                "UtilizationCallback sees batches through its trainer. In place of callbacks=[...] "
                "write UtilizationCallback(...).add_to(trainer)."
            )
            raise ModelSpecError(msg)
        if "floating_point_ops" not in vars(trainer):
            trainer.floating_point_ops = self._watch(trainer, trainer.floating_point_ops)

    def _watch(
        self, trainer: Trainer, original: Callable[[dict[str, Any]], int]
    ) -> Callable[[dict[str, Any]], int]:
        def floating_point_ops(inputs: dict[str, Any]) -> int:
            if isinstance(trainer.model, torch.nn.Module):
                self._meter.observe(trainer.model, kwargs=dict(inputs))
            return original(inputs)

        return floating_point_ops

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop watching."""
        self._meter.pause()
        if self._trainer is not None:
            vars(self._trainer).pop("floating_point_ops", None)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._meter.resume()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Read the clock."""
        self._meter.end_step()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Leave out the time of an evaluation."""
        self._meter.pause()

    def on_save(self, *_: Any, **__: Any) -> None:
        """Leave out the time of a checkpoint."""
        self._meter.pause()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Add the figures to what is logged with the loss."""
        del args, control
        if logs is None or "loss" not in logs:
            return
        self._meter.end_step()  # the loss was read: a GPU has caught up
        metrics = self._meter.read()
        logs.update(metrics)
        if state.log_history:
            state.log_history[-1].update(metrics)
