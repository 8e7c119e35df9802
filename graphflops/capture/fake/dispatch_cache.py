"""Cache of operator results on fake tensors, by the metadata of the arguments.

torch has such a cache, whose lookup takes several times as long. From the second call on it also
returns a new tensor where an operator that is no view operator returned a view of an argument:
``channel_shuffle`` of one group.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from graphflops.capture.fake.argument_keys import (
    argument_key,
    depends_on_metadata,
)
from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.leaves import fakes_in
from graphflops.capture.fake.meta_kernels import DECLINED, OPERATORS, MetaKernels
from graphflops.capture.fake.result_recipes import UNCACHEABLE, ResultRecipes
from graphflops.capture.fake.symbolic_cache import SymbolicCache
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode

_MAX_ENTRIES = 100_000
"""Maximum number of cached calls, of all counts of the process."""
_FAST = {
    *(torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor, torch.ops.aten.mul.Tensor),
    *(torch.ops.aten.div.Tensor, torch.ops.aten.detach.default),
}
"""Operators whose results torch makes itself, around meta tensors that are not to be fake."""
_CACHE: dict[tuple[Any, ...], Any] = {}


class DispatchCache:
    """Runs operators on fake tensors of a mode, once for the same metadata.

    Calls with symbolic sizes have a cache of their own; those with sparse tensors or constants are
    left to torch, uncached.

    Args:
        mode: The mode.
        factory: Factory of the mode's tensors.
    """

    def __init__(self, mode: FakeTensorMode, factory: FakeTensorFactory) -> None:
        self._mode = mode
        self._dispatch = mode.dispatch
        self._kernels = MetaKernels(mode, factory)
        self._symbolic = SymbolicCache(mode, factory)
        self._recipes = ResultRecipes(factory)
        mode.cache_enabled = False

    def run(self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator as ``FakeTensorMode.dispatch`` does."""
        if func in OPERATORS and (out := self._kernels.run(func, args, kwargs)) is not DECLINED:
            return out
        if not depends_on_metadata(func, args):
            return self._dispatch(func, types, args, kwargs)
        if (keyed := argument_key(func, args, kwargs, self._mode)) is None:
            is_alone = not fakes_in((args, kwargs))
            compute = partial(self._compute, func, types, args, kwargs, is_alone=is_alone)
            return self._symbolic.run(func, args, kwargs, compute)
        key, inputs = keyed
        recipe = _CACHE.get(key)
        if recipe is not None and recipe is not UNCACHEABLE:
            return self._recipes.make(recipe, inputs)
        out = self._compute(func, types, args, kwargs, is_alone=not inputs)
        if recipe is None and (recipe := self._recipes.read(out, inputs)) is not None:
            if len(_CACHE) >= _MAX_ENTRIES:
                _CACHE.clear()
            _CACHE[key] = recipe
        return out

    def _compute(
        self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any], *, is_alone: bool
    ) -> Any:
        """Run an operator torch's way.

        A decomposition's calls reach the mode where it is active. Elsewhere torch looks for one
        at the tensors, and for ``DTensor`` among their classes, which imports it with its package.
        An operator alone has no tensor to find a mode at.
        """
        with nullcontext() if is_alone or func in _FAST else self._mode:
            return self._mode._dispatch_impl(func, types, args, kwargs)
