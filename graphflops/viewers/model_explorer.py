"""Graphs for Google's Model Explorer, with node data that colour the nodes.

A graph file is a ``GraphCollection``, a file of node data a ``GraphNodeData`` for each graph id, as
in ``model_explorer.graph_builder`` and ``model_explorer.node_data_builder``. A file of node data
holds one figure.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any

from graphflops.analysis.call_time import Roofline
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpRecord, TensorMeta
from graphflops.core.module_tree import ModuleNode, roll_up
from graphflops.graph.operator_graph import OperatorGraph
from graphflops.render.escape import visible
from graphflops.render.protocols import TimedPasses
from graphflops.render.units import exact
from graphflops.viewers.viewed import Viewed, as_number

_GRADIENT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#f28e2b"}]
_SEPARATORS = str.maketrans({"/": "\u2215", ";": "\uff1b", "\\": "\u29f5"})
"""Characters with a meaning in a namespace, and those that look like them."""


def model_explorer(report: Viewed, times: TimedPasses | None = None) -> dict[str, str]:
    """Return the graph of each pass, and the figures of its calls.

    Args:
        report: Report of any kind. Of a graph that runs several times, it is the first run's.
        times: Its time on a device, for two more figures.

    Returns:
        Texts of files: the graphs as ``""``, node data by the name of the figure.

    Raises:
        UnboundSymbolError: Costs are symbolic.
    """
    graphs = {name: part.run_of(0.0).graph for name, part in report.executions.items()}
    collection = {
        "label": visible(report.model),
        "graphs": [_graph(name, graph) for name, graph in graphs.items()],
    }
    roofline = None if times is None else times.roofline
    figures: dict[str, dict[str, Any]] = {}
    for graph_id, graph in graphs.items():
        for figure, values in _figures(graph, roofline).items():
            results = {node: {"value": value} for node, value in values.items()}
            data = {"results": results, "name": figure, "gradient": _GRADIENT}
            figures.setdefault(figure, {})[graph_id] = data
    return {name: _compact(data) for name, data in {"": collection, **figures}.items()}


def _compact(data: dict[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))


def _figures(graph: OperatorGraph, roofline: Roofline | None) -> dict[str, dict[str, Any]]:
    """Return the figures of the calls that have any, by figure and node."""
    figures: dict[str, dict[str, Any]] = {}
    for node, record in graph.nodes.items():
        for figure, value in _values(record, roofline).items():
            if as_number(value):
                figures.setdefault(figure, {})[node] = value
    return figures


def _values(record: OpRecord, roofline: Roofline | None) -> dict[str, Any]:
    cost = record.cost or OpCost()
    values = {
        "flops": cost.flops,
        "macs": cost.macs,
        "bytes": cost.bytes_read + cost.bytes_written,
        "transcendentals": cost.transcendentals,
    }
    if roofline is not None:
        time = roofline.time(record)
        seconds = {"bound_us": time.bound, "expected_us": time.expected}
        values |= {name: round(as_number(value) * 1e6, 3) for name, value in seconds.items()}
    return values


def _graph(graph_id: str, graph: OperatorGraph) -> dict[str, Any]:
    inputs = dict(graph.capture.inputs)
    edges = _edges(graph, inputs)
    nodes: list[dict[str, Any]] = [
        {"id": _input_id(name), "label": visible(name), "namespace": "inputs", **_outputs([tensor])}
        for name, tensor in inputs.items()
    ]
    nodes += [
        {
            "id": name,
            "label": record.call.op,
            "namespace": _namespace(record.call.module_path),
            "attrs": _pairs(_call_facts(record)),
            "incomingEdges": edges[position],
            **_outputs(record.call.outputs),
        }
        for position, (name, record) in enumerate(graph.nodes.items())
    ]
    root = roll_up(graph.records, graph.capture.modules)
    groups = {_namespace(module.path): _module_facts(module) for module in root.walk()}
    return {"id": graph_id, "nodes": nodes, "groupNodeAttributes": groups}


def _edges(graph: OperatorGraph, inputs: Container[str]) -> Mapping[int, list[dict[str, str]]]:
    """Return the edges into each call, by its position.

    Parameters and constants have none, which would hide what the graph does.
    """
    edges: defaultdict[int, list[dict[str, str]]] = defaultdict(list)
    for use in graph.uses:
        outputs: list[str] = []
        if use.producer is not None:
            source = graph.names[use.producer]
            outputs = [output.name for output in graph.records[use.producer].call.outputs]
        elif use.tensor.name in inputs:
            source = _input_id(use.tensor.name)
        else:
            continue
        number = outputs.index(use.tensor.name) if use.tensor.name in outputs else 0
        incoming = edges[use.consumer]
        edge = {"sourceNodeId": source, "sourceNodeOutputId": str(number)}
        incoming.append({**edge, "targetNodeInputId": str(len(incoming))})
    return edges


def _input_id(name: str) -> str:
    return f"inputs/{name}"


def _namespace(path: str) -> str:
    """Return the namespace of a module: its path, with what separates names there replaced."""
    return "/".join(visible(name).translate(_SEPARATORS) for name in path.split("."))


def _outputs(tensors: Iterable[TensorMeta]) -> dict[str, Any]:
    """Return the metadata of outputs; the shape stands on the edges under this key."""
    shapes = (f"{meta.dtype}[{', '.join(map(str, meta.shape))}]" for meta in tensors)
    metadata = [
        {"id": str(number), "attrs": _pairs({"tensor_shape": shape})}
        for number, shape in enumerate(shapes)
    ]
    return {"outputsMetadata": metadata}


def _pairs(facts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in facts.items() if value]


def _call_facts(record: OpRecord) -> dict[str, str]:
    call = record.call
    return {
        "module": visible(call.module_path),
        "class": visible(call.module_class),
        "source": visible(call.source_line),
        "phase": call.phase.value,
        "status": record.status.value,
        **_cost_facts(record.cost or OpCost()),
    }


def _module_facts(module: ModuleNode) -> dict[str, str]:
    facts = {"class": visible(module.module_class), "extra": visible(module.extra)}
    facts |= {**_cost_facts(module.total), "parameters": exact(module.params_total)}
    return {key: value for key, value in facts.items() if value}


def _cost_facts(cost: OpCost) -> dict[str, str]:
    return {name: exact(value) for name, value in cost.items() if value}
