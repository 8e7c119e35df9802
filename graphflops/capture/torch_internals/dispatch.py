"""The dispatcher of a thread: modes, keys and what switches them off."""

from __future__ import annotations

from typing import Any

from torch._C import DisableTorchFunction
from torch._C import _AutoDispatchBelowAutograd as AutoDispatchBelowAutograd
from torch._C import _DisablePythonDispatcher as DisablePythonDispatcher
from torch._C import _DisableTorchDispatch as DisableTorchDispatch
from torch._C import _dispatch_key_set as dispatch_keys
from torch._C import _is_any_autocast_enabled as is_any_autocast_enabled
from torch._C import _len_torch_dispatch_stack as num_dispatch_modes
from torch._C import _len_torch_function_stack as num_function_modes
from torch._C import _meta_in_tls_dispatch_include as is_meta_included
from torch._C import _set_meta_in_tls_dispatch_include as include_meta
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import _set_mode_pre_dispatch as set_pre_dispatch_mode
from torch._ops import unset_mode_pre_dispatch as unset_pre_dispatch_mode
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as disable_current_modes


class MetaKernelsOnly:
    """Context manager: run operators on fake tensors by the kernels of the meta device alone.

    What torch's ``in_kernel_invocation_manager`` does, without the Python dispatcher.

    Args:
        mode: The fake mode of the tensors.
    """

    def __init__(self, mode: Any) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        self._was_included = is_meta_included()
        self._guards = DisableTorchDispatch(), DisablePythonDispatcher()
        for guard in self._guards:
            guard.__enter__()  # type: ignore[no-untyped-call]  # torch's gap
        self._mode.in_kernel_invocation = True
        include_meta(True)

    def __exit__(self, *_: object) -> None:
        include_meta(self._was_included)
        self._mode.in_kernel_invocation = False
        for guard in reversed(self._guards):
            guard.__exit__(None, None, None)


__all__ = [
    "AutoDispatchBelowAutograd",
    "DisableTorchDispatch",
    "DisableTorchFunction",
    "MetaKernelsOnly",
    "SchemaCheckMode",
    "TorchDispatchMode",
    "disable_current_modes",
    "dispatch_keys",
    "enable_python_dispatcher",
    "is_any_autocast_enabled",
    "num_dispatch_modes",
    "num_function_modes",
    "set_pre_dispatch_mode",
    "unset_pre_dispatch_mode",
]

PIECES = {
    "TorchDispatchMode": "Base class of modes that see every operator call.",
    "disable_current_modes": "Context manager: run without any mode of the thread.",
    "SchemaCheckMode": "The one infra mode of the PreDispatch key that user code may subclass.",
    "DisableTorchFunction": "Context manager: run without ``__torch_function__`` of modes "
    "and subclasses.",
    "DisableTorchDispatch": "Context manager: run without ``__torch_dispatch__`` of modes "
    "and subclasses.",
    "MetaKernelsOnly": "Context manager: run operators on fake tensors by the kernels of the meta "
    "device alone.",
    "AutoDispatchBelowAutograd": "Context manager: dispatch below the autograd keys.",
    "enable_python_dispatcher": "Context manager: let Python decompositions and meta kernels "
    "run first.",
    "dispatch_keys": "Return the dispatch keys of a tensor as text.",
    "set_pre_dispatch_mode": "Push a mode onto the stack of the PreDispatch key.",
    "unset_pre_dispatch_mode": "Pop a mode from the stack of the PreDispatch key.",
    "is_any_autocast_enabled": "Return True if autocast is on for any device.",
    "num_dispatch_modes": "Return the number of modes of the thread that see every operator call.",
    "num_function_modes": "Return the number of modes of the thread that see every function call.",
}
"""What each name is, as the test of it says when torch has changed it."""
