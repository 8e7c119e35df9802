"""Canaries: what each private piece of torch does, by the sentence that fails when it changes."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from autograd_canaries import AUTOGRAD
from compiler_canaries import COMPILER
from graph_canaries import GRAPH
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from graphflops.capture import torch_internals
from graphflops.capture.torch_internals import (
    deferred_dynamo,
    dispatch,
    dynamo,
    fake_mode,
    frames,
    functorch_levels,
    jagged,
    operators,
    serialized_programs,
    symbolic,
    trees,
)

ADD, RELU, HOPS = torch.ops.aten.add, torch.ops.aten.relu, torch.ops.higher_order
X = torch.ones(2, 3)


class Seen(dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Names of the operators that a mode sees."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def seen(run: Callable[[], Any]) -> list[str]:
    with Seen() as mode:
        run()
    names: list[str] = mode.names
    return names


class Loud(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise AssertionError("__torch_function__ was called")


def sdpa_is_builtin() -> bool:
    q = torch.randn(1, 1, 2, 4)
    return torch.equal(
        operators.builtin_sdpa(q, q, q), nn.functional.scaled_dot_product_attention(q, q, q)
    )


def no_torch_function() -> bool:
    with dispatch.DisableTorchFunction():
        return (torch.ones(2).as_subclass(Loud) + 1).shape == (2,)


def no_modes() -> bool:
    def run() -> None:
        with dispatch.disable_current_modes():
            torch.relu(X)

    return seen(run) == []


def no_dispatch() -> bool:
    with fake_mode.FakeTensorMode() as mode:
        fake = mode.from_tensor(X)
    with dispatch.DisableTorchDispatch():
        return not isinstance(fake.detach(), fake_mode.FakeTensor)


def meta_kernels_only() -> bool:
    with fake_mode.FakeTensorMode() as mode:
        fake = mode.from_tensor(X)
    with dispatch.MetaKernelsOnly(mode):
        out = ADD.Tensor(fake, fake)
    return type(out) is torch.Tensor and out.is_meta and fake.device.type == "cpu"


def below_autograd() -> bool:
    with dispatch.AutoDispatchBelowAutograd():
        return (X.clone().requires_grad_() * 2).grad_fn is None


def python_dispatcher() -> bool:
    with dispatch.enable_python_dispatcher():
        return bool(
            torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PythonDispatcher)
        )


class SchemaMode(dispatch.SchemaCheckMode):
    """Sees operators before they are decomposed."""

    def __init__(self) -> None:
        key: Any = operators.DispatchKey
        dispatch.TorchDispatchMode.__init__(self, _dispatch_key=key.PreDispatch)  # type: ignore[no-untyped-call]  # torch's gap
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def stacked() -> bool:
    depths = []
    dispatch.set_pre_dispatch_mode(SchemaMode())  # type: ignore[no-untyped-call]  # likewise
    try:
        depths.append(torch._ops._len_torch_dispatch_stack_pre_dispatch())  # type: ignore[no-untyped-call]  # torch's gap
    finally:
        dispatch.unset_pre_dispatch_mode(None, schema_check=True)  # type: ignore[no-untyped-call]  # likewise
    depths.append(torch._ops._len_torch_dispatch_stack_pre_dispatch())  # type: ignore[no-untyped-call]  # likewise
    return depths == [1, 0]


def autocast() -> bool:
    with torch.autocast("cpu"):
        inside = dispatch.is_any_autocast_enabled()
    return inside and not dispatch.is_any_autocast_enabled()


def counted_modes() -> bool:
    outside = dispatch.num_dispatch_modes(), dispatch.num_function_modes()
    with fake_mode.FakeTensorMode(), torch.device("meta"):
        inside = dispatch.num_dispatch_modes(), dispatch.num_function_modes()
    return inside == (outside[0] + 1, outside[1] + 1)


def traced() -> bool:
    with fake_mode.FakeTensorMode() as mode, fake_mode.tracing(fake_mode.TracingContext(mode)):
        return fake_mode.detect_fake_mode() is mode


def no_data() -> bool:
    meta = torch.empty(2)
    fake_mode.forbid_data_ptr(meta)
    with pytest.raises(RuntimeError):
        meta.data_ptr()
    return True


def numbers_of_symbols() -> bool:
    env = ShapeEnv()
    size = env.create_unbacked_symint()
    with fake_mode.NonStrictTorchFunctionHandler():
        return isinstance(torch.sym_max(size, 3), torch.SymInt)  # type: ignore[no-untyped-call]  # torch's gap


def intercepted() -> bool:
    mode, names = fake_mode.FakeTensorMode(), []
    original = mode.dispatch

    def dispatch_seen(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        names.append(func.name())
        return original(func, types, args, kwargs or {})

    fake_mode.intercept(mode, dispatch=dispatch_seen, from_tensor=mode.from_tensor)
    torch.relu(mode.from_tensor(X))
    return names[-1] == "aten::relu" and copy.deepcopy(mode) is mode


def levels() -> bool:
    inside: list[bool] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        lib = functorch_levels.functorch
        wrapped = lib.is_functorch_wrapped_tensor(x) and lib.is_batchedtensor(x)
        shape = lib.get_unwrapped(x).shape[lib.maybe_get_bdim(x)]
        inside.append(wrapped and shape == 2 and lib.peek_interpreter_stack() is not None)
        return x

    torch.vmap(run)(X)
    return inside == [True]


def views_of_functionalized() -> bool:
    return operators.get_mutable_args(torch.ops.aten.add_.Tensor)[0] == ["self"]


def exported(spec: Any) -> Any:
    return torch.export.export(nn.Linear(3, 4), (X,), dynamic_shapes=(spec,), strict=False)


def assumed() -> bool:
    size = ShapeEnv().create_unbacked_symint()
    symbolic.assume_condition(size == 4)  # type: ignore[no-untyped-call]  # torch's gap
    return int(size) == 4


def paths() -> bool:
    found: list[Any] = []
    symbolic.tree_map_with_path(lambda path, _, s: found.append((len(path), s)), (X,), (None,))
    return found == [(1, None)]


def saved() -> bool:
    program = exported({0: torch.export.Dim("rows", min=2)})
    data = serialized_programs.serialize.serialize(program)
    deserializer = serialized_programs.serialize.GraphModuleDeserializer
    return b"graph_module" in data.exported_program and "deserialize" in vars(deserializer)


def unwrapped() -> bool:
    model = nn.Linear(3, 4)
    return dynamo.original_module(torch.compile(model)) is dynamo.original_module(model) is model


def symbol_without_frame() -> bool:
    env = symbolic.ShapeEnvWithoutFrames()
    symbol = env.create_symbol(4, symbolic.constant_source("B"), DimDynamic.DYNAMIC)
    return env._get_sloc().framework_loc is None and isinstance(symbol, sympy.Symbol)


def dynamo_error() -> bool:
    importlib.import_module("torch._dynamo.exc")
    (error,) = dynamo.dynamo_errors()
    return error is vars(torch._dynamo.exc)["TorchDynamoException"]


def dynamo_is_loaded_whole() -> bool:
    deferred_dynamo.DEFERRED.defer()
    deferred_dynamo.DEFERRED.load()
    return deferred_dynamo.DEFERRED.is_loaded() and callable(torch._dynamo.optimize)


def reordered() -> bool:
    program = torch.export.export(Named(), (), {"a": X, "b": X}, strict=False)
    kwargs = trees.reorder_kwargs({"b": X, "a": X}, program.call_spec.in_spec)
    return list(kwargs) == ["a", "b"]


class Named(nn.Module):
    def forward(self, *, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


def padded() -> bool:
    packed = nn.utils.rnn.pack_padded_sequence(X, torch.tensor([2, 1, 1]))
    rows, lengths = operators.pad_packed_sequence(packed.data, packed.batch_sizes, False, 0.0, 2)
    return (tuple(rows.shape), lengths.tolist()) == ((2, 3), [2, 1, 1])


def in_prims() -> bool:
    with operators.TorchRefsMode():
        graph = make_fx(nn.functional.gelu)(X)
    targets = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    return "prims.erf.default" in targets


def jagged_tensor() -> bool:
    return isinstance(torch.nested.nested_tensor([X, X], layout=torch.jagged), jagged.NestedTensor)


CANARIES: dict[str, Callable[[], bool]] = {
    **GRAPH,
    **AUTOGRAD,
    "trees.pytree": lambda: trees.pytree.tree_leaves({"a": (1, [2])}) == [1, 2],
    "operators.OpOverload": lambda: isinstance(ADD.Tensor, operators.OpOverload),
    "operators.OpOverloadPacket": lambda: isinstance(ADD, operators.OpOverloadPacket),
    "operators.OperatorBase": lambda: isinstance(ADD.Tensor, operators.OperatorBase),
    "operators.HigherOrderOperator": lambda: isinstance(HOPS.cond, operators.HigherOrderOperator),
    "operators.OpNamespace": lambda: isinstance(torch.ops.aten, operators.OpNamespace),
    "operators.HigherOrderNamespace": lambda: isinstance(HOPS, operators.HigherOrderNamespace),
    "operators.DispatchKey": lambda: operators.DispatchKey.CompositeImplicitAutograd is not None,
    "operators.DispatchKeySet": lambda: operators.DispatchKeySet(operators.DispatchKey.CPU).has(
        operators.DispatchKey.CPU
    ),
    "operators.allows_numbers": lambda: (
        operators.allows_numbers("add") and not operators.allows_numbers("mm")
    ),
    "operators.resolve_packet": lambda: operators.resolve_packet("aten::add", X, X) == "Tensor",
    "operators.has_kernel": lambda: (
        operators.has_kernel("aten::relu") and not operators.has_kernel("aten::no_such_operator")
    ),
    "operators.has_kernel_for_key": lambda: operators.has_kernel_for_key(
        "aten::reshape", operators.DispatchKey.CompositeImplicitAutograd
    ),
    "operators.pad_packed_sequence": padded,
    "operators.builtin_sdpa": sdpa_is_builtin,
    "operators.decomposition_table": lambda: (
        torch.ops.aten.addmm.default in operators.decomposition_table
    ),
    "operators.TorchRefsMode": in_prims,
    "operators.predispatch": lambda: callable(operators.predispatch._add_batch_dim),
    "operators.NotView": lambda: isinstance(operators.NotView, type),
    "operators.get_mutable_args": views_of_functionalized,
    "operators.read_view_information_from_args": lambda: callable(
        operators.read_view_information_from_args
    ),
    "dispatch.TorchDispatchMode": lambda: seen(lambda: torch.relu(X)) == ["aten::relu"],
    "dispatch.disable_current_modes": no_modes,
    "dispatch.SchemaCheckMode": stacked,
    "dispatch.DisableTorchFunction": no_torch_function,
    "dispatch.DisableTorchDispatch": no_dispatch,
    "dispatch.MetaKernelsOnly": meta_kernels_only,
    "dispatch.AutoDispatchBelowAutograd": below_autograd,
    "dispatch.enable_python_dispatcher": python_dispatcher,
    "dispatch.dispatch_keys": lambda: "CPU" in str(dispatch.dispatch_keys(X)),
    "dispatch.set_pre_dispatch_mode": stacked,
    "dispatch.unset_pre_dispatch_mode": stacked,
    "dispatch.is_any_autocast_enabled": autocast,
    "dispatch.num_dispatch_modes": counted_modes,
    "dispatch.num_function_modes": counted_modes,
    "fake_mode.FakeTensor": lambda: isinstance(
        fake_mode.FakeTensorMode().from_tensor(X), fake_mode.FakeTensor
    ),
    "fake_mode.FakeTensorMode": lambda: (
        fake_mode.FakeTensorMode(allow_non_fake_inputs=True).from_tensor(X).device == X.device
    ),
    "fake_mode.detect_fake_mode": traced,
    "fake_mode.TracingContext": traced,
    "fake_mode.tracing": traced,
    "fake_mode.forbid_data_ptr": no_data,
    "fake_mode.NonStrictTorchFunctionHandler": numbers_of_symbols,
    "frames.NN_MODULE_FILE": lambda: nn.Module.__call__.__code__.co_filename.endswith(
        frames.NN_MODULE_FILE
    ),
    "functorch_levels.functorch": levels,
    "symbolic.SymT": lambda: symbolic.SymT.UNBACKED_INT is not None,
    "symbolic.symbol_is_type": lambda: symbolic.symbol_is_type(
        ShapeEnv().create_unbacked_symint().node.expr, symbolic.SymT.UNBACKED_INT
    ),
    "symbolic.int_oo": lambda: bool(symbolic.int_oo > sympy.Integer(10**30)),
    "symbolic.ValueRanges": lambda: symbolic.ValueRanges(2, symbolic.int_oo).lower == 2,
    "symbolic.functions": lambda: symbolic.functions.FloorDiv(sympy.Integer(7), 2) == 3,
    "symbolic.constant_source": lambda: symbolic.constant_source("B").source_name == "B",
    "symbolic.ShapeEnvWithoutFrames": symbol_without_frame,
    "symbolic.DerivedDim": lambda: isinstance(2 * torch.export.Dim("half"), symbolic.DerivedDim),
    "symbolic.DimHint": lambda: isinstance(torch.export.Dim.AUTO, symbolic.DimHint),
    "symbolic.DimHintType": lambda: torch.export.Dim.DYNAMIC.type is symbolic.DimHintType.DYNAMIC,
    "symbolic.StaticDim": lambda: isinstance(symbolic.StaticDim, type),
    "symbolic.check_dynamic_shapes": lambda: (
        symbolic.check_dynamic_shapes({"x": X}, {"x": {0: torch.export.Dim("rows")}}) is None
    ),
    "symbolic.tree_map_with_path": paths,
    "serialized_programs.schema": lambda: isinstance(
        serialized_programs.schema.SCHEMA_VERSION, tuple
    ),
    "serialized_programs.serialize": saved,
    "trees.reorder_kwargs": reordered,
    "dynamo.original_module": unwrapped,
    "dynamo.dynamo_errors": dynamo_error,
    "deferred_dynamo.DEFERRED": dynamo_is_loaded_whole,
    "jagged.NestedTensor": jagged_tensor,
    "jagged.jagged_kernel": lambda: (
        jagged.jagged_kernel(
            torch.ops.aten.relu.default,
            (torch.nested.nested_tensor([X, X], layout=torch.jagged),),
            {},
        )
        is not None
    ),
    "fake_mode.intercept": intercepted,
    "fake_mode.make_subclass": lambda: (
        fake_mode.make_subclass(
            fake_mode.FakeTensor, X.to("meta"), False, device_for_backend_keys=torch.device("cpu")
        ).shape
        == (2, 3)
    ),
    "symbolic.assume_condition": assumed,
    **COMPILER,
}


def pieces() -> dict[str, str]:
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(torch_internals.__path__):
        home = importlib.import_module(f"{torch_internals.__name__}.{module.name}")
        sentences: dict[str, str] = getattr(home, "PIECES", {})
        found |= {f"{module.name}.{name}": sentence for name, sentence in sentences.items()}
    return found


def test_every_piece_has_a_canary() -> None:
    assert pieces().keys() == CANARIES.keys()


@pytest.mark.parametrize("name", CANARIES)
def test_torch_still_does(name: str) -> None:
    sentence = f"{name}: {pieces()[name]}"
    try:
        works = CANARIES[name]()
    except Exception as error:  # noqa: BLE001 - whatever torch raises, the piece has changed
        pytest.fail(f"{sentence} Now it raises {type(error).__name__}: {error}")
    assert works, sentence
