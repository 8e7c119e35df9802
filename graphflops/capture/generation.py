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

from graphflops.capture.fake.metadata import convert_argument
from graphflops.capture.fake.symbolic_shapes import Symbols
from graphflops.capture.forward import capture_module
from graphflops.capture.record.generate_loop import (
    TOKEN_INPUT,
    GenerateLoop,
    returns_cache,
    with_positions,
)
from graphflops.capture.record.tape import named_tensors
from graphflops.core.cost import Dim
from graphflops.core.ir import Capture, TensorMeta
from graphflops.errors import ModelSpecError

# Inputs with an axis along the tokens, and which it is, by what reads them.
_READ: dict[bool, dict[str, int]] = {
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
        tokens: torch.Tensor = self.inputs[TOKEN_INPUT[self.encodes]]
        return tokens

    @property
    def cache(self) -> str:
        """What the cache is, in words."""
        from transformers import DynamicCache

        if not self.inputs["use_cache"]:
            return "none, a step reads all tokens again"
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
        tensors = {name for name, value in self.inputs.items() if isinstance(value, torch.Tensor)}
        return tensors <= _READ[False].keys() | _READ[True].keys()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of it."""
        if self.inputs["use_cache"]:
            return ()
        note = (
            f"{type(self.model).__name__} keeps no cache (use_cache is False): a step reads all "
            "tokens again. Give use_cache=True with the inputs for steps of one token."
        )
        return (note,)

    def loop(self, model: Any, inputs: Mapping[str, Any], room: int | torch.SymInt) -> GenerateLoop:
        """The loop of ``generate`` over a stand-in of the model, for inputs of some size."""
        return GenerateLoop(model, inputs, static=self.static, max_cache_length=room)

    @property
    def sizes(self) -> dict[str, int]:
        """What the symbols stand for in these inputs, ``K`` at the first step."""
        read = self.inputs.get("input_ids")
        length = {} if read is None else {"P": int(read.shape[1])}
        batch, cached = map(int, self.tokens.shape[:2])
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
    name = TOKEN_INPUT[encodes]
    if name not in given:
        if not encodes:
            msg = f"{type(model).__name__} has nothing to continue. Give {name}, batch x length."
            raise ModelSpecError(msg)
        batch = next(t.shape[0] for t in given.values() if isinstance(t, torch.Tensor))
        given[name] = torch.zeros(batch, 1, dtype=torch.int64)
    _check_images(model, given)
    # Inputs made for one pass say False, which is nothing that a generation goes by.
    given["use_cache"] = (
        bool(given.get("use_cache")) or model.generation_config.use_cache is not False
    )
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        given["logits_to_keep"] = logits_to_keep
    room = int(given[name].shape[1]) + new_tokens - 1
    _check_positions(model, room, new_tokens)
    return Prompt(model=model, inputs=with_positions(model, given), static=static, room=room)


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
    prompt: Prompt, symbols: frozenset[str], *, reuse_layers: bool = True
) -> tuple[Capture, Left | None]:
    """The graph of the pass over the prompt, which fills the cache, and what it leaves behind.

    Args:
        prompt: The prompt.
        symbols: Which of ``B``, ``P`` and ``M`` stay symbolic.
        reuse_layers: Whether to trace a repeated layer once.
    """
    left: list[Left] = []

    def begin(model: nn.Module, inputs: dict[str, Any], sized: Symbols) -> dict[str, Any]:
        loop = prompt.loop(model, inputs, _room(prompt, symbols, sized))
        if prompt.encodes:
            model.forward = _encoding(model.forward, loop)
            return inputs
        if not prompt.static:
            model.forward = _recorded(model.forward, sized, loop, left)
        return loop.first_inputs()

    along = None if prompt.encodes else "P"
    inputs, axes = _resized(prompt, prompt.sizes, along, symbols)
    captured = capture_module(prompt.model, (), inputs, axes, begin, reuse_layers=reuse_layers)
    return captured, left[-1] if left and "P" in symbols else None


def _encoding(forward: Any, loop: GenerateLoop) -> Any:
    """A forward that runs the encoder first, as ``generate`` does."""

    @functools.wraps(forward)
    def call(**_: Any) -> Any:
        return forward(**loop.first_inputs())

    return call


def _recorded(forward: Any, sized: Symbols, loop: GenerateLoop, left: list[Left]) -> Any:
    """A forward whose outputs are noted, if they are all that a step goes on from."""

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        if loop.use_cache and not returns_cache(outputs):
            return outputs  # what is kept stays in the model, or in the cache that it was given
        leaves, spec = pytree.tree_flatten(outputs)
        shapes = [convert_argument(leaf) if _is_size(leaf) else leaf for leaf in leaves]
        left.append(Left(tuple(shapes), spec, sized.assumptions()))
        return outputs

    return call


def capture_decode(
    prompt: Prompt,
    cached: int,
    symbols: frozenset[str],
    left: Left | None = None,
    *,
    reuse_layers: bool = True,
) -> Capture:
    """The graph of one more token, after a pass over ``cached`` tokens has filled the cache.

    Args:
        prompt: The prompt.
        cached: Tokens in the cache, for branches to go the way they go for so many.
        symbols: Which of ``B``, ``P``, ``K`` and ``M`` stay symbolic.
        left: What such a pass leaves behind; if not given, it is made on fake tensors.
        reuse_layers: Whether to trace a repeated layer once.
    """
    caches: frozenset[str] = frozenset()

    def advance(model: nn.Module, inputs: dict[str, Any], sized: Symbols) -> dict[str, Any]:
        nonlocal caches
        loop = prompt.loop(model, inputs, _room(prompt, symbols, sized))
        if left is None:
            outputs = model(**loop.first_inputs())
        else:
            outputs = left.restored(sized, inputs[TOKEN_INPUT[prompt.encodes]].device)
        step = loop.next_inputs(outputs)
        caches = _caches(model, step)
        return step

    inputs, axes = _resized(prompt, prompt.sizes | {"K": cached}, "K", symbols)
    captured = capture_module(prompt.model, (), inputs, axes, advance, reuse_layers=reuse_layers)
    return replace(captured, caches=caches)


def _caches(model: nn.Module, inputs: Mapping[str, Any]) -> frozenset[str]:
    """Names of the input tensors that hold what earlier tokens left behind."""
    from transformers import Cache
    from transformers.generation.utils import ALL_CACHE_NAMES

    # Older models keep plain tuples of tensors, which go by their name alone.
    kept = {k: v for k, v in inputs.items() if isinstance(v, Cache) or k in ALL_CACHE_NAMES}
    return frozenset(name for name, _ in named_tensors(model, (), kept))


def _room(prompt: Prompt, symbols: frozenset[str], sized: Symbols) -> int | torch.SymInt:
    """Tokens that a cache of a fixed length has room for."""
    if prompt.static and "M" in symbols:
        return sized.size("M", max(prompt.room, 2))
    return prompt.room


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
    batch, length = prompt.tokens.shape[:2]
    inputs, axes = {}, {}
    for name, value in prompt.inputs.items():
        inputs[name] = value
        if not isinstance(value, torch.Tensor):
            continue
        labels = {}
        for label, names, size in (
            (along, _READ[prompt.encodes], length),
            ("P", _READ[False] if prompt.encodes else {}, sizes.get("P")),
        ):
            if label and name in names and value.shape[names[name]] == size:
                labels[names[name] % value.dim()] = label
        # Positions on several axes have one more in front.
        first = value.dim() - 2 if name == "position_ids" else 0
        if value.shape[first] == batch:
            labels[first] = "B"
        for axis, label in labels.items():
            size = max(sizes[label], 2) if label in symbols else sizes[label]
            counts = name == "position_ids" and label != "B"
            inputs[name] = _stretched(inputs[name], axis, size, counts=counts)
        axes[name] = {axis: label for axis, label in labels.items() if label in symbols} or None
    return inputs, axes


def _stretched(tensor: torch.Tensor, axis: int, size: int, *, counts: bool) -> torch.Tensor:
    """A tensor cut to a size along an axis, or lengthened there.

    By its last element, from which positions count on.
    """
    last = tensor.shape[axis] - 1
    if size == last + 1:
        return tensor
    places = torch.arange(size, device=tensor.device)
    longer = tensor.index_select(axis, places.clamp(max=last))
    return longer + (places - last).clamp(min=0) if counts else longer


def _is_size(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | torch.SymInt)
