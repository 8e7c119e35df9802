"""Canaries for transformers' private parts: each fails with the sentence of its function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from test_generate_loop import T5, TEXT, built

from graphflops.capture import transformers_compat as compat
from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.torch_internals.count_flags import model_running
from graphflops.runtime.patches import Patches

TOKENS = torch.ones(2, 3, dtype=torch.int64)


def llama() -> Any:
    return built("LlamaForCausalLM", **TEXT)


def config_of(model: Any) -> Any:
    config = model.generation_config
    config.use_cache, config.cache_implementation = True, None
    return config


def cache_in(inputs: dict[str, Any]) -> Any:
    # Called past_key_values before transformers 5.24.
    return next(inputs[name] for name in ("cache", "past_key_values") if name in inputs)


def caches() -> bool:
    model, kwargs = llama(), {"attention_mask": TOKENS}
    compat.create_cache(model, config_of(model), kwargs, 2, 8)
    return compat.is_cache(cache_in(kwargs)) and not compat.is_cache((TOKENS,))


def encoded() -> bool:
    model = built("T5ForConditionalGeneration", **T5)
    inputs = compat.encode_prompt(model, config_of(model), {"input_ids": TOKENS})
    return tuple(inputs["encoder_outputs"].last_hidden_state.shape) == (2, 3, T5["d_model"])


def updated() -> bool:
    model = llama()
    outputs = model(TOKENS, use_cache=True)
    kwargs = compat.update_inputs(
        model, outputs, {"attention_mask": TOKENS, "use_cache": True}, has_encoder=False
    )
    mask: torch.Tensor = kwargs["attention_mask"]
    return tuple(mask.shape) == (2, 4) and compat.is_cache(cache_in(kwargs))


def positions() -> bool:
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    ids = compat.position_ids(llama(), TOKENS, {"attention_mask": mask})
    return torch.equal(ids[1], torch.arange(3))


def mixtral() -> Any:
    config = transformers.MixtralConfig(**TEXT, num_local_experts=2, num_experts_per_tok=1)
    config._experts_implementation = "eager"
    return transformers.MixtralForCausalLM._from_config(config, experts_implementation="eager")


def experts() -> bool:
    model = mixtral()
    before = compat.has_eager_experts(model)
    compat.use_grouped_experts(model)
    return before and not compat.has_eager_experts(model)


def kosmos_2() -> Any:
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8}
    text_config = {"embed_dim": 8, "ffn_dim": 8, "layers": 1, "attention_heads": 1}
    return built(
        "Kosmos2ForConditionalGeneration",
        text_config=text_config | {"vocab_size": 100, "max_position_embeddings": 8},
        vision_config=sizes | {"num_attention_heads": 1, "image_size": 8, "patch_size": 4},
        latent_query_num=2,
    )


def parts() -> bool:
    model = kosmos_2()
    part, inputs = compat.inputs_of_part(
        model, {"pixel_values": torch.ones(2, 3, 8, 8), "input_ids": TOKENS}
    )
    is_left = "generate" not in vars(part)
    return part is model.text_model and inputs["image_embeds"].shape[-1] == 8 and is_left


def registered() -> bool:
    from graphflops.capture.torch_internals.trees import pytree

    before = compat.RegisteredClasses()
    before.install(None)  # type: ignore[arg-type]  # it is not looked at
    try:
        compat.register_caches(llama())
        cache = transformers.DynamicCache()
        return len(pytree.tree_leaves(cache)) != 1 or type(cache) in pytree.SUPPORTED_NODES
    finally:
        before.remove()


CANARIES: dict[str, Callable[[], bool]] = {
    "register_caches": registered,
    "cache_input_names": lambda: (
        not compat.cache_input_names().isdisjoint({"cache", "past_key_values"})
    ),
    "is_cache": caches,
    "caches_in": lambda: bool(compat.caches_in(llama()(TOKENS, use_cache=True))),
    "default_cache_layers": lambda: len(compat.default_cache_layers(llama()) or ()) == 2,
    "has_own_generate": lambda: not compat.has_own_generate(llama()),
    "takes_logits_to_keep": lambda: compat.takes_logits_to_keep(llama()),
    "delegates_generate": lambda: (
        compat.delegates_generate(kosmos_2()) and not compat.delegates_generate(llama())
    ),
    "inputs_of_part": parts,
    "encode_prompt": encoded,
    "create_cache": caches,
    "update_inputs": updated,
    "position_ids": positions,
    "has_eager_experts": experts,
    "use_grouped_experts": experts,
}


def test_every_function_has_a_canary() -> None:
    functions = {
        name
        for name, value in vars(compat).items()
        if inspect.isfunction(value) and not name.startswith("_")
        if value.__module__ == compat.__name__
    }
    assert functions == CANARIES.keys()


@pytest.mark.parametrize("name", CANARIES)
def test_transformers_still_does(name: str) -> None:
    sentence = f"{name}: {inspect.getdoc(getattr(compat, name))}"
    try:
        works = CANARIES[name]()
    except Exception as error:  # noqa: BLE001 - whatever transformers raises, it has changed
        pytest.fail(f"{sentence} Now it raises {type(error).__name__}: {error}")
    assert works, sentence


def test_the_file_that_reads_layer_indices_is_the_caches() -> None:
    file = inspect.getsourcefile(transformers.DynamicCache)
    assert file is not None
    assert file.endswith(compat.CACHE_FILE)


def test_a_fake_tensor_is_a_sign_of_tracing_unless_its_values_are_known() -> None:
    from transformers.utils.import_utils import is_tracing

    tracker = ValueTracker()
    known = tracker.fake_with_value(torch.ones(2), torch.device("cpu"))
    unknown = tracker.empty_like(known)
    assert is_tracing(known)
    with Patches(compat.ReadableValues()).holding():
        assert not is_tracing(known)
        assert is_tracing(unknown)
        with model_running(exporting=True):
            assert is_tracing(known)
    assert is_tracing(known)
