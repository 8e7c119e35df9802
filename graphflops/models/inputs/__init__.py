"""Inputs: made from what a model declares, or given by the user."""

from graphflops.models.inputs.given import (
    floating_dtype,
    given_inputs,
    parameters_of,
    require_inputs,
)
from graphflops.models.inputs.made import transformers_inputs

__all__ = [
    "floating_dtype",
    "given_inputs",
    "parameters_of",
    "require_inputs",
    "transformers_inputs",
]
