"""All training steps, by group and name."""

from __future__ import annotations

from benchmarks.real_runs import (
    training_autograd,
    training_checkpoints,
    training_layers,
    training_models,
)
from benchmarks.real_runs.training import Build

_GROUPS: dict[str, dict[str, Build]] = {
    "dense": training_layers.DENSE,
    "convolutions": training_layers.CONVOLUTIONS,
    "recurrent": training_layers.RECURRENT,
    "attention": training_layers.ATTENTION,
    "checkpoints": training_checkpoints.CHECKPOINTS,
    "functions": training_autograd.FUNCTIONS,
    "hooks": training_autograd.HOOKS,
    "frozen": training_autograd.FROZEN,
    "precision": training_autograd.PRECISION,
    "transformers": training_models.TRANSFORMERS,
    "adapters": training_models.ADAPTERS,
    "vision": training_models.VISION,
}

CASES: dict[str, Build] = {
    f"{group}/{name}": build for group, table in _GROUPS.items() for name, build in table.items()
}
