"""Kinds of repeated layers: adapters, lists of lists, views of one tensor, caches in training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import transformers
from architectures import ARCHITECTURES, at_depth
from calls import meta
from test_layer_reuse import WIDTH, Layer, reused
from test_training_layer_reuse import compared
from torch import nn
from torch.nn import functional as F

import graphflops as gf

ADAPTERS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=True),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["q_proj", "v_proj"]),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_layers_with_adapters(name: str) -> None:
    with at_depth(4):
        case = ARCHITECTURES["llama"]()
    model = peft.get_peft_model(case.model, ADAPTERS[name](), low_cpu_mem_usage=True)

    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(model, kwargs=case.inputs, reuse_layers=reuse_layers)

    assert reused(count) >= 3
    # The first layer hands no gradient on to the frozen embedding.
    assert compared(model, kwargs=case.inputs) >= 2
    _check_memory(model, case.inputs)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_layers_that_fill_a_cache_in_training(name: str) -> None:
    with at_depth(4):
        case = ARCHITECTURES[name]()
    inputs = case.inputs | {"use_cache": True}
    assert compared(case.model, kwargs=inputs) == 3
    _check_memory(case.model, inputs)


def test_a_cache_through_which_a_loss_sees_layers() -> None:
    with at_depth(4):
        case = ARCHITECTURES["llama"]()

    def loss(outputs: Any) -> torch.Tensor:
        keys = outputs.past_key_values.layers[1].keys
        total: torch.Tensor = keys.sum() + outputs[0].sum()
        return total

    inputs = case.inputs | {"use_cache": True}
    ours, plain = (
        gf.count_training(case.model, kwargs=inputs, loss=loss, reuse_layers=reuse_layers)
        for reuse_layers in (True, False)
    )
    assert ours.hardware_flops == plain.hardware_flops
    assert ours.forward.capture.layer_reuse.layers == 0


def _check_memory(model: nn.Module, inputs: Any) -> None:
    found, plain = (
        gf.count_training(model, kwargs=inputs, reuse_layers=reuse_layers).memory.timeline
        for reuse_layers in (True, False)
    )
    assert found == plain


class Lists(nn.Module):
    """Layers of two parts, in lists of lists and in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(nn.ModuleList([Layer(), Wide()]) for _ in range(4))
        self.named = nn.ModuleList(nn.ModuleDict({"a": Wide(), "b": Layer()}) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for pair in self.pairs:
            for part in pair:  # type: ignore[attr-defined]  # a list
                x = part(x)
        for named in self.named:
            x = named["b"](named["a"](x))  # type: ignore[index]  # a dictionary
        return x


class Wide(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(torch.cat([x, x]))[: len(x)].contiguous()


class Empty(Layer):
    """A layer with empty containers, as an adapter that is not in use has them."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.unused, self.weights = nn.ModuleDict(), nn.ParameterDict()


class Views(Layer):
    """Two streams that are views of one tensor."""

    def forward(self, x: Any, *_: Any) -> Any:
        text, image = x
        both = super().forward(torch.cat([text, image], dim=1))
        both = both * 2
        return both[:, : text.shape[1]], both[:, text.shape[1] :]


class Streams(nn.Module):
    def __init__(self, inner: type[nn.Module] = Views) -> None:
        super().__init__()
        self.layers = nn.ModuleList(inner() for _ in range(5))

    def forward(self, x: torch.Tensor) -> Any:
        pair = (x, x * 2)
        for layer in self.layers:
            pair = layer(pair)
        return torch.cat(pair, dim=1)


class Written(Views):
    def forward(self, x: Any, *_: Any) -> Any:
        text, image = super().forward(x)
        return text.add_(1), image.relu_()


class Experts(nn.Module):
    """Many small modules, all of which see one input."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(16)
        )

    def forward(self, x: torch.Tensor) -> Any:
        return sum(expert(x) for expert in self.experts)


class Unread(Layer):
    def forward(self, x: torch.Tensor, _number: int = 0, *_: Any, _position: int = 0) -> Any:
        return super().forward(x)


class Read(Layer):
    def forward(self, x: torch.Tensor, _number: int = 0, *_: Any, _position: int = 0) -> Any:
        return super().forward(x * _position)


class ReadByInnerFunction(Layer):
    def forward(self, x: torch.Tensor, _number: int = 0, *_: Any, _position: int = 0) -> Any:
        return super().forward(torch.stack([x * _number for _ in range(2)])[0])


def _scaled(layer: Layer, x: torch.Tensor, *numbers: int, **_: int) -> Any:
    return Layer.forward(layer, x * numbers[0])


class ReadInWrapper(Layer):
    forward: Any = functools.update_wrapper(_scaled, Unread.forward)


class Numbered(nn.Module):
    """Layers to which their numbers are passed."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kind() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x, number, _position=number)
        return x


class DropPath(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.rate) if self.training and self.rate else x


class Dropped(Layer):
    """A layer with drop paths, whose rates grow with depth."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.first, self.second = DropPath(index / 10), DropPath(index / 10)

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return self.second(super().forward(self.first(x)))


class Within(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = Layer(), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(self.gate(x))


class Parents(nn.Module):
    """Equal layers, of which some are parts of others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.within, self.last = Layer(), Within(), nn.Sequential(Layer(), nn.ReLU())

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.within(self.first(x)))


# By name: the model, how many layers are reused in a forward pass, and how many in training, where
# the first one is another if it hands no gradient on.
KINDS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "lists of lists": (Lists, 7 + 7, 7 + 6),
    "many experts of two calls": (Experts, 15, 0),
    "empty containers": (lambda: nn.Sequential(*map(Empty, range(4))), 3, 2),
    # The first layer's inputs are two tensors, those of the others views of one.
    "views of one tensor": (Streams, 3, 0),
    "views that are written to": (lambda: Streams(Written), 3, 0),
    "numbers that nothing reads": (lambda: Numbered(Unread), 3, 2),
    "numbers that are read": (lambda: Numbered(Read), 0, 0),
    "numbers that an inner function reads": (lambda: Numbered(ReadByInnerFunction), 0, 0),
    "numbers that a wrapper reads": (lambda: Numbered(ReadInWrapper), 0, 0),
    "drop paths": (lambda: nn.Sequential(*map(Dropped, range(4))), 3, 2),
    "equal layers of different parents": (Parents, 2, 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_layers(name: str) -> None:
    build, expected, expected_in_training = KINDS[name]
    with torch.device("meta"):
        model = build().eval()
    x = meta(2, 3, WIDTH)

    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(model, (x,), reuse_layers=reuse_layers)

    assert reused(count) == expected
    assert count(True).memory.timeline == count(False).memory.timeline
    assert compared(model, (x,)) == expected_in_training


def test_entries_of_a_cache_by_layer_and_cycle() -> None:
    """A model that runs its stack again, each time with entries of its own."""
    config = transformers.HrmTextConfig(
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        vocab_size=100,
        num_hidden_layers=24,
        num_layers_per_stack=4,
        H_cycles=2,
        L_cycles=2,
    )
    with torch.device("meta"):
        model = transformers.HrmTextForCausalLM(config).eval()
    inputs = {"input_ids": torch.zeros(2, 7, dtype=torch.int64)}

    def step(reuse_layers: bool) -> gf.Report:
        report = gf.count_generation(model, inputs, max_new_tokens=4, reuse_layers=reuse_layers)
        return report.decode_graphs[0].report

    assert reused(step) > 0
