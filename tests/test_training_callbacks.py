"""Callbacks of trainers log what an exact count says, and the run stays what it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.utils.data import Dataset

import graphflops as gf
from graphflops.analysis import device_names
from graphflops.analysis.device_names import device_by_driver_name
from graphflops.analysis.devices import device
from graphflops.integrations.huggingface import UtilizationCallback
from graphflops.integrations.step_meter import StepMeter

TOKENS = 6
CPU = device("cpu")
CPU_PEAK = CPU.rate("float32", matrix=True)


def small() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=30,
        use_cache=False,
    )
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


class Tokens(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(self.lengths[index]) % 30
        return {"input_ids": ids, "labels": ids}


def trainer(folder: Path, lengths: list[int], **options: Any) -> transformers.Trainer:
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        num_train_epochs=1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    sampled = "train_sampling_strategy"
    if hasattr(args, sampled):
        setattr(args, sampled, "sequential")
    made: transformers.Trainer = transformers.Trainer(
        model=small(), args=args, train_dataset=Tokens(lengths)
    )
    return made


def counted(tokens: int, rows: int = 2, **options: Any) -> gf.TrainingReport:
    ids = torch.zeros(rows, tokens, dtype=torch.int64)
    return gf.count_training(small().train(), kwargs={"input_ids": ids, "labels": ids}, **options)


class Clock:
    """A clock on which every step takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(
            "graphflops.integrations.step_meter.time.perf_counter", lambda: self.now
        )


class Ticks(transformers.TrainerCallback):  # type: ignore[misc]
    """Let a second pass in each step, before others see its end."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.clock.now += 1


def logged(run: transformers.Trainer) -> list[dict[str, Any]]:
    return [entry for entry in run.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("passes", [1, 2])
def test_a_trainer_logs_what_a_count_says(
    passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    run = trainer(tmp_path, [TOKENS] * 8, gradient_accumulation_steps=passes)
    UtilizationCallback(CPU).add_to(run)
    run.add_callback(Ticks(clock))
    run.train()
    step = counted(TOKENS)
    entries = logged(run)
    assert len(entries) == 4 // passes
    for entry in entries:
        assert entry["tflops_per_device"] == passes * step.model_flops / 1e12
        assert entry["mfu"] == step.mfu(1 / passes, CPU_PEAK)
        assert entry["hfu"] == step.hfu(1 / passes, CPU_PEAK)
    assert "floating_point_ops" not in vars(run)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_run_stays_what_it_is(tmp_path: Path) -> None:
    runs = [trainer(tmp_path, [TOKENS] * 6) for _ in range(2)]
    UtilizationCallback(CPU).add_to(runs[0])
    hooks = []
    for run in runs:
        torch.manual_seed(1)
        run.train()
        hooks.append((len(run.model._forward_hooks), len(run.model._forward_pre_hooks)))
    ours, plain = runs
    assert [e["loss"] for e in logged(ours)] == [e["loss"] for e in logged(plain)]
    assert hooks[0] == hooks[1] == (0, 0)
    assert ours.model.training == plain.model.training
    assert ours.state.total_flos == plain.state.total_flos
    assert vars(ours.model).keys() == vars(plain.model).keys()
    for one, other in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_without_its_trainer_it_says_what_to_write(tmp_path: Path) -> None:
    run = trainer(tmp_path, [TOKENS] * 2)
    run.add_callback(UtilizationCallback(CPU))
    with pytest.raises(
        gf.ModelSpecError, match=r"write UtilizationCallback\(...\).add_to\(trainer\)"
    ):
        run.train()


def test_each_shape_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count(*args: Any, **kwargs: Any) -> gf.TrainingReport:
        calls.append(args)
        return gf.count_training(*args, **kwargs)

    monkeypatch.setattr("graphflops.integrations.step_meter.count_training", count)
    clock = Clock(monkeypatch)
    meter, model = StepMeter(device=CPU), nn.Linear(3, 4)
    meter.resume()
    for rows in (2, 5, 2, 5):
        meter.observe(model, (torch.zeros(rows, 3),))
    clock.now += 2
    meter.end_step()
    assert len(calls) == 2
    total = 2 * sum(gf.count_training(model, (torch.zeros(n, 3),)).model_flops for n in (2, 5))
    assert meter.read()["tflops_per_device"] == total / 2 / 1e12
    assert meter.read() == {}
    model.weight.requires_grad_(False)
    meter.observe(model, (torch.zeros(2, 3),))
    assert len(calls) == 3


def test_devices_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    meter, model = StepMeter(device=CPU, devices_per_batch=4), nn.Linear(3, 4)
    meter.resume()
    meter.observe(model, (torch.zeros(2, 3),))
    clock.now += 1
    meter.end_step()
    step = gf.count_training(model, (torch.zeros(2, 3),))
    assert meter.read()["mfu"] == pytest.approx(step.mfu(1.0, 4 * CPU_PEAK))


def test_time_between_steps_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    meter, model = StepMeter(device=CPU), nn.Linear(3, 4)
    for _ in range(2):
        meter.resume()
        meter.observe(model, (torch.zeros(2, 3),))
        clock.now += 1
        meter.end_step()
        clock.now += 100  # an evaluation
        meter.pause()
    flops = gf.count_training(model, (torch.zeros(2, 3),)).model_flops
    assert meter.read()["tflops_per_device"] == flops / 1e12


def read(model: nn.Module, x: torch.Tensor, **options: Any) -> tuple[dict[str, float], list[str]]:
    meter = StepMeter(**options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            meter.resume()
            meter.observe(model, (x,))
            meter.end_step()
    return meter.read(), [str(warning.message) for warning in caught]


def test_an_unknown_device_has_no_mfu_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Unheard-of")
    metrics, messages = read(nn.Linear(3, 4), torch.zeros(2, 3))
    assert list(metrics) == ["tflops_per_device"]
    assert messages == [
        "no peak rate of NVIDIA Unheard-of is known, and MFU is left out. Give device=NAME."
    ]


def test_a_device_is_found_by_its_driver_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    metrics, messages = read(nn.Linear(3, 4), torch.zeros(2, 3))
    assert (list(metrics), messages) == (["tflops_per_device", "mfu", "hfu"], [])
    rate = metrics["tflops_per_device"] * 1e12
    assert metrics["mfu"] == pytest.approx(rate / device("l4").rate("float32", matrix=True))


def test_a_dtype_without_a_rate_has_no_mfu() -> None:
    metrics, (message,) = read(nn.Linear(3, 4), torch.zeros(2, 3), device="t4", dtype="float8")
    assert list(metrics) == ["tflops_per_device"]
    assert message.startswith("MFU is left out: no peak rate of t4 for float8 is known.")


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight).sum() if (x * self.weight).sum() > 1 else self.weight.sum()


def test_a_model_that_cannot_be_counted_trains_all_the_same() -> None:
    metrics, (message,) = read(Undecided(), torch.zeros(2, 3), device=CPU)
    assert metrics == {}
    assert message.startswith("a batch cannot be counted, and nothing is logged:")


@pytest.mark.parametrize(
    "options", [{"device": "nothing"}, {"devices_per_batch": 0}], ids=lambda value: str(value)
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(gf.ModelSpecError):
        StepMeter(**options)


def test_every_driver_name_is_that_of_a_device() -> None:
    for name, known in device_names._REPORTED.items():
        assert device(known).name == known
        assert device_by_driver_name(f"NVIDIA {name}") == device(known)
    assert device_by_driver_name("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None


def _lightning() -> Callable[..., Any]:
    pytest.importorskip(
        "lightning", reason="an extra: its callback is tested where it is installed"
    )
    from lightning.pytorch import LightningModule

    class Wrapped(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = self.layer(batch).square().sum()
            self.log("epoch_of_it", float(self.trainer.current_epoch))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Wrapped


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("passes", [1, 2])
def test_lightning_logs_what_a_count_says(
    passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = _lightning()
    from lightning.pytorch import Callback, Trainer, seed_everything

    from graphflops.integrations.lightning import UtilizationCallback as LightningCallback

    clock = Clock(monkeypatch)
    seen = []
    data: Any = torch.ones(8, 3)
    rows = torch.utils.data.DataLoader(data, batch_size=2)

    class Tick(Callback):  # type: ignore[misc]
        def on_after_backward(self, *_: Any) -> None:
            clock.now += 1

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(dict(trainer.callback_metrics))

    def fit(*callbacks: Any) -> Any:
        seed_everything(0)
        module = wrapped()
        Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(tmp_path),
            accumulate_grad_batches=passes,
            log_every_n_steps=1,
            callbacks=[*callbacks, Tick()],
        ).fit(module, rows)
        return module

    module = fit(LightningCallback(CPU))
    metrics = seen[passes - 1 :: passes]
    plain = fit()

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = self.layer(x).square().sum()
            return loss

    step = gf.count_training(Step(), (torch.zeros(2, 3),), loss=lambda out: out)
    assert len(metrics) == 4 // passes
    for row in metrics:
        assert float(row["tflops_per_device"]) == pytest.approx(step.model_flops / 1e12)
        assert float(row["mfu"]) == pytest.approx(step.mfu(1.0, CPU_PEAK))
    assert torch.equal(module.layer.weight, plain.layer.weight)
    assert not module._forward_pre_hooks
    assert "log" not in vars(module)
