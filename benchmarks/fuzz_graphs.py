"""Models generated from a seed: which layers, how they are put together, what is special."""

from __future__ import annotations

import copy
import random
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import fuzz_functions, fuzz_layers
from benchmarks.fuzz_layers import EVENLY, MOSTLY, RARELY
from benchmarks.fuzz_modules import (
    Branches,
    Chance,
    Checkpointed,
    Custom,
    Keeping,
    Model,
    ModuleStack,
    OnlyInTraining,
    PlainTensor,
    Residual,
    Stack,
    Twice,
    add_hooks,
)

MOST_ELEMENTS = 4_000
MOST_LAYERS = 20
NESTED = 0.35
ATTEMPTS = 6
DTYPES = (torch.float32,) * 4 + (torch.float64, torch.bfloat16)
SIZES = (1, 2, 3, 4, 5, 6, 8)
STATEFUL: dict[str, Callable[[fuzz_layers.Shape], nn.Module]] = {
    "buffers written": lambda shape: ModuleStack(shape[-1]),
    "tensor written": lambda _shape: PlainTensor(),
    "results kept": lambda _shape: Keeping(),
    "chance": lambda _shape: Chance(),
    "autograd function": lambda shape: Custom(shape[-1]),
}


@dataclass
class Graph:
    """A generated model with its inputs.

    Attributes:
        model: The model, on the CPU with values or on meta.
        args: Positional inputs.
        kwargs: Keyword inputs.
        kinds: Layer kinds and functional operators it is made of, how many of each.
        traits: What is special about it.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kinds: Counter[str]
    traits: set[str] = field(default_factory=set)


def generate(name: str, *, training: bool) -> Graph | None:
    """The model of a name such as ``"forward:12"``; ``None`` where nothing came of it.

    Args:
        name: What the model is drawn from.
        training: Whether a step of it is counted: parameters that can be trained, more often
            in training mode.
    """
    draw = Random(name)  # noqa: S311 - a seed, no secret
    number = draw.randrange(2**31)
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the generator that layers draw from
    with (
        warnings.catch_warnings(),
        torch.backends.mkldnn.flags(enabled=False),
    ):
        warnings.simplefilter("ignore")
        tries = (_Generator(draw, training=training).graph() for _ in range(ATTEMPTS))
        return next((graph for graph in tries if graph is not None), None)


class _Generator:
    """Draws a model layer by layer, trying each on what came out of the last."""

    def __init__(self, draw: Random, *, training: bool) -> None:
        self.draw = draw
        self.dtype = draw.choice(DTYPES)
        self.training = draw.random() < (MOSTLY if training else EVENLY)
        self.step = training
        self.traits: set[str] = set()

    def graph(self) -> Graph | None:
        """The model with its inputs, as it stands at the start."""
        first, x, inputs, takes = self._start()
        body, _, kinds = self._block(first(x).detach(), depth=2, length=self.draw.randint(1, 4))
        if first is not _same:
            body = nn.Sequential(first, body)
        gives = self.draw.choice(("tensor", "tensor", "list", "tuple", "dict", "named", "ordered"))
        model = Model(body, takes, gives).train(self.training)
        if not kinds or (self.step and not any(True for _ in model.parameters())):
            return None
        kinds[f"takes {takes}"] += 1
        kinds[f"gives {gives}"] += 1
        args, kwargs = inputs
        graph = Graph(model, args, kwargs, kinds, self.traits)
        self._specialize(graph)
        return graph

    def _start(self) -> tuple[Any, torch.Tensor, tuple[tuple[Any, ...], dict[str, Any]], str]:
        """An embedding if any, a tensor to begin with, the inputs, and their form."""
        batch, rank = self.draw.randint(1, 4), self.draw.choice((2, 3, 3, 4, 4, 5))
        if self.draw.random() < RARELY / 2:
            ids = torch.randint(0, 7, (batch, self.draw.choice(SIZES)))
            cls = self.draw.choice((nn.Embedding, nn.EmbeddingBag))
            self.traits.add(cls.__name__)
            return cls(7, self.draw.choice((4, 8)), dtype=self.dtype), ids, ((ids,), {}), "tensor"
        low, high = (3, 7) if rank > 3 else (1, 8)  # noqa: PLR2004 - images
        sizes = [self.draw.randint(low, high) for _ in range(rank - 2)]
        shape = (batch, self.draw.choice(SIZES), *sizes)
        x = torch.randn(shape, dtype=self.dtype)
        other = torch.randn(shape, dtype=self.dtype)
        takes = self.draw.choice(("tensor", "tensor", "tensor", "tuple", "dict", "keywords"))
        forms: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
            "tuple": (((x, [other]),), {}),
            "dict": (({"a": x, "b": other},), {}),
            "keywords": ((), {"x": x, "scale": other, "flag": self.draw.random() < MOSTLY}),
        }
        return _same, x, forms.get(takes, ((x,), {})), takes

    def _block(
        self, x: torch.Tensor, depth: int, length: int
    ) -> tuple[nn.Module, torch.Tensor, Counter[str]]:
        layers: list[nn.Module] = []
        kinds: Counter[str] = Counter()
        for _ in range(length):
            for _attempt in range(ATTEMPTS):
                made = self._attempt(x, depth)
                if made is not None:
                    layer, x, of_layer = made
                    layers.append(layer)
                    kinds += of_layer
                    break
        return nn.Sequential(*layers), x, kinds

    def _attempt(
        self, x: torch.Tensor, depth: int
    ) -> tuple[nn.Module, torch.Tensor, Counter[str]] | None:
        nested = depth > 0 and self.draw.random() < NESTED
        try:
            made = self._nested(x, depth) if nested else self._layer(x)
            if made is None:
                return None
            layer, kinds = made
            layer.to(self.dtype).train(self.training)
            # In place on a leaf of the user's, or on what a gradient needs, nothing is computed.
            with torch.set_grad_enabled(self.step):
                y = layer(x.clone())
        except Exception:  # noqa: BLE001 - a layer that does not fit; the next one is tried
            return None
        fits = isinstance(y, torch.Tensor) and y.dim() >= 2 and y.is_floating_point()  # noqa: PLR2004
        if not fits or not 0 < y.numel() <= MOST_ELEMENTS or y.dtype != self.dtype:
            return None
        return layer, y.detach(), kinds

    def _layer(self, x: torch.Tensor) -> tuple[nn.Module, Counter[str]] | None:
        """A layer of ``torch.nn``, a functional operator, or one that keeps something."""
        shape, rank = tuple(x.shape), x.dim()
        chosen = self.draw.random()
        if chosen < RARELY / 4:
            name = self.draw.choice(tuple(STATEFUL))
            return STATEFUL[name](shape), Counter([name])
        own = self.draw.random() < MOSTLY
        if chosen < EVENLY:
            tables = fuzz_functions.BY_RANK.get(rank, {}) if own else fuzz_functions.ANY
            name = self.draw.choice(tuple(tables))
            return fuzz_functions.Applied(name, tables[name]), Counter([name])
        makes = fuzz_layers.BY_RANK.get(rank, {}) if own else fuzz_layers.ANY
        name = self.draw.choice(tuple(makes))
        return makes[name](self.draw, shape), Counter([f"nn.{name}"])

    def _nested(self, x: torch.Tensor, depth: int) -> tuple[nn.Module, Counter[str]] | None:
        """Blocks in a container."""
        how = self.draw.choice(tuple(_CONTAINERS))
        if how == "branches":
            blocks = [self._block(x, depth - 1, 2) for _ in range(self.draw.randint(2, 3))]
            joined = Branches((b for b, _, _ in blocks), self.draw.choice(("add", "gate", "join")))
            kinds = sum((k for _, _, k in blocks), Counter())
            return (joined, kinds + Counter([how])) if kinds else None
        repeated = how in {"stack", "sequence"}
        length = self.draw.randint(2, 3) if repeated else self.draw.randint(1, 2)
        block, y, kinds = self._block(x, depth - 1, length)
        if not kinds or (y.shape != x.shape and how in _SAME_SHAPE):
            return None
        times = self.draw.randint(3, 5)
        copies = times if repeated else 1
        if copies * kinds.total() > MOST_LAYERS:
            return None
        kinds = Counter({kind: number * copies for kind, number in kinds.items()})
        return _CONTAINERS[how](block, times), kinds + Counter([how])

    def _specialize(self, graph: Graph) -> None:
        """Tie weights, freeze layers, add hooks, move to meta, and let kept results go."""
        model = graph.model
        for module in model.modules():
            if isinstance(module, Keeping):
                module.forget()
        if self.draw.random() < EVENLY:
            copy_to_meta(model)
            graph.args, graph.kwargs = _on_meta(graph.args), _on_meta(graph.kwargs)
            self.traits.add("meta")
        for trait, specialize in (("tied", _tie), ("frozen", self._freeze), ("hooks", self._hook)):
            if self.draw.random() < RARELY and specialize(model):
                self.traits.add(trait)
        self.traits |= {"training"} if self.training else set()
        self.traits.add(str(self.dtype).removeprefix("torch."))
        self.traits |= graph.kinds.keys() & (STATEFUL.keys() | _CONTAINERS.keys())

    def _freeze(self, model: nn.Module) -> bool:
        parameters = list(model.parameters())
        frozen = [p for p in parameters if self.draw.random() < EVENLY][: len(parameters) - 1]
        for parameter in frozen:
            parameter.requires_grad_(False)
        return bool(frozen)

    def _hook(self, model: nn.Module) -> bool:
        inner = [m for m in model.modules() if isinstance(m, nn.Sequential | Residual | Stack)]
        for module in inner[1:3]:
            add_hooks(module)
        return len(inner) > 1


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _copies(block: nn.Module, times: int) -> list[nn.Module]:
    return [copy.deepcopy(block) for _ in range(times)]


_CONTAINERS: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "branches": lambda block, _times: block,
    "residual": lambda block, _times: Residual(block),
    "shared": lambda block, _times: Twice(block, 2),
    "stack": lambda block, times: Stack(_copies(block, times)),
    "sequence": lambda block, times: nn.Sequential(*_copies(block, times)),
    "checkpointed": lambda block, _times: Checkpointed(block),
    "only in training": lambda block, _times: OnlyInTraining(block),
}
_SAME_SHAPE = {"residual", "shared", "stack", "sequence"}


def _tie(model: nn.Module) -> bool:
    """Let linear layers of one shape share their weight."""
    first: dict[torch.Size, nn.Linear] = {}
    tied = False
    for module in model.modules():
        if type(module) is nn.Linear:
            other = first.setdefault(module.weight.shape, module)
            tied |= other is not module
            module.weight = other.weight
    return tied


def _on_meta(value: Any) -> Any:
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), value)


def copy_to_meta(model: nn.Module) -> nn.Module:
    """A model on meta, plain tensors of its modules included."""
    model.to("meta")
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                setattr(module, name, value.to("meta"))
    return model
