"""Loop of ``generate``, one call of the model at a time.

The model's own code prepares the inputs of each call, in the order of
``GenerationMixin.generate`` and ``_sample``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from graphflops.capture.fake.fake_model import fakify_model_and_inputs
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.storages import StorageTracker
from graphflops.capture.record.module_attributes import (
    ChangedAttributes,
    ModuleAttributes,
    restore_attributes,
)
from graphflops.capture.transformers_compat import (
    cache_input_names,
    create_cache,
    delegates_generate,
    encode_prompt,
    has_own_generate,
    inputs_of_part,
    position_ids,
    takes_logits_to_keep,
    update_inputs,
)
from graphflops.errors import ModelSpecError
from graphflops.runtime.interruption import raise_interruption

TOKEN_INPUT = {False: "input_ids", True: "decoder_input_ids"}
"""Name of the input with the tokens to continue, by the presence of an encoder."""


class GenerateLoop:
    """State of ``generate`` between two calls of a model.

    Attributes:
        model: A transformers model that generates.
        use_cache: True if a step reads the last token alone.
    """

    def __init__(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        *,
        static: bool,
        max_cache_length: int | torch.SymInt,
    ) -> None:
        self.model = model
        self.use_cache: bool = inputs["use_cache"]
        self._has_encoder = bool(model.config.is_encoder_decoder)
        self._kwargs = dict(inputs)
        self._tokens: torch.Tensor = self._kwargs.pop(TOKEN_INPUT[self._has_encoder])
        self._static, self._max_cache_length = static, max_cache_length
        self._given: set[str] | None = None  # inputs before those that an encoder makes
        self._attributes = ModuleAttributes(model)

    def first_inputs(self) -> dict[str, Any]:
        """Run an encoder, if any, create the cache, and return the inputs of the first call.

        If the model's own ``generate`` calls that of a part, :attr:`model` is the part from here
        on.
        """
        if delegates_generate(self.model):
            self._delegate()
        model, config = self.model, self._config()
        if self._has_encoder:
            self._given = self._given or set(self._kwargs)
            self._kwargs = encode_prompt(model, config, self._kwargs)
        batch = self._tokens.shape[0]
        create_cache(model, config, self._kwargs, batch, self._max_cache_length)
        return self._prepare_inputs(None, is_first_iteration=True)

    def next_inputs(self, outputs: Any) -> dict[str, Any]:
        """Return the inputs of the call after one with these outputs.

        Raises:
            ModelSpecError: A ``generate`` of the model's own prepares them.
        """
        model = self.model
        if self.use_cache and has_own_generate(model) and not returns_cache(outputs):
            msg = (
                f"{type(model).__name__} has a generate() of its own, and its forward keeps no "
                "cache: what a step costs cannot be seen. Count its language model instead."
            )
            raise ModelSpecError(msg)
        self._kwargs = update_inputs(model, outputs, self._kwargs, has_encoder=self._has_encoder)
        self._tokens = torch.cat([self._tokens, self._tokens[:, -1:]], dim=1)
        return self._prepare_inputs(1 if self.use_cache else None)

    def state_after(self, outputs: Any) -> Any:
        """Return all that the next call starts from, after one with these outputs.

        ``None`` if some of it is kept elsewhere than in the outputs, the cache that it was given,
        and attributes of modules.
        """
        if not isinstance(outputs, Mapping):
            return None
        attributes: ChangedAttributes = []
        caches: dict[str, Any] = {}
        if self.use_cache and not returns_cache(outputs):
            attributes = self._attributes.changed()
            names = cache_input_names() & self._kwargs.keys()
            caches = {name: self._kwargs[name] for name in sorted(names)}
            if not self._hold_all_results(outputs, attributes):
                return None
        # The logits give the next token, whatever that is.
        kept = {name: value for name, value in outputs.items() if name != "logits"}
        made = {} if self._given is None else dict(self._kwargs)
        for name in cache_input_names():
            made.pop(name, None)
        for name in self._given or ():
            made.update({name: None} if name in made else {})
        return type(outputs)(**kept), made, self.model, attributes, caches

    def _hold_all_results(self, outputs: Any, attributes: ChangedAttributes) -> bool:
        """Return True if no tensor that is alive is the state of something else."""
        mode: Any = getattr(self._tokens, "fake_mode", None)
        held = (outputs, [values for _, values in attributes], self._kwargs, self._tokens)
        storages: StorageTracker = mode.value_tracker.storages
        return storages.results_alive() <= {storages.of(tensor).key for tensor in tensors_in(held)}

    def resume(self, state: Any) -> dict[str, Any]:
        """Return the inputs of the call that starts from a state."""
        outputs, made, self.model, attributes, caches = state
        restore_attributes(attributes)
        self._kwargs.update(caches)
        if made:
            self._kwargs = {name: self._kwargs.get(name, made[name]) for name in made}
            self._given = {name for name, value in made.items() if value is None}
        return self.next_inputs(outputs)

    def _delegate(self) -> None:
        """Run ``generate`` of the model up to that of its part, which the loop then follows."""
        name = TOKEN_INPUT[self._has_encoder]
        given = self._kwargs | {name: self._tokens}
        whole = self.model
        self.model, inputs = inputs_of_part(whole, given)
        if bool(self.model.config.is_encoder_decoder) != self._has_encoder:
            msg = (
                f"{type(whole).__name__} and its generating part {type(self.model).__name__} "
                "differ in is_encoder_decoder: which tokens are continued is not known. Set it in "
                "the config of the whole as in that of the part."
            )
            raise ModelSpecError(msg)
        self._given = set()
        self._kwargs = {**inputs, "use_cache": self.use_cache}
        if takes_logits_to_keep(self.model):
            self._kwargs["logits_to_keep"] = given["logits_to_keep"]
        if name not in self._kwargs:
            start: torch.Tensor = self._kwargs["inputs_embeds"]
            self._kwargs[name] = start.new_zeros(start.shape[0], 0, dtype=torch.int64)
        self._tokens = self._kwargs.pop(name)

    def _prepare_inputs(self, length: int | None, **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = self.model.prepare_inputs_for_generation(
            self._tokens, next_sequence_length=length, **options, **self._kwargs
        )
        inputs["return_dict"] = True
        return {key: value for key, value in inputs.items() if value is not None}

    def _config(self) -> Any:
        """Return the model's own settings, for greedy search with the configured cache."""
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
    """Return True if a call has returned a cache for the next one."""
    return any(getattr(outputs, name, None) is not None for name in cache_input_names())


def with_positions(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the position ids that ``generate`` derives from a prompt, and drop an all-ones mask.

    The model's own code computes them, from the values of the inputs where these are known.
    """
    parameters = inspect.signature(model.forward).parameters
    prepared = dict(inputs)
    if model.config.is_encoder_decoder or "attention_mask" not in parameters:
        return prepared
    fake_model = fakify_model_and_inputs(model, (), inputs)
    with fake_model.tracker.eager(), torch.no_grad():
        kwargs = dict(fake_model.kwargs)
        tokens = kwargs.pop("input_ids")
        mask = kwargs.setdefault("attention_mask", tokens.new_ones(tokens.shape[:2]))
        if "position_ids" in parameters and "position_ids" not in kwargs:
            positions = _positions(fake_model.model, tokens, kwargs)
            if positions is not None:
                value = fake_model.tracker.value(positions)
                prepared["position_ids"] = _blank(positions) if value is None else value
    mask_value = fake_model.tracker.value(mask)
    if mask_value is not None and bool((mask_value == 1).all()):
        prepared.pop("attention_mask", None)
    return prepared


def _positions(model: Any, tokens: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Return position ids, or ``None`` if they depend on unknown values."""
    try:
        return position_ids(model, tokens, kwargs)
    except Exception as error:  # noqa: BLE001 - model code: the forward computes its own then
        raise_interruption(error)
        return None


def _blank(fake: torch.Tensor) -> torch.Tensor:
    return torch.empty(fake.shape, dtype=fake.dtype, device="meta")
