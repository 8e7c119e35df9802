"""Graphs for inputs that are given with them: shapes are computed anew, in a copy of the graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensorMode
from torch.export._tree_utils import reorder_kwargs
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils import _pytree as pytree

from graphflops.capture.diagnose import first_line
from graphflops.capture.fake.metadata import output_metas, tensor_meta
from graphflops.core.ir import TensorMeta
from graphflops.errors import CaptureError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET


def propagated(
    module: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> fx.GraphModule:
    """Return a copy of a graph whose nodes have the shapes that follow from some inputs.

    Args:
        module: The graph; nothing of it is written.
        args: Positional inputs.
        kwargs: Keyword inputs.

    Raises:
        CaptureError: The graph takes other inputs.
    """
    inputs = _flat(module.graph, args, kwargs)
    if any(_is_graph(module, node) for node in module.graph.nodes):
        return _unchanged(module, inputs)
    copied = _copied(module)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    places = copied.graph.find_nodes(op="placeholder")
    fakes = [_fake(mode, node, given) for node, given in zip(places, inputs, strict=True)]
    try:
        with QUIET.holding():
            FakeTensorProp(copied, mode).propagate_dont_convert_inputs(*fakes)
    except Exception as error:
        raise_interruption(error)
        msg = (
            f"the inputs do not go through the graph: {first_line(error)}. Give inputs of the "
            "shapes and dtypes it was traced with, or count the module that it was traced from."
        )
        raise CaptureError(msg) from error
    return copied


def agrees(inputs: Sequence[TensorMeta], given: Sequence[Any]) -> bool:
    """Return True if some inputs have the shapes and dtypes that a graph has for its own."""
    metas = [tensor_meta(leaf) for leaf in given if isinstance(leaf, torch.Tensor)]
    return [(meta.shape, meta.dtype) for meta in inputs] == [
        (meta.shape, meta.dtype) for meta in metas
    ]


def flat_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any], spec: Any) -> list[Any]:
    """Return inputs one by one, in the order in which a graph of some signature takes them.

    Raises:
        CaptureError: A keyword input is missing, or is one too many.
    """
    try:
        named = reorder_kwargs(dict(kwargs), spec)
    except Exception as error:
        raise_interruption(error)
        msg = f"the inputs are not those of the graph: {first_line(error)}. Give those it takes."
        raise CaptureError(msg) from error
    return _leaves((args, named))


def _leaves(inputs: Any) -> list[Any]:
    return pytree.tree_leaves(inputs, is_leaf=lambda leaf: leaf is None)


def _flat(graph: fx.Graph, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    names = [str(node.target) for node in graph.find_nodes(op="placeholder")]
    signature = getattr(graph._codegen, "pytree_info", None)
    if signature is not None and signature.in_spec.num_children == _ARGS_AND_KWARGS:
        inputs = flat_inputs(args, kwargs, signature.in_spec)
    else:
        inputs = _leaves(args)
        inputs += [kwargs[name] for name in names[len(inputs) :] if name in kwargs]
    if len(inputs) != len(names) or len(_leaves((args, kwargs))) != len(names):
        msg = (
            f"the graph takes {len(names)} inputs ({', '.join(names)}), and "
            f"{len(_leaves((args, kwargs)))} that do not fit were given. Give each of them, or "
            "none: then its own shapes are counted."
        )
        raise CaptureError(msg)
    return inputs


_ARGS_AND_KWARGS = 2


def _fake(mode: FakeTensorMode, node: fx.Node, given: Any) -> Any:
    """Return a fake input on the device of the graph's own: of what is given metadata counts."""
    own = node.meta.get("val")
    if isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor):
        with mode:
            size, stride = given.shape, given.stride()
            return torch.empty_strided(size, stride, dtype=given.dtype, device=own.device)
    return mode.from_tensor(given) if isinstance(given, torch.Tensor) else given


def _is_graph(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "get_attr":
        return False
    return isinstance(operator.attrgetter(str(node.target))(module), fx.GraphModule)


def _unchanged(module: fx.GraphModule, inputs: list[Any]) -> fx.GraphModule:
    """Return a graph whose parts are graphs, if the inputs are like its own.

    Raises:
        CaptureError: They are not: shapes of such parts are not computed anew.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    own = [meta for node in placeholders for meta in output_metas(node.meta.get("val"), "")]
    if not agrees(own, inputs):
        msg = (
            "the graph holds others (the branches of a cond, a loop), and the inputs are not "
            "those that it was traced with. Count the module that it was traced from."
        )
        raise CaptureError(msg)
    return module


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph of its own over the same parameters."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    return fx.GraphModule(module, graph)
