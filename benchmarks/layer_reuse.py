"""Reports with and without repeated layers, compared: ``python -m benchmarks.layer_reuse``.

Many transformers, timm and torchvision types, each with a forward pass and a training step. Writes
``benchmarks/results/layer_reuse.json``; a line for each says how many calls there are, how many
layers were reused and whether all records are equal.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphflops as gf
from benchmarks.results import environment
from graphflops.core.ir import OpRecord
from graphflops.models import Options, Workload, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.runtime.patches import QUIET

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "layer_reuse.json"
# Types of many makes, with four layers where their config has a number for that.
TYPES = (
    *("llama", "gpt2", "opt", "qwen2", "qwen3", "mistral", "phi3", "bert", "roberta", "t5", "bart"),
    *("mixtral", "qwen3_moe", "deepseek_v3", "whisper", "vit", "deit", "dinov2", "resnet", "clip"),
    *("convnext", "swin", "segformer", "wav2vec2", "mamba", "llama4_text", "gemma", "gemma2"),
    *("qwen2_moe", "qwen3_next", "olmo2", "olmoe", "phi", "phimoe", "starcoder2", "stablelm"),
    *("falcon", "bloom", "gptj", "gpt_neo", "cohere", "cohere2", "granite", "granitemoe", "glm"),
    *("glm4", "persimmon", "mpt", "mamba2", "jamba", "bamba", "deberta", "mpnet", "xlm-roberta"),
    *("camembert", "modernbert", "beit", "vit_mae", "swinv2", "siglip_vision_model", "hubert"),
    *("wavlm", "audio-spectrogram-transformer", "marian", "mbart", "pegasus", "m2m_100", "detr"),
)


def built(name: str) -> Workload:
    """The type with four layers and few tokens, if it has such words for depth and length."""
    depth = {"num_hidden_layers": 4}
    with QUIET.holding():
        for options in (Options(seq_len=32, overrides=depth), Options(overrides=depth)):
            with contextlib.suppress(gf.ModelSpecError):
                return resolve(f"hf:{name}", options)
        return resolve(f"hf:{name}", Options())


def forward(workload: Workload, *, reuse_layers: bool) -> Sequence[gf.Report]:
    """A report of a forward pass."""
    return (
        gf.count(
            workload.model,
            workload.args,
            workload.kwargs,
            reuse_layers=reuse_layers,
            on_unknown="ignore",
        ),
    )


def training(workload: Workload, *, reuse_layers: bool) -> Sequence[gf.Report]:
    """Reports of a training step."""
    step = prepare_training(workload, TrainingOptions(evaluating=True))
    return gf.count_training(
        step.model, step.args, step.kwargs, reuse_layers=reuse_layers, on_unknown="ignore"
    ).parts


def main() -> None:
    """Compare, print, save."""
    rows = []
    for name in TYPES:
        for count in (forward, training):
            rows.append(_compared(name, count))
            print(rows[-1], flush=True)
    found = {
        "environment": environment(("torch", "transformers")),
        "compared": sum("equal" in row for row in rows),
        "different": [row["model"] for row in rows if not row.get("equal", True)],
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['compared']} compared, different: {found['different'] or 'none'}")


def _compared(name: str, count: Callable[..., Sequence[gf.Report]]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "what": count.__name__}
    try:
        workload = built(name)
        ours, plain = (count(workload, reuse_layers=reuse_layers) for reuse_layers in (True, False))
    except gf.GraphFlopsError as error:
        return {**row, "refused": str(error)[:200]}
    pairs = list(zip(ours, plain, strict=True))
    return {
        **row,
        "calls": sum(len(report.records) for report in ours),
        "reused": ours[0].capture.layer_reuse.layers,
        "equal": all(Counter(_described(a)) == Counter(_described(b)) for a, b in pairs),
        "in order": all(list(_described(a)) == list(_described(b)) for a, b in pairs),
    }


def _described(report: gf.Report) -> Iterator[str]:
    """All of each record but its number and the name of its node."""
    for record in report.records:
        yield repr(_unnamed(record))


def _unnamed(record: OpRecord) -> Any:
    call = record.call
    inputs = [(name, tensor.shape, tensor.dtype, tensor.strides) for name, tensor in call.tensors()]
    outputs = [(tensor.shape, tensor.dtype, tensor.strides) for tensor in call.outputs]
    rest = replace(call, name="", index=0, inputs={}, outputs=(), same_as=None)
    return inputs, outputs, rest, record.status, record.cost


if __name__ == "__main__":
    main()
