"""Sparse operands: what they store is what is multiplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import Call, count
from torch import nn

import graphflops as gf

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch's own, once

N, C, K = 100, 32, 240
"""Nodes, features, and edges, of which no two are alike."""
PLACES = torch.randperm(N * N, generator=torch.Generator().manual_seed(0))[:K]
EDGES = torch.stack([PLACES // N, PLACES % N])
X = torch.rand(N, C)


def _adjacency() -> torch.Tensor:
    return torch.sparse_coo_tensor(EDGES, torch.ones(K), (N, N)).coalesce()


def _blocks() -> torch.Tensor:
    """Ten blocks of 10 x 10 on the diagonal."""
    return torch.kron(torch.eye(10), torch.ones(10, 10))


SPARSE: dict[str, tuple[Callable[[], torch.Tensor], int]] = {
    "coo": (_adjacency, K),
    "uncoalesced": (lambda: torch.sparse_coo_tensor(EDGES, torch.ones(K), (N, N)), K),
    "csr": (lambda: _adjacency().to_sparse_csr(), K),
    "csc": (lambda: _adjacency().to_sparse_csc(), K),
    "bsr": (lambda: _blocks().to_sparse_bsr((10, 10)), 10 * 10 * 10),
    "bsc": (lambda: _blocks().to_sparse_bsc((10, 10)), 10 * 10 * 10),
}
PRODUCTS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], int]] = {
    "@": (lambda a, x: a @ x, C),
    "mm": (torch.mm, C),
    "sparse.mm": (torch.sparse.mm, C),
    "linear": (lambda a, x: F.linear(x.T, a), C),
    "addmm": (lambda a, x: torch.addmm(x, a, x), C),
    "sparse.addmm": (lambda a, x: torch.sparse.addmm(x, a, x), C),
    "a vector": (lambda a, x: a @ x[:, 0], 1),
    "transposed": (lambda a, x: a.t() @ x, C),
    "from the left": (lambda a, x: x.T @ a, C),
}


class Holds(nn.Module):
    """Multiplies by a matrix that is a buffer or an attribute."""

    def __init__(self, matrix: torch.Tensor, *, as_buffer: bool) -> None:
        super().__init__()
        if as_buffer:
            self.register_buffer("matrix", matrix)
        else:
            self.matrix = matrix

    def forward(self, x: torch.Tensor) -> Any:
        return self.matrix @ x


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("layout", SPARSE)
def test_a_product_multiplies_what_is_stored(layout: str, product: str) -> None:
    (make, stored), (function, columns) = SPARSE[layout], PRODUCTS[product]
    report = count(function, make(), X)
    assert report.macs == stored * columns


@pytest.mark.parametrize("as_buffer", [True, False])
@pytest.mark.parametrize("layout", SPARSE)
def test_what_a_module_holds_counts_as_an_input_does(layout: str, as_buffer: bool) -> None:
    make, stored = SPARSE[layout]
    report = gf.count(Holds(make(), as_buffer=as_buffer), (X,))
    assert (report.macs, report.complete) == (stored * C, True)


def _made(edges: torch.Tensor) -> torch.Tensor:
    return torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1]), (N, N))


MADE: dict[str, tuple[Callable[..., torch.Tensor], int]] = {
    "as it is": (lambda e, _: _made(e), K),
    "without a size": (lambda e, _: torch.sparse_coo_tensor(e, torch.ones(K)), K),
    "csr": (lambda e, _: _made(e).to_sparse_csr(), K),
    "csr from its parts": (
        lambda e, _: torch.sparse_csr_tensor(
            torch.arange(N + 1) * 2, e[1, : 2 * N], torch.ones(2 * N), (N, N)
        ),
        2 * N,
    ),
    "every edge twice, summed": (lambda e, _: _made(torch.cat([e, e], 1)).coalesce(), K),
    "scaled": (lambda e, _: 2 * _made(e), K),
    "scaled in place": (lambda e, _: _made(e).mul_(2), K),
    "by rows": (lambda e, x: _made(e) * x[:, :1], K),
    "relu": (lambda e, _: torch.relu(_made(e)), K),
    "double": (lambda e, _: _made(e).double().float(), K),
    "with loops": (lambda e, _: _made(e) + torch.eye(N).to_sparse(), -1),
    "of two steps": (lambda e, _: _made(e).index_select(0, torch.arange(N // 2)), -2),
    "learned": (
        lambda e, x: torch.sparse_coo_tensor(e, (x[e[0]] * x[e[1]]).sum(-1), (N, N)),
        K,
    ),
    "sampled": (lambda e, x: torch.sparse.sampled_addmm(_made(e).to_sparse_csr(), x, x.T), K),
    "masked": (lambda e, x: (x @ x.T).sparse_mask(_made(e).coalesce()), K),
}


@pytest.mark.parametrize("made", MADE)
def test_what_is_made_inside_stores_what_it_does_in_a_run(made: str) -> None:
    make, stored = MADE[made]
    if stored < 0:
        stored = int(make(EDGES, X)._nnz())
    report = gf.count(Call(lambda e, x: make(e, x) @ x), (EDGES, X))
    (product,) = [r for r in report.records if r.call.op == "aten::matmul"][-1:]
    assert product.cost is not None
    assert product.cost.macs == stored * C


def test_places_that_nobody_knows_are_as_many_as_there_are_values() -> None:
    report = count(lambda e, x: _made(e).t() @ x, EDGES.to("meta"), X)
    assert report.macs == K * C


def test_a_sparse_input_on_meta_stores_as_much_unless_it_was_moved_there() -> None:
    edges, values = EDGES.to("meta"), torch.ones(K, device="meta")
    made = torch.sparse_coo_tensor(edges, values, (N, N))
    assert count(lambda a, x: a @ x, made, X).macs == K * C
    moved = _adjacency().to("meta")
    assert moved._nnz() == 0
    assert not gf.count(Call(lambda a, x: a @ x), (moved, X), on_unknown="ignore").complete


LARGE = 1100
"""Rows of which so many have more elements than values that are computed alongside."""
UNKNOWN: dict[str, Callable[..., torch.Tensor]] = {
    "of computed values": lambda x: (x @ x.T).to_sparse() @ x,
    "csr of computed values": lambda x: (x @ x.T).to_sparse_csr().t() @ x,
    "sparse times sparse": lambda x: torch.sparse.mm(x[:C].to_sparse(), x[:C].to_sparse()),
    "softmax": lambda x: torch.sparse.softmax(torch.eye(9, device=x.device).to_sparse(), 1) @ x[:9],
}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_what_nobody_knows_is_named_and_never_taken_for_dense(unknown: str) -> None:
    x = torch.empty(LARGE, C, device="meta")
    report = gf.count(Call(UNKNOWN[unknown]), (x,), on_unknown="ignore")
    assert not report.complete
    assert report.macs in {0, 9 * C, LARGE * C * LARGE}


def test_a_size_that_follows_from_what_nobody_knows_is_refused() -> None:
    with pytest.raises(gf.CaptureError, match=r"how much a sparse tensor stores is asked for at"):
        gf.count(Call(lambda x: x.to_sparse().values()), (torch.empty(3, 4, device="meta"),))
    with pytest.raises(gf.CaptureError, match=r"is given no size.*Give it a size"):
        gf.count(Call(lambda e: torch.sparse_coo_tensor(e, e[0])), (EDGES.to("meta"),))


def test_values_of_inputs_that_decide_are_noted() -> None:
    report = gf.count(Call(lambda x: x.to_sparse() @ x), (torch.eye(9),))
    assert report.macs == 9 * 9
    assert any("follow from values of the inputs" in note for note in report.capture.notes)


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda a: a * a, K),
        (lambda a: a * 3, K),
        (lambda a: a / 3, K),
        (lambda a: -a, K),
        (lambda a: a.sin(), K),
        (lambda a: a + a, K),
        (lambda a: a + 2 * a, 2 * K),
        (lambda a: torch.ones(N, N) + a, K),
        (lambda a: a.sum(), K - 1),
        (lambda a: torch.cat([a, a]).coalesce(), 0),
        (lambda a: a.t().clone(), 0),
    ],
)
def test_elementwise_work_is_on_what_is_stored(
    function: Callable[[torch.Tensor], torch.Tensor], flops: int
) -> None:
    assert count(function, _adjacency()).flops == flops


def test_bytes_are_those_of_values_and_indices() -> None:
    csr = count(lambda a, x: a @ x, _adjacency().to_sparse_csr(), X)
    assert csr.bytes_read == 4 * K + 8 * K + 8 * (N + 1) + 4 * N * C
    coo = count(lambda a, x: a @ x, _adjacency(), X)
    assert coo.bytes_read == 4 * K + 2 * 8 * K + 4 * N * C


class Convolution(nn.Module):
    """A layer of a graph network, with an adjacency of its own or a given one."""

    def __init__(self, adjacency: torch.Tensor | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(C, C)
        self.adjacency: torch.Tensor | None
        self.register_buffer("adjacency", adjacency)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor | None = None) -> torch.Tensor:
        adjacency = self.adjacency if adjacency is None else adjacency
        return torch.relu(torch.sparse.mm(adjacency, self.linear(x)))


class Network(nn.Module):
    """Layers in a row."""

    def __init__(self, layers: list[Convolution]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor, *adjacency: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, *adjacency)
        return x


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_training_multiplies_by_the_transposed_matrix(layout: str) -> None:
    adjacency = SPARSE[layout][0]()
    report = gf.count_training(Convolution(adjacency), (X,))
    assert report.forward.macs == N * C * C + K * C
    # The gradient through the product, and that of the weight: the input asks for none.
    assert report.backward.macs == K * C + N * C * C
    assert report.complete


def test_training_of_values_costs_a_dense_product_as_in_a_run() -> None:
    weights = nn.Parameter(torch.ones(K))
    model = Call(lambda e, x: torch.sparse_coo_tensor(e, weights, (N, N)) @ x)
    model.weights = weights
    report = gf.count_training(model, (EDGES, X))
    assert (report.forward.macs, report.backward.macs) == (K * C, N * C * N)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_weight_has_the_elements_of_its_shape_and_the_bytes_of_what_it_stores(
    layout: str,
) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(SPARSE[layout][0]())

        def forward(self, x: torch.Tensor) -> Any:
            return self.weight @ x

    model = Weighted()
    model(X).sum().backward()  # a gradient that it has already changes nothing
    report = gf.count_training(model, (X,))
    # Autograd multiplies densely and keeps what has a place.
    assert (report.forward.macs, report.backward.macs) == (K * C, N * C * N)
    indices = 2 * 8 * K if layout == "coo" else 8 * (N + 1) + 8 * K
    assert (report.forward.params, report.forward.root.param_bytes) == (N * N, 4 * K + indices)


@pytest.mark.parametrize("reuse_layers", [True, False])
def test_layers_that_store_more_or_less_are_not_alike(reuse_layers: bool) -> None:
    matrices = [
        torch.sparse_coo_tensor(EDGES[:, :kept], torch.ones(kept), (N, N)).to_sparse_csr()
        for kept in (40, 80, 120, 160)
    ]
    own = gf.count(Network([Convolution(a) for a in matrices]), (X,), reuse_layers=reuse_layers)
    assert own.macs == 4 * N * C * C + (40 + 80 + 120 + 160) * C
    given = Network([Convolution() for _ in range(4)])
    shared = gf.count(given, (X, matrices[0]), reuse_layers=reuse_layers)
    assert shared.macs == 4 * (N * C * C + 40 * C)


def test_a_sparse_gradient_of_an_embedding_has_a_row_for_each_token() -> None:
    tokens = torch.randint(0, 50, (4, 5), device="meta")
    report = gf.count_training(nn.Embedding(50, 8, sparse=True), (tokens,))
    assert report.complete
    (made,) = [r.call for r in report.backward.records if "sparse" in r.call.op]
    assert made.outputs[0].stored == 4 * 5 * 8


@pytest.mark.parametrize("convention", ["torch", "calflops", "fvcore"])
def test_other_packages_see_the_shape(convention: str) -> None:
    report = gf.count(Call(lambda a, x: a @ x), (_adjacency(), X), convention=convention)
    assert (report.macs, report.complete) == (N * N * C, True)


def test_an_export_without_what_is_stored_is_unsupported() -> None:
    program = torch.export.export(Holds(_adjacency(), as_buffer=True), (X,))
    report = gf.count(program, on_unknown="ignore")
    assert (report.macs, report.complete) == (0, False)


def test_sparse_inputs_have_no_symbolic_axes() -> None:
    with pytest.raises(gf.ModelSpecError, match="axes of a sparse or nested input"):
        gf.count(
            Call(lambda a, x: a @ x), (_adjacency(), X), dynamic_shapes={"args": ({0: "M"}, None)}
        )


def test_nothing_of_a_sparse_tensor_is_written() -> None:
    matrix = _adjacency()
    before = matrix.clone()
    gf.count(Call(lambda a, x: a.mul_(2) @ x), (matrix, X))
    assert torch.equal(matrix.values(), before.values())
    assert vars(matrix) == {}
