"""Predicted against published memory of training: ``python -m benchmarks.published_memory``.

torchtitan published what Llama 3.1 8B reserves on each GPU, trained by FSDP over 8 of them
(`measured/published.json`, its `benchmarks/llama3_h100_202412_torchtitan.md`). The step is counted
on one device, with weights in bfloat16 as a layer has them when it runs, and the allocator is
simulated on its requests. What FSDP makes of the weights is put in their place:

- weights, moments of AdamW and gradients are held in float32, each GPU an equal share;
- embedding, last norm and output layer are one group, whose gathered weights in bfloat16 stay
  through the step; a layer's weights are there from before its forward or backward until after
  it, and those of the next one with them: two layers at any time;
- gathered weights arrive in a buffer of a stream of its own, as large as that group, and are
  copied from there;
- a gathered gradient is summed in float32, of one layer at a time.

Checkpoints are torchtitan's: "full" saves the input of each layer; "selective" saves in addition
the results of attention and of every second matrix product in a layer. The loss is computed in
float32, and the scores are dropped before the backward pass. A compiled layer is counted as an
eager one, with weights in bfloat16 where they were in float8.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

import graphflops as gf
from benchmarks.results import environment
from graphflops.analysis.allocator_memory import Request, RequestTrace, under_allocator
from graphflops.core.storage_events import BEFORE, StorageKind

PUBLISHED = Path(__file__).parent / "measured" / "published.json"
RESULTS = Path(__file__).parent / "results" / "published_memory.json"
GIB = 1 << 30
DIM, LAYERS, HEADS, KV_HEADS, HIDDEN, VOCABULARY = 4096, 32, 32, 8, 14336, 128256
SAVED = (
    torch.ops.aten.mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
)
"""Operators whose results selective checkpoints save; of the first, every second one."""
Row = dict[str, Any]


class RMSNorm(nn.Module):
    """Norm in float32, as torchtitan writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalized tensor."""
        y = x.float()
        y = y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-5)
        return y.type_as(x) * self.weight


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Return queries or keys that are rotated by their positions, computed as complex numbers."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles).flatten(3).type_as(x)


class Attention(nn.Module):
    """Attention of queries in groups."""

    def __init__(self) -> None:
        super().__init__()
        width = DIM // HEADS * KV_HEADS
        self.wq, self.wo = linear(DIM, DIM), linear(DIM, DIM)
        self.wk, self.wv = linear(DIM, width), linear(DIM, width)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Return what every position gathers from those before."""
        q, k, v = (w(x).unflatten(-1, (-1, DIM // HEADS)) for w in (self.wq, self.wk, self.wv))
        q, k = rotate(q, angles), rotate(k, angles)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: torch.Tensor = self.wo(y.transpose(1, 2).contiguous().flatten(2))
        return result


class FeedForward(nn.Module):
    """Gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = linear(DIM, HIDDEN), linear(DIM, HIDDEN)
        self.w2 = linear(HIDDEN, DIM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the result."""
        result: torch.Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return result


class Layer(nn.Module):
    """Layer of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(), FeedForward()
        self.attention_norm, self.ffn_norm = RMSNorm(), RMSNorm()

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Return the result."""
        h = x + self.attention(self.attention_norm(x), angles)
        result: torch.Tensor = h + self.feed_forward(self.ffn_norm(h))
        return result


class Llama(nn.Module):
    """Llama 3.1 8B as torchtitan trains it.

    Args:
        checkpointing: ``"full"`` or ``"selective"``.
        layers: Number of layers.
    """

    def __init__(self, checkpointing: str, layers: int = LAYERS) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm, self.output = RMSNorm(), linear(DIM, VOCABULARY)
        self.contexts: dict[str, Any] = (
            {"context_fn": selective} if checkpointing == "selective" else {}
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        h = self.tok_embeddings(tokens)
        size = tokens.shape[1], 1, DIM // HEADS // 2
        angles = torch.empty(size, dtype=torch.complex64, device=h.device)
        for layer in self.layers:
            h = checkpoint(layer, h, angles, use_reentrant=False, **self.contexts)
        scores: torch.Tensor = self.output(self.norm(h))
        return scores


linear = partial(nn.Linear, bias=False)


def selective() -> Any:
    """Return contexts of a checkpoint that saves what torchtitan's policy does."""
    counts: defaultdict[bool, int] = defaultdict(int)

    def policy(context: Any, func: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        if func == SAVED[0]:
            counts[context.is_recompute] += 1
        every_second = func == SAVED[0] and counts[context.is_recompute] % 2 == 0
        saves = func in SAVED and not every_second
        return CheckpointPolicy.MUST_SAVE if saves else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)  # type: ignore[no-untyped-call]  # torch's gap


def loss(scores: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy in float32."""
    labels = torch.zeros(scores.shape[:2], dtype=torch.int64, device=scores.device)
    return functional.cross_entropy(scores.flatten(0, 1).float(), labels.flatten(0, 1))


def trained(checkpointing: str, batch: int, sequence: int, layers: int = LAYERS) -> Any:
    """Return the count of a training step on one device."""
    with torch.device("meta"):
        model = Llama(checkpointing, layers).bfloat16()
        tokens = torch.empty(batch, sequence, dtype=torch.int64)
    return gf.count_training(model, (tokens,), loss=loss)


def group_of(name: str) -> str:
    """Return the FSDP group of a parameter: its layer, or the root."""
    return ".".join(name.split(".")[:2]) if name.startswith("layers.") else ""


def shard(step: Any, gpus: int) -> tuple[RequestTrace, int]:
    """Return the requests of a step under FSDP, and the bytes of blocks in other streams."""
    trace = step.memory.requests
    names = {
        number: allocation.name
        for number, allocation in step.storages.allocations.items()
        if allocation.kind is StorageKind.PARAMETER
    }
    gathered: dict[str, list[int]] = defaultdict(list)  # in bfloat16
    for _, storage, nbytes, _ in trace.requests:
        if storage in names and nbytes is not None:
            gathered[group_of(names[storage])].append(nbytes)
    layers = [group for group in gathered if group]
    shards = [-(-2 * nbytes // gpus) for group in gathered.values() for nbytes in group]
    held = [*shards, *gathered[""], *2 * gathered[layers[0]]]
    weights = [
        Request(BEFORE, -1 - place, nbytes, StorageKind.PARAMETER)
        for place, nbytes in enumerate(held)
    ]
    own = [request for request in trace.requests if request.storage not in names]
    requests = [*weights, *reduced(own, step.storages.gradients, gathered)]
    others = sum(shards) + sum(gathered[""])  # gradients; the buffer of the largest gather
    return replace(trace, requests=requests, state=2 * shards, temporaries=shards), others


def reduced(
    requests: list[Request], gradients: Any, gathered: dict[str, list[int]]
) -> list[Request]:
    """Return requests in which a group's gradients are summed once all are there.

    They are copied into one buffer in float32, which stays until the next group's is made; their
    shares are in another stream.
    """
    found: defaultdict[str, list[int]] = defaultdict(list)
    result: list[Request] = []
    buffer = None
    for request in requests:
        if request.nbytes is None and request.storage in gradients:
            continue
        result.append(request)
        if request.storage not in gradients:
            continue
        group = group_of(gradients[request.storage])
        found[group].append(request.storage)
        if len(found[group]) < len(gathered[group]):
            continue
        following = -1_000_000 - len(found)
        result.append(Request(request.call, following, 2 * sum(gathered[group])))
        freed = [*found[group], *([] if buffer is None else [buffer])]
        result += [Request(request.call, storage, None) for storage in freed]
        buffer = following
    return result


def predict(row: Row) -> Row:
    """Return the prediction for a published row."""
    step = trained(row["checkpointing"], row["local_batch"], row["sequence"])
    trace, others = shard(step, row["fsdp"])
    memory = under_allocator(trace)
    predicted = (memory.reserved + others) / GIB
    return {
        "gpus": row["gpus"],
        "batch": row["local_batch"],
        "sequence": row["sequence"],
        "checkpointing": row["checkpointing"],
        "allocated": (memory.allocated + others) / GIB,
        "reserved": predicted,
        "published": row["gibibytes"],
        "error": predicted / row["gibibytes"] - 1,
    }


def table(rows: Iterable[Row]) -> str:
    """Return the predictions beside what was published."""
    lines = [
        (
            row["gpus"],
            f"{row['batch']} x {row['sequence']:,}",
            row["checkpointing"],
            f"{row['reserved']:.1f}",
            f"{row['published']:.1f}",
            f"{row['error']:+.1%}",
        )
        for row in rows
    ]
    headers = ("GPUs", "tokens on each", "checkpoints", "predicted GiB", "published GiB", "error")
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Predict, print, and save."""
    tables = json.loads(PUBLISHED.read_text("utf-8"))["memory"]
    rows = [predict(row) for group in tables for row in group["rows"]]
    print(table(rows))
    where = environment(("torch",))
    RESULTS.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
