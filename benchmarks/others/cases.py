"""All models of other packages, by group and name."""

from __future__ import annotations

from benchmarks.others import diffusion, patches, science, sequences, vision
from benchmarks.others.case import Case

_GROUPS: dict[str, dict[str, Case]] = {
    "diffusers": diffusion.CASES,
    "vision": vision.CASES,
    "vit-pytorch": patches.CASES,
    "science": science.CASES,
    "sequences": sequences.CASES,
}

CASES: dict[str, Case] = {
    f"{group}/{name}": case for group, table in _GROUPS.items() for name, case in table.items()
}
