"""Inputs: made from what a model declares, or given by the user."""

from graphflops.models.inputs.build import transformers_inputs
from graphflops.models.inputs.user_inputs import (
    floating_dtype,
    given_inputs,
    parameters_of,
    require_inputs,
)

__all__ = [
    "floating_dtype",
    "given_inputs",
    "parameters_of",
    "require_inputs",
    "transformers_inputs",
]
