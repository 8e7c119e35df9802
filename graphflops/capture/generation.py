"""The two graphs of a generation: the prompt in one pass, and one more token.

What the second one starts from is what a first pass leaves behind: it runs on fake tensors,
so that caches have the shapes they have, whatever their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.module import capture_module
from graphflops.errors import ModelSpecError
from graphflops.ir import Capture


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a generation starts from.

    Attributes:
        model: A transformers model that generates.
        inputs: Inputs of its first pass, by name.
        tokens: Which of them holds the tokens that are to be continued.
        encoded: Which of them holds the tokens that an encoder reads, if any does.
    """

    model: Any
    inputs: Mapping[str, Any]
    tokens: str
    encoded: str | None = None

    @property
    def batch(self) -> int:
        """Sequences that are continued at a time."""
        return int(self.inputs[self.tokens].shape[0])

    @property
    def length(self) -> int:
        """Tokens that are continued."""
        return int(self.inputs[self.tokens].shape[1])


def prompt_of(model: Any, inputs: Mapping[str, Any]) -> Prompt:
    """Find out what is continued.

    Raises:
        ModelSpecError: The model cannot generate, or there is nothing to continue.
    """
    can = getattr(model, "can_generate", None)
    if can is None or not can():
        msg = (
            f"{type(model).__name__} cannot generate: it has no head for the next token. Give a "
            "transformers model that has one, such as LlamaForCausalLM."
        )
        raise ModelSpecError(msg)
    inputs = {name: value for name, value in inputs.items() if value is not None}
    encoder_decoder = bool(model.config.is_encoder_decoder)
    tokens = "decoder_input_ids" if encoder_decoder else "input_ids"
    if tokens not in inputs and encoder_decoder:
        batch = next(t.shape[0] for t in inputs.values() if isinstance(t, torch.Tensor))
        inputs[tokens] = torch.zeros(batch, 1, dtype=torch.int64, device="meta")
    if tokens not in inputs:
        msg = f"{type(model).__name__} has nothing to continue: give {tokens}, a tensor of B x P."
        raise ModelSpecError(msg)
    encoded = "input_ids" if encoder_decoder and "input_ids" in inputs else None
    return Prompt(model=model, inputs=inputs, tokens=tokens, encoded=encoded)


def capture_prefill(prompt: Prompt, dynamic_shapes: Any) -> Capture:
    """The graph of the pass over the prompt, which fills the cache."""
    return capture_module(prompt.model, (), prompt.inputs, dynamic_shapes)


def capture_decode(prompt: Prompt, dynamic_shapes: Any) -> Capture:
    """The graph of one more token, after a pass over this prompt has filled the cache."""

    def advance(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        held = _tensors_only(model, _next_inputs(prompt, model, inputs))
        # A full window has no axis as long as the prompt, and yet its length is asked for.
        return {**held, "prompt": [inputs[prompt.tokens]]}

    return capture_module(prompt.model, (), prompt.inputs, dynamic_shapes, advance)


def _next_inputs(prompt: Prompt, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the model's own ``generate`` gives it for the next token."""
    outputs = model(**inputs, return_dict=True)
    state = {name: value for name, value in inputs.items() if name != prompt.tokens}
    if model.config.is_encoder_decoder:
        state = {
            name: value for name, value in state.items() if name not in _ENCODER_INPUTS
        } | {"encoder_outputs": _encoded(outputs)}
    state = model._update_model_kwargs_for_generation(
        outputs, state, is_encoder_decoder=model.config.is_encoder_decoder
    )
    tokens = inputs[prompt.tokens]
    grown = torch.cat([tokens, tokens[:, -1:]], dim=1)
    step: dict[str, Any] = model.prepare_inputs_for_generation(
        grown, next_sequence_length=1, is_first_iteration=False, **state
    )
    return {name: value for name, value in step.items() if value is not None}


_ENCODER_INPUTS = {"input_ids", "inputs_embeds", "input_features", "input_values", "pixel_values"}


def _encoded(outputs: Any) -> Any:
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=outputs.encoder_last_hidden_state)


def _tensors_only(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Let the forward take and return tensors alone.

    A cache holds lengths too, symbolic like its tensors, which export takes for no input.
    """
    flat = {name: pytree.tree_flatten(value) for name, value in inputs.items()}
    forward = model.forward

    def restored(**given: list[torch.Tensor]) -> list[torch.Tensor]:
        whole = {}
        for name, (leaves, spec) in flat.items():
            tensors = iter(given.get(name, ()))
            filled = [next(tensors) if _is_tensor(leaf) else leaf for leaf in leaves]
            whole[name] = pytree.tree_unflatten(filled, spec)
        return list(filter(_is_tensor, pytree.tree_leaves(forward(**whole))))

    model.forward = restored
    held = {name: list(filter(_is_tensor, leaves)) for name, (leaves, _) in flat.items()}
    return {name: tensors for name, tensors in held.items() if tensors}


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
