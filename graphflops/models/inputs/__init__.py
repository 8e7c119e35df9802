"""Default inputs of models, built from their signatures and configs, and the user's inputs.

In: a model, its config and ``Options``. Out: keyword inputs with notes. May import ``capture``,
``render.units``, ``errors`` and ``models.workload``.
"""

from graphflops.models.inputs.build import transformers_inputs
from graphflops.models.inputs.user_inputs import (
    apply_user_inputs,
    floating_dtype,
    forward_parameters,
    require_inputs,
)

__all__ = [
    "apply_user_inputs",
    "floating_dtype",
    "forward_parameters",
    "require_inputs",
    "transformers_inputs",
]
