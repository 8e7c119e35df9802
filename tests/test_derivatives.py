"""Forwards that compute derivatives, or ask whether there will be any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwad
from torch import nn
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import graphflops as gf


class RealRun(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Counts the contractions of a real run, whatever calls them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=out) // 2
        return out


class Energy(nn.Module):
    """A scalar of its input, and what is done to that."""

    def __init__(self, derive: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 1)
        self.derive = derive

    def energy(self, x: torch.Tensor) -> Any:
        return self.second(self.first(x).tanh()).sum()

    def forward(self, x: torch.Tensor) -> Any:
        return self.derive(self.energy, x)


def forces(energy: Any, x: torch.Tensor) -> Any:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x), x)[0]


def forces_whatever_the_mode(energy: Any, x: torch.Tensor) -> Any:
    with torch.enable_grad():
        return forces(energy, x)


def dual(energy: Any, x: torch.Tensor) -> Any:
    make, unpack = fwad.make_dual, fwad.unpack_dual
    with fwad.dual_level():
        return unpack(energy(make(x, torch.ones_like(x)))).tangent  # type: ignore[no-untyped-call]  # torch's gap


def pulled_back(energy: Any, x: torch.Tensor) -> Any:
    out, pull, *_ = vjp(energy, x)
    return pull(torch.ones_like(out))


WAYS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "autograd.grad": forces,
    "enable_grad": forces_whatever_the_mode,
    "grad": lambda energy, x: grad(energy)(x),
    "vjp": pulled_back,
    "jacrev": lambda energy, x: jacrev(energy)(x),
    "jvp": lambda energy, x: jvp(energy, (x,), (torch.ones_like(x),)),
    "jacfwd": lambda energy, x: jacfwd(energy)(x),
    "vmap of grad": lambda energy, x: vmap(grad(energy))(x),
    "hessian": lambda energy, x: hessian(energy)(x[0]),
    "dual numbers": dual,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_forward_that_differentiates(way: str) -> None:
    model, x = Energy(WAYS[way]), torch.randn(4, 8)
    with RealRun() as real:
        model(x)
    report = gf.count(model, (x,))
    assert report.macs == real.macs
    assert report.complete
    assert model.first.weight.grad is None


def test_forces_of_one_layer() -> None:
    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> Any:
            x.requires_grad_()
            return torch.autograd.grad(self.layer(x).sum(), x)[0]

    x = torch.zeros(5, 8)
    assert gf.count(Forces(), (x,)).macs == 5 * 8 + 5 * 8
    assert not x.requires_grad


def test_repeated_layers_of_a_forward_that_differentiates_are_all_in_its_backward_pass() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            block = [nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.Tanh()]
            self.blocks = nn.ModuleList(
                nn.Sequential(*block, *[nn.Sigmoid() for _ in range(5)]) for _ in range(4)
            )

        def forward(self, x: torch.Tensor) -> Any:
            x = out = x.detach().requires_grad_()
            for block in self.blocks:
                out = block(out)
            return torch.autograd.grad(out.sum(), x)[0]

    assert gf.count(Deep(), (torch.zeros(5, 8),)).macs == 2 * (4 * 2 * 5 * 8 * 8)


class Choosy(nn.Module):
    """Takes another way where there is to be no backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.wide(x) if torch.is_grad_enabled() else self.narrow(x)


def test_the_gradient_mode_is_as_it_stands() -> None:
    model, x = Choosy(), torch.zeros(5, 8)
    assert gf.count(model, (x,)).macs == 5 * 8 * 8
    with torch.no_grad():
        assert gf.count(model, (x,)).macs == 5 * 8 * 2
    with torch.inference_mode():
        assert gf.count(model, (x,)).macs == 5 * 8 * 2
    assert torch.is_grad_enabled()


def test_derivatives_in_the_forward_of_a_step_are_its_forward() -> None:
    class Penalty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> Any:
            x = x.detach().requires_grad_()
            (force,) = torch.autograd.grad(self.layer(x).tanh().sum(), x, create_graph=True)
            return force

    step = gf.count_training(Penalty(), (torch.zeros(5, 8),))
    assert step.forward.macs == gf.count(Penalty(), (torch.zeros(5, 8),)).macs == 2 * 5 * 8
