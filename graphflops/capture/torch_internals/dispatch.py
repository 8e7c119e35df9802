"""The dispatcher of a thread: modes, keys and what switches them off."""

from __future__ import annotations

from torch._C import DisableTorchFunction
from torch._C import _AutoDispatchBelowAutograd as AutoDispatchBelowAutograd
from torch._C import _DisableTorchDispatch as DisableTorchDispatch
from torch._C import _dispatch_key_set as dispatch_keys
from torch._C import _is_any_autocast_enabled as is_any_autocast_enabled
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import _set_mode_pre_dispatch as set_pre_dispatch_mode
from torch._ops import unset_mode_pre_dispatch as unset_pre_dispatch_mode
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as disable_current_modes

__all__ = [
    "AutoDispatchBelowAutograd",
    "DisableTorchDispatch",
    "DisableTorchFunction",
    "SchemaCheckMode",
    "TorchDispatchMode",
    "disable_current_modes",
    "dispatch_keys",
    "enable_python_dispatcher",
    "is_any_autocast_enabled",
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
    "AutoDispatchBelowAutograd": "Context manager: dispatch below the autograd keys.",
    "enable_python_dispatcher": "Context manager: let Python decompositions and meta kernels "
    "run first.",
    "dispatch_keys": "Return the dispatch keys of a tensor as text.",
    "set_pre_dispatch_mode": "Push a mode onto the stack of the PreDispatch key.",
    "unset_pre_dispatch_mode": "Pop a mode from the stack of the PreDispatch key.",
    "is_any_autocast_enabled": "Return True if autocast is on for any device.",
}
"""What each name is, as the test of it says when torch has changed it."""
