"""Graphs of torch's functions, methods and modules, as Dynamo and symbolic tracing make them.

Such a graph runs node by node under fake tensors: a node says which module and which line made
it, and Dynamo's placeholders say what the inputs were like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from graphflops.capture.forward import capture_module
from graphflops.capture.record.module_hierarchy import lifted_weights, modules_of_graph
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import Capture, Module


def capture_torch_graph(
    module: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any = None,
    *,
    reuse_layers: bool = True,
) -> Capture:
    """Capture a graph of torch functions and methods.

    Where no inputs are given, they are like those that the graph was traced with.

    Raises:
        CaptureError: It does not run on the inputs, or there are none.
    """
    if not (args or kwargs):
        args = _traced_inputs(module.graph)
    sizes: dict[str, int] = {}
    args, named = _concrete((args, dict(kwargs)), sizes)
    found = capture_module(module, args, named, dynamic_shapes, reuse_layers=reuse_layers)
    weights = {str(node.target).strip("_") for node in lifted_weights(module.graph)}
    return replace(
        found,
        inputs=tuple((name, meta) for name, meta in found.inputs if name not in weights),
        modules=tuple(_joined(modules_of_graph(module), _without_bodies(module, found.modules))),
        notes=(*_note(sizes), *found.notes),
    )


def _traced_inputs(graph: fx.Graph) -> tuple[Any, ...]:
    """Return what a graph was traced with; nothing if it does not say so of every input."""
    placeholders = graph.find_nodes(op="placeholder")
    held = [node.meta for node in placeholders]
    if not all("example_value" in meta or "val" in meta for meta in held):
        return ()
    return tuple(meta["example_value"] if "example_value" in meta else meta["val"] for meta in held)


def _concrete(inputs: Any, sizes: dict[str, int]) -> Any:
    """Return inputs with the sizes that were traced in place of symbols, which are noted."""

    def number(size: int | torch.SymInt) -> int:
        if isinstance(size, int):
            return size
        found = int(size.node.hint)
        if size.node.expr.free_symbols:
            sizes[str(size)] = found
        return found

    def concrete(value: Any) -> Any:
        if isinstance(value, torch.SymInt):
            return number(value)
        if not (isinstance(value, torch.Tensor) and value._has_symbolic_sizes_strides):
            return value
        with FakeTensorMode():
            shape, strides = map(number, value.shape), map(number, value.stride())
            like = torch.empty_strided(
                tuple(shape), tuple(strides), dtype=value.dtype, device=value.device
            )
        return like.requires_grad_(value.requires_grad)

    return pytree.tree_map(concrete, inputs)


def _note(sizes: Mapping[str, int]) -> Iterator[str]:
    if sizes:
        listed = ", ".join(f"{name} = {size}" for name, size in sorted(sizes.items()))
        yield (
            f"The graph holds for other sizes: it is counted with those it was traced with "
            f"({listed}). Give inputs to count others."
        )


def _without_bodies(module: fx.GraphModule, modules: Iterable[Module]) -> Iterator[Module]:
    """Leave out the graphs that operators of a graph run: they are no modules of the model."""
    bodies = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    return (each for each in modules if each.path.partition(".")[0] not in bodies)


def _joined(remembered: Iterable[Module], own: Iterable[Module]) -> Iterator[Module]:
    """Join the modules whose calls are in a graph with those that it calls as modules."""
    called = {module.path: module for module in own}
    for module in remembered:
        held = called.pop(module.path, None)
        if held is None or not held.path:
            yield (
                module
                if held is None
                else module._replace(module_class=held.module_class, calls=held.calls)
            )
        else:
            yield (
                held
                if held.calls
                else held._replace(module_class=module.module_class, calls=module.calls)
            )
    yield from called.values()
