"""Fake tensors: the classes, and how one is made around a meta tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
from torch._C import _set_throw_on_mutable_data_ptr as forbid_data_ptr
from torch._guards import TracingContext, detect_fake_mode, tracing
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
)
from torch.fx.experimental.symbolic_shapes import (
    _suggest_fixes_for_data_dependent_error_non_strict as suggest_fixes,
)
from torch.overrides import TorchFunctionMode

from graphflops.capture.torch_internals.symbolic_indexing import (
    has_symbols,
    index_by_symbols,
)
from graphflops.capture.torch_internals.trees import pytree

make_subclass: Any = torch.Tensor._make_subclass


def intercept(
    mode: FakeTensorMode, *, dispatch: Callable[..., Any], from_tensor: Callable[..., Any]
) -> None:
    """Let a fake mode call functions in place of two of its methods.

    Args:
        mode: The mode. Copies of its tensors are tensors of the same mode from now on.
        dispatch: Runs an operator: takes operator, types, arguments and keyword arguments.
        from_tensor: Returns the fake tensor of a tensor.
    """
    hooked: Any = mode
    hooked.from_tensor, hooked.dispatch = from_tensor, dispatch
    # The class's own is wrapped in functions that keep a running compiler out, slower than it.
    hooked.__torch_dispatch__ = MethodType(__torch_dispatch__, mode)
    hooked.__deepcopy__ = lambda _: mode


def __torch_dispatch__(  # noqa: N807 - the name that stack traces show
    mode: Any, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Run an operator on fake tensors."""
    return mode.dispatch(func, types, args, kwargs)


class NonStrictTorchFunctionHandler(TorchFunctionMode):
    """Mode by which functions of numbers accept symbols, as in a non-strict export.

    torch's own, which imports Dynamo, runs for functions of ``torch.distributed``. It reads the
    data of ``torch.tensor`` by position only.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function, with the data of ``torch.tensor`` by position."""
        rest = dict(kwargs or {})
        if func is torch.tensor and not args:
            args = (rest.pop("data"),)
        if str(getattr(func, "__module__", "")).startswith("torch.distributed"):
            return _non_strict_handler().__torch_function__(func, types, args, rest)
        try:
            return _run(func, args, rest)
        except GuardOnDataDependentSymNode as error:
            suggest_fixes(error)
            raise


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run a function, by another if it takes no symbols."""
    if func is torch.tensor and any(isinstance(x, _SYMBOLS) for x in pytree.tree_leaves(args[0])):
        return torch._refs.tensor(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch's gap
    if (
        getattr(func, "__name__", "") == "__getitem__"
        and isinstance(args[0], torch.Tensor)
        and has_symbols(args[1])
        and (item := index_by_symbols(*args)) is not None
    ):
        return item
    return func(*args, **kwargs)


_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


@functools.cache
def _non_strict_handler() -> Any:
    from torch._export.non_strict_utils import _NonStrictTorchFunctionHandler

    return _NonStrictTorchFunctionHandler()


__all__ = [
    "FakeTensor",
    "FakeTensorMode",
    "NonStrictTorchFunctionHandler",
    "TracingContext",
    "detect_fake_mode",
    "forbid_data_ptr",
    "intercept",
    "make_subclass",
    "tracing",
]

PIECES = {
    "FakeTensor": "Class of tensors with metadata and a device, without data.",
    "FakeTensorMode": "Mode under which operators make fake tensors.",
    "intercept": "Let a fake mode call functions in place of two of its methods.",
    "make_subclass": "Return a tensor subclass around a tensor, with a device of its own.",
    "detect_fake_mode": "Return the fake mode of some inputs, if they have one.",
    "TracingContext": "Class of the context in which a tracer finds the fake mode in use.",
    "tracing": "Context manager: set the tracing context of the thread.",
    "forbid_data_ptr": "Let a tensor raise where its data pointer is asked for.",
    "NonStrictTorchFunctionHandler": "Mode by which non-strict export lets functions of numbers "
    "accept symbols.",
}
"""What each name is, as the test of it says when torch has changed it."""
