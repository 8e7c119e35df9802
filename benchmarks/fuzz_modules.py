"""What generated models are put together with: containers, hooks, and layers that keep things."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

SEEN: list[torch.Tensor] = []
"""A module global that a layer appends to."""


class Residual(nn.Module):
    """What a branch makes of a tensor, added to it."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        out: torch.Tensor = x + self.branch(x)
        return out


class Branches(nn.Module):
    """Several branches of one tensor, brought together again."""

    def __init__(self, branches: Iterable[nn.Module], how: str) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({f"b{i}": branch for i, branch in enumerate(branches)})
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The branches' results summed, gated or joined."""
        first, *rest = (branch(x) for branch in self.branches.values())
        if self.how == "join":
            return torch.cat([first, *rest], 1)
        for other in rest:
            first = first + other if self.how == "add" else first * torch.sigmoid(other)
        result: torch.Tensor = first
        return result


class Twice(nn.Module):
    """One module called again and again."""

    def __init__(self, shared: nn.Module, times: int) -> None:
        super().__init__()
        self.shared, self.times = shared, times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The module applied ``times`` times."""
        for _ in range(self.times):
            x = self.shared(x)
        return x


class Stack(nn.Module):
    """Equal layers one after the other, as a transformer holds them."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        for index, layer in enumerate(self.layers):
            layer.layer_index = index  # type: ignore[assignment]  # as transformers' layers have

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All of them in order."""
        for layer in self.layers:
            x = layer(x)
        return x


class Checkpointed(nn.Module):
    """A block that is computed again in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the block makes of it."""
        if not self.training:
            return self.block(x)  # type: ignore[no-any-return]
        return checkpoint(self.block, x, use_reentrant=False)  # type: ignore[no-any-return]


class OnlyInTraining(nn.Module):
    """A block that is skipped in evaluation."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's result in training, else the input."""
        return self.block(x) if self.training else x


class Product(torch.autograd.Function):
    """A matrix product with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The product."""
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of both factors, the second one by an expanded sum of products."""
        x, w = ctx.saved_tensors
        (grad,) = grads
        rows, grads_of_rows = x.flatten(0, -2), grad.flatten(0, -2)
        return grad @ w.mT, rows.mT @ grads_of_rows


class Custom(nn.Module):
    """A layer around a custom autograd function."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Its product with the weight."""
        return Product.apply(x, self.weight)  # type: ignore[no-untyped-call,no-any-return]


class ModuleStack(nn.Module):
    """Buffers written in the forward pass: in place, anew, and through a view."""

    mean: torch.Tensor
    last: torch.Tensor
    calls: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("last", torch.zeros(width), persistent=False)
        self.register_buffer("calls", torch.zeros(3, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input without its running mean."""
        now = x.detach().mean(tuple(range(x.dim() - 1))).to(self.mean)
        self.mean.mul_(0.9).add_(now, alpha=0.1)
        self.last = now
        self.calls[0] += 1
        return x - self.mean.to(x.dtype)


class PlainTensor(nn.Module):
    """A tensor that is no buffer, written in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.zeros(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input scaled by an entry."""
        self.table[0] = 1.0
        self.table.add_(1.0)
        return x * self.table[0, 0].to(x)


class Keeping(nn.Module):
    """Results kept in lists, dictionaries, a deque, an attribute, and outside of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.nested: dict[str, Any] = {"last": [], "by": {}}
        self.recent: deque[torch.Tensor] = deque(maxlen=2)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input; all containers have it afterwards."""
        self.kept.append(x)
        self.nested["last"].append(x)
        self.nested["by"][self.calls] = x
        self.recent.append(x)
        self.calls += 1
        SEEN.append(x)
        return x

    def forget(self) -> None:
        """Empty all of them."""
        self.kept.clear()
        self.nested["last"].clear()
        self.nested["by"].clear()
        self.recent.clear()
        self.calls = 0
        SEEN.clear()


class Chance(nn.Module):
    """Numbers drawn from Python's and numpy's generators."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input scaled by both."""
        return x * random.random() + float(np.random.rand())  # noqa: NPY002, S311 - as models do


class Pair(NamedTuple):
    """Outputs by name."""

    first: torch.Tensor
    second: Any


class Model(nn.Module):
    """A generated body between forms of inputs and outputs as models have them."""

    def __init__(self, body: nn.Module, takes: str, gives: str) -> None:
        super().__init__()
        self.body, self.takes, self.gives = body, takes, gives

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The body's result in the form that is wanted."""
        return self._given(self.body(self._taken(*args, **kwargs)))

    def _taken(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        first: Any = args[0] if args else kwargs["x"]
        if self.takes == "tuple":
            return first[0] + first[1][0]  # type: ignore[no-any-return]
        if self.takes == "dict":
            return first["a"] * first["b"]  # type: ignore[no-any-return]
        if self.takes == "keywords":
            return first * kwargs["scale"] if kwargs.get("flag") else first  # type: ignore[no-any-return]
        return first  # type: ignore[no-any-return]

    def _given(self, y: torch.Tensor) -> Any:
        return {
            "list": lambda: [y, y * 2],
            "tuple": lambda: (y, (y.detach(), None, 3)),
            "dict": lambda: {"y": y, "size": y.shape, "nested": {"z": y + 1}},
            "named": lambda: Pair(y, [y]),
            "ordered": lambda: OrderedDict(logits=y, cache=None),
        }.get(self.gives, lambda: y)()  # type: ignore[no-untyped-call]  # OrderedDict's keywords


def add_hooks(module: nn.Module) -> None:
    """Register one hook of each kind, all of which compute something."""
    module.register_forward_pre_hook(lambda _module, args: (args[0] * 1.5, *args[1:]))
    module.register_forward_hook(
        lambda _module, _args, out: out + 1 if isinstance(out, torch.Tensor) else out
    )
    module.register_full_backward_hook(lambda _module, grads, _outs: tuple(grads))
