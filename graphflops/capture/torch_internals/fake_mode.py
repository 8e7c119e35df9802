"""Fake tensors: the classes, and how one is made around a meta tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch._C import _set_throw_on_mutable_data_ptr as forbid_data_ptr
from torch._export.non_strict_utils import _NonStrictTorchFunctionHandler
from torch._guards import TracingContext, detect_fake_mode, tracing
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

make_subclass: Any = torch.Tensor._make_subclass


class NonStrictTorchFunctionHandler(_NonStrictTorchFunctionHandler):
    """Mode by which non-strict export lets functions of numbers accept symbols.

    torch's own reads the data of ``torch.tensor`` by position only.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function, with the data of ``torch.tensor`` by position."""
        rest = dict(kwargs or {})
        if func is torch.tensor and not args:
            args = (rest.pop("data"),)
        return super().__torch_function__(func, types, args, rest)  # type: ignore[no-untyped-call]  # torch's gap


__all__ = [
    "FakeTensor",
    "FakeTensorMode",
    "NonStrictTorchFunctionHandler",
    "TracingContext",
    "detect_fake_mode",
    "forbid_data_ptr",
    "make_subclass",
    "tracing",
]

PIECES = {
    "FakeTensor": "Class of tensors with metadata and a device, without data.",
    "FakeTensorMode": "Mode under which operators make fake tensors.",
    "make_subclass": "Return a tensor subclass around a tensor, with a device of its own.",
    "detect_fake_mode": "Return the fake mode of some inputs, if they have one.",
    "TracingContext": "Class of the context in which a tracer finds the fake mode in use.",
    "tracing": "Context manager: set the tracing context of the thread.",
    "forbid_data_ptr": "Let a tensor raise where its data pointer is asked for.",
    "NonStrictTorchFunctionHandler": "Mode by which non-strict export lets functions of numbers "
    "accept symbols.",
}
"""What each name is, as the test of it says when torch has changed it."""
