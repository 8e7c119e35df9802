"""The loop of ``generate``, one call of the model at a time.

The inputs of each call are prepared by the model's own code, in the order in which
``GenerationMixin.generate`` and ``_sample`` go about it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from graphflops.capture.fake.fake_model import fakify_model_and_inputs
from graphflops.errors import ModelSpecError
from graphflops.runtime.interruption import raise_interruption

CONTINUED = {False: "input_ids", True: "decoder_input_ids"}
"""The tokens that are continued, by whether there is an encoder."""


class GenerateLoop:
    """What ``generate`` carries from one call of a model to the next.

    Attributes:
        model: A transformers model that generates.
        use_cache: Whether a step reads the last token alone.
    """

    def __init__(
        self, model: Any, inputs: Mapping[str, Any], *, static: bool, room: int | torch.SymInt
    ) -> None:
        self.model = model
        self.use_cache: bool = inputs["use_cache"]
        self._encodes = bool(model.config.is_encoder_decoder)
        self._kwargs = dict(inputs)
        self._tokens: torch.Tensor = self._kwargs.pop(CONTINUED[self._encodes])
        self._static, self._room = static, room

    def first_inputs(self) -> dict[str, Any]:
        """Run the encoder if there is one, make the cache, and return what the first call gets."""
        from transformers.generation.configuration_utils import GenerationMode

        model, config = self.model, self._config()
        if self._encodes:
            bos = config.bos_token_id
            encoded, name, kwargs = model._prepare_model_inputs(None, bos, self._kwargs)
            self._kwargs = model._maybe_prepare_encoder_kwargs_for_generation(
                encoded, kwargs, name, config
            )
        batch = self._tokens.shape[0]
        mode = GenerationMode.GREEDY_SEARCH
        model._prepare_cache_for_generation(config, self._kwargs, mode, batch, self._room)
        return self._prepared(None, is_first_iteration=True)

    def next_inputs(self, outputs: Any) -> dict[str, Any]:
        """Return what a call gets after one with these outputs.

        Raises:
            ModelSpecError: That is up to a ``generate`` of the model's own.
        """
        from transformers.generation.utils import GenerationMixin

        model = self.model
        has_own = type(model).generate is not GenerationMixin.generate
        if self.use_cache and has_own and not returns_cache(outputs):
            msg = (
                f"{type(model).__name__} has a generate() of its own, and its forward keeps no "
                "cache: what a step costs cannot be seen. Count its language model instead."
            )
            raise ModelSpecError(msg)
        self._kwargs = model._update_model_kwargs_for_generation(
            outputs, self._kwargs, is_encoder_decoder=self._encodes
        )
        self._tokens = torch.cat([self._tokens, self._tokens[:, -1:]], dim=1)
        return self._prepared(1 if self.use_cache else None)

    def _prepared(self, length: int | None, **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = self.model.prepare_inputs_for_generation(
            self._tokens, next_sequence_length=length, **options, **self._kwargs
        )
        inputs["return_dict"] = True
        return {key: value for key, value in inputs.items() if value is not None}

    def _config(self) -> Any:
        """The model's own settings, for greedy search with the cache that is asked for."""
        config = copy.copy(self.model.generation_config)
        vars(config).update(
            use_cache=self.use_cache,
            cache_implementation="static" if self._static else None,
            max_cache_len=None,
            num_beams=1,
            num_return_sequences=1,
        )
        return config


def returns_cache(outputs: Any) -> bool:
    """Whether a call has returned what it keeps for the next one."""
    from transformers.generation.utils import ALL_CACHE_NAMES

    return any(getattr(outputs, name, None) is not None for name in ALL_CACHE_NAMES)


def with_positions(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the position ids that ``generate`` makes of a prompt, and drop a mask that hides nothing.

    The model's own code computes them, of the values of the inputs where these are known.
    """
    takes = inspect.signature(model.forward).parameters
    prepared = dict(inputs)
    if model.config.is_encoder_decoder or "attention_mask" not in takes:
        return prepared
    own = fakify_model_and_inputs(model, (), inputs)
    with own.tracker.eager(), torch.no_grad():
        kwargs = dict(own.kwargs)
        tokens = kwargs.pop("input_ids")
        mask = kwargs.setdefault("attention_mask", tokens.new_ones(tokens.shape[:2]))
        if "position_ids" in takes and "position_ids" not in kwargs:
            positions = _positions(own.model, tokens, kwargs)
            if positions is not None:
                value = own.tracker.value(positions)
                prepared["position_ids"] = _blank(positions) if value is None else value
    hides = own.tracker.value(mask)
    if hides is not None and bool((hides == 1).all()):
        prepared.pop("attention_mask", None)
    return prepared


def _positions(model: Any, tokens: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Position ids; none where they depend on values that nobody knows."""
    try:
        positions: torch.Tensor = model._prepare_position_ids_for_generation(tokens, kwargs)
    except Exception as error:  # noqa: BLE001 - model code: the forward makes its own then
        raise_interruption(error)
        return None
    return positions


def _blank(fake: torch.Tensor) -> torch.Tensor:
    return torch.empty(fake.shape, dtype=fake.dtype, device="meta")
