"""Graphs for viewers: loaded by Model Explorer's classes, pydot and networkx."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import dacite
import model_explorer
import networkx as nx
import pydot
import pytest
import torch
from hostile_names import HOSTILE, names, report_of
from hypothesis import example, given, settings
from model_explorer.graph_builder import Graph, GraphCollection, GraphNode
from model_explorer.node_data_builder import GraphNodeData, ModelNodeData
from viewer_reports import KINDS, report_of_kind

import graphflops as gf
from graphflops.errors import UnboundSymbolError
from graphflops.render.escape import visible
from graphflops.saving.files import AnyReport
from graphflops.viewers.dot import dot
from graphflops.viewers.graphml import graphml
from graphflops.viewers.model_explorer import model_explorer as texts_of

DEVICE = "a100"
STRICT = dacite.Config(strict=True)
every_kind = pytest.mark.parametrize("kind", KINDS)


def load(texts: dict[str, str]) -> tuple[GraphCollection, dict[str, ModelNodeData]]:
    """Files as Model Explorer's server reads them: unknown and missing fields are errors."""
    collection, *figures = texts.items()
    data = {
        name: ModelNodeData(
            {
                graph: dacite.from_dict(GraphNodeData, node_data, STRICT)
                for graph, node_data in json.loads(text).items()
            }
        )
        for name, text in figures
    }
    return dacite.from_dict(GraphCollection, json.loads(collection[1]), STRICT), data


def operators(graph: Graph) -> list[GraphNode]:
    return [node for node in graph.nodes if node.attrs]


@every_kind
def test_model_explorer_loads_graphs_and_node_data(kind: str) -> None:
    report = report_of_kind(kind)
    collection, figures = load(texts_of(report, report.time(DEVICE)))
    assert [graph.id for graph in collection.graphs] == list(report.executions)
    for graph in collection.graphs:
        nodes = {node.id: node for node in graph.nodes}
        assert len(nodes) == len(graph.nodes)
        for node in graph.nodes:
            for edge in node.incomingEdges:
                outputs = nodes[edge.sourceNodeId].outputsMetadata
                assert edge.sourceNodeOutputId in {output.id for output in outputs}
        run = report.executions[graph.id].run_of(0.0).graph
        assert [node.id for node in operators(graph)] == list(run.names)
        cost = sum((r.cost for r in run.records if r.cost), start=gf.OpCost())
        sums = {
            name: sum(result.value for result in data.graphsData[graph.id].results.values())
            for name, data in figures.items()
        }
        assert sums["flops"] == cost.flops
        assert sums["macs"] == cost.macs
        assert sums["bytes"] == cost.bytes_read + cost.bytes_written
        assert sums.get("transcendentals", 0) == cost.transcendentals
        for data in figures.values():
            assert data.graphsData[graph.id].results.keys() <= nodes.keys()


def test_model_explorer_takes_the_files() -> None:
    config = model_explorer.config()
    _, figures = load(texts_of(report_of_kind("forward"), None))
    for name, data in figures.items():
        config.add_node_data(name, data)
        assert json.loads(config.get_node_data(len(config.node_data_list) - 1).to_json_string())
    assert set(figures) == {"flops", "macs", "bytes"}  # it has no transcendentals


def test_hierarchy_and_figures_of_modules() -> None:
    report = report_of_kind("forward")
    collection, _ = load(texts_of(report, None))
    (graph,) = collection.graphs
    namespaces = {node.id: node.namespace for node in graph.nodes}
    assert namespaces == {
        "inputs/tokens": "inputs",
        **{r.call.name: r.call.module_path.replace(".", "/") for r in report.records},
    }
    assert graph.groupNodeAttributes is not None
    for path, cost in report.by_module().items():
        group = graph.groupNodeAttributes[path.replace(".", "/")]
        assert group.get("flops", "0") == f"{cost.flops:,}"
    assert graph.groupNodeAttributes["blocks/2"]["class"] == "Block"
    # A block adds its input to what comes out of it: two edges into the sum.
    add = next(node for node in graph.nodes if node.id == "add")
    assert [edge.sourceNodeId for edge in add.incomingEdges] == ["embedding", "linear_1"]
    shape = add.outputsMetadata[0].attrs[0]
    assert (shape.key, shape.value) == ("tensor_shape", "float32[2, 8, 16]")


def test_node_data_need_numbers() -> None:
    axes = ({0: "B"},)
    report = gf.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),), dynamic_shapes=axes)
    with pytest.raises(UnboundSymbolError, match="formulas in B"):
        texts_of(report, None)
    flops = nx.get_node_attributes(read_graphml(report), "flops")
    assert [flops[name] for name in report.graph.names] == [str(report.flops)]
    assert "linear" in dot(report)


def read_graphml(report: AnyReport) -> nx.MultiDiGraph[Any]:
    file = io.BytesIO(graphml(report).encode("utf-8", "strict"))
    return nx.read_graphml(file, force_multigraph=True)


@every_kind
def test_graphml_comes_back_as_it_was(kind: str) -> None:
    report = report_of_kind(kind)
    found = read_graphml(report)
    graphs = {name: part.run_of(0.0).graph for name, part in report.executions.items()}
    for name, graph in graphs.items():
        expected = graph.to_networkx(sources=True)
        prefix = f"{name}/" if len(graphs) > 1 else ""
        for node, facts in expected.nodes(data=True):
            attributes = dict(found.nodes[prefix + node])
            assert attributes.pop("pass", name) == name
            assert attributes == facts
        for producer, consumer, facts in expected.edges(data=True):
            edges = found.get_edge_data(prefix + producer, prefix + consumer).values()
            assert facts in edges
    assert found.number_of_nodes() == sum(
        graph.to_networkx(sources=True).number_of_nodes() for graph in graphs.values()
    )


def clusters_of(graph: pydot.Graph) -> Iterator[pydot.Graph]:
    for cluster in graph.get_subgraphs():
        yield cluster
        yield from clusters_of(cluster)


def unquoted(text: str) -> str:
    """A string of DOT as a label shows it."""
    assert text.startswith('"')
    assert text.endswith('"')
    text = html.unescape(text[1:-1])  # Graphviz reads entities first
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def parsed(report: AnyReport) -> pydot.Graph:
    graphs = pydot.graph_from_dot_data(dot(report))
    assert graphs is not None
    (graph,) = graphs
    return graph


@pytest.mark.parametrize("kind", ["forward", "saved training", "two tokens"])  # the reader is slow
def test_dot_has_calls_in_the_boxes_of_their_modules(kind: str) -> None:
    report = report_of_kind(kind)
    graph = parsed(report)
    clusters = list(clusters_of(graph))
    assert len({cluster.get_name() for cluster in clusters}) == len(clusters)
    several = len(report.executions) > 1
    expected = set()
    for name, part in report.executions.items():
        run = part.run_of(0.0).graph
        expected |= {f"{name}/{node}" if several else node for node in run.names}
        expected |= {f"{name}/%{i}" if several else f"%{i}" for i, _ in run.capture.inputs}
    nodes = [node for one in (graph, *clusters) for node in one.get_nodes()]
    found = {unquoted(node.get_name()) for node in nodes if node.get_name() != "node"}
    # Inputs that nothing reads have no node.
    assert found <= expected
    assert {node for node in expected if "%" not in node} <= found
    ends = {
        unquoted(str(end))
        for e in graph.get_edges()
        for end in (e.get_source(), e.get_destination())
    }
    assert ends <= found


def test_boxes_are_nested() -> None:
    graph = parsed(report_of_kind("forward"))
    (blocks,) = [c for c in graph.get_subgraphs() if c.get("label") == '"blocks"']
    assert [unquoted(str(c.get("label"))) for c in blocks.get_subgraphs()] == ["0", "1", "2", "3"]
    (up, _) = blocks.get_subgraphs()[2].get_subgraphs()
    (linear,) = up.get_nodes()
    # 16 tokens, 16 and 64 features; and the bias.
    label = f"aten::linear\n{(2 * 16 * 16 * 64 + 16 * 64) / 1000:.2f} KFLOPs"
    assert unquoted(str(linear.get("label"))) == label


@given(names)
@settings(deadline=None)  # the reader of DOT is slow
@example("<script>alert(1)</script>")
@example('a"b')
@example("<b>")
@example("&lt;&#92;n")
@example("back\\")
@example("a/b;c\\/d")
@example("\\N\\G\\n")
@example(HOSTILE[3])
@example(HOSTILE[7])
@example(HOSTILE[-1])
def test_names_come_back_as_they_are(name: str) -> None:
    report = report_of(name)
    collection, _ = load(texts_of(report, None))
    (graph,) = collection.graphs
    for node in operators(graph):
        (namespace,) = node.namespace.split("/")  # a slash would be another module
        assert ";" not in namespace
        assert "\\" not in namespace  # which escapes the slash after it
        facts = {item.key: item.value for item in node.attrs}
        assert facts["module"] == facts["source"] == visible(name)
    box, *_ = parsed(report).get_subgraphs()
    assert unquoted(str(box.get("label"))) == visible(name)
    assert unquoted(str(box.get_nodes()[1].get("label"))).split("\n")[0] == visible(name)
    written = re.sub("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", name)
    found = read_graphml(report)
    assert {facts["module"] for _, facts in found.nodes(data=True) if "module" in facts} == {
        written
    }
