"""Published TFLOP/s and MFU of training runs: ``python -m benchmarks.utilization [NAME ...]``.

`measured/published.json` has tokens per second per GPU and the utilization that its sources made
of them. Here the models are counted, and FLOPs per token times tokens per second has to be the
published figure within its rounding. Where a source counts something else, it is named, and its
arithmetic is added to the count: then it has to be. Writes `results/utilization.json` and
`docs/evidence/utilization.md`; names of models count these alone and print.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

import graphflops as gf
from benchmarks.results import environment
from graphflops.models.optional_dependencies import repair_torchvision

MEASURED = Path(__file__).parent / "measured" / "published.json"
RESULTS = Path(__file__).parent / "results" / "utilization.json"
PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "utilization.md"
LLAMA3_VOCABULARY = 128_256
A100 = "a100-sxm-80gb"


class Term(NamedTuple):
    """What a source counts differently: multiply-accumulates per token, and their formula."""

    name: str
    formula: str
    macs: float


class Model(NamedTuple):
    """Model of a row.

    Attributes:
        build: Function that makes it; called on the meta device.
        convention: How its source counts attention: in full (exact) or causal.
        terms: Function from the sequence length to what the source counts differently.
    """

    build: Callable[[], torch.nn.Module]
    convention: str = "exact"
    terms: Callable[[int], tuple[Term, ...]] = lambda _: ()


def llama(**config: int) -> torch.nn.Module:
    """Make a Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model: torch.nn.Module = LlamaForCausalLM(
        LlamaConfig(max_position_embeddings=8192, use_cache=False, **config)
    )
    return model


def gpt3(hidden: int, layers: int, heads: int) -> torch.nn.Module:
    """Make a GPT-3, with the vocabulary of GPT-2 padded."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=hidden,
        n_layer=layers,
        n_head=heads,
        vocab_size=51_200,
        n_positions=2048,
        use_cache=False,
    )
    model: torch.nn.Module = GPT2LMHeadModel(config)
    return model


def gpt_oss(layers: int, experts: int) -> torch.nn.Module:
    """Make a GPT-OSS: hidden size 2,880, 64 heads of 64, 4 experts for a token."""
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(num_hidden_layers=layers, num_local_experts=experts, use_cache=False)
    model: torch.nn.Module = GptOssForCausalLM(config)
    return model


def lora(model: torch.nn.Module) -> torch.nn.Module:
    """Freeze a model and put adapters of rank 8 on its linear layers."""
    from peft import LoraConfig, get_peft_model

    adapted: torch.nn.Module = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    return adapted


LLAMA3_8B = partial(
    llama,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=LLAMA3_VOCABULARY,
)
LLAMA3_70B = partial(
    llama,
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=LLAMA3_VOCABULARY,
)


def embedding(hidden: int) -> tuple[Term, ...]:
    """Return the embedding of Llama 3, counted as a product in forward and twice in backward."""
    macs = 3 * LLAMA3_VOCABULARY * hidden
    return (Term("the embedding counted as a product", "3 V h", macs),)


def narrow_heads(layers: int, experts: int, sequence: int) -> tuple[Term, ...]:
    """Return what GPT-OSS lacks with heads of h / H = 45 in place of 64, and its router."""
    hidden, heads, kv_heads, size, window = 2880, 64, 8, 64, 128
    lacking = size - hidden // heads
    projections = hidden * lacking * 2 * (heads + kv_heads)
    full = (sequence + 1) / 2
    windowed = window - window * (window - 1) / (2 * sequence)
    scores = 2 * heads * lacking * (full + windowed) / 2
    return (
        Term(
            "heads of 2,880 / 64 = 45, where the model has 64",
            "-3 L (2 h d (H + K) + 2 H d (s + w) / 2), d = 19",
            -3 * layers * (projections + scores),
        ),
        Term("the router left out", "-3 L h E", -3 * layers * hidden * experts),
    )


def lora_as_two_forwards(sequence: int) -> tuple[Term, ...]:
    """Return what LoRA on Llama 3 70B lacks if it is twice the forward, without adapters."""
    hidden, intermediate, layers, kv, rank = 8192, 28672, 80, 1024, 8
    attention = layers * 2 * hidden * (sequence + 1) / 2
    attended = ((hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden))
    gated = ((hidden, intermediate), (hidden, intermediate), (intermediate, hidden))
    adapters = layers * rank * sum(map(sum, (*attended, *gated)))
    # Layer 0 passes no gradient to the embedding: q, k, v and the first half of their adapters.
    first = hidden * (hidden + 2 * kv) + 3 * rank * hidden
    return (
        Term(
            "backward of attention counted once, where it is two products for each",
            "-L 2 h (S + 1) / 2",
            -attention,
        ),
        Term("adapters left out", "-3 L r sum(in + out)", -3 * adapters),
        Term("input gradient of layer 0's q, k and v counted", "h (h + 2 k) + 3 r h", first),
    )


MODELS = {
    "Llama2-7B": Model(
        partial(
            llama,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            vocab_size=32000,
        )
    ),
    "Llama2-13B": Model(
        partial(
            llama,
            hidden_size=5120,
            intermediate_size=13824,
            num_hidden_layers=40,
            num_attention_heads=40,
            num_key_value_heads=40,
            vocab_size=32000,
        )
    ),
    "Llama2-70B": Model(
        partial(
            llama,
            hidden_size=8192,
            intermediate_size=28672,
            num_hidden_layers=80,
            num_attention_heads=64,
            num_key_value_heads=8,
            vocab_size=32000,
        )
    ),
    "Llama3-8B": Model(LLAMA3_8B),
    "Llama3-70B": Model(LLAMA3_70B),
    "GPT3-5B": Model(partial(gpt3, 4096, 24, 32)),
    "GPT3-20B": Model(partial(gpt3, 6144, 44, 48)),
    "GPT3-175B": Model(partial(gpt3, 12288, 96, 96)),
    "GPT-OSS 20B": Model(partial(gpt_oss, 24, 32), "causal", partial(narrow_heads, 24, 32)),
    "GPT-OSS 120B": Model(partial(gpt_oss, 36, 128), "causal", partial(narrow_heads, 36, 128)),
    "Llama3-70B, LoRA": Model(lambda: lora(LLAMA3_70B()), "causal", lora_as_two_forwards),
}
EMBEDDED = {
    "Llama3-8B": Model(LLAMA3_8B, terms=lambda _: embedding(4096)),
    "Llama3-70B": Model(LLAMA3_70B, terms=lambda _: embedding(8192)),
}
"""Models of the rows in percent of a peak."""


def contractions(model: Model, sequence: int) -> int:
    """Return the multiply-accumulates of a training step on one sequence."""
    with torch.device("meta"):
        built = model.build().train()
        ids = torch.zeros(1, sequence, dtype=torch.int64)
    step = gf.count_training(built, kwargs={"input_ids": ids}, convention=model.convention)
    return int(step.macs)


def model_of(row: dict[str, Any]) -> Model:
    """Return the model of a published row."""
    models = EMBEDDED if "mfu_percent" in row else MODELS
    return models[row["model"].partition(" (")[0]]


def reproduced(row: dict[str, Any], macs: int) -> dict[str, Any]:
    """Return a published row beside its figure from a count.

    Args:
        row: Published row.
        macs: Multiply-accumulates of a training step on one sequence of it.
    """
    sequence, rate = row["sequence"], row["tokens_per_second_per_gpu"]
    terms = model_of(row).terms(sequence)
    published = row["mfu_percent"] if "mfu_percent" in row else row["tflops_per_gpu"]
    whole = 1e12 if "tflops_per_gpu" in row else gf.peak_flops(A100) / 100
    counted = 2 * macs / sequence * rate / whole
    with_terms = 2 * (macs / sequence + sum(term.macs for term in terms)) * rate / whole
    return {
        "model": row["model"],
        "sequence": sequence,
        "attention": model_of(row).convention,
        "unit": "TFLOP/s" if "tflops_per_gpu" in row else "% of 312 TFLOP/s",
        "published": published,
        "counted": round(counted, 3),
        "terms": [term._asdict() for term in terms],
        "with_terms": round(with_terms, 3),
        "within_rounding": is_within_rounding(with_terms, published, rate),
    }


def is_within_rounding(value: float, published: float, rate: float) -> bool:
    """Return True if a value rounds to a published one, for a rate that was rounded too."""
    step, rate_step = (10.0 ** -len(str(x).partition(".")[2]) for x in (published, rate))
    # A whole number has no digits after the point: a step of 1.
    return abs(value - published) <= step / 2 + value * rate_step / 2 / rate


def page(results: dict[str, Any]) -> str:
    """Return the page about the results."""
    rows, notes = [], []
    for source in results["sources"]:
        for row in source["rows"]:
            explained = "; ".join(
                f"{term['name']}, {term['formula']} = {term['macs'] / 1e6:+,.1f} M"
                for term in row["terms"]
            )
            attention = "in full" if row["attention"] == "exact" else "causal"
            rows.append(
                (
                    *(row["model"], f"{row['sequence']:,}", attention, row["unit"]),
                    *(f"{row['published']:g}", f"{row['counted']:.1f}"),
                    f"{row['with_terms']:.1f}" if row["terms"] else "",
                )
            )
            if explained:
                notes.append(f"- **{row['model']}** ({row['unit']}): {explained}.")
    headers = ("model", "tokens", "attention", "unit", "published", "counted", "with terms")
    align = ("left", "right", "left", "left", "right", "right", "right")
    table = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    every = [row for source in results["sources"] for row in source["rows"]]
    plain = sum(row["within_rounding"] for row in every if not row["terms"])
    explained_rows = sum(row["within_rounding"] for row in every if row["terms"])
    where = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    return _PAGE.format(
        table=table,
        notes="\n".join(notes),
        plain=plain,
        explained=explained_rows,
        rows=len(every),
        sources="\n".join(f"- {source['source']}." for source in results["sources"]),
        versions=f"{versions}, {where['date']}",
    )


_PAGE = """# Published utilization of training runs

<!-- Written by `python -m benchmarks.utilization`; edit the script, not this page. -->

Tokens per second and GPU are measured; TFLOP/s and MFU are computed from them by a formula for the
FLOPs of a token. Here the formula is replaced by a count of the model: contractions of forward and
backward, a multiply-accumulate as two. Of {rows} rows, {plain} come out as published, within the
rounding of the figure and of the tokens per second. In {explained} the source counts something
else, which is named below; with it these come out too.

{table}

*Causal* is the [convention](../counting/why_tools_disagree.md) `causal`: without the products of
scores that the mask hides. *With terms*: the count and what the source counts differently, in
multiply-accumulates of a token:

{notes}

V is the vocabulary, h the hidden size, L the number of layers, H and K those of query and of key
heads, k the width of all key heads, S the number of tokens, s = (S + 1) / 2 the scores of a row of
causal attention and w those of a row in a window of 128, E the number of experts, r the rank of
adapters. Adapters are on all linear layers but the head.

Sources:

{sources}

The sizes of GPT3-5B and GPT3-20B are our reading: their sources do not state them. Counted with
{versions}.
"""


def main() -> None:
    """Count all rows, write results and page; given names, count these and print."""
    repair_torchvision()
    sources = json.loads(MEASURED.read_text("utf-8"))["utilization"]
    chosen, counted = sys.argv[1:], {}
    for source in sources:
        for row in source["rows"]:
            model, sequence = model_of(row), row["sequence"]
            name = row["model"].partition(" (")[0]
            if chosen and name not in chosen:
                continue
            if (name, sequence) not in counted:
                counted[name, sequence] = contractions(model, sequence)
            print(reproduced(row, counted[name, sequence]), flush=True)
    if chosen:
        return
    results = {
        "environment": environment(("torch", "transformers", "peft")),
        "sources": [
            {
                "source": source["source"],
                "rows": [
                    reproduced(row, counted[row["model"].partition(" (")[0], row["sequence"]])
                    for row in source["rows"]
                ],
            }
            for source in sources
        ],
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
