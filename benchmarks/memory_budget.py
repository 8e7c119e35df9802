"""What is computed again under a memory budget: ``python -m benchmarks.memory_budget [MODEL ...]``.

AOTAutograd's partitioner saves, under ``activation_memory_budget``, the activations that cost most
to compute again. Each model's training step is partitioned three times on the CPU, by torch's own
estimator, by that of ``graphflops.install()``, and by ``TimeEstimator``; what the backward graph
computes again is counted by graphflops. No time is measured.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch import config as functorch_config
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table

import graphflops as gf
from benchmarks.results import environment, fill
from graphflops.compiler import FlopsEstimator, Roofline, TimeEstimator
from graphflops.models.optional_dependencies import repair_torchvision, require

RESULTS = Path(__file__).parent / "results" / "memory_budget.json"
PAGE = Path(__file__).parents[1] / "docs" / "tasks" / "compiler.md"
BUDGET = 0.5
ROOFLINE = Roofline()


class _UNet(nn.Module):
    """Two levels down and up, with skip connections."""

    def __init__(self) -> None:
        super().__init__()

        def block(channels: int, out: int) -> nn.Module:
            norm = nn.GroupNorm(4, out)
            return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), norm, nn.SiLU())

        self.down1, self.down2, self.middle = block(3, 16), block(16, 32), block(32, 64)
        self.up2, self.up1, self.head = block(96, 32), block(48, 16), nn.Conv2d(16, 3, 1)
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image of the size of ``x``."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.grow(self.middle(self.pool(second)))
        y = self.grow(self.up2(torch.cat([y, second], 1)))
        output: torch.Tensor = self.head(self.up1(torch.cat([y, first], 1)))
        return output


def _encoder() -> tuple[nn.Module, Any]:
    layers = (nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True) for _ in range(2))
    return nn.Sequential(*layers), torch.randn(4, 64, 128)


def _tokens(name: str, *shape: int, **sizes: Any) -> tuple[nn.Module, Any]:
    transformers = require("transformers", "hf")
    config = getattr(transformers, f"{name}Config")(vocab_size=1000, **sizes)
    model = {"Llama": "LlamaForCausalLM", "GPT2": "GPT2LMHeadModel", "Bert": "BertForMaskedLM"}
    model |= {"T5": "T5EncoderModel"}
    return getattr(transformers, model[name])(config), torch.randint(0, 1000, shape)


def _timm(name: str, size: int, **options: Any) -> tuple[nn.Module, Any]:
    timm = require("timm", "timm")
    return timm.create_model(name, **options), torch.randn(2, 3, size, size)


_SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "transformer encoder": _encoder,
    "llama": lambda: _tokens(
        "Llama", 2, 256, intermediate_size=352, num_key_value_heads=2, use_cache=False, **_SMALL
    ),
    "gpt2": lambda: _tokens("GPT2", 2, 128, n_embd=128, n_layer=2, n_head=4, use_cache=False),
    "bert": lambda: _tokens("Bert", 4, 64, intermediate_size=512, **_SMALL),
    "t5 encoder": lambda: _tokens("T5", 2, 64, d_model=128, d_ff=256, num_layers=2, num_heads=2),
    "resnet18": lambda: _timm("resnet18", 64),
    "mobilenetv3": lambda: _timm("mobilenetv3_small_050", 64),
    "convnext": lambda: _timm("convnext_atto", 64),
    "vit": lambda: _timm("vit_tiny_patch16_224", 96, img_size=96, depth=3),
    "swin": lambda: _timm("swin_tiny_patch4_window7_224", 56, img_size=56, depths=(1, 1, 1, 1)),
    "mlp-mixer": lambda: _timm("mixer_s32_224", 96, img_size=96),
    "unet": lambda: (_UNet(), torch.randn(2, 3, 64, 64)),
}


ESTIMATORS: dict[str, Any] = {
    "torch": "flops",
    "graphflops": FlopsEstimator(),
    "time": TimeEstimator(ROOFLINE),
}


def partition(build: Callable[[], tuple[nn.Module, Any]], estimator: Any) -> dict[str, Any]:
    """Compile a training step by an estimator; return what its backward computes again."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, inputs = build()
    graphs: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table,
    )
    options = {
        "activation_memory_budget": BUDGET,
        "activation_memory_budget_runtime_estimator": estimator,
    }
    with functorch_config.patch(options), gf.watch() as watched:
        output = torch.compile(model, backend=backend, dynamic=False)(inputs)
        _leaves_sum(output).backward()
    (graph,) = watched.reports
    assert graph.recompute is not None  # noqa: S101 - a training step
    recompute = graph.recompute
    return {
        "flops": recompute.flops,
        "macs": recompute.macs,
        "bytes": recompute.bytes_read + recompute.bytes_written,
        "milliseconds": sum(map(ROOFLINE.milliseconds, recompute.records)),
        "saved_bytes": _saved_bytes(graphs[1].graph),
        "complete": graph.training is not None and graph.training.complete,
    }


def _leaves_sum(output: Any) -> Any:
    leaves = torch.utils._pytree.tree_leaves(output)
    return sum(leaf.float().sum() for leaf in leaves if leaf.requires_grad)


def _saved_bytes(graph: fx.Graph) -> int:
    """Return the bytes of the activations that a backward graph takes."""
    values = [
        node.meta["val"]
        for node in graph.find_nodes(op="placeholder")
        if not str(node.target).startswith(("primals", "tangents"))
    ]
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, torch.Tensor))


def main(names: Iterable[str]) -> None:
    """Partition all models, write results and page; or print some."""
    warnings.simplefilter("ignore")
    repair_torchvision()
    rows = []
    for name in names or MODELS:
        row: dict[str, Any] = {"model": name}
        row |= {key: partition(MODELS[name], value) for key, value in ESTIMATORS.items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(table(rows))
    if not names:
        where = environment(("graphflops", "torch", "transformers", "timm"))
        found = {"environment": where, "budget": BUDGET, "rows": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        fill(PAGE, "memory-budget", table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """FLOPs that the backward of each model computes again, and what is saved for it."""
    shown = []
    for row in rows:
        flops = [row[key]["flops"] for key in ESTIMATORS]
        saved = [row[key]["saved_bytes"] for key in ESTIMATORS]
        shown.append(
            [
                row["model"],
                *(f"{number / 1e6:.2f}" for number in flops),
                f"{flops[1] / flops[0] - 1:+.1%}",
                *(f"{number / 1e6:.2f}" for number in saved),
            ]
        )
    headers = ["model", "MFLOPs again: torch", "graphflops", "time", "graphflops over torch"]
    headers += ["MB saved: torch", "graphflops", "time"]
    align = ("left", *("right",) * (len(headers) - 1))
    return tabulate(shown, headers, tablefmt="github", colalign=align, disable_numparse=True)


if __name__ == "__main__":
    main(sys.argv[1:])
