"""Handlers from elsewhere: entry points, registries per call, PyTorch's own formulas."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from calls import Call, count, meta
from torch.nn import functional
from torch.utils.flop_counter import flop_registry, register_flop_formula

import graphflops as gf
from graphflops import conventions
from graphflops.core.ir import Status
from graphflops.pricing import registry

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example plugin and a broken one, as if pip had installed both."""
    conventions.exact()
    for name, value in (("example", "graphflops_example.handlers"), ("broken", "not_there:at_all")):
        info = tmp_path / f"graphflops_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: graphflops-{name}\nVersion: 1\n"
        )
        (info / "entry_points.txt").write_text(f"[graphflops.handlers]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setattr(registry.EXACT, "_entries", dict(registry.EXACT._entries))
    conventions.exact.cache_clear()
    yield
    conventions.exact.cache_clear()
    registry.EXACT._resolved.clear()
    sys.modules.pop("graphflops_example.handlers", None)


@pytest.mark.usefixtures("installed")
def test_plugins_are_found_and_a_broken_one_is_named_and_passed_over() -> None:
    with pytest.warns(gf.PluginWarning, match=r"plugin 'broken' \(not_there:at_all\)"):
        assert gf.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),)).macs == 24
    operators = importlib.import_module("graphflops_example.operators")
    batch, width, length, state = 2, 6, 10, 4
    report = count(
        operators.selective_scan,
        *(meta(batch, width, length), meta(batch, width, length), meta(width, state)),
        *(meta(batch, state, length), meta(batch, state, length)),
    )
    assert report.flops == 9 * 2 * 6 * 10 * 4
    # Needs Triton to run; counted without.
    assert count(lambda x: operators.scaled_relu(x, 2.0), meta(3, 5)).flops == 2 * 15


def test_the_example_operator_computes_what_is_priced() -> None:
    sys.path.insert(0, str(PLUGIN))
    try:
        operators = importlib.import_module("graphflops_example.operators")
    finally:
        sys.path.remove(str(PLUGIN))
    u, delta, a = torch.randn(2, 3, 5), torch.rand(2, 3, 5), -torch.rand(3, 4)
    b, c = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    found = operators.selective_scan(u, delta, a, b, c)
    first = (delta[..., :1] * u[..., :1]) * (b[..., 0] * c[..., 0]).sum(-1)[:, None, None]
    assert torch.allclose(found[..., :1], first, atol=1e-6)


def test_a_registry_of_ones_own_is_looked_up_first() -> None:
    mine = gf.Registry("mine")

    @mine.register("aten::relu")
    def relu(*, out: gf.TensorMeta) -> gf.OpCost:
        """Double."""
        return gf.OpCost(flops=2 * out.numel)

    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU())
    report = gf.count(model, (torch.empty(2, 3),), registry=mine)
    assert report.flops == 2 * 24 + 2 * 8
    assert report.convention == "mine"
    assert gf.count(model, (torch.empty(2, 3),)).flops == 2 * 24 + 8


def test_an_override_covers_every_overload_of_the_packet() -> None:
    base, mine = gf.Registry("base"), gf.Registry("mine")
    base.register("t::op.Scalar")(lambda: gf.OpCost())
    mine.register("t::op")(lambda: gf.OpCost(flops=1))
    found = mine.with_base(base).lookup(gf.OpCall(op="t::op", overload="Scalar"))
    assert found is not None
    assert found.op == "t::op"


def test_pytorchs_own_formulas_are_used() -> None:
    @torch.library.custom_op("graphflops_test::with_formula", mutates_args=())
    def op(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    op.register_fake(torch.empty_like)
    target = torch.ops.graphflops_test.with_formula

    @register_flop_formula(target)
    def formula(shape: torch.Size, *_: object, **__: object) -> int:
        return 7 * shape[0]

    try:
        report = count(op, torch.empty(3, 5))
    finally:
        del flop_registry[target]
    assert report.flops == 21
    assert report.records[0].status is Status.COUNTED
    assert "register_flop_formula" in report.explain(report.records[0])


def test_what_pytorch_decomposes_is_priced_by_its_parts() -> None:
    report = count(torch.kron, torch.empty(2, 3), torch.empty(4, 5))
    (record,) = report.records
    assert record.status is Status.DECOMPOSED
    # An outer product, one multiplication per output; read and written as one operator.
    assert record.cost == gf.OpCost(flops=6 * 20, bytes_read=4 * (6 + 20), bytes_written=4 * 120)
    assert sum(part.cost.flops for part in record.parts if part.cost) == 120
    assert report.complete
    assert report.to_dict()["coverage"]["decomposed"] == 1


def test_a_decomposition_ends_where_there_is_a_price() -> None:
    report = count(torch.linalg.vecdot, torch.empty(4), torch.empty(4))
    assert [part.call.op for part in report.records[0].parts] == ["aten::vdot"]
    assert (report.macs, report.flops) == (4, 2 * 4)
    # As what it consists of, also where that is called by itself.
    logits, target = torch.empty(2, 3), torch.zeros(2, dtype=torch.int64)
    whole = count(functional.cross_entropy, logits, target)
    log = functional.log_softmax
    apart = count(lambda x, y: functional.nll_loss(log(x, -1), y), logits, target)
    assert whole.flops == apart.flops


def test_a_decomposition_into_views_moves_nothing() -> None:
    report = count(lambda x: torch.swapdims(x, 0, 1).mT, torch.empty(2, 3))
    assert report.total == gf.OpCost()


def test_symbols_survive_a_decomposition() -> None:
    batch = torch.export.Dim("batch", min=2)
    report = gf.count(
        Call(torch.xlogy),
        (torch.empty(3, 4), torch.empty(3, 4)),
        dynamic_shapes=(({0: batch}, {0: batch}),),
    )
    (symbol,) = report.flops.free_symbols  # type: ignore[union-attr]  # an expression here
    concrete = count(torch.xlogy, torch.empty(6, 4), torch.empty(6, 4))
    assert concrete.records[-1].status is report.records[-1].status is Status.DECOMPOSED
    assert report.total.subs(**{symbol.name: 6}) == concrete.total


@torch.library.custom_op("test_plugins::unknown", mutates_args=())
def _unknown(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


_unknown.register_fake(torch.empty_like)


def test_unknown_operators_warn_once_raise_or_are_ignored() -> None:
    model, x = Call(lambda a: _unknown(_unknown(a))), (torch.empty(4, 4),)
    with pytest.warns(gf.UnknownOpWarning) as caught:
        gf.count(model, x)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "2 calls have no price: test_plugins::unknown x 2" in message
    assert "@graphflops.register" in message
    with pytest.raises(gf.UnknownOpError, match="lower bounds"):
        gf.count(model, x, on_unknown="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not gf.count(model, x, on_unknown="ignore").complete


def test_flops_by_dtype() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False, dtype=torch.bfloat16))
    report = gf.count(Call(lambda x: model(x).float() * 2), (torch.empty(3, 4).bfloat16(),))
    flops = {dtype: cost.flops for dtype, cost in report.by_dtype().items()}
    assert flops == {"bfloat16": 2 * 3 * 4 * 4, "float32": 3 * 4}
    assert sum(flops.values()) == report.flops
