"""The module hierarchy of a capture: which modules there are and which made a call."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from graphflops.capture.fake.metadata import dtype_name
from graphflops.capture.fake.sparse import storage_of
from graphflops.capture.named_modules import Modules
from graphflops.core.ir import Module, Parameter, TensorMeta

Calls = Counter[int]
"""How often a module ran, by the identity of its attribute dictionary."""


@contextmanager
def counted_calls() -> Iterator[Calls]:
    """Count module calls while the block runs.

    A module without operators (``Identity``) leaves no node in a graph, so calls are seen by
    a hook. Export calls proxies of the modules; a proxy shares its module's attributes.
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
    """How often modules were called, by path.

    The graph says which of the names of a shared module a call went through, so that its calls
    are split between them.
    """
    owners: dict[int, list[str]] = {}
    for path, module in modules:
        owners.setdefault(id(module), []).append(path)
    # Only shared modules need the graph, and most models have none.
    seen = _stack_calls(graph) if len(owners) < len(modules) else {}

    def count(path: str, module: nn.Module) -> int:
        names = owners[id(module)]
        if len(names) > 1 and any(name in seen for name in names):
            return seen.get(path, 0)
        return calls[id(vars(module))] if path == names[0] else 0

    return {path: count(path, module) for path, module in modules}


def modules_of(modules: Modules, calls: Mapping[str, int]) -> tuple[Module, ...]:
    """Every module of a model under every name it has, with its calls.

    Args:
        modules: Those of the model.
        calls: How often they were called, by path.
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
    """The modules an exported program remembers: those with parameters or operators."""
    held = ((name, program.state_dict[name]) for name in program.graph_signature.parameters)
    return modules_remembered(
        program.graph_module,
        {name: _parameter(_leaf(name), value, _storage_identity(value)) for name, value in held},
    )


def modules_of_graph(module: fx.GraphModule) -> tuple[Module, ...]:
    """The modules a graph remembers, and the parameters it holds or takes."""
    taken = {
        name: node.meta["example_value"] for node, name in lifted_weights(module.graph).items()
    }
    held = (
        *module.named_parameters(remove_duplicate=False),
        *((name, value) for name, value in taken.items() if isinstance(value, nn.Parameter)),
    )
    return modules_remembered(
        module, {name: _parameter(_leaf(name), value, id(value)) for name, value in held}
    )


def lifted_weights(graph: fx.Graph) -> dict[fx.Node, str]:
    """Weights and buffers that Dynamo has made inputs of a graph, with their qualified names."""
    found = {}
    for node in graph.find_nodes(op="placeholder"):
        source = getattr(node, "_dynamo_source", None)
        name = str(getattr(source, "name", "")) if "example_value" in node.meta else ""
        if any(kind in name for kind in _WEIGHTS):
            found[node] = clean_path(name)
    return found


_WEIGHTS = ("._parameters[", "._buffers[")


def modules_remembered(
    graph: fx.GraphModule, parameters: Mapping[str, Parameter]
) -> tuple[Module, ...]:
    """The modules a graph remembers, with their parameters.

    Args:
        graph: Its nodes say which modules made them.
        parameters: By qualified name.
    """
    owned: dict[str, list[Parameter]] = {}
    for name, parameter in parameters.items():
        owned.setdefault(name.rpartition(".")[0], []).append(parameter)
    return _remembered(graph, owned)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


# What export writes where it computes a size and no module does.
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


def module_path(node: fx.Node) -> str | None:
    """Path of the innermost module on a node's stack; ``None`` if the node has no stack."""
    innermost = _innermost(node)
    return None if innermost is None else clean_path(innermost[0])


def module_class(node: fx.Node) -> str:
    """Class name of the innermost module on a node's stack; empty if it does not say."""
    innermost = _innermost(node)
    return "" if innermost is None else innermost[1]


def _stack(node: fx.Node) -> dict[str, Any]:
    """Return the modules that run a node, or ran what a backward node is the gradient of."""
    return node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}


def _innermost(node: fx.Node) -> tuple[str, str] | None:
    stack = _stack(node)
    if not stack:
        return None
    path, cls = _stack_entry(next(reversed(stack.values())))
    return None if path == _NO_MODULE else (path, cls)


def _stack_entry(entry: Any) -> tuple[str, str]:
    """Path and class name; an entry is a path, or that and the class or its name."""
    path, cls = entry if isinstance(entry, tuple) else (entry, "")
    return str(path), cls.__name__ if isinstance(cls, type) else str(cls).rpartition(".")[2]


# What a strict export calls the model in the graphs within: it stands above it there.
_EXPORTED = "_export_root"


@cache
def clean_path(path: str) -> str:
    """A path as ``named_modules`` spells it: Dynamo writes ``L['self'].layers['0']``.

    The root goes by the name of the variable that holds it where it was compiled.
    """
    path = re.sub(r"^L\[['\"]?\w+['\"]?\]", "self", path)
    path = re.sub(r"\[['\"]?([^\]'\"]+)['\"]?\]", r".\1", path)
    path = re.sub(r"\._(modules|parameters|buffers)(?=\.)", "", path)
    return re.sub(r"^(L__self__|self|_export_root)(\.|$)", "", path)


def _parameters(held: Mapping[str, torch.Tensor | None]) -> tuple[Parameter, ...]:
    return tuple([_parameter(name, t, id(t)) for name, t in held.items() if t is not None])


def _parameter(name: str, value: torch.Tensor, identity: int) -> Parameter:
    if value.layout != torch.strided or value.is_nested:
        meta = TensorMeta(
            shape=tuple(value.shape), dtype=dtype_name(value.dtype), sparse=storage_of(value)
        )
        return parameter_of(name, meta, trainable=value.requires_grad, identity=identity)
    numel, nbytes = _size(value.shape, value.dtype, value.stride())
    trainable = value.requires_grad
    return Parameter(name=name, identity=identity, numel=numel, nbytes=nbytes, trainable=trainable)


def parameter_of(name: str, meta: TensorMeta, *, trainable: bool, identity: int) -> Parameter:
    """A parameter with its elements and bytes."""
    numel, nbytes = int(meta.numel), int(meta.nbytes)
    return Parameter(name=name, identity=identity, numel=numel, nbytes=nbytes, trainable=trainable)


@cache
def _size(shape: torch.Size, dtype: torch.dtype, strides: tuple[int, ...]) -> tuple[int, int]:
    """Elements of a parameter, and bytes: those of repeated layers are alike."""
    meta = TensorMeta(shape=tuple(shape), dtype=dtype_name(dtype), strides=strides)
    return int(meta.numel), int(meta.nbytes)


def _storage_identity(value: torch.Tensor) -> int:
    if value.layout is not torch.strided:
        return id(value)
    # A program holds tied weights as two tensors over one storage.
    return int(value.untyped_storage()._cdata)


def _remembered(
    graph: fx.GraphModule, parameters: dict[str, list[Parameter]]
) -> tuple[Module, ...]:
    classes = _stack_classes(graph)
    seen = _stack_calls(graph)
    paths = sorted({"", *classes, *parameters}, key=_Order(classes, parameters))
    ran = {above for path in seen for above in (path, *_parents(path))}
    return tuple(
        Module(
            path=path,
            module_class=classes.get(path, ""),
            parameters=tuple(parameters.get(path, ())),
            # A saved program keeps only the innermost module of each call: of the modules
            # around it, it is known that they ran, not how often.
            calls=seen.get(path, None if path in ran else 0),
        )
        for path in paths
    )


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition(".")[0]
        yield path


class _Order:
    """Sort key: the order in which parameters, then operators, first name a path."""

    def __init__(self, *named: dict[str, Any]) -> None:
        self.first: dict[str, int] = {}
        for names in named[::-1]:
            for path in names:
                self.first.setdefault(path, len(self.first) + 1)

    def __call__(self, path: str) -> int:
        return self.first[path] if path else 0


def _stack_entries(graph: fx.GraphModule) -> Iterator[tuple[str, str, str]]:
    for holder in graph.modules():
        if isinstance(holder, fx.GraphModule):
            for node in holder.graph.nodes:
                for key, entry in _stack(node).items():
                    path, cls = _stack_entry(entry)
                    if path != _EXPORTED:
                        yield str(key), clean_path(path), cls


def _stack_calls(graph: fx.GraphModule) -> dict[str, int]:
    """Calls by path: every call of a module has a key of its own (``name``, ``name@1``, ...)."""
    return Counter(path for path, _ in {(path, key) for key, path, _ in _stack_entries(graph)})


def _stack_classes(graph: fx.GraphModule) -> dict[str, str]:
    return {path: cls for _, path, cls in _stack_entries(graph)}
