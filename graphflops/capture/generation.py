"""Capture of the two graphs of a generation: prefill, and one decode step.

The decode step starts from the state that an earlier call has left, as shapes, or from that of a
first pass on fake tensors, so that caches of every kind have their shapes.

Symbols: ``B`` sequences, ``P`` tokens of the prompt (of the encoder's, if there is one), ``K``
tokens in the cache before the step, ``M`` tokens of capacity of a static cache.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake.symbolic_shapes import Symbols
from graphflops.capture.forward import Run, capture_module
from graphflops.capture.generation_state import CACHED, GenerationState, record_state
from graphflops.capture.record.generate_loop import (
    TOKEN_INPUT,
    GenerateLoop,
    with_positions,
)
from graphflops.capture.record.tape import named_tensors
from graphflops.capture.transformers_compat import (
    cache_input_names,
    default_cache_layers,
    delegates_generate,
    is_cache,
    takes_logits_to_keep,
)
from graphflops.core.ir import Capture
from graphflops.errors import ModelSpecError

# Token axes of inputs by name: of a decoder-only model or an encoder (False), of the decoder of
# an encoder-decoder model (True).
_TOKEN_AXES: dict[bool, dict[str, int]] = {
    False: {
        "input_ids": 1,
        "attention_mask": 1,
        "position_ids": -1,
        "token_type_ids": -1,
        "mm_token_type_ids": -1,
        "moe_mm_token_type_ids": -1,
        "cross_attention_mask": 1,
        "image_attention_mask": 1,
        "image_embeds_position_mask": 1,
    },
    True: {"decoder_input_ids": 1, "decoder_attention_mask": 1, "decoder_position_ids": -1},
}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Prompt of a generation, with its model.

    Attributes:
        model: Transformers model that generates.
        inputs: Inputs of its first pass, by name.
        static: True if the cache has its final length from the start.
        capacity: Final length of the cache, in tokens.
    """

    model: Any
    inputs: Mapping[str, Any]
    static: bool
    capacity: int

    @property
    def is_encoder_decoder(self) -> bool:
        """True if an encoder reads the prompt, and a decoder continues its own tokens."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def tokens(self) -> torch.Tensor:
        """Tokens that the generation continues, batch x length."""
        tokens: torch.Tensor = self.inputs[TOKEN_INPUT[self.is_encoder_decoder]]
        return tokens

    @property
    def cache(self) -> str:
        """Description of the cache."""
        if not self.inputs["use_cache"]:
            return "none, a step reads all tokens again"
        kind = f"static, {self.capacity:,} tokens long" if self.static else "dynamic"
        layers = default_cache_layers(self.model)
        if layers is None:
            return "the model's own"
        windows = [layer.sliding_window for layer in layers if getattr(layer, "is_sliding", False)]
        if not windows:
            return kind
        sizes = " and ".join(f"{size:,}" for size in sorted(set(windows)))
        return f"{kind}, {len(windows)} of {len(layers)} layers see {sizes} tokens"

    @property
    def is_text(self) -> bool:
        """True if all inputs are tokens or masks of them, whose batch may be symbolic."""
        tensors = {name for name, value in self.inputs.items() if isinstance(value, torch.Tensor)}
        return tensors <= _TOKEN_AXES[False].keys() | _TOKEN_AXES[True].keys()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader of the report."""
        if self.inputs["use_cache"]:
            return ()
        note = (
            f"{type(self.model).__name__} keeps no cache (use_cache is False): a step reads all "
            "tokens again. Give use_cache=True with the inputs for steps of one token."
        )
        return (note,)

    def loop(
        self, model: Any, inputs: Mapping[str, Any], capacity: int | torch.SymInt
    ) -> GenerateLoop:
        """Return the loop of ``generate`` for a stand-in of the model and some inputs."""
        return GenerateLoop(model, inputs, static=self.static, max_cache_length=capacity)

    @property
    def sizes(self) -> dict[str, int]:
        """Values of the symbols for these inputs, ``K`` at the first step."""
        input_ids = self.inputs.get("input_ids")
        length = {} if input_ids is None else {"P": int(input_ids.shape[1])}
        batch, cached = map(int, self.tokens.shape[:2])
        return {"B": batch, **length, "K": cached, "M": self.capacity}


def make_prompt(
    model: Any, inputs: Mapping[str, Any], *, new_tokens: int, static: bool, logits_to_keep: int
) -> Prompt:
    """Return the prompt of a generation, with the inputs of the first pass completed.

    Raises:
        ModelSpecError: The model cannot generate, there is nothing to continue, an image is
            missing, or the sequence becomes longer than its positions.
    """
    can_generate = getattr(model, "can_generate", None)
    if can_generate is None or not can_generate():
        msg = (
            f"{type(model).__name__} cannot generate: it has no head for the next token. Give a "
            "transformers model that has one, such as LlamaForCausalLM."
        )
        raise ModelSpecError(msg)
    completed = {name: value for name, value in inputs.items() if value is not None}
    is_encoder_decoder = bool(model.config.is_encoder_decoder)
    name = TOKEN_INPUT[is_encoder_decoder]
    if name not in completed:
        if not is_encoder_decoder:
            msg = f"{type(model).__name__} has nothing to continue. Give {name}, batch x length."
            raise ModelSpecError(msg)
        batch = next(t.shape[0] for t in completed.values() if isinstance(t, torch.Tensor))
        completed[name] = torch.zeros(batch, 1, dtype=torch.int64)
    _check_images(model, completed)
    # Inputs for a single pass have use_cache=False, which a generation ignores.
    completed["use_cache"] = (
        bool(completed.get("use_cache")) or model.generation_config.use_cache is not False
    )
    if takes_logits_to_keep(model) or delegates_generate(model):
        completed["logits_to_keep"] = logits_to_keep
    capacity = int(completed[name].shape[1]) + new_tokens - 1
    _check_positions(model, capacity, new_tokens)
    inputs = with_positions(model, completed)
    return Prompt(model=model, inputs=inputs, static=static, capacity=capacity)


def _check_images(model: Any, inputs: Mapping[str, Any]) -> None:
    config, tokens = model.config, inputs.get("input_ids")
    token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    if token is None or tokens is None or tokens.is_meta or "pixel_values" in inputs:
        return
    if placeholders := int((tokens == token).sum()):
        msg = (
            f"the prompt of {type(model).__name__} has {placeholders} tokens that stand for an "
            "image, and there is none. Give pixel_values, or a prompt without them."
        )
        raise ModelSpecError(msg)


def _check_positions(model: Any, capacity: int, new_tokens: int) -> None:
    config = model.config.get_text_config(decoder=True)
    keys = ("max_target_positions", "max_position_embeddings")
    positions = next((p for key in keys if (p := getattr(config, key, None))), None)
    # XLNet has -1: no limit.
    if isinstance(positions, int) and 0 < positions < capacity:
        prompt_tokens = capacity - new_tokens + 1
        msg = (
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones are more than the "
            f"{positions} positions of {type(model).__name__}. Ask for fewer, or set "
            "max_position_embeddings in its config."
        )
        raise ModelSpecError(msg)


def capture_prefill(
    prompt: Prompt, symbols: frozenset[str], *, reuse_layers: bool = True
) -> tuple[Capture, GenerationState | None]:
    """Capture prefill, the pass over the prompt that fills the cache.

    Args:
        prompt: Prompt.
        symbols: Symbols among ``B``, ``P`` and ``M`` that stay symbolic.
        reuse_layers: True to trace a repeated layer once.

    Returns:
        The capture, and the state after it if a step can start from that.
    """
    recorded: list[GenerationState] = []

    def begin(model: nn.Module, _: Run, inputs: dict[str, Any], sizes: Symbols) -> dict[str, Any]:
        loop = prompt.loop(model, inputs, _capacity(prompt, symbols, sizes))
        prepares_in_call = prompt.is_encoder_decoder or delegates_generate(model)
        if prepares_in_call:
            model.forward = _with_preparation(model, loop)
        _record_state(prompt, model, loop, sizes, recorded)
        return inputs if prepares_in_call else loop.first_inputs()

    token_symbol = None if prompt.is_encoder_decoder else "P"
    inputs, axes = _resize_inputs(prompt, prompt.sizes, token_symbol, symbols)
    captured = capture_module(
        prompt.model, (), inputs, axes, begin, reuse_layers=reuse_layers, balanced=bool(symbols)
    )
    if not recorded:
        return captured, None
    if token_symbol in symbols:
        # All of the prompt is in the cache then.
        return captured, recorded[-1].bind({"P": CACHED})
    return captured, recorded[-1].only_at(prompt.sizes["K"])


def _record_state(
    prompt: Prompt,
    model: nn.Module,
    loop: GenerateLoop,
    sizes: Symbols,
    recorded: list[GenerationState],
) -> None:
    """Record the state after each call of a stand-in."""
    # A step reads how full a static cache is, which its shape does not say.
    if not prompt.static:
        model.forward = record_state(model, recorded, sizes.assumptions, loop.state_after)


def _with_preparation(model: nn.Module, loop: GenerateLoop) -> Any:
    """Return a forward that runs first what ``generate`` runs before the first call."""
    forward = model.forward

    @functools.wraps(forward)
    def call(**_: Any) -> Any:
        inputs = loop.first_inputs()
        return (forward if loop.model is model else loop.model)(**inputs)

    return call


def capture_decode(
    prompt: Prompt,
    cached: int,
    symbols: frozenset[str],
    state: GenerationState | None = None,
    *,
    reuse_layers: bool = True,
) -> tuple[Capture, GenerationState | None]:
    """Capture one decode step with ``cached`` tokens in the cache.

    Args:
        prompt: Prompt.
        cached: Number of tokens in the cache, by which branches are decided.
        symbols: Symbols among ``B``, ``P``, ``K`` and ``M`` that stay symbolic.
        state: State to start from; without it a pass over the tokens is run on fake tensors.
        reuse_layers: True to trace a repeated layer once.

    Returns:
        The capture, and the state after it if a further step can start from that.
    """
    caches: frozenset[str] = frozenset()
    recorded: list[GenerationState] = []

    def advance(
        model: nn.Module, run: Run, inputs: dict[str, Any], sizes: Symbols
    ) -> dict[str, Any]:
        nonlocal caches
        loop = prompt.loop(model, inputs, _capacity(prompt, symbols, sizes))
        if state is None:
            first_inputs = loop.first_inputs()
            _call_part(model, loop)
            step_inputs = loop.next_inputs(run(first_inputs))
        else:
            device = inputs[TOKEN_INPUT[prompt.is_encoder_decoder]].device
            left = state.restore(sizes, {**prompt.sizes, "K": cached}, model, device)
            step_inputs = loop.resume(left)
            _call_part(model, loop)
        caches = _cache_names(model, step_inputs)
        _record_state(prompt, model, loop, sizes, recorded)
        return step_inputs

    inputs, axes = _resize_inputs(prompt, prompt.sizes | {"K": cached}, "K", symbols)
    captured = capture_module(
        prompt.model, (), inputs, axes, advance, reuse_layers=reuse_layers, balanced=bool(symbols)
    )
    captured = replace(captured, caches=caches)
    if not recorded:
        return captured, None
    after = recorded[-1].bind({"K": CACHED - 1})
    return captured, after if "K" in symbols else after.only_at(cached + 1)


def _call_part(model: nn.Module, loop: GenerateLoop) -> None:
    """Make a call of a model one of its part, if its loop is that of the part."""
    part = loop.model
    if part is not model:
        model.forward = part.__call__


def _cache_names(model: nn.Module, inputs: Mapping[str, Any]) -> frozenset[str]:
    """Return names of the input tensors that hold the state of earlier tokens."""
    names = cache_input_names()
    # Older models keep plain tuples of tensors, recognized by name.
    caches = {k: v for k, v in inputs.items() if is_cache(v) or k in names}
    return frozenset(name for name, _ in named_tensors(model, (), caches))


def _capacity(prompt: Prompt, symbols: frozenset[str], sizes: Symbols) -> int | torch.SymInt:
    """Return the capacity of a static cache in tokens, as a symbol if ``M`` is symbolic."""
    if prompt.static and "M" in symbols:
        return sizes.size("M", max(prompt.capacity, 2))
    return prompt.capacity


def _resize_inputs(
    prompt: Prompt, sizes: Mapping[str, int], token_symbol: str | None, symbols: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs resized, and their symbolic axes.

    Args:
        prompt: Prompt.
        sizes: Sizes by symbol.
        token_symbol: Symbol of the axis along the tokens that are continued.
        symbols: Symbols that stay symbolic; their sizes become at least 2.
    """
    batch, length = prompt.tokens.shape[:2]
    inputs, axes = {}, {}
    for name, value in prompt.inputs.items():
        inputs[name] = value
        if not isinstance(value, torch.Tensor):
            continue
        labels = {}
        for label, names, size in (
            (token_symbol, _TOKEN_AXES[prompt.is_encoder_decoder], length),
            ("P", _TOKEN_AXES[False] if prompt.is_encoder_decoder else {}, sizes.get("P")),
        ):
            if label and name in names and value.shape[names[name]] == size:
                labels[names[name] % value.dim()] = label
        # Multi-dimensional positions have an additional leading axis.
        batch_axis = value.dim() - 2 if name == "position_ids" else 0
        if value.shape[batch_axis] == batch:
            labels[batch_axis] = "B"
        for axis, label in labels.items():
            size = max(sizes[label], 2) if label in symbols else sizes[label]
            increment = name == "position_ids" and label != "B"
            inputs[name] = _resize(inputs[name], axis, size, increment=increment)
        axes[name] = {axis: label for axis, label in labels.items() if label in symbols} or None
    return inputs, axes


def _resize(tensor: torch.Tensor, axis: int, size: int, *, increment: bool) -> torch.Tensor:
    """Return a tensor cut to a size along an axis, or padded with its last element.

    Args:
        tensor: Tensor.
        axis: Axis to resize.
        size: New size along the axis.
        increment: True to count up from the last element, as positions do.
    """
    last = tensor.shape[axis] - 1
    if size == last + 1:
        return tensor
    indices = torch.arange(size, device=tensor.device)
    resized = tensor.index_select(axis, indices.clamp(max=last))
    return resized + (indices - last).clamp(min=0) if increment else resized
