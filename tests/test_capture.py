"""Every form a model comes in, and what a capture leaves behind."""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from calls import Call, count, meta
from torch import fx, nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import graphflops as gf
from graphflops.capture.record.module_hierarchy import clean_path


class Block(nn.Module):
    """A linear layer, one that may be shared, and modules that leave no operator."""

    def __init__(self, shared: nn.Linear) -> None:
        super().__init__()
        self.linear = nn.Linear(100, 100)
        self.shared = shared
        self.nothing = nn.Identity()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> Any:
        return self.dropout(self.nothing(self.shared(torch.relu(self.linear(x)))))


class Model(nn.Module):
    """Three blocks that share a layer, the first called twice, and a layer nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(100, 100)
        self.blocks = nn.ModuleList(Block(shared) for _ in range(3))
        self.spare = nn.ModuleDict({"unused": nn.Linear(5, 5)})

    def forward(self, x: torch.Tensor) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.blocks[0](x)


# One linear layer at batch 3.
LINEAR = 3 * 100 * 100


@pytest.fixture
def model() -> Model:
    return Model().eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 100)


def test_a_shared_module_is_counted_under_each_parent_that_calls_it(
    model: Model, x: torch.Tensor
) -> None:
    report = gf.count(model, (x,))
    costs = report.by_module()
    # 60,000 FLOPs of products for each call at batch 3.
    assert 2 * costs["blocks.1.shared"].macs == 60_000
    assert costs["blocks.0.shared"].macs == 2 * LINEAR
    assert costs["blocks.2"].macs == 2 * LINEAR
    assert report.macs == 8 * LINEAR
    # Three layers of their own and one shared, weights and biases; and the spare one.
    assert report.params == 4 * (100 * 100 + 100) + 5 * 5 + 5


def test_calls_are_known_even_of_modules_without_operators(model: Model, x: torch.Tensor) -> None:
    calls = {node.path: node.calls for node in gf.count(model, (x,)).root.walk()}
    assert calls["blocks.0"] == calls["blocks.0.nothing"] == calls["blocks.0.shared"] == 2
    assert calls["blocks.1"] == calls["blocks.1.nothing"] == calls["blocks.1.shared"] == 1
    assert calls["spare.unused"] == 0


def test_modules_never_called_are_listed_but_not_their_containers(
    model: Model, x: torch.Tensor
) -> None:
    assert gf.count(model, (x,)).uncalled_modules() == {"spare", "spare.unused"}


def test_operators_outside_any_module_belong_to_the_root(x: torch.Tensor) -> None:
    report = count(lambda a: a + 1, x)
    assert report.root.own == report.total
    assert report.flops == 300


def test_every_form_of_a_model_gives_the_same_figures(
    model: Model, x: torch.Tensor, tmp_path: Path
) -> None:
    program = torch.export.export(model, (x,), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    expected = gf.count(model, (x,))
    forms: dict[str, Any] = {
        "exported program": program,
        "pt2 file": tmp_path / "model.pt2",
        "graph module": program.module(),
    }
    loaded = gf.count(torch.export.load(tmp_path / "model.pt2"))
    for report in (loaded, *map(gf.count, forms.values())):
        assert report.total == expected.total
        assert report.params == expected.params
        same = {path: cost for path, cost in expected.by_module().items() if cost != gf.OpCost()}
        found = report.by_module()
        assert {path: found[path] for path in same} == same
        assert "spare.unused" in report.uncalled_modules()
    assert [gf.count(form).capture.method for form in forms.values()] == list(forms)


def test_a_graph_without_shapes_gets_them_from_inputs(x: torch.Tensor) -> None:
    graph = make_fx(lambda a: torch.mm(a, a.t()).relu())(x)
    for node in graph.graph.nodes:
        node.meta.clear()
    with pytest.raises(gf.CaptureError, match="Give example inputs"):
        gf.count(graph)
    assert gf.count(graph, (x,)).macs == 3 * 3 * 100
    assert not any(node.meta for node in graph.graph.nodes)
    with pytest.raises(gf.CaptureError, match="do not go through the graph"):
        gf.count(graph, (torch.randn(3),))


def test_a_graph_of_torch_functions_is_captured_like_any_module(x: torch.Tensor) -> None:
    traced = fx.symbolic_trace(nn.Sequential(nn.Linear(100, 7), nn.ReLU()))
    assert gf.count(traced, (x,)).macs == 3 * 100 * 7


@pytest.mark.parametrize("parameters", ["real", "meta", "fake"])
@pytest.mark.parametrize("inputs", ["real", "meta", "fake"])
def test_parameters_and_inputs_may_be_real_meta_or_fake(parameters: str, inputs: str) -> None:
    def make(kind: str, build: Any) -> Any:
        if kind == "meta":
            with torch.device("meta"):
                return build()
        if kind == "fake":
            with FakeTensorMode():
                return build()
        return build()

    model = make(parameters, lambda: nn.Linear(100, 7).eval())
    x = make(inputs, lambda: torch.randn(3, 100))
    report = gf.count(model, (x,))
    assert report.macs == 3 * 100 * 7
    assert report.params == 100 * 7 + 7


def test_inference_mode_works(model: Model) -> None:
    with torch.inference_mode():
        x = torch.randn(3, 100)
        assert gf.count(model, (x,)).macs == 8 * LINEAR


@pytest.mark.parametrize("inner", [False, True])
def test_a_compiled_model_counts_as_its_eager_self(
    model: Model, x: torch.Tensor, inner: bool
) -> None:
    expected = gf.count(model, (x,))
    if inner:
        model.blocks[1] = torch.compile(model.blocks[1])  # type: ignore[assignment]  # as users do
        model.blocks[2].compile()
        report = gf.count(model, (x,))
        assert type(model.blocks[1]).__name__ == "OptimizedModule"
        assert model.blocks[2]._compiled_call_impl is not None
    else:
        report = gf.count(torch.compile(model), (x,))
    assert report.by_module() == expected.by_module()


def test_a_cache_in_the_output_is_no_obstacle() -> None:
    case = ARCHITECTURES["llama"]()
    plain = gf.count(case.model, kwargs=case.inputs)
    cached = gf.count(case.model, kwargs={**case.inputs, "use_cache": True})
    assert cached.capture.method == "eager tracing"
    assert cached.macs == plain.macs


class Regions(nn.Module):
    """A region without gradient inside a forward that has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.linear(x)
        with torch.no_grad():
            x = self.linear(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.linear(x)


def test_layer_reuse_of_no_grad_and_autocast_are_walked() -> None:
    with torch.enable_grad():
        program = torch.export.export(Regions(), (torch.randn(2, 4),), strict=False)
    assert "wrap_with_set_grad_enabled" in str(program.graph)
    report = gf.count(program)
    assert report.complete
    assert report.macs == 3 * 2 * 4 * 4
    assert report.by_module()["linear"].macs == report.macs


def test_a_scan_costs_its_body_times_its_length() -> None:
    from torch._higher_order_ops.scan import scan

    def step(carry: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        carry = torch.tanh(carry @ x)
        return carry, carry.clone()

    report = count(lambda h, xs: scan(step, h, xs), torch.randn(4, 4), torch.randn(7, 4, 4))
    assert report.macs == 7 * 4 * 4 * 4
    assert report.by_operator()["aten::tanh"].flops == 7 * 4 * 4


def test_a_scan_equals_its_unrolled_loop() -> None:
    from torch._higher_order_ops.scan import scan

    def step(carry: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        carry = torch.tanh(carry @ x) + 1
        return carry, carry.clone()

    def unrolled(carry: torch.Tensor, xs: torch.Tensor) -> Any:
        outputs = []
        for x in xs.unbind(0):
            carry, output = step(carry, x)
            outputs.append(output)
        return carry, torch.stack(outputs)

    h, xs = torch.randn(4, 4), torch.randn(7, 4, 4)
    looped = count(lambda a, b: scan(step, a, b), h, xs)
    assert (looped.flops, looped.macs) == ((total := count(unrolled, h, xs)).flops, total.macs)


def test_a_custom_operator_is_unknown_until_it_is_registered() -> None:
    @torch.library.custom_op("graphflops_test::swish", mutates_args=())
    def swish(x: torch.Tensor) -> torch.Tensor:
        return x * x.sigmoid()

    swish.register_fake(torch.empty_like)
    report = gf.count(Call(swish), (torch.randn(5),), on_unknown="ignore")
    assert report.unsupported_ops() == {"graphflops_test::swish": 1}

    @gf.register("graphflops_test::swish")
    def handler(x: gf.TensorMeta) -> gf.OpCost:
        """x * sigmoid(x)."""
        return gf.OpCost(flops=5 * x.numel)

    assert count(swish, torch.randn(5)).flops == 25


def test_source_lines_point_into_the_model() -> None:
    case = ARCHITECTURES["bert"]()
    report = gf.count(case.model, kwargs=case.inputs)
    linear = next(record for record in report.records if record.call.op == "aten::linear")
    assert re.fullmatch(r"transformers/models/bert/modeling_bert\.py:\d+", linear.call.source_line)
    # Not the line inside nn.Linear, but the one that calls it.
    own = gf.count(Untidy().eval(), (torch.randn(2, 4),)).records[0]
    assert re.fullmatch(r"tests/test_capture\.py:\d+", own.call.source_line)


class Untidy(nn.Module):
    """A forward that leaves traces, and fails if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.seen: torch.Tensor | None = None
        self.history: dict[str, Any] = {"a": 1}

    def forward(self, x: torch.Tensor, *, fail: bool = False) -> Any:
        self.seen = x
        self.history["b"] = x
        self.eval()
        self.linear.register_forward_hook(lambda *_: None)
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002, S311 - what is tested
        if fail:
            msg = "no luck"
            raise ValueError(msg)
        return self.norm(self.linear(x))


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_and_the_random_state_are_left_as_they_were(fail: bool) -> None:
    model = Untidy().train()
    hook = model.linear.register_forward_hook(lambda *_: None)
    weights = copy.deepcopy(model.state_dict())
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # type: ignore[index]  # noqa: NPY002 - the global state is meant
    if fail:
        with pytest.raises(gf.CaptureError, match="no luck"):
            gf.count(model, (torch.randn(2, 4, generator=torch.Generator()),), {"fail": True})
    else:
        gf.count(model, (torch.randn(2, 4, generator=torch.Generator()),))
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002 - likewise
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert np.array_equal(before[2], after[2])
    assert model.training
    assert model.norm.training
    assert model.seen is None
    assert model.history == {"a": 1}
    assert list(model.linear._forward_hooks) == [hook.id]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not nn.modules.module._global_forward_pre_hooks


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", ""),
        ("L__self__", ""),
        ("L['self']", ""),
        ("L['self'].layers[0].mlp", "layers.0.mlp"),
        ("L['fn'].0", "0"),
        ("L.0", "L.0"),
        ("L['self']._modules['layers']._modules['0']", "layers.0"),
        ("self_attn.out_proj", "self_attn.out_proj"),
    ],
)
def test_paths_are_spelled_as_named_modules_spells_them(written: str, path: str) -> None:
    assert clean_path(written) == path


def test_a_count_is_repeatable(model: Model, x: torch.Tensor) -> None:
    first, second = gf.count(model, (x,)), gf.count(model, (x,))
    assert first.records == second.records
    assert first.root == second.root


def test_a_count_prints_nothing(
    model: Model, x: torch.Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    gf.count(model, (x,))
    case = ARCHITECTURES["llama"]()
    gf.count(case.model, kwargs={"input_ids": case.inputs["input_ids"], "use_cache": True})
    assert capfd.readouterr() == ("", "")


def test_a_failure_is_told_by_the_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    class Misfit(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(3, 4)

    with pytest.raises(gf.CaptureError, match="same reduction dim"):
        gf.count(Misfit(), (torch.ones(2, 2),))
    assert capfd.readouterr() == ("", "")


def test_dropout_counts_as_the_model_stands(x: torch.Tensor) -> None:
    dropout = nn.Dropout(0.5)
    assert gf.count(dropout.train(), (x,)).flops == 3 * 300
    assert gf.count(dropout.eval(), (x,)).flops == 0


def test_meta_tensors_suffice(model: Model) -> None:
    assert gf.count(model.to("meta"), (meta(3, 100),)).macs == 8 * LINEAR


def test_objects_that_a_module_holds_are_left_as_they_were() -> None:
    class Cache:
        def __init__(self) -> None:
            self.made: dict[str, torch.Tensor] = {}

    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.cache = nn.Linear(2, 3), Cache()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if "y" not in self.cache.made:
                self.cache.made["y"] = self.linear(x)
            return self.cache.made["y"] + 1

    model = Caching()
    assert [gf.count(model, (meta(4, 2),)).macs for _ in range(2)] == [4 * 2 * 3] * 2
    assert model.cache.made == {}
