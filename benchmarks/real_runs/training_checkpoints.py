"""Training steps with checkpoints in every form."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

from benchmarks.real_runs.training import Build, step
from benchmarks.real_runs.training_nets import Function, Net, asked, autocast, net_of

z = torch.randn
_CHAINED: Any = checkpoint_sequential


def _block(width: int = 8, dropout: float = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
    )


class Blocks(nn.Module):
    """Equal blocks called one after the other by a function of each and of what is handed on."""

    def __init__(self, call: Function, number: int = 3, **options: Any) -> None:
        super().__init__()
        self.call = call
        self.first = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(_block(**options) for _ in range(number))
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        """Call them, each added to what it gets."""
        x = self.first(x)
        for block in self.blocks:
            x = x + self.call(block, x)
        return self.last(x)


def _checkpointed(*, ask: bool = False, dropout: float = 0, number: int = 3, **how: Any) -> Build:
    """Each block under a checkpoint."""
    call = functools.partial(checkpoint, **how)
    return lambda: step(Blocks(call, number, dropout=dropout), (asked if ask else z)(4, 8))


def _both(named: str, make: Function) -> dict[str, Build]:
    """A case for checkpoints of either kind."""
    return {f"{kind}{named}": make(kind == "reentrant") for kind in ("reentrant", "not reentrant")}


def _whole(reentrant: bool) -> Build:
    def forward(net: Net, x: torch.Tensor) -> Any:
        return checkpoint(lambda x: net.b(torch.tanh(net.a(x))), x, use_reentrant=reentrant)

    return net_of(forward, ask=True)


def _nested(reentrant: bool) -> Build:
    def inner(net: Net, x: torch.Tensor) -> Any:
        return torch.tanh(checkpoint(net.a, x, use_reentrant=reentrant))

    def forward(net: Net, x: torch.Tensor) -> Any:
        outer = functools.partial(inner, net)
        return net.c(net.b(checkpoint(outer, x, use_reentrant=reentrant)))

    return net_of(forward, ask=True)


def _sequential(reentrant: bool) -> Build:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in "abcdef")
            )

        def forward(self, x: torch.Tensor) -> Any:
            return _CHAINED(self.layers, 3, x, use_reentrant=reentrant)

    return lambda: step(Chain(), asked(4, 8))


def _two_outputs(reentrant: bool) -> Build:
    def forward(net: Net, x: torch.Tensor) -> Any:
        a, b = checkpoint(lambda x: (net.a(x), net.b(x)), x, use_reentrant=reentrant)
        return net.c(a.relu()) + b.detach()

    return net_of(forward, ask=True)


def _frozen_checkpoint(reentrant: bool) -> Build:
    def build() -> Any:
        model = Blocks(functools.partial(checkpoint, use_reentrant=reentrant))
        model.first.requires_grad_(False)
        model.blocks[0].requires_grad_(False)
        return step(model, z(4, 8))

    return build


def _only_last_trains(reentrant: bool) -> Build:
    def build() -> Any:
        model = Blocks(functools.partial(checkpoint, use_reentrant=reentrant)).requires_grad_(False)
        model.last.requires_grad_()
        return step(model, z(4, 8))

    return build


def _autocast_checkpoint(reentrant: bool) -> Build:
    call = functools.partial(checkpoint, use_reentrant=reentrant)
    return lambda: step(Blocks(call), asked(4, 8), context=autocast)


def _selective(kept: tuple[Any, ...]) -> Build:
    def policy(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
        keep = operator in kept
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    return _checkpointed(use_reentrant=False, context_fn=contexts)


_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)

CHECKPOINTS: dict[str, Build] = {
    **_both("", lambda kind: _checkpointed(use_reentrant=kind)),
    **_both(", input asks", lambda kind: _checkpointed(use_reentrant=kind, ask=True)),
    **_both(", dropout", lambda kind: _checkpointed(use_reentrant=kind, dropout=0.2)),
    **_both(
        ", dropout drawn anew",
        lambda kind: _checkpointed(use_reentrant=kind, dropout=0.2, preserve_rng_state=False),
    ),
    **_both(", 12 layers", lambda kind: _checkpointed(use_reentrant=kind, number=12)),
    **_both(" around all", _whole),
    **_both(", nested", _nested),
    **_both(", sequential", _sequential),
    **_both(", two outputs", _two_outputs),
    **_both(", frozen before", _frozen_checkpoint),
    **_both(", only the head trains", _only_last_trains),
    **_both(", autocast", _autocast_checkpoint),
    "not reentrant, to the end": _checkpointed(use_reentrant=False, early_stop=False),
    "not reentrant, without a check": _checkpointed(use_reentrant=False, determinism_check="none"),
    "selective, products kept": _selective(_PRODUCTS),
    "selective, nothing kept": _selective(()),
    "selective, GELU kept": _selective((torch.ops.aten.gelu.default,)),
}
