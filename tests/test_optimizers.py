"""Steps of optimizers against what torch.optim calls, each call priced by PyTorch's prims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from calls import count_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import graphflops as gf
from graphflops.analysis.optimizers import OPTIMIZERS

ELEMENTS = 24
FUNCTIONAL = {"add_": "add", "mul_": "mul", "lerp_": "lerp", "addcmul_": "addcmul"}


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """The calls on tensors as large as the parameter; the count of steps is a number."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.made: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(a, torch.Tensor) and a.numel() == ELEMENTS for a in tree_leaves(args)):
            self.made.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def priced(calls: Calls) -> tuple[int, int]:
    """FLOPs and transcendentals of some calls, by PyTorch's prims."""
    flops = transcendentals = 0
    for func, args, kwargs in calls.made:
        name = func._overloadname.replace("out", "default")
        overload = getattr(getattr(torch.ops.aten, func._opname.removesuffix("_")), name)
        kwargs.pop("out", None)
        given = [a.detach().to("meta") if isinstance(a, torch.Tensor) else a for a in args]
        traced = oracle.count(lambda *a, o=overload, k=kwargs: o(*a, **k), *given)
        assert not traced.stopped
        flops += traced.flops
        transcendentals += traced.transcendentals
    return flops, transcendentals


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
    flops, transcendentals = priced(calls)
    found = OPTIMIZERS[name]
    # lerp tests its weight, one number: that is no arithmetic of an element.
    assert flops // ELEMENTS == found.flops
    assert flops % ELEMENTS == (3 if name.startswith("adam") else 0)
    assert transcendentals == found.transcendentals * ELEMENTS
    kept = [s for s in optimizer.state[parameter].values() if isinstance(s, torch.Tensor)]
    assert sum(s.numel() for s in kept if s.numel() == ELEMENTS) == found.state * ELEMENTS


Kind = type[torch.optim.Optimizer]
ADAM, ADAMW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD
FUSED: list[tuple[Kind, dict[str, Any]]] = [
    *((kind, options) for kind in (ADAM, ADAMW) for options in ({}, {"weight_decay": 0.1})),
    (ADAMW, {"weight_decay": 0.0}),
    (ADAM, {"amsgrad": True, "maximize": True}),
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "maximize": True}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adagrad, {}),
    (torch.optim.Adagrad, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("kind", "options"), FUSED)
def test_a_fused_step_costs_what_the_steps_of_each_tensor_do(
    kind: Kind, options: dict[str, Any]
) -> None:
    def steps(**how: Any) -> Calls:
        parameter = torch.nn.Parameter(torch.randn(4, 6))
        parameter.grad = torch.randn(4, 6)
        optimizer: Any = kind([parameter], **options, **how)
        optimizer.step()
        calls = Calls()
        with calls:
            optimizer.step()
        return calls

    (fused,) = (made for made in steps(fused=True).made if "_fused_" in str(made[0]))
    flops, transcendentals = priced(steps(foreach=False))
    report = count_call(fused[0], *fused[1], **fused[2], out=None)
    # lerp tests its weight, and adds a value of 1 to no element: one number for the tensor.
    assert report.flops == flops - flops % ELEMENTS
    assert report.transcendentals == transcendentals
    kept = sum(len(tensors) for tensors in fused[1][2:5] if tensors and tensors[0].numel() > 1)
    assert report.bytes_written // (4 * ELEMENTS) == 1 + kept  # and, of Adagrad, the step


def test_the_gradient_scale_of_a_fused_step() -> None:
    tensors = [[torch.randn(4, 6)] for _ in range(4)]
    options: dict[str, Any] = {
        "lr": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "weight_decay": 0.0,
        "eps": 1e-8,
    }
    options |= {"amsgrad": False, "maximize": False, "grad_scale": torch.ones(())}
    steps = [torch.ones(())]
    op = torch.ops.aten._fused_adam_.default
    report = count_call(op, *tensors, [], steps, **options, out=None)
    assert report.flops == (13 + 1) * ELEMENTS
    assert report.bytes_written == 4 * 4 * ELEMENTS


def test_frozen_and_tied_parameters() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3, bias=False) for _ in range(3)))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    step = gf.count_training(model, (torch.empty(1, 3),), optimizer="adam").optimizer
    assert step is not None
    assert step.parameters == 9
    assert step.state_bytes == 2 * 4 * 9
