"""Steps of optimizers against what torch.optim calls, each call priced by PyTorch's prims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import graphflops as gf
from graphflops.analysis.accelerators import ACCELERATORS
from graphflops.analysis.optimizers import OPTIMIZERS

ELEMENTS = 24
FUNCTIONAL = {"add_": "add", "mul_": "mul", "lerp_": "lerp", "addcmul_": "addcmul"}


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """The calls on tensors as large as the parameter; the count of steps is a number."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.made: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(a, torch.Tensor) and a.numel() == ELEMENTS for a in args):
            self.made.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


Build = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
BUILT: dict[str, Build] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, foreach=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_flops_and_state_are_those_of_torch(name: str) -> None:
    parameter = torch.nn.Parameter(torch.randn(4, 6))
    parameter.grad = torch.randn(4, 6)
    optimizer = BUILT[name]([parameter])
    optimizer.step()  # the first makes the state
    with Calls() as calls:
        optimizer.step()
    flops = transcendentals = 0
    for func, args, kwargs in calls.made:
        overload = getattr(
            getattr(torch.ops.aten, func._opname.removesuffix("_")), func._overloadname
        )
        given = [a.detach().to("meta") if isinstance(a, torch.Tensor) else a for a in args]
        traced = oracle.count(lambda *a, o=overload, k=kwargs: o(*a, **k), *given)
        assert not traced.stopped
        flops += traced.flops
        transcendentals += traced.transcendentals
    found = OPTIMIZERS[name]
    # lerp tests its weight, one number: that is no arithmetic of an element.
    assert flops // ELEMENTS == found.flops
    assert flops % ELEMENTS == (3 if name.startswith("adam") else 0)
    assert transcendentals == found.transcendentals * ELEMENTS
    kept = [s for s in optimizer.state[parameter].values() if isinstance(s, torch.Tensor)]
    assert sum(s.numel() for s in kept if s.numel() == ELEMENTS) == found.state * ELEMENTS


def test_frozen_and_tied_parameters() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3, bias=False) for _ in range(3)))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    step = gf.count_training(model, (torch.empty(1, 3),), optimizer="adam").optimizer
    assert step is not None
    assert step.parameters == 9
    assert step.state_bytes == 2 * 4 * 9


def test_peak_rates_have_sources() -> None:
    for accelerator in ACCELERATORS.values():
        assert accelerator.source
        for dtype, peak in accelerator.peak.items():
            assert gf.peak_flops(accelerator.name, dtype) == peak > 10**12
