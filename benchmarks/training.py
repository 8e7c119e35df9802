"""What a backward pass costs, against "2 x forward": ``python -m benchmarks.training``.

Writes ``benchmarks/results/training.json`` and the table in ``docs/tasks/training.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

import graphflops as gf
from benchmarks.results import environment, fill
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.render.units import quantity

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "training.json"
PAGE = ROOT / "docs" / "tasks" / "training.md"
LLAMA = f"hf:{ROOT}/examples/configs/llama-3-8b"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model as it is trained.

    Attributes:
        title: What the table calls it.
        model: Its name.
        options: Sizes and config.
        training: What is frozen and checkpointed.
        change: What else is done to the model.
    """

    title: str
    model: str
    options: Options = field(default_factory=Options)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    change: Callable[[Any], Any] = lambda model: model


def _lora(model: Any) -> Any:
    import peft  # imports transformers, which the model's name has made importable by now

    config = peft.LoraConfig(r=16, target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(model, config, low_cpu_mem_usage=True).train()


CASES = (
    Case(title="ResNet-50", model="timm:resnet50"),
    Case(
        title="ResNet-50, last stage and head",
        model="timm:resnet50",
        training=TrainingOptions(train_only=["layer4.*", "fc.*"]),
    ),
    Case(title="ConvNeXt-T (depthwise 7x7)", model="timm:convnext_tiny"),
    Case(title="ViT-B/16", model="timm:vit_base_patch16_224"),
    Case(
        title="ViT-B/16, linear probe",
        model="timm:vit_base_patch16_224",
        training=TrainingOptions(train_only=["head.*"]),
    ),
    Case(title="BERT-base, 512 tokens", model="hf:bert", options=Options(seq_len=512)),
    Case(
        title="BERT-base, 512 tokens, embeddings frozen",
        model="hf:bert",
        options=Options(seq_len=512),
        training=TrainingOptions(freeze=["embeddings.*"]),
    ),
    Case(title="T5-small, 512 tokens", model="hf:t5", options=Options(seq_len=512)),
    Case(title="Whisper, 30 s", model="hf:whisper", options=Options(audio_seconds=30)),
    Case(title="Llama-3-8B, 2,048 tokens", model=LLAMA, options=Options(seq_len=2048)),
    Case(
        title="Llama-3-8B, LoRA of q and v",
        model=LLAMA,
        options=Options(seq_len=2048),
        change=_lora,
    ),
    Case(
        title="Llama-3-8B, layers checkpointed",
        model=LLAMA,
        options=Options(seq_len=2048),
        training=TrainingOptions(checkpoint=True),
    ),
)


def main() -> None:
    """Count all, print the table, write results and page."""
    rows = [_counted(case) for case in CASES]
    found = {
        "environment": environment(("graphflops", "torch", "transformers", "timm", "peft")),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    fill(PAGE, "training", table(rows))


def _counted(case: Case) -> dict[str, Any]:
    workload = prepare_training(resolve(case.model, case.options), case.training)
    model = case.change(workload.model)
    report = gf.count_training(model, workload.args, workload.kwargs, on_unknown="raise")
    whole = report.by_module_and_phase()[""]
    return {
        "title": case.title,
        "params": report.params,
        "params_trainable": report.params_trainable,
        "forward": report.forward.flops,
        "backward": report.backward.flops,
        "input_gradient": whole.input_gradient.flops,
        "weight_gradient": whole.weight_gradient.flops,
        "recompute": report.recompute.flops,
        "contractions": 2 * report.macs,
        "seconds": round(report.forward.capture.seconds, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """FLOPs of each pass of each model."""
    shown = [
        (
            row["title"],
            quantity(row["forward"]),
            quantity(2 * row["forward"]),
            quantity(row["backward"]),
            f"{row['backward'] / row['forward']:.2f}",
            quantity(row["input_gradient"]),
            quantity(row["weight_gradient"]),
            quantity(row["recompute"]),
        )
        for row in rows
    ]
    headers = (
        *("model", "forward", "2 x forward", "backward", "over forward"),
        *("input gradient", "weight gradient", "recomputed"),
    )
    align = ("left", *("right",) * (len(headers) - 1))
    return tabulate(shown, headers, tablefmt="github", colalign=align, disable_numparse=True)


if __name__ == "__main__":
    main()
