"""Captures of graphs of torch functions, methods and modules, from Dynamo or symbolic tracing.

Such a graph runs node by node under fake tensors: nodes have the module and source line that
made them, and Dynamo's placeholders have the metadata of the inputs.
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

    Without inputs, the graph runs on those that it was traced with.

    Raises:
        CaptureError: It does not run on the inputs, or there are none.
    """
    if not (args or kwargs):
        args = _traced_inputs(module.graph)
    sizes: dict[str, int] = {}
    args, kwargs = _make_concrete((args, dict(kwargs)), sizes)
    captured = capture_module(module, args, kwargs, dynamic_shapes, reuse_layers=reuse_layers)
    weights = {str(node.target).strip("_") for node in lifted_weights(module.graph)}
    called = _without_subgraphs(module, captured.modules)
    return replace(
        captured,
        inputs=tuple((name, meta) for name, meta in captured.inputs if name not in weights),
        modules=tuple(_merge_modules(modules_of_graph(module), called)),
        notes=(*_size_note(sizes), *captured.notes),
    )


def _traced_inputs(graph: fx.Graph) -> tuple[Any, ...]:
    """Return the inputs that a graph was traced with; none if one is not recorded."""
    metas = [node.meta for node in graph.find_nodes(op="placeholder")]
    if not all("example_value" in meta or "val" in meta for meta in metas):
        return ()
    return tuple(
        meta["example_value"] if "example_value" in meta else meta["val"] for meta in metas
    )


def _make_concrete(inputs: Any, sizes: dict[str, int]) -> Any:
    """Return inputs with traced sizes in place of symbols, and record these in ``sizes``."""

    def number(size: int | torch.SymInt) -> int:
        if isinstance(size, int):
            return size
        hint = int(size.node.hint)
        if size.node.expr.free_symbols:
            sizes[str(size)] = hint
        return hint

    def concrete(value: Any) -> Any:
        if isinstance(value, torch.SymInt):
            return number(value)
        if not (isinstance(value, torch.Tensor) and value._has_symbolic_sizes_strides):
            return value
        with FakeTensorMode():
            shape, strides = map(number, value.shape), map(number, value.stride())
            fake = torch.empty_strided(
                tuple(shape), tuple(strides), dtype=value.dtype, device=value.device
            )
        return fake.requires_grad_(value.requires_grad)

    return pytree.tree_map(concrete, inputs)


def _size_note(sizes: Mapping[str, int]) -> Iterator[str]:
    if sizes:
        listed = ", ".join(f"{name} = {size}" for name, size in sorted(sizes.items()))
        yield (
            f"The graph holds for other sizes: it is counted with those it was traced with "
            f"({listed}). Give inputs to count others."
        )


def _without_subgraphs(module: fx.GraphModule, modules: Iterable[Module]) -> Iterator[Module]:
    """Leave out the subgraphs that operators of a graph run, which are no modules of the model."""
    subgraphs = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    return (other for other in modules if other.path.partition(".")[0] not in subgraphs)


def _merge_modules(inlined: Iterable[Module], called: Iterable[Module]) -> Iterator[Module]:
    """Merge the modules whose calls are inlined in a graph with those that it calls."""
    by_path = {module.path: module for module in called}
    for module in inlined:
        other = by_path.pop(module.path, None)
        if other is None or not other.path:
            yield (
                module
                if other is None
                else module._replace(module_class=other.module_class, calls=other.calls)
            )
        else:
            yield (
                other
                if other.calls
                else other._replace(module_class=module.module_class, calls=module.calls)
            )
    yield from by_path.values()
