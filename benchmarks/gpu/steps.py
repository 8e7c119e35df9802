"""One step of a model in each mode, with a call between its phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.gpu.cases import CASES, Case, build, inputs_of
from benchmarks.gpu.device import Device
from benchmarks.gpu.plan import AUTOCAST, GENERATION, HALF, TRAINING, Row

AUXILIARY_SHARE = 0.4  # Inception's, of its auxiliary classifier in the loss
CACHELESS = ("causal", "seq2seq", "audio")
After = Callable[[str], None]


def nothing(_phase: str) -> None:
    """Do nothing between phases."""


@dataclass(kw_only=True)
class Work:
    """A model, its inputs and what its steps need.

    Attributes:
        case: What model it is.
        row: How it is measured.
        model: The model itself.
        device: Where it is.
        inputs: What it is called with.
        optimizer: That of a training.
        tokens: How many tokens a generation adds.
    """

    case: Case
    row: Row
    model: nn.Module
    device: Device
    inputs: dict[str, Tensor]
    optimizer: torch.optim.Optimizer | None = None
    tokens: int = 0

    def outputs(self) -> Any:
        """One forward pass without a cache of keys and values."""
        with self.autocast():
            if self.case.library != "transformers":
                return self.model(self.inputs["pixel_values"])
            options = {"use_cache": False} if self.case.family in CACHELESS else {}
            return self.model(**self.inputs, **options)

    def loss(self) -> Tensor:
        """One forward pass and the loss, the only thing that is kept of it."""
        with self.autocast():
            if self.case.library == "transformers":
                return own_loss(self.outputs())
            return classification(self.outputs(), self.inputs["labels"])

    def autocast(self) -> torch.autocast:
        """The precision's context."""
        return torch.autocast(
            self.device.device.type,
            dtype=torch.bfloat16,
            enabled=self.row.precision == AUTOCAST,
        )


def own_loss(outputs: Any) -> Tensor:
    """Return the loss of a transformers model, or the sum of its pooled output."""
    loss: Tensor | None = getattr(outputs, "loss", None)
    if loss is not None:
        return loss
    pooled: Tensor = outputs.pooler_output
    return pooled.float().sum()


def classification(outputs: Any, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits, with the share of an auxiliary classifier."""
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, labels)
    logits, auxiliary = outputs
    return F.cross_entropy(logits, labels) + AUXILIARY_SHARE * F.cross_entropy(auxiliary, labels)


def model_of(row: Row, device: Device, *, tiny: bool) -> nn.Module:
    """Build a row's model in the right mode."""
    dtype = torch.bfloat16 if row.precision == HALF else torch.float32
    model = build(
        CASES[row.case], dtype=dtype, device=device.device, attention=row.attention, tiny=tiny
    )
    if row.mode == GENERATION:
        settings: Any = model.generation_config
        settings.eos_token_id = None  # random weights must not end a text early
        settings.pad_token_id = 0
    if row.compiled:
        model.compile()
    return model.train(row.mode == TRAINING)


def work_of(row: Row, model: nn.Module, device: Device, *, tiny: bool, tokens: int) -> Work:
    """Make a row's inputs and optimizer."""
    case = CASES[row.case]
    training = row.mode == TRAINING
    inputs = inputs_of(
        case,
        batch=row.batch,
        length=row.length,
        dtype=torch.bfloat16 if row.precision == HALF else torch.float32,
        device=device.device,
        tiny=tiny,
        labels=training,
    )
    return Work(
        case=case,
        row=row,
        model=model,
        device=device,
        inputs=inputs,
        optimizer=optimizer_of(case, model) if training else None,
        tokens=tokens,
    )


def optimizer_of(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW for transformers, SGD with momentum for the rest, both with torch's defaults."""
    if case.library == "transformers":
        return torch.optim.AdamW(model.parameters(), lr=1e-5)
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)


def training_step(work: Work, after: After) -> None:
    """One step of training; gradients live on until the next one's start."""
    optimizer = work.optimizer
    if optimizer is None:
        raise ValueError("a training step needs an optimizer")
    optimizer.zero_grad(set_to_none=True)
    after("start")
    loss = work.loss()
    after("forward")
    loss.backward()  # type: ignore[no-untyped-call]
    after("backward")
    optimizer.step()
    after("optimizer")


@torch.no_grad()
def inference_step(work: Work, after: After) -> None:
    """One forward pass whose output lives until the end."""
    after("start")
    outputs = work.outputs()
    after("forward")
    del outputs


@torch.no_grad()
def prefill_step(work: Work, after: After) -> None:
    """One forward pass over a prompt that fills the cache, as a generation begins."""
    after("start")
    outputs = _prefill(work)
    after("prefill")
    del outputs


@torch.no_grad()
def decode_steps(work: Work, after: After) -> None:
    """Greedy tokens one by one behind a prompt, a phase each."""
    outputs = _prefill(work)
    after("start")
    for index in range(work.tokens):
        outputs = work.model(
            input_ids=outputs.logits[:, -1:].argmax(-1),
            past_key_values=outputs.past_key_values,
            use_cache=True,
        )
        after(f"decode {index}")


@torch.no_grad()
def generate_step(work: Work, after: After) -> None:
    """The library's own greedy generation."""
    after("start")
    model: Any = work.model
    prompt = work.inputs["input_ids"]
    tokens = model.generate(prompt, max_new_tokens=work.tokens, do_sample=False)
    after("generate")
    added = tokens.shape[1] - prompt.shape[1]
    if added != work.tokens:
        raise ValueError(f"{added} tokens were generated, not {work.tokens}")


def _prefill(work: Work) -> Any:
    return work.model(**work.inputs, use_cache=True, logits_to_keep=1)


def main_step(row: Row) -> Callable[[Work, After], None]:
    """The step that a row is about."""
    if row.mode == TRAINING:
        return training_step
    return generate_step if row.mode == GENERATION else inference_step
