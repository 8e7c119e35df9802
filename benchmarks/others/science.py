"""Models of medicine, graphs and physics: MONAI, PyTorch Geometric, e3nn."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
from torch import nn

from benchmarks.others.case import Calls, Case, Model, Placement, model

e = torch.empty
NODES, EDGES, WIDTH = 100, 400, 32


def _monai(name: str, *size: int, on: Placement = "meta", **settings: Any) -> Case:
    def build() -> Model:
        nets = import_module("monai.networks.nets")
        return model(getattr(nets, name)(**settings), e(*size))

    return Case(build, on)


def _diffusion_unet() -> Model:
    nets = import_module("monai.networks.nets")
    built = nets.DiffusionModelUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(64, 128, 256),
        attention_levels=(False, True, True),
        num_head_channels=32,
        num_res_blocks=2,
    )
    return model(built, e(1, 1, 64, 64), torch.ones(1, dtype=torch.long))


_VOLUME: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}


def _nodes() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(NODES, WIDTH), torch.randint(0, NODES, (2, EDGES))


def _layers(name: str, **settings: Any) -> Case:
    """Two convolutions of a graph."""

    def build() -> Model:
        layer = getattr(import_module("torch_geometric.nn"), name)
        heads = settings.get("heads", 1)
        first, second = layer(WIDTH, 64, **settings), layer(64 * heads, 16, **settings)
        net = Calls(lambda a, b, x, edges: b(F.relu(a(x, edges)), edges), first, second)
        return model(net, *_nodes())

    return Case(build, on="cpu")


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def _geometric(name: str, *args: Any, **settings: Any) -> Case:
    def build() -> Model:
        built = getattr(import_module("torch_geometric.nn"), name)(*args, **settings)
        return model(built, *_nodes())

    return Case(build, on="cpu")


def _wrapped(name: str) -> Case:
    """A convolution around a network."""

    def build() -> Model:
        nn_ = import_module("torch_geometric.nn")
        made = {
            "GINConv": lambda: nn_.GINConv(_mlp(WIDTH, 64, 64)),
            "EdgeConv": lambda: nn_.EdgeConv(_mlp(2 * WIDTH, 64, 64)),
            "GPSConv": lambda: nn_.GPSConv(WIDTH, nn_.GINConv(_mlp(WIDTH, 64, WIDTH)), heads=4),
        }
        return model(made[name](), *_nodes())

    return Case(build, on="cpu")


def _pooled() -> Model:
    nn_ = import_module("torch_geometric.nn")
    net = Calls(
        lambda gnn, head, x, edges, batch: head(nn_.global_mean_pool(gnn(x, edges), batch)),
        nn_.GCN(WIDTH, 64, 3),
        nn.Linear(64, 2),
    )
    return model(net, *_nodes(), torch.arange(NODES) // 25)


def _molecule(atoms: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(1, 10, (atoms,)), torch.rand(atoms, 3) * 3


def _all_pairs(positions: torch.Tensor, _: torch.Tensor) -> Any:
    atoms = positions.size(0)
    i = torch.arange(atoms, device=positions.device)
    edges = torch.stack([i.repeat_interleave(atoms), i.repeat(atoms)])
    return edges, (positions[edges[0]] - positions[edges[1]]).norm(dim=-1)


def _schnet() -> Model:
    made = import_module("torch_geometric.nn").SchNet(
        hidden_channels=64, num_filters=64, num_interactions=3, interaction_graph=_all_pairs
    )
    return model(made, *_molecule())


def _product() -> Model:
    o3, e3 = import_module("e3nn.o3"), import_module("e3nn.nn")
    kinds = "32x0e+16x1o"
    product = o3.FullyConnectedTensorProduct(
        kinds, "1x0e+1x1o+1x2e", kinds, shared_weights=False, internal_weights=False
    )
    weights = e3.FullyConnectedNet([8, 64, product.weight_numel], torch.relu)

    def forward(product: Any, weights: Any, last: Any, *inputs: torch.Tensor) -> Any:
        x, vectors, radial = inputs
        harmonics = o3.spherical_harmonics([0, 1, 2], vectors, normalize=True)
        return last(product(x, harmonics, weights(radial)))

    net = Calls(forward, product, weights, o3.Linear(kinds, kinds))
    return model(net, torch.rand(50, 80), torch.rand(50, 3), torch.rand(50, 8))


def _linear_e3() -> Model:
    o3 = import_module("e3nn.o3")
    return model(o3.Linear("16x0e+8x1o", "8x0e+8x1o"), torch.rand(20, 40))


def _squared_e3() -> Model:
    o3 = import_module("e3nn.o3")
    return Model(model=o3.TensorSquare("8x0e+4x1o"), args=(torch.rand(20, 20),), trains=False)


CASES: dict[str, Case] = {
    "MONAI UNet": _monai(
        "UNet",
        1,
        1,
        64,
        64,
        64,
        **_VOLUME,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=2,
    ),
    "MONAI BasicUNet": _monai("BasicUNet", 1, 1, 32, 32, 32, **_VOLUME),
    "MONAI AttentionUnet": _monai(
        "AttentionUnet", 1, 1, 32, 32, 32, **_VOLUME, channels=(16, 32, 64), strides=(2, 2)
    ),
    "MONAI DynUNet": _monai(
        "DynUNet",
        1,
        1,
        64,
        64,
        64,
        **_VOLUME,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
    ),
    "MONAI SegResNet": _monai(
        "SegResNet",
        1,
        4,
        64,
        64,
        64,
        spatial_dims=3,
        init_filters=16,
        in_channels=4,
        out_channels=3,
    ),
    "MONAI UNETR": _monai(
        "UNETR", 1, 1, 96, 96, 96, in_channels=1, out_channels=14, img_size=(96, 96, 96)
    ),
    "MONAI SwinUNETR": _monai(
        "SwinUNETR", 1, 1, 64, 64, 64, on="moved", in_channels=1, out_channels=14, feature_size=24
    ),
    "MONAI DenseNet121": _monai("DenseNet121", 2, 1, 32, 32, 32, **_VOLUME),
    "MONAI MedNeXtS": _monai("MedNeXtS", 1, 1, 32, 32, 32, **_VOLUME),
    "MONAI VNet": _monai("VNet", 1, 1, 32, 32, 32),
    "MONAI ViT": _monai("ViT", 1, 1, 64, 64, 64, in_channels=1, img_size=64, patch_size=16),
    "MONAI HighResNet": _monai("HighResNet", 1, 1, 32, 32, 32),
    "MONAI FlexibleUNet": _monai(
        "FlexibleUNet", 1, 3, 64, 64, in_channels=3, out_channels=2, backbone="efficientnet-b0"
    ),
    "MONAI SENet154": _monai(
        "SENet154", 2, 3, 64, 64, spatial_dims=2, in_channels=3, num_classes=2
    ),
    "MONAI DiffusionModelUNet": Case(_diffusion_unet),
    "PyG GCNConv": _layers("GCNConv"),
    "PyG GATConv": _layers("GATConv", heads=4),
    "PyG GATv2Conv": _layers("GATv2Conv", heads=4),
    "PyG SAGEConv": _layers("SAGEConv"),
    "PyG GraphConv": _layers("GraphConv"),
    "PyG TransformerConv": _layers("TransformerConv"),
    "PyG ARMAConv": _layers("ARMAConv"),
    "PyG ChebConv": _layers("ChebConv", K=3),
    "PyG TAGConv": _layers("TAGConv"),
    "PyG SGConv": _layers("SGConv", K=2),
    "PyG LEConv": _layers("LEConv"),
    "PyG ClusterGCNConv": _layers("ClusterGCNConv"),
    "PyG GINConv": _wrapped("GINConv"),
    "PyG EdgeConv": _wrapped("EdgeConv"),
    "PyG GPSConv": _wrapped("GPSConv"),
    "PyG GIN": _geometric("GIN", WIDTH, 64, 3, 16),
    "PyG GraphUNet": _geometric("GraphUNet", WIDTH, 64, 16, depth=2),
    "PyG GCN, pooled": Case(_pooled, on="cpu"),
    "PyG SchNet": Case(_schnet, on="cpu"),
    "e3nn tensor product": Case(_product, on="cpu"),
    "e3nn Linear": Case(_linear_e3, on="cpu"),
    "e3nn TensorSquare": Case(_squared_e3, on="cpu"),
}
