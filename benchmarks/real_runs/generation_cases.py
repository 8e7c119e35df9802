"""All generations, by kind of model and type."""

from __future__ import annotations

from benchmarks.real_runs import (
    generation_audio,
    generation_causal,
    generation_encoder_decoder,
    generation_hybrid,
    generation_vision,
)
from benchmarks.real_runs.generation import Build

_GROUPS: dict[str, dict[str, Build]] = {
    "causal": generation_causal.CASES,
    "hybrid": generation_hybrid.CASES,
    "encoder-decoder": generation_encoder_decoder.CASES,
    "vision": generation_vision.CASES,
    "audio": generation_audio.CASES,
}

CASES: dict[str, Build] = {
    f"{group}/{name}": build for group, table in _GROUPS.items() for name, build in table.items()
}
