"""Operators: their classes, and what the dispatcher knows of them."""

from __future__ import annotations

from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet
from torch._C import _dispatch_has_kernel as has_kernel
from torch._C import _dispatch_has_kernel_for_dispatch_key as has_kernel_for_key
from torch._C import _jit_resolve_packet as resolve_packet
from torch._C import _should_allow_numbers_as_tensors as allows_numbers
from torch._decomp import decomposition_table
from torch._functorch import predispatch
from torch._higher_order_ops.auto_functionalize import (
    NotView,
    get_mutable_args,
    read_view_information_from_args,
)
from torch._ops import HigherOrderOperator, OperatorBase, OpOverload, OpOverloadPacket
from torch._ops import _HigherOrderNamespace as HigherOrderNamespace
from torch._ops import _OpNamespace as OpNamespace
from torch._prims.context import TorchRefsMode

pad_packed_sequence: Any = torch._C._VariableFunctions._pad_packed_sequence
builtin_sdpa: Any = torch._C._nn.scaled_dot_product_attention

__all__ = [
    "DispatchKey",
    "DispatchKeySet",
    "HigherOrderNamespace",
    "HigherOrderOperator",
    "NotView",
    "OpNamespace",
    "OpOverload",
    "OpOverloadPacket",
    "OperatorBase",
    "TorchRefsMode",
    "allows_numbers",
    "builtin_sdpa",
    "decomposition_table",
    "get_mutable_args",
    "has_kernel",
    "has_kernel_for_key",
    "pad_packed_sequence",
    "predispatch",
    "read_view_information_from_args",
    "resolve_packet",
]

PIECES = {
    "OpOverload": "Class of an operator overload, e.g. ``torch.ops.aten.add.Tensor``.",
    "OpOverloadPacket": "Class of an operator packet, e.g. ``torch.ops.aten.add``.",
    "OperatorBase": "Base class of overloads and higher-order operators.",
    "HigherOrderOperator": "Class of operators that take functions or graphs.",
    "OpNamespace": "Class of a namespace of operators, e.g. ``torch.ops.aten``.",
    "HigherOrderNamespace": "Class of the namespace of higher-order operators.",
    "DispatchKey": "Enumeration of dispatch keys.",
    "DispatchKeySet": "Class of a set of dispatch keys.",
    "allows_numbers": "Return True if an operator takes numbers for tensors, by its name without "
    "namespace.",
    "resolve_packet": "Return the name of the overload that a packet picks for some arguments.",
    "has_kernel": "Return True if an operator has a kernel for any dispatch key.",
    "has_kernel_for_key": "Return True if an operator has a kernel of its own for a dispatch key.",
    "pad_packed_sequence": "Pad packed rows: the function that "
    "``nn.utils.rnn.pad_packed_sequence`` calls.",
    "builtin_sdpa": "Fused attention: the builtin behind ``F.scaled_dot_product_attention``.",
    "decomposition_table": "Decompositions of operators by overload.",
    "TorchRefsMode": "Mode that replaces torch's functions by their reference "
    "implementations in prims.",
    "predispatch": "Module of the functions that a graph calls to enter and leave ``vmap``.",
    "NotView": "Class that marks a functionalized argument which is no view.",
    "get_mutable_args": "Return the names and types of the arguments that an operator writes to.",
    "read_view_information_from_args": "Return the views that the arguments of "
    "``auto_functionalized_v2`` describe.",
}
"""What each name is, as the test of it says when torch has changed it."""
