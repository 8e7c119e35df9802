"""All models by name: those of the zoo."""

from __future__ import annotations

from benchmarks.real_runs.forward import Named
from benchmarks.zoo_worker import listed_models

CASES: dict[str, Named] = {
    name.replace(":", "/", 1): Named(name) for name in listed_models(("hf", "timm", "torchvision"))
}
