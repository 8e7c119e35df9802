"""State that torch keeps for each thread: taken before a count, put back after it.

``with`` statements put it back as well, unless they are interrupted while they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import overrides
from torch._C import DispatchKey
from torch._guards import _TLS as GUARDS
from torch.utils import _python_dispatch as dispatch

# torch gives these no types.
_function_modes: Any = overrides._get_current_function_mode_stack
_push: Any = overrides._push_mode
_pop: Any = overrides._pop_mode
_TORCH: Any = torch._C
_DEVICES = ("cpu", "cuda")
_GUARDS = ("compile_context", "tracing_context")
_KEYS = (
    *(DispatchKey.PreDispatch, DispatchKey.Python, DispatchKey.PythonDispatcher),
    *(DispatchKey.AutogradFunctionality, DispatchKey.AutogradOther),
    DispatchKey.AutogradNestedTensor,
)
"""Keys that a count includes or excludes."""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """Modes and flags of a thread.

    Attributes:
        dispatch_modes: Modes that see operators, the outermost first.
        function_modes: Modes that see functions of torch.
        functions: Which of them may: all, none, or none of the modes.
        grad: Whether autograd records.
        autocast: By kind of device, whether it casts and to which type.
        keys: Dispatch keys that are included and excluded.
        guards: What tracing goes on.
        default_dtype: The floating-point type of new tensors; it is the process's.
    """

    dispatch_modes: list[Any]
    function_modes: list[Any]
    functions: Any
    grad: bool
    autocast: tuple[tuple[bool, torch.dtype], ...]
    keys: tuple[Any, Any]
    guards: tuple[Any, ...]
    default_dtype: torch.dtype

    @classmethod
    def now(cls) -> ThreadState:
        """Take the state of this thread."""
        return cls(
            dispatch_modes=dispatch._get_current_dispatch_mode_stack(),
            function_modes=_function_modes(),
            functions=_TORCH._get_torch_function_state(),
            grad=torch.is_grad_enabled(),
            autocast=_autocast(),
            keys=_keys(),
            guards=tuple(getattr(GUARDS, name, None) for name in _GUARDS),
            default_dtype=torch.get_default_dtype(),
        )

    def restore(self) -> None:
        """Put it back; may be called again when it was interrupted."""
        _TORCH._set_torch_function_state(self.functions)
        self._restore_modes()
        if torch.is_grad_enabled() is not self.grad:
            torch._C._set_grad_enabled(self.grad)
        if _autocast() != self.autocast:
            for device, (enabled, dtype) in zip(_DEVICES, self.autocast, strict=True):
                torch.set_autocast_enabled(device, enabled)
                torch.set_autocast_dtype(device, dtype)
        _restore_keys(self.keys)
        for name, value in zip(_GUARDS, self.guards, strict=True):
            setattr(GUARDS, name, value)
        if torch.get_default_dtype() is not self.default_dtype:
            torch.set_default_dtype(self.default_dtype)

    def _restore_modes(self) -> None:
        if _differ(self.dispatch_modes, dispatch._get_current_dispatch_mode_stack()):
            while torch._C._len_torch_dispatch_stack():
                dispatch._pop_mode()
            for mode in self.dispatch_modes:
                dispatch._push_mode(mode)
        if _differ(self.function_modes, _function_modes()):
            while torch._C._len_torch_function_stack():
                _pop()
            for mode in self.function_modes:
                _push(mode)


def _differ(some: list[Any], others: list[Any]) -> bool:
    return len(some) != len(others) or any(a is not b for a, b in zip(some, others, strict=True))


def _autocast() -> tuple[tuple[bool, torch.dtype], ...]:
    return tuple([(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _DEVICES])


def _keys() -> tuple[Any, Any]:
    return torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()


def _restore_keys(wanted: tuple[Any, Any]) -> None:
    setters = (
        torch._C._dispatch_tls_set_dispatch_key_included,
        torch._C._dispatch_tls_set_dispatch_key_excluded,
    )
    for before, now, set_key in zip(wanted, _keys(), setters, strict=True):
        if before.raw_repr() != now.raw_repr():
            for key in _KEYS:
                set_key(key, before.has(key))
