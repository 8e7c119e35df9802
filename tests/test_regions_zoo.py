"""Repeated layers over many transformers types: the same report with and without."""

from __future__ import annotations

import contextlib

import pytest
from test_regions import reused

import graphflops as gf
from graphflops.models import Options, Workload, resolve
from graphflops.quiet import quiet

# Types of many makes; the depth of some is their own.
TYPES = (
    *("llama4_text", "gemma", "gemma2", "qwen2_moe", "qwen3_next", "olmo2", "olmoe", "phi"),
    *(
        "phimoe",
        "starcoder2",
        "stablelm",
        "falcon",
        "bloom",
        "gptj",
        "gpt_neo",
        "cohere",
        "cohere2",
    ),
    *("granite", "granitemoe", "glm", "glm4", "persimmon", "mpt", "mamba2", "jamba", "bamba"),
    *("deberta", "mpnet", "xlm-roberta", "camembert", "modernbert", "beit", "vit_mae", "swinv2"),
    *("siglip_vision_model", "hubert", "wavlm", "audio-spectrogram-transformer", "marian", "mbart"),
    *("pegasus", "m2m_100"),
)


def built(name: str) -> Workload:
    """The type with four layers and few tokens, if it has such words for depth and length."""
    depth = {"num_hidden_layers": 4}
    for options in (Options(seq_len=32, overrides=depth), Options(overrides=depth)):
        with contextlib.suppress(gf.ModelSpecError):
            return resolve(f"hf:{name}", options)
    return resolve(f"hf:{name}", Options())


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_records_of_a_type_are_the_same(name: str) -> None:
    with quiet():
        workload = built(name)

    def count(regions: bool) -> gf.Report:
        return gf.count(
            workload.model, workload.args, workload.kwargs, regions=regions, on_unknown="ignore"
        )

    # How many are reused is a matter of speed.
    reused(count)
