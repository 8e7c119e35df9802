"""How long a count takes beside ``FlopCounterMode``: ``python -m benchmarks.capture``.

The first count of a process and a warm one, of graphflops and of ``FlopCounterMode`` on the meta
device and under fake tensors, forward and training; how is in ``benchmarks/count_time.py``.
Writes ``benchmarks/results/capture.json`` and two tables of ``docs/evidence/speed.md``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any

from tabulate import tabulate

from benchmarks import unrepeated_models
from benchmarks.count_time import (
    COUNTERS,
    OWN_SLOWER,
    ROOT,
    Case,
    Row,
    arguments,
    measured,
    named,
    quicker,
    ratio,
    shown,
)
from benchmarks.results import environment, fill
from graphflops.models import Options, resolve
from graphflops.models.workload import Workload

RESULTS = ROOT / "benchmarks" / "results" / "capture.json"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
ROUNDS = 3
LLAMA = f"hf:{ROOT}/examples/configs/llama-3-8b"
LLAMA_8B = "Llama-3-8B shape, 2,048 tokens"
TRAINING = ", training"
_LLAMA_13B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
_KIMI_K2 = {"n_routed_experts": 384, "num_attention_heads": 64, "vocab_size": 163840}
_SMALL = {"seq_len": 128, "overrides": {"hidden_size": 512, "intermediate_size": 1024}}
_ALL = (*COUNTERS, *OWN_SLOWER)


def _adapted(name: str, **options: Any) -> Workload:
    """Return a model with low-rank adapters."""
    workload = resolve(name, Options(**options))
    # PEFT takes torch.distributed.tensor for imported, and transformers, which resolve repairs.
    import peft

    importlib.import_module("torch.distributed.tensor")
    adapters = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(workload.model, adapters, low_cpu_mem_usage=True)
    return dataclasses.replace(workload, model=model.eval())


_REPEATED = {
    LLAMA_8B: Case(build=named(LLAMA, seq_len=2048), counters=_ALL),
    "Llama-3.1-405B shape, 2,048 tokens": Case(
        build=named(f"hf:{ROOT}/examples/configs/llama-3.1-405b", seq_len=2048), counters=_ALL
    ),
    "Llama-2-13B shape, 1,024 tokens": Case(
        build=named("hf:llama", seq_len=1024, overrides=_LLAMA_13B)
    ),
    # FlopCounterMode has no shapes for grouped products of float32.
    "DeepSeek-V3 shape, 512 tokens": Case(
        build=named("hf:deepseek_v3", seq_len=512, dtype="bfloat16"), counters=_ALL
    ),
    "Kimi K2 shape, 512 tokens": Case(
        build=named("hf:deepseek_v3", seq_len=512, dtype="bfloat16", overrides=_KIMI_K2)
    ),
    "Jamba, 512 tokens": Case(build=named("hf:jamba", seq_len=512, dtype="bfloat16")),
    "Zamba2, 512 tokens": Case(build=named("hf:zamba2", seq_len=512)),
    "BERT-base, 128 tokens": Case(build=named("hf:bert", seq_len=128), counters=_ALL),
    "ViT-B/16, 224x224": Case(build=named("hf:vit"), counters=_ALL),
    "ResNet-50, 224x224": Case(build=named("hf:resnet"), counters=_ALL),
    "ResNet-101, 224x224": Case(build=named("torchvision:resnet101")),
    "Swin-L, 224x224": Case(build=named("timm:swin_large_patch4_window7_224")),
    "EfficientNet-B7, 224x224": Case(build=named("torchvision:efficientnet_b7")),
    "DenseNet-201, 224x224": Case(build=named("torchvision:densenet201")),
    "NASNet-A large, 331x331": Case(build=named("timm:nasnetalarge")),
    "ALBERT, 128 tokens": Case(build=named("hf:albert", seq_len=128)),
    "Llama of 32 layers, 128 tokens": Case(build=named("hf:llama", **_SMALL)),
    "the same with LoRA (PEFT)": Case(build=lambda: _adapted("hf:llama", **_SMALL)),
}
_TRAINED = (
    LLAMA_8B,
    "Llama-3.1-405B shape, 2,048 tokens",
    "DeepSeek-V3 shape, 512 tokens",
    "BERT-base, 128 tokens",
    "ViT-B/16, 224x224",
    "ResNet-50, 224x224",
    "Swin-L, 224x224",
    "EfficientNet-B7, 224x224",
)
CASES: dict[str, Case] = {
    **_REPEATED,
    **{title: Case(build=build) for title, build in unrepeated_models.MODELS.items()},
    **{
        f"{title}{TRAINING}": dataclasses.replace(
            _REPEATED[title], is_training=True, counters=COUNTERS
        )
        for title in _TRAINED
    },
}


def main() -> None:
    """Measure, print, save, write the page."""
    options = arguments(__doc__, ROUNDS).parse_args()
    rows = {row["case"]: row for row in _load()["rows"]} if options.only else {}
    for title, case in CASES.items():
        if options.only is None or options.only in title:
            rows[title] = measured("benchmarks.capture", title, case, options.rounds)
            print(table([rows[title]]).splitlines()[-1], flush=True)
            _save(rows)
    fill(PAGE, "capture", table(_load()["rows"]))
    fill(PAGE, "capture-in-full", slower_table(_load()["rows"]))


def _load() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return loaded


def _save(rows: dict[str, Row]) -> None:
    where = environment(("torch", "transformers", "torchvision", "timm"))
    found = [rows[title] for title in CASES if title in rows]
    RESULTS.write_text(json.dumps({"environment": where, "rows": found}, indent=1) + "\n")


def table(rows: list[Row]) -> str:
    """Seconds of graphflops and of the quicker other, the first time and warm, and memory."""
    cells = [
        (
            row["case"],
            *(
                cell
                for times in (row["first"], row["warm"])
                for cell in (
                    shown(times[COUNTERS[0]], " s"),
                    shown(quicker(times), " s"),
                    shown(ratio(times)),
                )
            ),
            _mebibytes(row["peak_mib"][COUNTERS[0]]),
        )
        for row in rows
    ]
    headers = ("count", "first", "quicker other", "ratio", "warm", "quicker other", "ratio")
    align = ("left", *("right",) * len(headers))
    return tabulate(
        cells, (*headers, "memory"), tablefmt="github", colalign=align, disable_numparse=True
    )


def _mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} MiB"


def slower_table(rows: list[Row]) -> str:
    """Seconds that the same calls take without reuse and by ``torch.export``, warm."""
    headers = ("warm count", COUNTERS[0], *OWN_SLOWER)
    cells = [
        (row["case"], *(shown(row["warm"][counter], " s") for counter in headers[1:]))
        for row in rows
        if OWN_SLOWER[0] in row["warm"]
    ]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
