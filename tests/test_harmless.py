"""A count leaves the model and everything that it can reach as it found them."""

from __future__ import annotations

import collections
import functools
import random
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

import graphflops as gf
from graphflops.errors import CaptureError

trace: Any = torch.jit.trace
compiled: Any = torch.compile
LOG: list[Any] = []
STATE = types.SimpleNamespace(last=None)
TABLE = torch.zeros(3, 4)
LAST: Any = None


def remember(value: Any) -> Any:
    LOG.append(value)
    return value


@functools.lru_cache
def ones(size: int) -> torch.Tensor:
    return torch.ones(size)


class Base(nn.Module):
    def forward(self, x: Any) -> Any:
        LOG.append(x)
        return x


class Keeper(Base):
    """Writes to whatever a forward can reach."""

    shared: list[Any] = []  # noqa: RUF012 - a class attribute is what is tried
    named: dict[str, Any] = {"a": 1}  # noqa: RUF012 - likewise
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.q = torch.zeros(3, 4)
        self.steps: Any
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.kept: list[Any] = []
        self.queue: collections.deque[Any] = collections.deque(maxlen=3)
        self.nested: dict[str, Any] = {"a": {"b": []}}
        self.names: set[Any] = set()
        self.ordered: collections.OrderedDict[str, Any] = collections.OrderedDict(x=1)
        self.found: collections.defaultdict[str, list[Any]] = collections.defaultdict(list)
        self.numbers = np.zeros(3)
        self.holder = types.SimpleNamespace(value=None, deep=[[]])
        self.outer = weakref.ref(self)
        self.generator = torch.Generator()
        self.draw = random.Random(1)  # noqa: S311 - no secret
        self.add = self.kept.append
        self.collect = functools.partial(self._collect, self.found)
        inner: list[Any] = []

        def close(x: torch.Tensor) -> torch.Tensor:
            inner.append(x)
            return x

        self.close, self.inner = close, lambda: inner

    def _collect(self, found: dict[str, list[Any]], x: torch.Tensor) -> None:
        found["x"].append(x)

    @functools.cached_property
    def scale(self) -> Any:
        return self.layer.weight.sum()

    def forward(self, x: Any, seen: list[Any] = []) -> Any:  # noqa: B006 - likewise
        global LAST  # noqa: PLW0603 - likewise
        LAST = super().forward(x)
        self.q[0] = 1.0
        TABLE[0] += 1
        self.steps += 1
        self.mean = x.mean(0)
        self.kept.append(x)
        self.queue.append(x)
        self.nested["a"]["b"].append(x)
        self.names.add(x)
        self.ordered["y"] = x
        self.numbers[0] += 1
        self.holder.value = x
        self.holder.deep[0].append(x)
        self.outer().held = x  # type: ignore[union-attr]  # it is there
        self.generator.manual_seed(3)
        self.draw.random()
        self.add(x)
        self.collect(x)
        self.close(x)
        self.shared.append(x)
        Keeper.named["x"] = x
        Keeper.calls += 1
        seen.append(x)
        STATE.last = remember(x)
        self.new = x
        self.register_buffer("late", x.sum(), persistent=False)
        return self.layer(x) * ones(4) * self.scale


_STATES: dict[Any, Callable[[Any], Any]] = {
    torch.Generator: lambda value: value.get_state().tolist(),
    random.Random: lambda value: value.getstate(),
    np.ndarray: lambda value: value.tolist(),
    set: lambda value: set(map(id, value)),
}


def snapshot(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """What can be compared of an object: identities of tensors, and all that is in containers."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return ("again", id(value))
    seen[id(value)] = value
    if isinstance(value, torch.Tensor):
        held = None if value.is_meta else value.detach().clone().tolist()
        grad = value.grad if value.is_leaf else None
        return type(value), id(value), value._version, held, value.requires_grad, id(grad)
    parts: Any = ()
    if isinstance(value, dict):
        keys = [key if isinstance(key, str) else id(key) for key in value]
        parts = [keys, *value.values()]
    elif isinstance(value, list | tuple | collections.deque):
        parts = value
    elif isinstance(value, nn.Module | types.SimpleNamespace):
        parts = vars(value).items()
    elif isinstance(value, types.FunctionType):
        parts = [*(cell.cell_contents for cell in value.__closure__ or ()), value.__defaults__]
    state = _STATES.get(type(value), repr if "0x" not in repr(value) else id)
    return type(value), [snapshot(part, seen) for part in parts] or state(value)


def outside() -> Any:
    shared = [Keeper.shared, Keeper.named, Keeper.calls]
    return snapshot([LOG, vars(STATE), TABLE, LAST, shared, Keeper.forward])


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
def test_nothing_that_a_forward_writes_to_is_written(count: Callable[..., Any]) -> None:
    model = nn.Sequential(Keeper(), Keeper())
    features: dict[str, Any] = {}
    model[0].register_forward_hook(lambda _, __, out: features.update(f=out))
    model[1].register_forward_pre_hook(lambda _, inputs: LOG.append(inputs))
    x = torch.randn(3, 4)
    before, cached = snapshot([model, x]), ones.cache_info()
    around = outside()
    count(model, (x,))
    assert snapshot([model, x]) == before
    assert outside() == around
    assert ones.cache_info() == cached
    assert not features
    assert not LOG
    real = model(x)
    assert type(real) is torch.Tensor
    LOG.clear()
    Keeper.shared.clear()
    Keeper.named.pop("x")
    Keeper.forward.__defaults__[0].clear()  # type: ignore[index]  # it has one


def test_what_a_forward_writes_is_seen_by_the_forward() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cache: dict[str, torch.Tensor] = {}
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            for _ in range(3):  # 2 x 8 x 8 the first time only
                if "y" not in self.cache:
                    self.cache["y"] = self.layer(x)
            LOG.append(self.cache["y"])
            return LOG[-1] @ self.cache["y"].T  # 2 x 2 x 8

    assert gf.count(Reads(), (torch.randn(2, 8),)).macs == 2 * 8 * 8 + 2 * 2 * 8


def scripted() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), torch.jit.script(nn.Linear(8, 4)))


def traced() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), trace(nn.Linear(8, 4), torch.randn(2, 8)))


def lazy(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Flatten(), layer())


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(scripted, "1 is TorchScript", id="script"),
        pytest.param(traced, "1 is TorchScript", id="trace"),
        pytest.param(lazy(lambda: nn.LazyLinear(10)), "1 has weights without a shape", id="linear"),
        pytest.param(lazy(lambda: nn.LazyBatchNorm1d()), "1 has weights without a", id="norm"),
        pytest.param(
            lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "0 has weights without a shape", id="conv"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Lazy modules")
def test_what_has_no_stand_in_is_refused_untouched(
    make: Callable[[], nn.Module], said: str, count: Callable[..., Any]
) -> None:
    model = make()
    kinds = [(type(m), [type(p) for p in m.parameters()]) for m in model.modules()]
    with pytest.raises(CaptureError, match=said):
        count(model, (torch.randn(2, 8),))
    assert kinds == [(type(m), [type(p) for p in m.parameters()]) for m in model.modules()]


def test_a_generator_that_a_forward_would_use_up_is_refused() -> None:
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = (n for n in range(3))

        def forward(self, x: Any) -> Any:
            return x * next(self.steps)

    model = nn.Sequential(Draws())
    with pytest.raises(CaptureError, match="0 holds a generator, which the forward would use up"):
        gf.count(model, (torch.randn(2),))
    steps: Any = model[0].steps
    assert list(steps) == [0, 1, 2]


def circular() -> nn.Module:
    inner, outer = nn.Linear(4, 4), nn.Sequential()
    object.__setattr__(inner, "outer", outer)
    outer.append(inner)
    outer.append(nn.ModuleList([outer[0]]))
    own: Any = outer
    own.forward = lambda x: own[1][0](own[0](x))
    return outer


def wrapped() -> Any:
    model: Any = nn.Linear(4, 4)

    def new(module: Any, *args: Any) -> Any:
        return module.old(*args)

    # As accelerate wraps one.
    model.old = model.forward
    model.forward = functools.update_wrapper(functools.partial(new, model), model.forward)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def parametrized() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 4)), spectral_norm(nn.Linear(4, 4))
    )


class Method(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.run = self.layer.forward

    def forward(self, x: Any) -> Any:
        return self.run(x)


class Unregistered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4), nn.BatchNorm1d(4)]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize(
    ("make", "macs"),
    [
        pytest.param(circular, 2 * 2 * 16, id="circular"),
        pytest.param(wrapped, 2 * 16, id="wrapped forward"),
        pytest.param(tied, 2 * 2 * 16, id="tied"),
        # spectral_norm in training: W^T u and W v, 4 x 4 each, and u^T (W v), 4.
        pytest.param(parametrized, 2 * 2 * 16 + 16 + 16 + 16 + 4, id="parametrized"),
        pytest.param(Method, 2 * 16, id="bound method"),
        pytest.param(Unregistered, 2 * 16, id="modules in a list"),
        pytest.param(lambda: compiled(Method()), 2 * 16, id="compiled"),
        pytest.param(
            lambda: nn.Sequential(compiled(nn.Linear(4, 4)), nn.ReLU()), 2 * 16, id="part"
        ),
    ],
)
def test_odd_models_are_counted_and_left_alone(make: Callable[[], Any], macs: int) -> None:
    model = make()
    before = snapshot(model)
    assert gf.count(model, (torch.randn(2, 4),)).macs == macs
    assert snapshot(model) == before


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean: Any
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Any) -> Any:
        return (x - self.mean) @ x.T


def test_buffers_and_inputs_on_meta_meet_on_one_device() -> None:
    model = Shifted().to("meta")
    version = model.mean._version
    assert gf.count(model, (torch.empty(2, 3, device="meta"),)).macs == 2 * 3 * 2
    assert model.mean._version == version


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_counters_of_batch_norm_are_not_moved(device: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to(device)
    before = [(name, b._version) for name, b in model.named_buffers()]
    gf.count_training(model, (torch.empty(4, 3, device=device),))
    assert [(name, b._version) for name, b in model.named_buffers()] == before


def test_warnings_of_the_model_are_shown_those_of_libraries_are_not() -> None:
    class Warns(nn.Module):
        def forward(self, x: Any) -> Any:
            warnings.warn("of the model", UserWarning, stacklevel=1)
            return nn.functional.softmax(x) + 1  # torch warns of the missing axis

    with pytest.warns(UserWarning, match="of the model") as shown:
        gf.count(Warns(), (torch.randn(2, 3),))
    assert {str(warning.message) for warning in shown} == {"of the model"}


def test_a_model_of_no_library_asks_transformers_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = types.ModuleType("transformers")
    monkeypatch.setitem(__import__("sys").modules, "transformers", broken)
    assert gf.count(nn.Linear(8, 4), (torch.randn(2, 8),)).macs == 2 * 8 * 4


class Drawing(nn.Module):
    """Scales by numbers that Python and NumPy draw."""

    def forward(self, x: Any) -> Any:
        return x * random.random() * float(np.random.rand())  # noqa: NPY002, S311 - as models do


def test_a_model_draws_the_numbers_that_it_would_draw() -> None:
    first, second = (gf.count(Drawing(), (torch.zeros(2, 3),)) for _ in range(2))
    drawn = [record.call.attrs for record in first.records]
    assert [record.call.attrs for record in second.records] == drawn
    assert drawn == [{"other": random.random()}, {"other": np.random.rand()}]  # noqa: NPY002, S311 - likewise


def test_a_view_by_an_operator_that_makes_none_is_one_each_time() -> None:
    model, x = nn.ChannelShuffle(1), torch.zeros(1, 3, 4, 4)
    assert [gf.count(model, (x,)).records[0].call.is_view for _ in range(3)] == [True] * 3
