"""Outputs of a pass over a prompt as shapes, from which decode steps start."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from graphflops.capture.fake.metadata import convert_argument
from graphflops.capture.fake.symbolic_shapes import Symbols
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.cost import Dim, as_dim
from graphflops.core.guards import holds
from graphflops.core.ir import TensorMeta


@dataclass(frozen=True)
class PrefillOutputs:
    """Outputs of prefill for a symbolic prompt length, as shapes.

    Attributes:
        leaves: Shape and dtype of each tensor, and other values.
        spec: Structure of the outputs.
        conditions: Assumptions of the pass.
    """

    leaves: tuple[Any, ...]
    spec: pytree.TreeSpec
    conditions: tuple[sympy.Basic, ...]

    def hold(self, sizes: Mapping[str, int]) -> bool:
        """Return True if a pass over a prompt of some sizes, by symbol, has these outputs."""
        return all(holds(condition, sizes) for condition in self.conditions)

    def restore(self, symbols: Symbols, sizes: Mapping[str, int], device: torch.device) -> Any:
        """Return the outputs as tensors, for a prompt as long as the cache.

        Args:
            symbols: Symbolic sizes.
            sizes: Values of sizes that are not symbolic, by symbol: ``P`` is the length of the
                cache unless that is symbolic, as ``K``.
            device: Device of the tensors.
        """
        names = {symbol.name: symbol for symbol in symbols.readable.values()}
        values = {name: names.get(name, sympy.Integer(size)) for name, size in sizes.items()}
        values["P"] = names.get("K", values["P"])
        substitution = {_symbol(name): value for name, value in values.items()}

        def size(value: Dim) -> Any:
            return symbols.expression(
                value if isinstance(value, int) else as_dim(value.xreplace(substitution))
            )

        def leaf(value: Any) -> Any:
            if isinstance(value, TensorMeta):
                dtype = getattr(torch, value.dtype)
                return torch.ops.aten.empty([*map(size, value.shape)], dtype=dtype, device=device)
            return size(value) if isinstance(value, sympy.Expr) else value

        conditions = (condition.xreplace(substitution) for condition in self.conditions)
        symbols.assume(tuple(condition for condition in conditions if condition.free_symbols))
        return pytree.tree_unflatten([*map(leaf, self.leaves)], self.spec)


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, positive=True, integer=True)


def record_outputs(
    forward: Callable[..., Any],
    sizes: Symbols,
    recorded: list[PrefillOutputs],
    *,
    is_whole: Callable[[Any], bool],
) -> Callable[..., Any]:
    """Return a forward that records its outputs.

    Args:
        forward: Forward of a model.
        sizes: Symbolic sizes.
        recorded: List that the outputs are added to.
        is_whole: Function that returns True for outputs that are the whole state of a step.
    """

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        if is_whole(outputs):
            leaves, spec = pytree.tree_flatten(outputs)
            metas = [convert_argument(leaf) if _has_size(leaf) else leaf for leaf in leaves]
            recorded.append(PrefillOutputs(tuple(metas), spec, sizes.assumptions()))
        return outputs

    return call


def _has_size(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | torch.SymInt)
