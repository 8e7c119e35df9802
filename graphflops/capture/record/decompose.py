"""Fallback for operators without a handler: PyTorch's own formulas and decompositions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import decompose, make_fx
from torch.utils.flop_counter import flop_registry

from graphflops.capture.fake.metadata import dim
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.op_calls import operator_calls
from graphflops.capture.torch_internals.export_isolation import exporting
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode, detect_fake_mode
from graphflops.capture.torch_internals.operators import (
    OpOverload,
    OpOverloadPacket,
    TorchRefsMode,
    decomposition_table,
)
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

HasPrice = Callable[[str, str], bool]
"""Predicate of an operator packet and overload: True if it has a price."""


class Expander:
    """Decomposer of the calls of one capture, whose invocations it keeps alive.

    Satisfies ``graphflops.core.ir.Fallback``.

    Args:
        invocation: Returns the invocation of a traced call, by the index of the call.
    """

    def __init__(self, invocation: Callable[[int], Invocation]) -> None:
        self._invocation = invocation
        self._decompositions: dict[Hashable, tuple[OpCall, ...] | None] = {}

    def formula(self, call: OpCall) -> Dim | None:
        """Return the FLOPs by the operator's ``register_flop_formula``, if it has one."""
        invocation = self._invocation(call.template_index)
        packet = getattr(invocation.target, "overloadpacket", invocation.target)
        formula = flop_registry.get(packet)
        if formula is None:
            return None
        return dim(formula(*invocation.args, **invocation.kwargs, out_val=invocation.result))

    def decompose(self, call: OpCall, known: HasPrice) -> tuple[OpCall, ...] | None:
        """Return the calls an operator decomposes into, down to operators that are ``known``.

        They are traced under the fake tensors of the capture; ``None`` if PyTorch has no
        decomposition or it cannot be traced. Equal calls are traced once for equal ``known``.
        """
        shapes = tuple(call.inputs.items()), tuple(call.attrs.items())
        key = (call.op, call.overload, *shapes, known)
        if key not in self._decompositions:
            invocation = self._invocation(call.template_index)
            self._decompositions[key] = _trace(
                invocation.target, invocation.args, invocation.kwargs, known
            )
        return self._decompositions[key]


class _UnpricedDecompositions(dict[Any, Any]):
    """PyTorch's decompositions of operators without a price."""

    def __init__(self, has_price: HasPrice) -> None:
        super().__init__(decomposition_table)
        self._has_price = has_price

    def __contains__(self, op: object) -> bool:
        has_price = isinstance(op, OpOverload) and self._has_price(*_name(op))
        return not has_price and super().__contains__(op)


def _trace(
    op: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], has_price: HasPrice
) -> tuple[OpCall, ...] | None:
    if not isinstance(op, OpOverload):
        return None
    leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def run(*inputs: torch.Tensor) -> Any:
        remaining = iter(inputs)
        traced = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        traced_args, traced_kwargs = pytree.tree_unflatten(traced, spec)
        # make_fx itself would copy the table into a dict, which does not ask for a price.
        with decompose(_UnpricedDecompositions(has_price)):
            return op(*traced_args, **traced_kwargs)

    mode: AbstractContextManager[Any] | None = detect_fake_mode(leaves)
    if mode is None:
        # An operator without tensor arguments would run for real: ``from_file`` maps a file.
        fake_mode = FakeTensorMode(allow_fallback_kernels=False)
        mode = contextlib.nullcontext() if tensors else fake_mode
    # The reference implementations decompose composite functions as the prims oracle does; where
    # one of them cannot be traced, the composition of the kernels can.
    for references in (
        TorchRefsMode(should_fallback_fn=_should_fall_back(has_price)),
        contextlib.nullcontext(),
    ):
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


def _should_fall_back(has_price: HasPrice) -> Callable[..., bool]:
    """Return a predicate for ``TorchRefsMode`` that leaves operators with a price alone."""

    def fall_back(_mode: object, function: object, *_: object) -> bool:
        if isinstance(function, OpOverloadPacket):
            # The mode would take the first overload of a packet, whichever is called.
            return True
        return isinstance(function, OpOverload) and has_price(*_name(function))

    return fall_back


def _name(op: OpOverload) -> tuple[str, str]:
    return op._schema.name, op._overloadname
