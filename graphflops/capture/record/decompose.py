"""What an operator without a handler is made of: PyTorch's own formulas and decompositions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._guards import detect_fake_mode
from torch._prims.context import TorchRefsMode
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import decompose, make_fx
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

from graphflops.capture.export_thread import exporting
from graphflops.capture.fake.metadata import dim
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.op_calls import operator_calls
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

Known = Callable[[str, str], bool]
"""Whether an operator (packet, overload) has a price."""


class Expander:
    """Expands calls of one capture; it holds on to what was invoked.

    Satisfies ``graphflops.pricing.price.Fallback``.

    Args:
        invocation: From the index of a call that was traced to what was invoked.
    """

    def __init__(self, invocation: Callable[[int], Invocation]) -> None:
        self._invocation = invocation
        self._parts: dict[Hashable, tuple[OpCall, ...] | None] = {}

    def formula(self, call: OpCall) -> Dim | None:
        """FLOPs by the formula that ``register_flop_formula`` holds for the operator, if any."""
        found = self._invocation(call.template_index)
        packet = getattr(found.target, "overloadpacket", found.target)
        formula = flop_registry.get(packet)
        if formula is None:
            return None
        return dim(formula(*found.args, **found.kwargs, out_val=found.result))

    def decompose(self, call: OpCall, known: Known) -> tuple[OpCall, ...] | None:
        """The calls an operator decomposes into, as far down as ``known`` operators.

        Traced under the capture's own fake tensors; ``None`` if PyTorch has no decomposition
        or it cannot be traced. Alike calls are traced once, for each ``known`` that is equal.
        """
        shapes = tuple(call.inputs.items()), tuple(call.attrs.items())
        key = (call.op, call.overload, *shapes, known)
        if key not in self._parts:
            found = self._invocation(call.template_index)
            self._parts[key] = _trace(found.target, found.args, found.kwargs, known)
        return self._parts[key]


class _Unpriced(dict[Any, Any]):
    """PyTorch's decompositions, of operators without a price only."""

    def __init__(self, known: Known) -> None:
        super().__init__(decomposition_table)
        self._known = known

    def __contains__(self, op: object) -> bool:
        priced = isinstance(op, torch._ops.OpOverload) and self._known(*_name(op))
        return not priced and super().__contains__(op)


def _trace(
    op: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], known: Known
) -> tuple[OpCall, ...] | None:
    if not isinstance(op, torch._ops.OpOverload):
        return None
    leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def run(*given: torch.Tensor) -> Any:
        rest = iter(given)
        filled = [next(rest) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        again, named = pytree.tree_unflatten(filled, spec)
        # make_fx itself would copy the table, and what the copy holds is not asked for a price.
        with decompose(_Unpriced(known)):
            return op(*again, **named)

    mode: AbstractContextManager[Any] | None = detect_fake_mode(leaves)
    if mode is None:
        # Without a tensor among its arguments an operator would run: ``from_file`` maps a file.
        none_given = FakeTensorMode(allow_fallback_kernels=False)
        mode = contextlib.nullcontext() if tensors else none_given
    # The reference implementations spell composite functions out as the prims oracle does;
    # where one of them cannot be traced, the kernels' own composition can.
    for references in (TorchRefsMode(should_fallback_fn=_keep(known)), contextlib.nullcontext()):
        try:
            with exporting(), QUIET.holding(), torch.no_grad(), mode, references:
                graph = make_fx(run)(*tensors)
        except Exception as error:  # noqa: BLE001 - what cannot be traced has no decomposition
            raise_interruption(error)
            continue
        parts = operator_calls(graph, lambda _: None).calls
        if not any((part.op, part.overload) == _name(op) for part in parts):
            return parts
    return None


def _keep(known: Known) -> Callable[..., bool]:
    """Tell ``TorchRefsMode`` to leave operators alone that have a price."""

    def fall_back(_mode: object, function: object, *_: object) -> bool:
        if isinstance(function, torch._ops.OpOverloadPacket):
            # The mode would take its first overload, whichever is called.
            return True
        return isinstance(function, torch._ops.OpOverload) and known(*_name(function))

    return fall_back


def _name(op: torch._ops.OpOverload) -> tuple[str, str]:
    return op._schema.name, op._overloadname
