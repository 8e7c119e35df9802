"""Module hierarchy of a capture: its modules, their parameters and calls."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from graphflops.capture.fake.metadata import dtype_name
from graphflops.capture.fake.sparse_tensors import sparse_storage
from graphflops.capture.named_modules import Modules, modules_in
from graphflops.core.ir import Module, Parameter, TensorMeta

Calls = Counter[int]
"""Number of calls of a module, by the id of its attribute dictionary."""


@contextmanager
def count_module_calls() -> Iterator[Calls]:
    """Count module calls in the block.

    A module without operators (``Identity``) leaves no node in a graph, so a hook counts calls.
    Export calls proxies of the modules; a proxy shares its module's attribute dictionary.
    """
    calls: Calls = Counter()

    def record(module: nn.Module, _: object) -> None:
        # Dynamo traces the bodies of loops and branches, this hook included.
        if not torch.compiler.is_dynamo_compiling():
            calls[id(vars(module))] += 1

    hook = nn.modules.module.register_module_forward_pre_hook(record)
    try:
        yield calls
    finally:
        hook.remove()


def calls_in_graph(modules: Modules, calls: Calls, graph: fx.GraphModule) -> dict[str, int]:
    """Return the number of calls of each module, by path.

    The graph has the path through which a shared module was called, so that its calls are split
    between its paths.
    """
    paths: dict[int, list[str]] = {}
    for path, module in modules:
        paths.setdefault(id(module), []).append(path)
    # Only shared modules need the graph, and most models have none.
    stack_calls = _stack_calls(_stack_entries(graph)) if len(paths) < len(modules) else {}

    def count(path: str, module: nn.Module) -> int:
        names = paths[id(module)]
        if len(names) > 1 and any(name in stack_calls for name in names):
            return stack_calls.get(path, 0)
        return calls[id(vars(module))] if path == names[0] else 0

    return {path: count(path, module) for path, module in modules}


def modules_of(modules: Modules, calls: Mapping[str, int]) -> tuple[Module, ...]:
    """Return every module of a model under every name it has, with its calls.

    Args:
        modules: Modules of the model.
        calls: Number of calls of each, by path.
    """
    return tuple(
        [
            Module(
                path=path,
                module_class=type(module).__name__,
                extra=" ".join(module.extra_repr().split()),
                parameters=_parameters(module._parameters),
                calls=calls.get(path, 0),
            )
            for path, module in modules
        ]
    )


def modules_of_program(program: ExportedProgram) -> tuple[Module, ...]:
    """Return the modules known to an exported program: those with parameters or operators."""
    weights = ((name, program.state_dict[name]) for name in program.graph_signature.parameters)
    return modules_in_stacks(
        program.graph_module,
        {name: _parameter(_leaf(name), value, _storage_identity(value)) for name, value in weights},
    )


def modules_of_graph(module: fx.GraphModule) -> tuple[Module, ...]:
    """Return the modules known to a graph, with parameters it holds or takes as inputs."""
    lifted = {
        name: node.meta["example_value"] for node, name in lifted_weights(module.graph).items()
    }
    weights = (
        *_named_parameters(module),
        *((name, value) for name, value in lifted.items() if isinstance(value, nn.Parameter)),
    )
    return modules_in_stacks(
        module, {name: _parameter(_leaf(name), value, id(value)) for name, value in weights}
    )


def _named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a module under every name they have."""
    for path, part in modules_in(module):
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{path}.{name}" if path else name, parameter


def lifted_weights(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return parameters and buffers that Dynamo has lifted to graph inputs, with their names."""
    names = {}
    for node in graph.find_nodes(op="placeholder"):
        source = getattr(node, "_dynamo_source", None)
        name = str(getattr(source, "name", "")) if "example_value" in node.meta else ""
        if any(kind in name for kind in _WEIGHTS):
            names[node] = clean_path(name)
    return names


_WEIGHTS = ("._parameters[", "._buffers[")


def modules_in_stacks(
    graph: fx.GraphModule, parameters: Mapping[str, Parameter]
) -> tuple[Module, ...]:
    """Return the modules in the module stacks of a graph's nodes, with their parameters.

    Args:
        graph: The graph.
        parameters: Parameters by qualified name.
    """
    parameters_by_path: dict[str, list[Parameter]] = {}
    for name, parameter in parameters.items():
        parameters_by_path.setdefault(name.rpartition(".")[0], []).append(parameter)
    return _modules_in_stacks(graph, parameters_by_path)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


# Path that export writes for size computations outside of modules.
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


def module_path(node: fx.Node) -> str | None:
    """Return the path of the innermost module on a node's stack; ``None`` without a stack."""
    innermost = _innermost(node)
    return None if innermost is None else clean_path(innermost[0])


def module_class(node: fx.Node) -> str:
    """Return the class name of the innermost module on a node's stack; empty if unknown."""
    innermost = _innermost(node)
    return "" if innermost is None else innermost[1]


def _stack(node: fx.Node) -> dict[str, Any]:
    """Return the module stack of a node; of a backward node, that of its forward node."""
    return node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}


def _innermost(node: fx.Node) -> tuple[str, str] | None:
    stack = _stack(node)
    if not stack:
        return None
    path, class_name = _stack_entry(next(reversed(stack.values())))
    return None if path == _NO_MODULE else (path, class_name)


def _stack_entry(entry: Any) -> tuple[str, str]:
    """Return path and class name of an entry: a path, or a path with the class or its name."""
    path, cls = entry if isinstance(entry, tuple) else (entry, "")
    return str(path), cls.__name__ if isinstance(cls, type) else str(cls).rpartition(".")[2]


# Name of the model in the subgraphs of a strict export.
_EXPORT_ROOT = "_export_root"


@cache
def clean_path(path: str) -> str:
    """Return a path as ``named_modules`` spells it: Dynamo writes ``L['self'].layers['0']``.

    Dynamo names the root after the variable that held it at compilation.
    """
    path = re.sub(r"^L\[['\"]?\w+['\"]?\]", "self", path)
    path = re.sub(r"\[['\"]?([^\]'\"]+)['\"]?\]", r".\1", path)
    path = re.sub(r"\._(modules|parameters|buffers)(?=\.)", "", path)
    return re.sub(r"^(L__self__|self|_export_root)(\.|$)", "", path)


def _parameters(tensors: Mapping[str, torch.Tensor | None]) -> tuple[Parameter, ...]:
    return tuple([_parameter(name, t, id(t)) for name, t in tensors.items() if t is not None])


def _parameter(name: str, value: torch.Tensor, identity: int) -> Parameter:
    if value.layout != torch.strided or value.is_nested:
        meta = TensorMeta(
            shape=tuple(value.shape), dtype=dtype_name(value.dtype), sparse=sparse_storage(value)
        )
        return parameter_of(name, meta, trainable=value.requires_grad, identity=identity)
    numel, nbytes = _size(value.shape, value.dtype, value.stride())
    trainable = value.requires_grad
    return Parameter(name=name, identity=identity, numel=numel, nbytes=nbytes, trainable=trainable)


def parameter_of(name: str, meta: TensorMeta, *, trainable: bool, identity: int) -> Parameter:
    """Return a parameter with its number of elements and bytes."""
    numel, nbytes = int(meta.numel), int(meta.nbytes)
    return Parameter(name=name, identity=identity, numel=numel, nbytes=nbytes, trainable=trainable)


@cache
def _size(shape: torch.Size, dtype: torch.dtype, strides: tuple[int, ...]) -> tuple[int, int]:
    """Return the number of elements and bytes of a parameter; cached for repeated layers."""
    meta = TensorMeta(shape=tuple(shape), dtype=dtype_name(dtype), strides=strides)
    return int(meta.numel), int(meta.nbytes)


def _storage_identity(value: torch.Tensor) -> int:
    if value.layout is not torch.strided:
        return id(value)
    # A program holds tied weights as two tensors over one storage.
    return int(value.untyped_storage()._cdata)


def _modules_in_stacks(
    graph: fx.GraphModule, parameters: dict[str, list[Parameter]]
) -> tuple[Module, ...]:
    entries = _stack_entries(graph)
    classes = {path: class_name for _, path, class_name in entries}
    stack_calls = _stack_calls(entries)
    paths = sorted({"", *classes, *parameters}, key=_PathOrder(classes, parameters))
    called_paths = {ancestor for path in stack_calls for ancestor in (path, *_parents(path))}
    return tuple(
        Module(
            path=path,
            module_class=classes.get(path, ""),
            parameters=tuple(parameters.get(path, ())),
            # A saved program keeps only the innermost module of each call: the modules around it
            # ran, but the number of their calls is unknown.
            calls=stack_calls.get(path, None if path in called_paths else 0),
        )
        for path in paths
    )


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition(".")[0]
        yield path


class _PathOrder:
    """Sort key of paths: the order of their first parameter, then of their first operator."""

    def __init__(self, *groups: dict[str, Any]) -> None:
        self.positions: dict[str, int] = {}
        for paths in groups[::-1]:
            for path in paths:
                self.positions.setdefault(path, len(self.positions) + 1)

    def __call__(self, path: str) -> int:
        return self.positions[path] if path else 0


def _stack_calls(entries: Iterable[tuple[str, str, str]]) -> dict[str, int]:
    """Return the number of calls by path: each call has a key of its own (``x``, ``x@1``, ...)."""
    return Counter(path for path, _ in {(path, key) for key, path, _ in entries})


def _stack_entries(graph: fx.GraphModule) -> list[tuple[str, str, str]]:
    """Return the distinct entries of module stacks: key, path and class name."""
    stacks = (
        _stack(node).items()
        for module in graph.modules()
        if isinstance(module, fx.GraphModule)
        for node in module.graph.nodes
    )
    entries = []
    for key, entry in dict.fromkeys(chain.from_iterable(stacks)):
        path, class_name = _stack_entry(entry)
        if path != _EXPORT_ROOT:
            entries.append((str(key), clean_path(path), class_name))
    return entries
