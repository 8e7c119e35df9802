"""Training steps in which autograd is told more: functions, hooks, frozen parts, precision."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from benchmarks.real_runs.training import Build, step
from benchmarks.real_runs.training_nets import Function, Net, asked, autocast, net_of

z = torch.randn


class Product(torch.autograd.Function):
    """A product whose backward does more than it must."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # noqa: D102
        x, weight = ctx.saved_tensors
        return grad @ weight.t() + x @ (weight @ weight.t()), x.t() @ grad


class OnlyWhatIsAsked(torch.autograd.Function):
    """A product whose backward looks at which gradients are asked for; with a context apart."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return x @ weight

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004, D102
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # noqa: D102
        x, weight = ctx.saved_tensors
        asks = ctx.needs_input_grad
        return grad @ weight.t() if asks[0] else None, x.t() @ grad if asks[1] else None


class StraightThrough(torch.autograd.Function):
    """Rounded, with the gradient of what was not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG004, D102
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # noqa: ARG004, D102
        return grad


class Reversible(torch.autograd.Function):
    """A block that is run again in its backward, as reversible layers do."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: nn.Module, *_: torch.Tensor) -> Any:  # noqa: D102
        ctx.layer = layer
        ctx.save_for_backward(x)
        with torch.no_grad():
            return x + layer(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # noqa: D102
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            out = again + ctx.layer(again)
        wanted = (again, *ctx.layer.parameters())
        found = torch.autograd.grad(out, wanted, grad)
        return found[0], None, *found[1:]


def _applied(function: Any, *args: Any) -> Any:
    return function.apply(*args)


def _penalized(net: Net, x: torch.Tensor) -> Any:
    x = x.detach().clone().requires_grad_()
    out = net.c(torch.tanh(net.b(torch.tanh(net.a(x)))))
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return out.mean() + ((grad.norm(dim=1) - 1) ** 2).mean()


def _forces(net: Net, x: torch.Tensor) -> Any:
    x = x.detach().requires_grad_()
    energy = net.b(torch.tanh(net.a(x))).sum()
    (force,) = torch.autograd.grad(energy, x, create_graph=True)
    return energy + (force**2).sum()


def _inner_step(net: Net, x: torch.Tensor) -> Any:
    weight = net.a.weight
    (grad,) = torch.autograd.grad(F.linear(x, weight).square().sum(), weight, create_graph=True)
    return net.b(torch.relu(F.linear(x, weight - 0.1 * grad)))


def _adversaries(net: Net, x: torch.Tensor) -> Any:
    fake = net.a(x)
    real, judged = net.b(x), net.b(fake.detach())
    return F.softplus(-real).mean() + F.softplus(judged).mean(), F.softplus(-net.b(fake)).mean()


def _functional(net: Net, x: torch.Tensor) -> Any:
    gradient = torch.func.grad(lambda x: net.b(torch.tanh(net.a(x))).sum())
    return net.c(torch.func.vmap(gradient)(x))


FUNCTIONS: dict[str, Build] = {
    "own backward": net_of(lambda net, x: net.b(_applied(Product, net.a(x), net.c.weight))),
    "own backward, for what is asked": net_of(
        lambda net, x: _applied(OnlyWhatIsAsked, x, net.c.weight)
    ),
    "own backward, input asks": net_of(
        lambda net, x: _applied(OnlyWhatIsAsked, x, net.c.weight), ask=True
    ),
    "straight through": net_of(lambda net, x: net.b(_applied(StraightThrough, net.a(x)))),
    "reversible": net_of(
        lambda net, x: _applied(Reversible, net.a(x), net.b, *net.b.parameters()), ask=True
    ),
    "gradient penalty": net_of(_penalized),
    "forces": net_of(_forces),
    "a step inside": net_of(_inner_step),
    "adversaries": lambda: step(Net(_adversaries), z(4, 8), loss=lambda out: out[0] + out[1]),
    "torch.func.grad inside": net_of(_functional),
    "jvp inside": net_of(
        lambda net, x: net.c(torch.func.jvp(lambda x: torch.tanh(net.a(x)), (x,), (x,))[1])
    ),
    "vmap inside": net_of(lambda net, x: torch.func.vmap(lambda row: net.b(net.a(row)))(x)),
    "functional_call": net_of(
        lambda net, x: torch.func.functional_call(
            net.a, {name: 2 * p for name, p in net.a.named_parameters()}, (x,)
        )
    ),
    "backward inside": lambda: step(
        Net(lambda net, x: net.c(net.b(torch.tanh(net.a(x))).detach())), z(4, 8)
    ),
}


def _register(attach: Function) -> Build:
    """A net to which a hook is attached."""

    def build() -> Any:
        net = Net(lambda net, x: net.c(torch.tanh(net.b(torch.tanh(net.a(x))))))
        attach(net)
        return step(net, z(4, 8))

    return build


HOOKS: dict[str, Build] = {
    "gradient of a weight": _register(lambda net: net.b.weight.register_hook(lambda g: g @ g)),
    "after a gradient is summed": _register(
        lambda net: net.b.weight.register_post_accumulate_grad_hook(
            lambda p: setattr(p, "grad", p.grad @ p.grad)
        )
    ),
    "gradient of an output": net_of(
        lambda net, x: _hooked(net.a(x), lambda g: g @ (g.t() @ g)) @ net.b.weight
    ),
    "forward hook": _register(
        lambda net: net.a.register_forward_hook(lambda m, _, out: out @ m.weight)
    ),
    "forward pre-hook": _register(
        lambda net: net.a.register_forward_pre_hook(lambda m, i: (i[0] @ m.weight,))
    ),
    "full backward hook": _register(
        lambda net: net.b.register_full_backward_hook(lambda m, gi, _: (gi[0] @ m.weight,))
    ),
    "full backward pre-hook": _register(
        lambda net: net.b.register_full_backward_pre_hook(lambda m, go: (go[0] @ m.weight,))
    ),
    "saved tensors packed": net_of(
        lambda net, x: _packing(lambda: net.c(torch.tanh(net.b(torch.tanh(net.a(x))))))
    ),
    "saved tensors on the CPU": net_of(
        lambda net, x: _within(save_on_cpu(), lambda: net.c(torch.tanh(net.b(net.a(x)))))
    ),
}


def _hooked(tensor: Any, hook: Function) -> Any:
    tensor.register_hook(hook)
    return tensor


def _within(context: Any, compute: Function) -> Any:
    with context:
        return compute()


def _packing(compute: Function) -> Any:
    """Saved tensors kept in half precision."""
    return _within(
        saved_tensors_hooks(lambda t: t.bfloat16() if t.requires_grad else t, lambda t: t.float()),
        compute,
    )


def _frozen(*patterns: str, ask: bool = False) -> Build:
    """Layers a, b, c, d in a row; those that begin with a pattern get no gradient."""

    def build() -> Any:
        names = "abcd"
        model = nn.Sequential()
        for name in names:
            model.add_module(name, nn.Linear(8, 8))
            model.add_module(f"{name}_act", nn.Tanh())
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(patterns))
        return step(model, (asked if ask else z)(4, 8))

    return build


def _unused() -> Any:
    return step(Net(lambda net, x: net.c(net.a(x))), z(4, 8))


FROZEN: dict[str, Build] = {
    "first": _frozen("a"),
    "first, input asks": _frozen("a", ask=True),
    "middle": _frozen("b", "c"),
    "last": _frozen("d"),
    "every other": _frozen("a", "c"),
    "all but the last": _frozen("a", "b", "c"),
    "all, input asks": _frozen("a", "b", "c", "d", ask=True),
    "weights": _frozen("a.weight", "b.weight", "c.weight", "d.weight"),
    "biases": _frozen("a.bias", "b.bias", "c.bias", "d.bias"),
    "weights, input asks": _frozen("a.w", "b.w", "c.w", "d.w", ask=True),
    "a layer never called": _unused,
    "a layer cut off": net_of(lambda net, x: net.c(net.a(x)) + net.b(x).detach()),
    "a layer under no_grad": net_of(
        lambda net, x: net.c(net.b(_within(torch.no_grad(), lambda: net.a(x))))
    ),
    "a layer under inference mode, cloned": net_of(
        lambda net, x: net.c(_within(torch.no_grad(), lambda: net.b(net.a(x))).clone())
    ),
    "one layer twice": net_of(lambda net, x: net.a(torch.tanh(net.a(x)))),
    "one layer ten times": net_of(
        lambda net, x: functools.reduce(lambda h, _: net.a(h).tanh(), range(10), x)
    ),
    "in place": net_of(lambda net, x: net.b(net.a(x).add_(1).mul_(2).tanh_())),
    "views": net_of(lambda net, x: net.b(net.a(x).view(2, 2, 8).transpose(0, 1).reshape(4, 8))),
    "an output of which a part is used": lambda: step(
        Net(lambda net, x: (net.a(x), net.b(x), net.c(x))), z(4, 8), loss=lambda out: out[1].sum()
    ),
    "a loss that leaves rows out": lambda: step(
        Net(lambda net, x: net.b(net.a(x).tanh())), z(4, 8), loss=lambda out: out[:2].sum()
    ),
    "outputs in a dict": net_of(lambda net, x: {"a": net.a(x), "rest": [net.b(x), None], "n": 3}),
    "cross entropy": lambda: step(
        Net(lambda net, x: net.b(net.a(x).relu())),
        z(4, 8),
        loss=lambda out: F.cross_entropy(out, torch.tensor([0, 1, 2, 3]), label_smoothing=0.1),
    ),
    "a gradient that is there already": lambda: step(_with_gradients(), z(4, 8)),
    "data parallel": lambda: step(
        nn.DataParallel(Net(lambda net, x: net.b(net.a(x).relu()))), z(4, 8)
    ),
}


def _with_gradients() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    return net


def _channels_last(net: Any) -> Any:
    return net.to(memory_format=torch.channels_last)


def _compiled() -> Any:
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    return step(net, z(4, 8), counted=torch.compile(net, backend="eager"))


def _in_autocast(forward: Function) -> Build:
    return net_of(lambda net, x: _within(autocast(), lambda: forward(net, x)))


PRECISION: dict[str, Build] = {
    "autocast around": lambda: step(
        nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 2)), z(4, 8), context=autocast
    ),
    "autocast inside": _in_autocast(lambda net, x: net.b(net.a(x).relu())),
    "autocast, attention": _in_autocast(
        lambda net, x: F.scaled_dot_product_attention(
            net.a(x)[None], net.b(x)[None], net.c(x)[None]
        )
    ),
    "autocast, one weight twice": _in_autocast(lambda net, x: net.a(net.a(x).tanh())),
    "autocast, convolution": lambda: step(
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3)),
        *(z(2, 4, 8, 8),),
        context=autocast,
    ),
    "bfloat16": lambda: step(
        Net(lambda net, x: net.b(net.a(x).relu())).bfloat16(), z(4, 8).bfloat16()
    ),
    "float64": lambda: step(Net(lambda net, x: net.b(net.a(x).relu())).double(), z(4, 8).double()),
    "channels last": lambda: step(
        _channels_last(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))),
        z(2, 4, 8, 8).to(memory_format=torch.channels_last),
    ),
    "compiled": _compiled,
}
