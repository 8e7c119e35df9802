"""Repeated layers in an export: recorded between two marks, repeated as one operator."""

from __future__ import annotations

import operator
import sys
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator
from torch.fx.experimental.proxy_tensor import (
    get_proxy_mode,
    get_proxy_slot,
    py_sym_types,
    track_tensor,
)

from graphflops.capture.regions.instances import LEAST_CALLS, Call
from graphflops.capture.source import is_models

# None of them is ever run: they stand in graphs that are read.
_library: Any = torch.library.Library("graphflops", "DEF")  # type: ignore[no-untyped-call]  # torch's gap
_library.define("begin(Tensor[] inputs, int region) -> ()")
_library.define("end(Tensor[] outputs, int region) -> ()")
_library.define("repeat(Tensor[] inputs, int region, int[] places) -> Tensor[]")
BEGIN: Any = torch.ops.graphflops.begin.default
END: Any = torch.ops.graphflops.end.default
REPEAT: Any = torch.ops.graphflops.repeat.default
MARKS = (BEGIN, END)


class ExportTracer:
    """Records and repeats layers in the graph that ``torch.export`` traces."""

    def __init__(self) -> None:
        self._tracer: Any = None
        self._regions = 0

    def ready(self) -> bool:
        """Whether calls go to the graph of the model itself, not to one within it."""
        mode = get_proxy_mode()
        if mode is None or torch._C._functorch.peek_interpreter_stack() is not None:
            return False
        self._tracer = self._tracer or mode.tracer
        return mode.tracer is self._tracer

    def traced(self, tensors: list[torch.Tensor]) -> list[fx.Node | None]:
        """The nodes that tensors come from."""
        found = (get_proxy_slot(tensor, self._tracer, None) for tensor in tensors)
        return [None if slot is None else slot.proxy.node for slot in found]

    def begin(self, _: Call) -> fx.Node:
        """Mark the beginning of a layer."""
        return self._node(BEGIN, ([], -1))

    def end(self, mark: fx.Node, call: Call, outputs: list[torch.Tensor]) -> int | None:
        """Mark its end, if all it uses is what it was given."""
        given = [node for node in call.inputs if node is not None]
        body = _nodes_after(mark)
        leaving = self.traced(outputs)
        if (
            len(body) < LEAST_CALLS
            or not _is_closed(body, {*given})
            or not _is_made_in(body, leaving)
        ):
            return None
        number = self._regions
        self._regions += 1
        mark.args = (given, number)
        self._node(END, (leaving, number))
        return number

    def repeat(
        self,
        recorded: int,
        _: Call,
        inputs: list[fx.Node | None],
        outputs: list[torch.Tensor],
    ) -> None:
        """Let one node stand for a layer."""
        given = [(place, node) for place, node in enumerate(inputs) if node is not None]
        places, nodes = [place for place, _ in given], [node for _, node in given]
        node = self._node(REPEAT, (nodes, recorded, places))
        node.meta["val"] = outputs
        for place, output in enumerate(outputs):
            # Of the same place in the code, which takes long to be looked up.
            item = self._tracer.graph.create_node("call_function", operator.getitem, (node, place))
            item.meta = {**node.meta, "val": output}
            track_tensor(output, self._tracer.proxy(item), constant=None, tracer=self._tracer)

    def _node(self, target: Any, args: tuple[Any, ...]) -> fx.Node:
        """A node of the graph; its stack is the one line that called the layer."""
        tracer = self._tracer
        recorded, tracer.record_stack_traces = tracer.record_stack_traces, False
        node: fx.Node = tracer.create_node("call_function", target, args, {})
        tracer.record_stack_traces = recorded
        frame = sys._getframe()
        while frame.f_back and not is_models(frame.f_code.co_filename):
            frame = frame.f_back
        node.meta["stack_trace"] = f'File "{frame.f_code.co_filename}", line {frame.f_lineno}'
        return node


def _nodes_after(mark: fx.Node) -> list[fx.Node]:
    nodes, node = [], mark.next
    while node.op != "root":
        nodes.append(node)
        node = node.next
    return nodes


def _is_closed(body: list[fx.Node], given: set[fx.Node]) -> bool:
    """Whether nodes use nothing else but constants and sizes, and hold no graphs."""
    known = given.union(body)
    return not any(
        isinstance(node.target, HigherOrderOperator)
        or not all(used in known or _is_constant(used) for used in node.all_input_nodes)
        for node in body
    )


def _is_constant(node: fx.Node) -> bool:
    return node.op == "get_attr" or isinstance(node.meta.get("val"), py_sym_types)


def _is_made_in(body: list[fx.Node], nodes: list[fx.Node | None]) -> bool:
    """Whether nodes are among those of a layer, and stay there even if nothing uses them."""
    return all(node in body and node.target is not torch.ops.aten.detach.default for node in nodes)
