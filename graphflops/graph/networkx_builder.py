"""Operator graphs as ``networkx`` graphs, with attributes that all of its formats can hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphflops.core.cost import Dim
from graphflops.core.ir import OpRecord, TensorMeta
from graphflops.graph.dataflow import Use

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(
    nodes: Mapping[str, OpRecord],
    uses: Iterable[Use],
    inputs: Collection[str],
    *,
    sources: bool,
) -> nx.MultiDiGraph[Any]:
    """Return nodes and uses of tensors as a ``networkx`` graph.

    Args:
        nodes: Records by the name of their node, in order.
        uses: Uses of tensors by the positions of these.
        inputs: Names of the input tensors.
        sources: Add nodes for tensors that no call produces.
    """
    import networkx as nx  # it takes a tenth of a second

    graph: nx.MultiDiGraph[Any] = nx.MultiDiGraph()
    names = list(nodes)
    for name, record in nodes.items():
        graph.add_node(name, **_node_attributes(record))
    for use in uses:
        tensor, consumer = use.tensor, names[use.consumer]
        producer = f"%{tensor.name}" if use.producer is None else names[use.producer]
        if producer not in graph:
            if not sources:
                continue
            kind = "input" if tensor.name in inputs else "parameter"
            graph.add_node(producer, kind=kind, **_tensor_attributes(tensor))
        key = use.argument
        while graph.has_edge(producer, consumer, key):
            key += "'"  # one tensor twice in a list
        graph.add_edge(producer, consumer, key, **_tensor_attributes(tensor))
    return graph


def _node_attributes(record: OpRecord) -> dict[str, int | str | bool]:
    call = record.call
    attributes: dict[str, int | str | bool] = {
        "kind": "call",
        "index": call.index,
        "op": call.op,
        "overload": call.overload,
        "module": call.module_path,
        "module_class": call.module_class,
        "line": call.source_line,
        "phase": call.phase.value,
        "status": record.status.value,
        "inputs": ", ".join(f"{name} {_described(tensor)}" for name, tensor in call.tensors()),
        "outputs": ", ".join(map(_described, call.outputs)),
        "trip_count": _plain(call.trip_count),
        "is_view": call.is_view,
    }
    if record.cost is not None:
        attributes.update((name, _plain(value)) for name, value in record.cost.items())
    return attributes


def _tensor_attributes(tensor: TensorMeta) -> dict[str, int | str]:
    return {
        "tensor": tensor.name,
        "shape": "x".join(map(str, tensor.shape)),
        "dtype": tensor.dtype,
        "bytes": _plain(tensor.nbytes),
    }


def _described(tensor: TensorMeta) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _plain(value: Dim) -> int | str:
    return value if isinstance(value, int) else str(value)
