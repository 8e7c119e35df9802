"""State of a generation between two calls of its model, as shapes: what the next call starts from.

Caches of any class are pickled without their tensors, integers and modules, so that they can be
made again: with symbolic sizes, or for another number of tokens.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch import nn

from graphflops.capture.fake.metadata import dim, tensor_meta
from graphflops.capture.fake.symbolic_shapes import Symbols
from graphflops.core.cost import Dim, as_dim, substitute
from graphflops.core.guards import holds
from graphflops.core.ir import TensorMeta
from graphflops.runtime.interruption import raise_interruption

CACHED = sympy.Symbol("K", positive=True, integer=True)
"""Number of tokens in the cache at the next call."""
Leaf = TensorMeta | Dim | str
"""Shape and dtype of a tensor, an integer, or the path of a module."""


@dataclass(frozen=True)
class GenerationState:
    """State that a call of a model leaves for the next one.

    Attributes:
        structure: Pickled state, with numbers of leaves in place of the leaves.
        leaves: Tensors, integers and modules in it.
        conditions: Conditions on the sizes under which a call leaves this state.
    """

    structure: bytes
    leaves: tuple[Leaf, ...]
    conditions: tuple[sympy.Basic, ...]

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return True if this is the state for some sizes, by symbol."""
        return all(holds(condition, sizes) for condition in self.conditions)

    def is_open(self, sizes: Mapping[str, int]) -> bool:
        """Return True if this is also the state with one more token in the cache."""
        return self.holds({**sizes, "K": sizes["K"] + 1})

    def bind(self, values: Mapping[str, Dim]) -> GenerationState:
        """Return the state with numbers or expressions in place of symbols, by name."""
        conditions = (_bind_condition(condition, values) for condition in self.conditions)
        return GenerationState(
            self.structure,
            tuple(_bind(leaf, values) for leaf in self.leaves),
            tuple(condition for condition in conditions if condition != sympy.true),
        )

    def only_at(self, cached: int) -> GenerationState:
        """Return the state, known to be that for one number of tokens in the cache."""
        return replace(self, conditions=(*self.conditions, sympy.Eq(CACHED, cached)))

    def restore(
        self, symbols: Symbols, sizes: Mapping[str, int], model: nn.Module, device: torch.device
    ) -> Any:
        """Return what the call has left, with new tensors.

        Args:
            symbols: Symbolic sizes.
            sizes: Values of the sizes that are not symbolic, by symbol.
            model: Model whose modules it may refer to.
            device: Device of the tensors.
        """
        names = {symbol.name for symbol in symbols.readable.values()}
        state = self.bind({name: size for name, size in sizes.items() if name not in names})
        symbols.assume(tuple(c for c in state.conditions if c.free_symbols))

        def restored(leaf: Leaf) -> Any:
            if isinstance(leaf, str):
                return model.get_submodule(leaf)
            if not isinstance(leaf, TensorMeta):
                return symbols.expression(leaf)
            shape = [symbols.expression(size) for size in leaf.shape]
            dtype = getattr(torch, leaf.dtype)
            return torch.ops.aten.empty(shape, dtype=dtype, device=device)

        unpickler = _Unpickler(io.BytesIO(self.structure))
        unpickler.leaves = [restored(leaf) for leaf in state.leaves]
        return unpickler.load()

    def is_equal(self, other: GenerationState) -> bool:
        """Return True for the same state, under any conditions."""
        return _are_alike(self, other) and all(
            sympy.expand(a - b) == 0
            for one, two in zip(self.leaves, other.leaves, strict=True)
            for a, b in zip(_sizes(one), _sizes(two), strict=True)
        )


def extrapolate(
    first: GenerationState, second: GenerationState, cached: int
) -> GenerationState | None:
    """Return a state whose sizes grow with each token as they do between two states.

    It is a hypothesis: a call that starts from it shows whether it leads to itself.

    Args:
        first: State with ``cached`` tokens in the cache.
        second: State with one token more.
        cached: Number of tokens.

    Returns:
        The state, or ``None`` if the two differ in more than sizes.
    """
    if not _are_alike(first, second):
        return None

    def line(one: Dim, two: Dim) -> Dim:
        return as_dim(sympy.expand(one + (two - one) * (CACHED - cached)))

    def extended(one: Leaf, two: Leaf) -> Leaf:
        if isinstance(one, str):
            return one
        sizes = tuple(map(line, _sizes(one), _sizes(two)))
        return replace(one, shape=sizes) if isinstance(one, TensorMeta) else sizes[0]

    return replace(
        second,
        leaves=tuple(map(extended, first.leaves, second.leaves)),
        conditions=(cached < CACHED,),
    )


def record_state(
    model: nn.Module,
    recorded: list[GenerationState],
    conditions: Callable[[], tuple[sympy.Basic, ...]],
    state_after: Callable[[Any], Any],
) -> Callable[..., Any]:
    """Return a forward of a model that records the state after it.

    Args:
        model: Model.
        recorded: List that the state is added to.
        conditions: Function that returns the conditions on the sizes of the call.
        state_after: Function from outputs to all that the next call starts from; ``None`` for
            outputs that are only part of that.
    """
    forward = model.forward

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        if (state := state_after(outputs)) is not None:
            try:
                structure, leaves = _pickled(model, state)
            except Exception as error:  # noqa: BLE001 - a class that cannot be pickled
                raise_interruption(error)
            else:
                recorded.append(GenerationState(structure, leaves, conditions()))
        return outputs

    return call


class _Pickler(pickle.Pickler):
    """Pickler that keeps tensors, integers and modules apart, as leaves."""

    leaves: list[Leaf]
    numbers: dict[int, int]
    paths: dict[nn.Module, str]

    def persistent_id(self, obj: Any) -> int | None:
        """Return the number of a leaf, one for each object that is a tensor or module."""
        if type(obj) is int or isinstance(obj, torch.SymInt):
            self.leaves.append(dim(obj))
            return len(self.leaves) - 1
        if id(obj) not in self.numbers:
            if isinstance(obj, torch.Tensor):
                self.leaves.append(replace(tensor_meta(obj), strides=None))
            elif isinstance(obj, nn.Module):
                self.leaves.append(self.paths[obj])
            else:
                return None
            self.numbers[id(obj)] = len(self.leaves) - 1
        return self.numbers[id(obj)]


class _Unpickler(pickle.Unpickler):
    """Unpickler of what :class:`_Pickler` has written."""

    leaves: list[Any]

    def persistent_load(self, pid: int) -> Any:
        """Return a leaf."""
        return self.leaves[pid]


def _pickled(model: nn.Module, state: Any) -> tuple[bytes, tuple[Leaf, ...]]:
    written = io.BytesIO()
    pickler = _Pickler(written)
    pickler.leaves, pickler.numbers = [], {}
    pickler.paths = {module: path for path, module in model.named_modules()}
    pickler.dump(state)
    return written.getvalue(), tuple(pickler.leaves)


def _are_alike(first: GenerationState, second: GenerationState) -> bool:
    """Return True for states that may differ in sizes alone."""
    return first.structure == second.structure and all(map(_is_alike, first.leaves, second.leaves))


def _is_alike(first: Leaf, second: Leaf) -> bool:
    if isinstance(first, TensorMeta) and isinstance(second, TensorMeta):
        return first.dtype == second.dtype and len(first.shape) == len(second.shape)
    is_size = isinstance(first, int | sympy.Basic) and isinstance(second, int | sympy.Basic)
    return is_size or first == second


def _sizes(leaf: Leaf) -> tuple[Dim, ...]:
    if isinstance(leaf, TensorMeta):
        return leaf.shape
    return () if isinstance(leaf, str) else (leaf,)


def _bind(leaf: Leaf, values: Mapping[str, Dim]) -> Leaf:
    if isinstance(leaf, str):
        return leaf
    if isinstance(leaf, TensorMeta):
        return replace(leaf, shape=tuple(substitute(size, values) for size in leaf.shape))
    return substitute(leaf, values)


def _bind_condition(condition: sympy.Basic, values: Mapping[str, Dim]) -> sympy.Basic:
    return condition.xreplace(
        {s: sympy.sympify(values[s.name]) for s in condition.free_symbols if s.name in values}
    )
