"""One module that is called again and again: the same records and memory with reuse and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calls import meta
from test_layer_reuse import WIDTH, Layer, reused
from test_training_layer_reuse import compared
from torch import nn
from torch.nn import functional as F

import graphflops as gf

TIMES = 6


class Again(nn.Module):
    """Calls one module again and again."""

    def __init__(
        self, module: nn.Module, step: Callable[[Any, torch.Tensor, int], Any] | None = None
    ) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.again = module
        self.step = step

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        for number in range(TIMES):
            x = self.step(self.again, x, number) if self.step else self.again(x)
        return x


class Cell(nn.Module):
    """An LSTM cell of single operators."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.hidden = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        h, c = state or (torch.zeros_like(x), torch.zeros_like(x))
        i, f, g, o = (self.given(x) + self.hidden(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Unrolled(nn.Module):
    """Steps over a sequence with one cell."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, found = None, []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            found.append(state[0])
        return torch.stack(found, 1)


class StateSpace(nn.Module):
    """One step of a state-space scan."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.empty(WIDTH, 4))
        self.rate, self.into, self.out = (nn.Linear(WIDTH, n) for n in (WIDTH, 4, 4))

    def forward(self, u: torch.Tensor, h: Any) -> Any:
        h = u.new_zeros(len(u), WIDTH, 4) if h is None else h[1]
        rate = F.softplus(self.rate(u))
        h = torch.exp(rate[..., None] * self.decay) * h + self.into(u)[:, None] * u[..., None]
        return (h * self.out(u)[:, None]).sum(-1), h


def attention() -> nn.Module:
    return Again(nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True))


def pair() -> nn.Module:
    """Two modules in turn."""
    made = nn.ModuleList([Layer(), Layer()])
    return Again(made, lambda both, x, number: both[number % 2](x))


class Normed(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(TIMES)  # type: ignore[assignment]  # another one


# By name: the model, and how many of its calls are reused: the second one is recorded.
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a block": (lambda: Again(Layer()), TIMES - 2),
    "attention of torch's own": (attention, TIMES - 2),
    "two in turn": (pair, TIMES - 1),
    # The second call of the outer one, which is recorded, finds those within recorded.
    "blocks within": (lambda: Again(Again(Layer())), TIMES - 2 + TIMES + TIMES - 2),
    "an LSTM": (lambda: Unrolled(Cell()), TIMES - 2),
    "a scan": (lambda: Unrolled(StateSpace()), TIMES - 2),
    "running statistics": (lambda: Again(Normed()), TIMES - 2),
    "a linear layer": (lambda: Again(nn.Linear(WIDTH, WIDTH)), 0),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_calls_of_one_module_are_reused(name: str, training: bool) -> None:
    build, expected = MODELS[name]
    with torch.device("meta"):
        model = build().train(training)
    x = meta(2, TIMES, WIDTH)

    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(model, (x,), reuse_layers=reuse_layers)

    assert reused(count) == expected
    assert count(True).memory.timeline == count(False).memory.timeline


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_training_steps_of_one_module_are_the_same(name: str, training: bool) -> None:
    with torch.device("meta"):
        model = MODELS[name][0]().train(training)
    # Gradients of its calls add up in the midst of a backward pass: two in turn are reused.
    in_order = name != "two in turn"
    assert (compared(model, (meta(2, TIMES, WIDTH),), in_order=in_order) == 0) == in_order


class Taught(nn.Module):
    """A linear layer on what a teacher says."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher, self.linear = teacher, nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        with torch.no_grad():
            said = self.teacher(x)
        return self.linear(x) * said


@pytest.mark.parametrize("name", MODELS)
def test_a_module_without_gradients_is_reused_in_training(name: str) -> None:
    build, expected = MODELS[name]
    with torch.device("meta"):
        model = Taught(build())
    x = meta(2, TIMES, WIDTH)
    assert compared(model, (x,)) == expected
    found, plain = (
        gf.count_training(model, (x,), reuse_layers=reuse_layers).memory.timeline
        for reuse_layers in (True, False)
    )
    assert found == plain


def test_inputs_that_are_written_to() -> None:
    class Writing(Layer):
        def forward(self, x: torch.Tensor, *given: Any) -> Any:
            given[0].add_(1)
            return super().forward(x) + given[0]

    class Accumulating(Again):
        def forward(self, x: torch.Tensor) -> Any:
            total = self.first(x)
            for _ in range(TIMES):
                x = self.again(x, total)
            return x, total

    with torch.device("meta"):
        model = Accumulating(Writing())

    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(model, (meta(2, TIMES, WIDTH),), reuse_layers=reuse_layers)

    assert reused(count) == TIMES - 2
    assert count(True).memory.timeline == count(False).memory.timeline


def test_a_layer_that_is_given_a_view_first_and_then_another_tensor() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.empty(1, 4, WIDTH))
            self.layers = nn.ModuleList(Layer() for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.token.expand(1, 4, WIDTH) * 1
            y = self.layers[0](y.view(1, 4, WIDTH))
            return torch.add(self.layers[1](y), x)

    report = gf.count(Views().to("meta"), (torch.empty(1, 4, WIDTH, device="meta"),))
    calls = [record.call for record in report.records]
    assert all(tensor.storage != tensor.name for call in calls for _, tensor in call.tensors())
    assert report.capture.layer_reuse.layers == 1
