"""Calls of one module that differ, or leave something behind: none is replayed from another."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calls import meta
from test_layer_reuse import WIDTH, Layer, reused
from test_layer_reuse_again import TIMES, Again
from torch import nn
from torch.nn import functional as F

import graphflops as gf


class Counter(Layer):
    """Counts its calls in what it is given."""

    def __init__(self, count: Callable[[Any], int]) -> None:
        super().__init__()
        self.count, self.number = count, 0
        self.seen: Any = []
        self.queue: deque[int] = deque()
        self.state = SimpleNamespace(number=0)
        self.others = [Numbered()]
        self.register_buffer("step", torch.tensor(0))

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) * self.count(self)


class Numbered(nn.Module):
    number = 0


def counts_attribute(layer: Any) -> int:
    layer.number += 1
    return int(layer.number)


def counts_list(layer: Any) -> int:
    layer.seen.append(1)
    return len(layer.seen)


def counts_queue(layer: Any) -> int:
    layer.queue.append(1)
    return len(layer.queue)


def counts_object(layer: Any) -> int:
    layer.state.number += 1
    return int(layer.state.number)


def counts_hidden_module(layer: Any) -> int:
    layer.others[0].number += 1
    return int(layer.others[0].number)


def counts_buffer(layer: Any) -> int:
    layer.step += 1
    return int(layer.step)


def draws(_: Any) -> int:
    return random.randint(1, 99)  # noqa: S311 - no secret


def closure() -> Callable[[Any], int]:
    calls: list[int] = []

    def count(_: Any) -> int:
        calls.append(1)
        return len(calls)

    return count


def defaults() -> Callable[[Any], int]:
    def count(_: Any, calls: list[int] = []) -> int:  # noqa: B006 - what is tested
        calls.append(1)
        return len(calls)

    return count


COUNTERS: dict[str, Callable[[], Callable[[Any], int]]] = {
    "an attribute": lambda: counts_attribute,
    "a list": lambda: counts_list,
    "a queue": lambda: counts_queue,
    "an object": lambda: counts_object,
    "a module in a list": lambda: counts_hidden_module,
    "a buffer": lambda: counts_buffer,
    "chance": lambda: draws,
    "a closure": closure,
    "a default": defaults,
}


@pytest.mark.parametrize("name", COUNTERS)
def test_a_module_that_changes_from_call_to_call_is_traced(name: str) -> None:
    def count(reuse_layers: bool) -> gf.Report:
        random.seed(0)
        model = Again(Counter(COUNTERS[name]()))
        return gf.count(model, (torch.zeros(2, TIMES, WIDTH),), reuse_layers=reuse_layers)

    assert reused(count) == 0


STATE = {"number": 0}
OBJECT = SimpleNamespace(number=0)


class InGlobals(Layer):
    made = [0]  # noqa: RUF012 - what is tested

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) * self.count()

    def count(self) -> int:
        raise NotImplementedError


class InDictionary(InGlobals):
    def count(self) -> int:
        STATE["number"] += 1
        return STATE["number"]


class InObject(InGlobals):
    def count(self) -> int:
        return count_in_object()


def count_in_object() -> int:
    OBJECT.number += 1
    return int(OBJECT.number)


class InClass(InGlobals):
    def count(self) -> int:
        self.made.append(1)
        return len(self.made)


@pytest.mark.parametrize("kind", [InDictionary, InObject, InClass])
def test_state_outside_of_modules_is_compared(kind: Any) -> None:
    def count(model: nn.Module, reuse_layers: bool) -> gf.Report:
        STATE["number"] = OBJECT.number = 0
        InGlobals.made.clear()
        return gf.count(model, (meta(2, TIMES, WIDTH),), reuse_layers=reuse_layers)

    assert reused(partial(count, Again(kind()))) == 0
    assert reused(partial(count, nn.Sequential(*(kind() for _ in range(4))))) == 0


def toggled(layer: Any, x: torch.Tensor, number: int) -> Any:
    return layer.train(bool(number % 2))(x)


def hooked(layer: Any, x: torch.Tensor, number: int) -> Any:
    if number == 3:
        layer.inner.register_forward_hook(lambda _module, _inputs, result: result * 2)
    return layer(x)


def another_weight(layer: Any, x: torch.Tensor, number: int) -> Any:
    if number == 3:
        layer.inner = nn.Linear(WIDTH, 16)
    return layer(x)


def numbered(layer: Any, x: torch.Tensor, number: int) -> Any:
    return layer(x, number)


def shortened(layer: Any, x: torch.Tensor, _: int) -> Any:
    return layer(x[:, 1:]) if x.shape[1] > 1 else x


def transposed(layer: Any, x: torch.Tensor, number: int) -> Any:
    x = x.transpose(0, 1).contiguous().transpose(0, 1) if number == 3 else x.contiguous()
    return layer(x)


def in_autocast(layer: Any, x: torch.Tensor, number: int) -> Any:
    with torch.autocast("cpu", enabled=number == 3):
        return layer(x).float()


def with_itself(layer: Any, x: torch.Tensor, number: int) -> Any:
    return layer(x, x if number == 3 else x * 2)


def overlapping(layer: Any, x: torch.Tensor, number: int) -> Any:
    return layer(x[:, 1:], x[:, : -1 if number == 3 else 1])[:, :1].expand_as(x)


# By what differs: how many of six calls are reused.
CALLS: dict[str, tuple[Callable[[Any, torch.Tensor, int], Any], int]] = {
    "training mode": (toggled, 3),
    "a hook": (hooked, 1),
    "another weight": (another_weight, 3),
    "an argument": (numbered, 0),
    "another shape": (shortened, 0),
    "other strides": (transposed, 3),
    "autocast": (in_autocast, 3),
    "the same tensor twice": (with_itself, 3),
    "overlapping memory": (overlapping, 3),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_differ_are_traced(name: str) -> None:
    step, expected = CALLS[name]

    def count(reuse_layers: bool) -> gf.Report:
        with torch.device("meta"):
            model = Again(Layer().eval(), step)
        return gf.count(model, (meta(2, TIMES, WIDTH),), reuse_layers=reuse_layers)

    assert reused(count) == expected


def test_masks_without_a_value_are_compared() -> None:
    class Masked(Layer):
        def forward(self, x: torch.Tensor, *given: Any) -> Any:
            x = super().forward(x)
            return F.scaled_dot_product_attention(x, x, x, attn_mask=given[0])

    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Masked() for _ in range(4))

        def forward(self, x: torch.Tensor) -> Any:
            position = torch.arange(x.shape[1], device=x.device)
            ahead = position[:, None] - position
            causal, window = ahead >= 0, (ahead >= 0) & (ahead < 100)
            for number, layer in enumerate(self.layers):
                x = layer(x, window if number % 2 else causal)
            return x

    with torch.device("meta"):
        model = Windowed()

    def count(reuse_layers: bool) -> gf.Report:
        # The masks are too large to be computed.
        return gf.count(model, (meta(1, 2048, WIDTH),), reuse_layers=reuse_layers)

    assert reused(count) == 2
