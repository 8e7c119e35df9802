"""The graph of a capture: its records as nodes, its tensors as edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphflops.core.ir import Capture, OpRecord
from graphflops.errors import ModelSpecError
from graphflops.graph.critical_path import (
    CriticalPath,
    Generation,
    Weight,
    critical_path,
    generations,
)
from graphflops.graph.dataflow import Use, uses
from graphflops.graph.networkx_builder import to_networkx
from graphflops.graph.stages import Stage, cut_into_stages
from graphflops.graph.waste import Waste, find_waste
from graphflops.runtime.patches import WITHOUT_GARBAGE_COLLECTION

if TYPE_CHECKING:
    import networkx as nx
    from torch import fx, nn


@dataclass(frozen=True, kw_only=True, repr=False)
class OperatorGraph:
    """Graph of a captured pass: a node for each operator call, an edge for each use of a tensor.

    Attributes:
        records: Records of the calls, in the order in which they run.
        capture: The capture that they come from.
    """

    records: Sequence[OpRecord]
    capture: Capture

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes, in the order of the records: that of the call.

        A fused kernel that counts as several calls is several nodes: ``name``, ``name.1``, ...
        """
        seen: Counter[str] = Counter()
        names = []
        for record in self.records:
            name = record.call.name
            names.append(f"{name}.{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return tuple(names)

    @cached_property
    def nodes(self) -> Mapping[str, OpRecord]:
        """Records by the name of their node."""
        return dict(zip(self.names, self.records, strict=True))

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Every use of a tensor by a call, in order; calls are positions in ``records``."""
        return tuple(uses([record.call for record in self.records]))

    def __getitem__(self, name: str) -> OpRecord:
        """Return the record of a node.

        Raises:
            ModelSpecError: There is no node of that name.
        """
        if name not in self.nodes:
            msg = f"the graph has no node {name!r}. Its names are those of `graph.names`."
            raise ModelSpecError(msg)
        return self.nodes[name]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        edges = sum(use.producer is not None for use in self.uses)
        return f"OperatorGraph({len(self)} calls, {edges} edges)"

    def to_fx(self, model: nn.Module | None = None, *, folded: bool = False) -> fx.GraphModule:
        """Return the graph as an FX graph of ATen calls, one for each record.

        Placeholders are the tensor inputs in the order of the report. Parameters and buffers are
        ``get_attr`` nodes under their qualified names. The output is the flat tuple of the tensors
        that the model returns. Each node has ``meta["val"]`` (a fake tensor),
        ``meta["nn_module_stack"]``, ``meta["stack_trace"]``, and the record of a call in
        ``meta["graphflops"]``.

        Args:
            model: Model whose parameters and buffers the graph holds, so that it runs on tensors
                of the captured shapes; without one they are meta tensors.
            folded: Move each kind of repeated layers into a submodule. The nodes that call it have
                the tuple of the records of their instance, those in it the first instance's.

        Raises:
            ModelSpecError: A call cannot be made from FX, or the model lacks a parameter.

        Example:
            >>> import torch, graphflops
            >>> model = torch.nn.Linear(3, 4)
            >>> graph_module = graphflops.count(model, (torch.empty(2, 3),)).graph.to_fx(model)
            >>> [node.name for node in graph_module.graph.nodes]
            ['input_1', 'weight', 'bias', 'linear', 'output']
            >>> x = torch.randn(2, 3)
            >>> torch.equal(graph_module(x)[0], model(x))
            True
        """
        from graphflops.graph.fx_builder import build_fx
        from graphflops.graph.fx_folding import fold

        with WITHOUT_GARBAGE_COLLECTION.holding():
            unbound = build_fx(self.records, self.capture, model)
            if folded:
                fold(unbound, self.records)
            return unbound.module()

    def to_networkx(self, *, sources: bool = False) -> nx.MultiDiGraph[Any]:
        """Return the graph as a ``networkx.MultiDiGraph``, acyclic.

        A node is an operator call, by name, with its position, operator, overload, module, class
        of the module, source line, phase, status, shapes, and cost (``flops``, ``macs``, ...). An
        edge is a use of a tensor, its key the argument, with the tensor's name, shape, dtype and
        bytes. Attributes are numbers and texts (symbolic costs are texts), so that
        ``networkx.write_graphml``, ``nx_pydot`` and ``node_link_data`` take the graph as it is.

        Args:
            sources: Add nodes for the inputs, parameters, buffers and constants too.

        Example:
            >>> import torch, graphflops
            >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
            >>> graph = graphflops.count(model, (torch.empty(2, 3),)).graph.to_networkx()
            >>> list(graph.edges(data="bytes"))  # 2 x 4 numbers of 4 bytes
            [('linear', 'relu', 32)]
            >>> graph.nodes["linear"]["macs"]
            24
        """
        inputs = {name for name, _ in self.capture.inputs}
        return to_networkx(self.nodes, self.uses, inputs, sources=sources)

    def critical_path(self, by: Weight = "flops") -> CriticalPath:
        """Return the longest chain of calls that need each other's results.

        Args:
            by: Weight of a call: ``"flops"``, or the ``"bytes"`` that it reads and writes.

        Raises:
            UnboundSymbolError: Costs are symbolic.

        Example:
            >>> import torch, graphflops
            >>> class Two(torch.nn.Module):
            ...     def forward(self, x):
            ...         return x @ x + x.exp()
            >>> graph = graphflops.count(Two(), (torch.empty(3, 3),)).graph
            >>> path = graph.critical_path()
            >>> [record.call.name for record in path.records], path.length, path.total
            (['matmul', 'add'], 63, 72)
        """
        return critical_path(self.to_networkx(), self.nodes, by)

    def generations(self, by: Weight = "flops") -> tuple[Generation, ...]:
        """Return the calls at each depth of the graph: as many as could run side by side.

        Args:
            by: Weight of a call, as in :meth:`critical_path`.

        Raises:
            UnboundSymbolError: Costs are symbolic.
        """
        return generations(self.to_networkx(), self.nodes, by)

    def stages(self, count: int, by: Weight = "flops", *, slack: float = 0.02) -> tuple[Stage, ...]:
        """Cut the calls, in their order, into stages of balanced weight.

        Of the cuts within the slack of the best balance, those are taken that the fewest bytes
        cross.

        Args:
            count: Number of stages.
            by: Weight of a call, as in :meth:`critical_path`.
            slack: Share by which the largest weight may exceed the least possible one.

        Raises:
            UnboundSymbolError: Costs are symbolic.
            ModelSpecError: There are fewer calls than stages.

        Example:
            >>> import torch, graphflops
            >>> layers = (torch.nn.Linear(8, 8) for _ in range(6))
            >>> report = graphflops.count(torch.nn.Sequential(*layers), (torch.empty(2, 8),))
            >>> for stage in report.graph.stages(3):
            ...     print(stage.weight, [record.call.name for record in stage.records])
            544 ['linear', 'linear_1']
            544 ['linear_2', 'linear_3']
            544 ['linear_4', 'linear_5']
        """
        return cut_into_stages(self.records, self.uses, count, by, slack)

    def waste(self) -> Waste:
        """Return the calls that need not run: repeated, unused, or the same for every input.

        Example:
            >>> import torch, graphflops
            >>> class Twice(torch.nn.Module):
            ...     def forward(self, x):
            ...         return x.exp() + x.exp()
            >>> waste = graphflops.count(Twice(), (torch.empty(3),)).graph.waste()
            >>> [(record.call.name, first.call.name) for record, first in waste.repeated]
            [('exp_1', 'exp')]
        """
        from graphflops.graph.fx_arguments import draws_random_numbers

        calls = (record.call for record in self.records)
        random = {number for number, call in enumerate(calls) if draws_random_numbers(call)}
        return find_waste(self.records, self.uses, self.capture, random)
