"""Private parts of transformers: its caches, the steps of ``generate``, expert implementations.

transformers is imported by the functions that need it: a model of another library asks nothing
of it.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.capture.torch_internals.trees import pytree
from graphflops.errors import CaptureError
from graphflops.runtime.patches import Patch, Patches, patch_function

CACHE_FILE = "transformers/cache_utils.py"
"""File whose code reads the layer index of a module: a layer's only use of it."""


CHECKPOINTING_FILE = "transformers/modeling_layers.py"
"""File whose code wraps the forward of layers, and passes on arguments as they are."""


def register_caches(model: nn.Module) -> None:
    """Register the cache classes of a transformers model with ``pytree``, which flattens them.

    For other models transformers is not imported: it may be installed but broken.
    """
    if any(base.__module__ == "transformers.modeling_utils" for base in type(model).__mro__):
        from transformers.exporters import exporter_dynamo  # only for models of transformers

        exporter_dynamo.register_cache_pytrees_for_model(model)


class RegisteredClasses:
    """Patch that deregisters, after a count, the cache classes registered during it."""

    def __init__(self) -> None:
        self._registered: set[Any] | None = None

    def install(self, _: Patches) -> None:
        """Record the registered classes."""
        if self._registered is None:
            self._registered = set(pytree.SUPPORTED_NODES)

    def remove(self) -> None:
        """Deregister cache classes that were registered since."""
        if self._registered is not None:
            for cls in set(pytree.SUPPORTED_NODES) - self._registered:
                if cls.__name__.endswith("Cache"):
                    pytree._deregister_pytree_node(cls)
        self._registered = None


class ReadableValues:
    """Patch under which models read the masks and positions whose values are known.

    For transformers a fake tensor is a sign of tracing: it keeps a mask that hides nothing, which
    a real run drops.
    """

    def __init__(self) -> None:
        self._patch: Patch | None = None

    def install(self, patches: Patches) -> None:
        """Patch the test for fake tensors, if transformers is imported."""
        module = sys.modules.get("transformers.utils.import_utils")
        if self._patch is None and hasattr(module, "is_fake_tensor"):
            self._patch = patch_function(module, "is_fake_tensor", _is_unreadable)
        if self._patch is not None:
            self._patch.install(patches)

    def remove(self) -> None:
        """Restore the test."""
        if self._patch is not None:
            self._patch.remove()
        self._patch = None


def _is_unreadable(is_fake: Callable[[Any], bool], tensor: Any) -> bool:
    """Return True for a fake tensor, unless it has values that a model may read."""
    if not is_fake(tensor):
        return False
    tracker = getattr(tensor.fake_mode, "value_tracker", None)
    return (
        COUNT_FLAGS.exporting
        or tracker is None
        or (tracker.value(tensor) is None and not tracker.elements.follows_from_positions(tensor))
    )


def cache_input_names() -> frozenset[str]:
    """Return the names under which models take and return caches; none if no model generates."""
    generation = sys.modules.get("transformers.generation.utils")
    return frozenset() if generation is None else frozenset(generation.ALL_CACHE_NAMES)


def is_cache(value: object) -> bool:
    """Return True for a cache object; older models keep tuples of tensors."""
    from transformers.cache_utils import Cache

    return isinstance(value, Cache)


def caches_in(outputs: Any) -> list[Any]:
    """Return the caches among the outputs of a model, or among its inputs."""
    if not hasattr(sys.modules.get("transformers.cache_utils"), "Cache"):
        return []  # transformers may be absent, or broken
    caches = [leaf for leaf in pytree.tree_leaves(outputs, is_leaf=is_cache) if is_cache(leaf)]
    if isinstance(outputs, Mapping):
        caches += [outputs[name] for name in cache_input_names() if name in outputs]
    return caches


def default_cache_layers(model: Any) -> Sequence[Any] | None:
    """Return the layers of the cache that ``generate`` creates; ``None`` if it is the model's own.

    Args:
        model: A transformers model that generates.
    """
    from transformers import DynamicCache

    if not model._supports_default_dynamic_cache():
        return None
    layers: Sequence[Any] = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return layers


def has_own_generate(model: Any) -> bool:
    """Return True if a model overrides ``generate``."""
    from transformers.generation.utils import GenerationMixin

    return type(model).generate is not GenerationMixin.generate


def takes_logits_to_keep(model: Any) -> bool:
    """Return True if a model may compute the logits of the last positions alone."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def delegates_generate(model: Any) -> bool:
    """Return True if ``generate`` of a model leaves the loop to that of one of its parts.

    A model that adds to the loop calls the one of its base class instead.
    """
    function = inspect.unwrap(type(model).generate)
    calls_base = "__class__" in function.__code__.co_freevars
    return has_own_generate(model) and not calls_base and any(_generating_parts(model))


def inputs_of_part(model: Any, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Run ``generate`` of a model up to that of the part that it leaves the loop to.

    Args:
        model: Stand-in of a model that delegates.
        inputs: Inputs of the model.

    Returns:
        The part, and its inputs.
    """
    parts = list(_generating_parts(model))
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    for part in parts:
        part.generate = functools.partial(_reach, part)
    try:
        model.generate(**tensors)
    except _ReachedError as reached:
        config = copy.copy(reached.part.generation_config)
        return reached.part, config.update(**reached.inputs)
    finally:
        for part in parts:
            del part.generate
    raise CaptureError(f"generate() of {type(model).__name__} calls that of none of its parts.")


class _ReachedError(Exception):
    """Call of ``generate`` of a part."""

    def __init__(self, part: Any, inputs: dict[str, Any]) -> None:
        super().__init__()
        self.part, self.inputs = part, inputs


def _reach(part: Any, **inputs: Any) -> None:
    raise _ReachedError(part, inputs)


def _generating_parts(model: nn.Module) -> Iterator[Any]:
    """Yield the parts of a model with the ``generate`` of transformers."""
    for part in model.modules():
        can_generate = getattr(part, "can_generate", None)
        if part is not model and can_generate and can_generate() and not has_own_generate(part):
            yield part


def encode_prompt(model: Any, config: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Run the encoder of an encoder-decoder model, as ``generate`` does before its loop.

    Args:
        model: The model.
        config: Its generation config.
        kwargs: Inputs, without the tokens of the decoder.

    Returns:
        The inputs with the encoder's outputs.
    """
    encoded, name, rest = model._prepare_model_inputs(None, config.bos_token_id, kwargs)
    inputs: dict[str, Any] = model._maybe_prepare_encoder_kwargs_for_generation(
        encoded, rest, name, config
    )
    return inputs


def create_cache(
    model: Any, config: Any, kwargs: dict[str, Any], batch: int, length: int | torch.SymInt
) -> None:
    """Add the cache that ``generate`` creates to the inputs of the first call.

    Args:
        model: The model.
        config: Its generation config, which names the kind of cache.
        kwargs: Inputs, which are added to.
        batch: Number of sequences.
        length: Capacity of a static cache in tokens.
    """
    from transformers.generation.configuration_utils import GenerationMode

    greedy = GenerationMode.GREEDY_SEARCH
    model._prepare_cache_for_generation(config, kwargs, greedy, batch, length)


def update_inputs(
    model: Any, outputs: Any, kwargs: Mapping[str, Any], *, has_encoder: bool
) -> dict[str, Any]:
    """Return the inputs of the next call of ``generate``, caches of the outputs included."""
    inputs: dict[str, Any] = model._update_model_kwargs_for_generation(
        outputs, kwargs, is_encoder_decoder=has_encoder
    )
    return inputs


def position_ids(model: Any, tokens: torch.Tensor, kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the position ids that ``generate`` derives from a prompt and its mask."""
    positions: torch.Tensor = model._prepare_position_ids_for_generation(tokens, kwargs)
    return positions


def has_eager_experts(model: nn.Module) -> bool:
    """Return True if a model loops over its experts, and has a grouped implementation too."""
    return any(m.config._experts_implementation == "eager" for m in _expert_modules(model))


def use_grouped_experts(model: nn.Module) -> None:
    """Make a model multiply the rows of all experts at once, as most models do by default."""
    for module in _expert_modules(model):
        module.set_experts_implementation("grouped_mm")


def _expert_modules(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if getattr(m, "_can_set_experts_implementation", bool)()]
