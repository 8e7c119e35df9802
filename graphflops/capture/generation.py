"""The two graphs of a generation: the pass over a prompt, and one more token.

What the second one starts from is what a first pass leaves behind: it runs on fake tensors,
so that caches have the shapes they have, whatever their kind.

Symbols: ``B`` sequences, ``P`` tokens of the prompt (of the encoder's, if there is one), ``K``
tokens in the cache before the step, ``M`` tokens that a static cache has room for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.metadata import argument
from graphflops.capture.module import capture_module
from graphflops.capture.symbols import Symbols
from graphflops.capture.tape import named_tensors
from graphflops.cost import Dim
from graphflops.errors import ModelSpecError
from graphflops.ir import Capture, TensorMeta

# Inputs with an axis along the tokens, by what reads them.
_READ = {
    False: ("input_ids", "attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids"),
    True: ("decoder_input_ids", "decoder_attention_mask", "decoder_position_ids"),
}
_ENCODED = {"input_ids", "inputs_embeds", "input_features", "input_values", "pixel_values"}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a generation starts from.

    Attributes:
        model: A transformers model that generates.
        inputs: Inputs of its first pass, by name.
        static: Whether the cache has its final length from the start.
        room: That length, in tokens.
    """

    model: Any
    inputs: Mapping[str, Any]
    static: bool
    room: int

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder continues something else."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def tokens(self) -> torch.Tensor:
        """The tokens that are continued, batch x length."""
        tokens: torch.Tensor = self.inputs[_READ[self.encodes][0]]
        return tokens

    @property
    def cache(self) -> str:
        """What the cache is, in words."""
        from transformers import DynamicCache

        kind = f"static, {self.room:,} tokens long" if self.static else "dynamic"
        if not self.model._supports_default_dynamic_cache():
            return "the model's own"
        layers = DynamicCache(config=self.model.config.get_text_config(decoder=True)).layers
        windows = [layer.sliding_window for layer in layers if getattr(layer, "is_sliding", False)]
        if not windows:
            return kind
        sizes = " and ".join(f"{size:,}" for size in sorted(set(windows)))
        return f"{kind}, {len(windows)} of {len(layers)} layers see {sizes} tokens"

    @property
    def is_text(self) -> bool:
        """Whether all inputs are tokens and masks of them, which follow the size of the batch."""
        tensors = {name for name, value in self.inputs.items() if _is_tensor(value)}
        return tensors <= {*_READ[False], *_READ[True]}

    @property
    def sizes(self) -> dict[str, int]:
        """What the symbols stand for in these inputs, ``K`` at the first step."""
        read = self.inputs.get("input_ids")
        length = {} if read is None else {"P": int(read.shape[1])}
        batch, cached = map(int, self.tokens.shape)
        return {"B": batch, **length, "K": cached, "M": self.room}


def prompt_of(
    model: Any, inputs: Mapping[str, Any], *, new_tokens: int, static: bool, logits_to_keep: int
) -> Prompt:
    """Find out what is continued, and prepare the inputs of the first pass.

    Raises:
        ModelSpecError: The model cannot generate, there is nothing to continue, an image is
            missing, or the sequence becomes longer than its positions.
    """
    can = getattr(model, "can_generate", None)
    if can is None or not can():
        msg = (
            f"{type(model).__name__} cannot generate: it has no head for the next token. Give a "
            "transformers model that has one, such as LlamaForCausalLM."
        )
        raise ModelSpecError(msg)
    given = {name: value for name, value in inputs.items() if value is not None}
    encodes = bool(model.config.is_encoder_decoder)
    name = _READ[encodes][0]
    if name not in given:
        if not encodes:
            msg = f"{type(model).__name__} has nothing to continue. Give {name}, batch x length."
            raise ModelSpecError(msg)
        batch = next(t.shape[0] for t in given.values() if isinstance(t, torch.Tensor))
        given[name] = torch.zeros(batch, 1, dtype=torch.int64)
    _check_images(model, given)
    given["use_cache"] = True
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        given["logits_to_keep"] = logits_to_keep
    room = int(given[name].shape[1]) + new_tokens - 1
    _check_positions(model, room, new_tokens)
    return Prompt(model=model, inputs=given, static=static, room=room)


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


def _check_positions(model: Any, room: int, new_tokens: int) -> None:
    config = model.config.get_text_config(decoder=True)
    keys = ("max_target_positions", "max_position_embeddings")
    positions = next((p for key in keys if (p := getattr(config, key, None))), None)
    # XLNet says -1: it has no limit.
    if isinstance(positions, int) and 0 < positions < room:
        msg = (
            f"{room - new_tokens + 1} prompt tokens and {new_tokens} new ones are more than the "
            f"{positions} positions of {type(model).__name__}. Ask for fewer, or set "
            "max_position_embeddings in its config."
        )
        raise ModelSpecError(msg)


@dataclass(frozen=True)
class Left:
    """What a pass over a prompt of open length has left behind: its outputs, as shapes.

    Attributes:
        leaves: Shape and dtype of each tensor, and other values.
        spec: How they make up the outputs.
        conditions: What the pass took for granted.
    """

    leaves: tuple[Any, ...]
    spec: pytree.TreeSpec
    conditions: tuple[sympy.Basic, ...]

    def restored(self, sized: Symbols, device: torch.device) -> Any:
        """The outputs again, of as many tokens as are cached."""
        cached = {_SYMBOL["P"]: _SYMBOL["K"]}

        def size(value: Dim) -> Any:
            return sized.expression(value if isinstance(value, int) else value.xreplace(cached))

        def leaf(value: Any) -> Any:
            if isinstance(value, TensorMeta):
                dtype = getattr(torch, value.dtype)
                return torch.empty([*map(size, value.shape)], dtype=dtype, device=device)
            return size(value) if isinstance(value, sympy.Expr) else value

        sized.assume(tuple(condition.xreplace(cached) for condition in self.conditions))
        return pytree.tree_unflatten([*map(leaf, self.leaves)], self.spec)


_SYMBOL = {name: sympy.Symbol(name, positive=True, integer=True) for name in "PK"}


def capture_prefill(
    prompt: Prompt, symbols: frozenset[str], *, regions: bool = True
) -> tuple[Capture, Left | None]:
    """The graph of the pass over the prompt, which fills the cache, and what it leaves behind.

    Args:
        prompt: The prompt.
        symbols: Which of ``B``, ``P`` and ``M`` stay symbolic.
        regions: Whether to trace a repeated layer once.
    """
    left: list[Left] = []

    def begin(model: nn.Module, inputs: dict[str, Any], sized: Symbols) -> dict[str, Any]:
        if not prompt.static:
            model.forward = _recorded(model.forward, sized, left)
            return inputs
        return {**inputs, _cache_name(): _static_cache(prompt, symbols, sized)}

    along = None if prompt.encodes else "P"
    inputs, axes = _resized(prompt, prompt.sizes, along, symbols)
    captured = capture_module(
        prompt.model, (), inputs, axes, begin if symbols else None, regions=regions
    )
    grows = "P" in symbols and along == "P"
    return captured, left[0] if left and grows else None


def _recorded(forward: Any, sized: Symbols, left: list[Left]) -> Any:
    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        leaves, spec = pytree.tree_flatten(outputs)
        shapes = [argument(leaf) if _is_size(leaf) else leaf for leaf in leaves]
        left.append(Left(tuple(shapes), spec, sized.assumptions()))
        return outputs

    return call


def capture_decode(
    prompt: Prompt,
    cached: int,
    symbols: frozenset[str],
    left: Left | None = None,
    *,
    regions: bool = True,
) -> Capture:
    """The graph of one more token, after a pass over ``cached`` tokens has filled the cache.

    Args:
        prompt: The prompt.
        cached: Tokens in the cache, for branches to go the way they go for so many.
        symbols: Which of ``B``, ``P``, ``K`` and ``M`` stay symbolic.
        left: What such a pass leaves behind; if not given, it is made on fake tensors.
        regions: Whether to trace a repeated layer once.
    """
    caches: frozenset[str] = frozenset()

    def advance(model: nn.Module, inputs: dict[str, Any], sized: Symbols) -> dict[str, Any]:
        nonlocal caches
        if prompt.static:
            inputs[_cache_name()] = _static_cache(prompt, symbols, sized)
        if left is None:
            outputs = model(**inputs, return_dict=True)
        else:
            outputs = left.restored(sized, inputs[_READ[prompt.encodes][0]].device)
        step = _next_inputs(prompt, model, inputs, outputs)
        caches = _caches(model, step)
        return step

    inputs, axes = _resized(prompt, prompt.sizes | {"K": cached}, "K", symbols)
    captured = capture_module(prompt.model, (), inputs, axes, advance, regions=regions)
    return replace(captured, caches=caches)


def _caches(model: nn.Module, inputs: Mapping[str, Any]) -> frozenset[str]:
    """Names of the input tensors that hold what earlier tokens left behind."""
    from transformers import Cache
    from transformers.generation.utils import ALL_CACHE_NAMES

    # Older models keep plain tuples of tensors, which go by their name alone.
    kept = {k: v for k, v in inputs.items() if isinstance(v, Cache) or k in ALL_CACHE_NAMES}
    return frozenset(name for name, _ in named_tensors(model, (), kept))


def _cache_name() -> str:
    """The name by which ``generate`` hands a model its cache: it depends on the version."""
    from transformers.generation.utils import ALL_CACHE_NAMES, GenerationMixin

    known = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    return str(next(name for name in ALL_CACHE_NAMES if name in known))


def _static_cache(prompt: Prompt, symbols: frozenset[str], sized: Symbols) -> Any:
    """A cache of its final length."""
    from transformers import StaticCache

    room = sized.size("M", max(prompt.room, 2)) if "M" in symbols else prompt.room
    config = prompt.model.config.get_text_config(decoder=True)
    return StaticCache(config=config, max_cache_len=room)


def _resized(
    prompt: Prompt, sizes: Mapping[str, int], along: str | None, symbols: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs at some sizes, and the axes of them that stay symbolic.

    Args:
        prompt: The prompt.
        sizes: Those sizes, by symbol.
        along: The symbol of the axis along the tokens that are continued.
        symbols: Which stay symbolic; these are 2 at least.
    """
    batch, length = prompt.tokens.shape
    inputs, axes = {}, {}
    for name, value in prompt.inputs.items():
        inputs[name] = value
        if not isinstance(value, torch.Tensor):
            continue
        labels = {0: "B"} if value.shape[0] == batch else {}
        if name in _READ[prompt.encodes] and along and value.shape[-1] == length:
            labels[value.dim() - 1] = along
        elif prompt.encodes and name in _READ[False] and value.shape[-1] == sizes.get("P"):
            labels[value.dim() - 1] = "P"
        for axis, label in labels.items():
            size = max(sizes[label], 2) if label in symbols else sizes[label]
            inputs[name] = _stretched(inputs[name], axis, size)
        axes[name] = {axis: label for axis, label in labels.items() if label in symbols} or None
    return inputs, axes


def _stretched(tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """A tensor cut to a size along an axis, or lengthened by its last element there."""
    last = tensor.shape[axis] - 1
    places = torch.arange(size, device=tensor.device).clamp(max=last)
    return tensor if size == last + 1 else tensor.index_select(axis, places)


def _next_inputs(
    prompt: Prompt, model: Any, inputs: dict[str, Any], outputs: Any
) -> dict[str, Any]:
    """What the model's own ``generate`` gives it for the next token."""
    from transformers.generation.utils import ALL_CACHE_NAMES, GenerationMixin

    name = _READ[prompt.encodes][0]
    grown = torch.cat([inputs[name], inputs[name][:, -1:]], dim=1)
    if all(getattr(outputs, cache, None) is None for cache in ALL_CACHE_NAMES):
        if type(model).generate is not GenerationMixin.generate:
            msg = (
                f"{type(model).__name__} has a generate() of its own, and its forward keeps no "
                "cache: what a step costs cannot be seen. Count its language model instead."
            )
            raise ModelSpecError(msg)
        # Nothing is kept: the whole sequence is read again.
        return {**inputs, name: grown}
    state = {key: value for key, value in inputs.items() if key != name}
    if prompt.encodes:
        state = {key: value for key, value in state.items() if key not in _ENCODED}
        state["encoder_outputs"] = _encoded(outputs)
    state = model._update_model_kwargs_for_generation(
        outputs, state, is_encoder_decoder=prompt.encodes
    )
    step: dict[str, Any] = model.prepare_inputs_for_generation(
        grown, next_sequence_length=1, is_first_iteration=False, **state
    )
    return {key: value for key, value in step.items() if value is not None}


def _encoded(outputs: Any) -> Any:
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=outputs.encoder_last_hidden_state)


def _is_size(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | torch.SymInt)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
