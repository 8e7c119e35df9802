"""Generation in closed form, against the steps counted one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from calls import meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

import graphflops as gf

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
HEADS, WIDTH = 2, 8


def built(kind: str, **settings: Any) -> Any:
    """A small model of a transformers class, on meta."""
    model_class = getattr(transformers, kind)
    with torch.device("meta"):
        return model_class._from_config(model_class.config_class(**settings)).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64, device="meta")


def filled(config: Any, batch: int, length: int, kind: Any = DynamicCache, **options: Any) -> Any:
    """A cache of a decoder that has seen so many tokens."""
    cache = kind(config=config, **options)
    for layer in range(config.num_hidden_layers):
        state = torch.zeros(batch, HEADS, length, WIDTH)
        cache.update(state, state.clone(), layer)
    return cache


def decoder(kind: str, **settings: Any) -> Callable[[], tuple[Any, dict[str, Any], Any]]:
    """A decoder, a prompt for it, and what its inputs are once so many tokens are cached."""

    def make() -> tuple[Any, dict[str, Any], Any]:
        model = built(kind, **SMALL, **settings)

        def step(cached: int, batch: int) -> dict[str, Any]:
            cache = filled(model.config, batch, cached)
            return {"input_ids": ids(batch, 1), "past_key_values": cache}

        return model, {"input_ids": ids(2, 6)}, step

    return make


def encoder_decoder() -> tuple[Any, dict[str, Any], Any]:
    model = built(
        "T5ForConditionalGeneration",
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        vocab_size=50,
    )

    def step(cached: int, batch: int) -> dict[str, Any]:
        config = model.config.get_text_config(decoder=True)
        own, cross = (filled(config, batch, length) for length in (cached, 6))
        cache = EncoderDecoderCache(own, cross)
        cache.is_updated = dict.fromkeys(range(2), True)
        encoded = transformers.modeling_outputs.BaseModelOutput(meta(batch, 6, 32))
        return {
            "decoder_input_ids": ids(batch, 1),
            "encoder_outputs": encoded,
            "past_key_values": cache,
        }

    return model, {"input_ids": ids(2, 6), "decoder_input_ids": ids(2, 1)}, step


def vision_language() -> tuple[Any, dict[str, Any], Any]:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    model = built(
        "LlavaForConditionalGeneration",
        vision_config=vision,
        text_config={"model_type": "llama", **SMALL},
        image_token_index=49,
    )
    # 2 x 2 patches, 4 placeholders of 6 tokens.
    tokens = torch.tensor([[49, 49, 49, 49, 0, 0]] * 2)

    def step(cached: int, batch: int) -> dict[str, Any]:
        cache = filled(model.config.text_config, batch, cached)
        return {"input_ids": ids(batch, 1), "past_key_values": cache}

    return model, {"input_ids": tokens, "pixel_values": meta(2, 3, 8, 8)}, step


CASES: dict[str, Callable[[], tuple[Any, dict[str, Any], Any]]] = {
    "llama": decoder("LlamaForCausalLM"),
    "mixture of experts": decoder(
        "MixtralForCausalLM", num_local_experts=4, experts_implementation="batched_mm"
    ),
    "sliding window": decoder("MistralForCausalLM", sliding_window=9),
    "sliding and full": decoder("Gemma2ForCausalLM", sliding_window=8, head_dim=8),
    "encoder-decoder": encoder_decoder,
    "vision-language": vision_language,
}
NEW = 5


def positions(model: Any, inputs: dict[str, Any], first: int) -> dict[str, Any]:
    """The position ids that ``generate`` gives a decoder, a row for each sequence."""
    if model.config.is_encoder_decoder:
        return {}
    batch, length = inputs["input_ids"].shape
    return {"position_ids": torch.arange(first, first + length).expand(batch, length)}


@pytest.mark.parametrize("name", CASES)
def test_closed_form_equals_steps_counted_one_by_one(name: str) -> None:
    model, inputs, step = CASES[name]()
    found = gf.count_generation(model, inputs, max_new_tokens=NEW)
    keep = {} if name == "encoder-decoder" else {"logits_to_keep": 1}
    start = found.sizes["K"]
    steps = (step(cached, 2) for cached in range(start, start + NEW - 1))
    passes = [
        gf.count(model, kwargs={**x, **positions(model, x, place), "use_cache": True, **keep})
        for place, x in zip((0, *range(start, start + NEW - 1)), (inputs, *steps), strict=True)
    ]
    assert found.flops == sum(one.flops for one in passes)
    assert found.macs == sum(one.macs for one in passes)
    assert [found.at(i + 1).flops for i in range(NEW)] == [one.flops for one in passes]
    whole: dict[str, Any] = {}
    for one in passes:
        for path, cost in one.by_module().items():
            whole[path] = whole.get(path, 0) + cost.flops
    assert {path: cost.flops for path, cost in found.by_module().items()} == whole


GENERATED: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": SMALL,
    "MistralForCausalLM": {**SMALL, "sliding_window": 9},
    "Gemma2ForCausalLM": {**SMALL, "sliding_window": 8, "head_dim": 8},
    "T5ForConditionalGeneration": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 50,
        "decoder_start_token_id": 0,
    },
}


@pytest.mark.parametrize("kind", GENERATED)
def test_as_many_contractions_as_a_real_run_of_generate(kind: str) -> None:
    model_class = getattr(transformers, kind)
    # No token ends it; attention is written out, the counter sees no fused kernel on the CPU.
    options = {"eos_token_id": None, "pad_token_id": 0, "attn_implementation": "eager"}
    model = model_class(model_class.config_class(**GENERATED[kind], **options)).eval()
    prompt = torch.randint(1, 50, (2, 6))
    mask = torch.ones_like(prompt)
    with FlopCounterMode(display=False) as run, torch.no_grad():
        out = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    assert out.shape[1] == NEW + (1 if model.config.is_encoder_decoder else 6)
    inputs = {"input_ids": prompt, "attention_mask": mask}
    found = gf.count_generation(model, inputs, max_new_tokens=NEW)
    assert 2 * found.macs == run.get_total_flops()


@pytest.fixture(scope="module")
def llama() -> tuple[Any, gf.GenerationReport]:
    model = built("LlamaForCausalLM", **SMALL)
    return model, gf.count_generation(model, {"input_ids": ids(1, 6)}, max_new_tokens=NEW)


@pytest.mark.parametrize(("batch", "length", "new"), [(1, 4, 1), (3, 11, 2), (1, 11, 30)])
def test_other_sizes_need_no_other_capture(
    llama: tuple[Any, gf.GenerationReport], batch: int, length: int, new: int
) -> None:
    model, known = llama
    again = gf.count_generation(model, {"input_ids": ids(batch, length)}, max_new_tokens=new)
    other = known.subs(B=batch, P=length, N=new)
    assert other.flops == again.flops
    assert other.macs == again.macs
    assert other.kv_cache_bytes == again.kv_cache_bytes


def test_the_formula_in_letters(llama: tuple[Any, gf.GenerationReport]) -> None:
    _, found = llama
    # Of a token, in two layers: q, o 32 x 32 each, k, v 32 x 16 each, an MLP of 3 x 32 x 48;
    # once 32 x 50 for its logits; 2 x 32 multiply-accumulates for every token it attends to.
    layers, head = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48), 32 * 50
    batch, prompt, new = 5, 100, 1000
    text = found.subs(B=batch, P=prompt, N=new)
    attended = prompt**2 + sum(range(prompt + 1, prompt + new))
    assert text.macs == batch * ((prompt + new - 1) * layers + new * head + attended * 2 * (2 * 32))


def test_key_value_cache(llama: tuple[Any, gf.GenerationReport]) -> None:
    found = llama[1].subs(B=3)
    # Keys and values, 2 layers, 2 heads of 8 floats; the last token is never cached.
    assert found.kv_cache_bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert found.kv_cache_bytes == 3 * (6 + NEW - 1) * 2 * 2 * 2 * 8 * 4


@pytest.mark.parametrize(
    ("kind", "settings", "floats"),
    [
        # Keys and values of 2 x 8, in 2 layers: of 3 + 1 tokens.
        ("LlamaForCausalLM", SMALL, (3 + 1) * 2 * 2 * 2 * 8),
        # Of the decoder's 1 + 1 tokens, and of the encoder's 3; what it returns is no cache.
        (
            "T5ForConditionalGeneration",
            {"vocab_size": 50, "d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2}
            | {"d_ff": 32, "decoder_start_token_id": 0},
            (1 + 1 + 3) * 2 * 2 * 2 * 8,
        ),
        # The states of a layer of width 2 x 16: 4 inputs of a convolution, and 4.
        (
            "MambaForCausalLM",
            {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "vocab_size": 50},
            32 * (4 + 4),
        ),
        # A tuple of five states, a layer of width 16 in each.
        (
            "RwkvForCausalLM",
            {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1},
            5 * 16,
        ),
    ],
)
def test_a_cache_is_known_whatever_its_name_is(
    kind: str, settings: dict[str, Any], floats: int
) -> None:
    found = gf.count_generation(built(kind, **settings), {"input_ids": ids(3, 3)}, max_new_tokens=2)
    assert found.kv_cache_bytes == 3 * floats * 4


def test_a_model_without_a_limit_generates() -> None:
    model = built("XLNetLMHeadModel", vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=32)
    assert model.config.max_position_embeddings == -1
    assert gf.count_generation(model, {"input_ids": ids(1, 3)}, max_new_tokens=2).macs > 0


def test_a_window_bounds_the_cache() -> None:
    model = built("MistralForCausalLM", **SMALL, sliding_window=9)
    found = gf.count_generation(model, {"input_ids": ids(1, 6)}, max_new_tokens=50)
    assert found.kv_cache_bytes == (9 - 1) * 2 * 2 * 2 * 8 * 4
    assert found.cache == "dynamic, 2 of 2 layers see 9 tokens"
    assert found.decode_segments[-1].last == 6 + 50 - 2
    assert found.at(50) == found.at(20)


def test_a_static_cache_attends_to_its_full_length() -> None:
    model = built("LlamaForCausalLM", **SMALL)
    found = gf.count_generation(model, {"input_ids": ids(2, 6)}, max_new_tokens=NEW, cache="static")
    room = 6 + NEW - 1
    assert found.cache == f"static, {room} tokens long"
    prefill = {
        "input_ids": ids(2, 6),
        "past_key_values": StaticCache(config=model.config, max_cache_len=room),
        "use_cache": True,
        "logits_to_keep": 1,
        # As `generate` makes them: a row for each sequence.
        "position_ids": torch.arange(6).repeat(2, 1),
    }
    assert found.prefill.flops == gf.count(model, kwargs=prefill).flops
    step = prefill | {
        "input_ids": ids(2, 1),
        "past_key_values": filled(model.config, 2, 6, StaticCache, max_cache_len=room),
        "position_ids": torch.full((2, 1), 6),
    }
    assert found.at(2).flops == found.at(NEW).flops == gf.count(model, kwargs=step).flops
    assert found.kv_cache_bytes == 2 * room * 2 * 2 * 2 * 8 * 4


def test_logits_of_every_position() -> None:
    model = built("LlamaForCausalLM", **SMALL)
    one, every = (
        gf.count_generation(model, {"input_ids": ids(1, 6)}, max_new_tokens=2, logits_to_keep=kept)
        for kept in (1, 0)
    )
    assert every.macs - one.macs == 5 * 32 * 50


def test_a_state_space_model_costs_the_same_at_every_step() -> None:
    model = built(
        "MambaForCausalLM", hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=50
    )
    found = gf.count_generation(model, {"input_ids": ids(1, 6)}, max_new_tokens=NEW)
    assert found.flops == found.prefill.flops + (NEW - 1) * found.at(2).flops


def test_a_model_with_weights_costs_the_same(llama: tuple[Any, gf.GenerationReport]) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).eval()
    prompt = {"input_ids": torch.ones(1, 6, dtype=torch.int64)}
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = gf.count_generation(model, prompt, max_new_tokens=NEW)
    assert found.macs == llama[1].macs
    assert found.kv_cache_bytes == llama[1].kv_cache_bytes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_model_is_left_as_it_was() -> None:
    model = built("LlamaForCausalLM", **SMALL)
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    gf.count_generation(model, {"input_ids": ids(1, 6)}, max_new_tokens=NEW)
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (
            lambda m: gf.count_generation(m, {"input_ids": ids(1, 6)}, max_new_tokens=0),
            "is 0. Give a whole",
        ),
        (
            lambda m: gf.count_generation(m, {"input_ids": ids(1, 60)}, max_new_tokens=9),
            "more than the 64 positions",
        ),
        (lambda m: gf.count_generation(m.model, {}, max_new_tokens=9), "cannot generate"),
        (lambda m: gf.count_generation(m, {}, max_new_tokens=9), "nothing to continue"),
        (lambda _: gf.count_generation(nn.Linear(1, 1), {}, max_new_tokens=9), "cannot generate"),
    ],
)
def test_what_cannot_be_generated(call: Callable[[Any], Any], complaint: str) -> None:
    model = built("LlamaForCausalLM", **SMALL, max_position_embeddings=64)
    with pytest.raises(gf.ModelSpecError, match=complaint):
        call(model)


def test_an_image_that_the_prompt_stands_for_must_be_there() -> None:
    model, inputs, _ = vision_language()
    with pytest.raises(gf.ModelSpecError, match="8 tokens that stand for an image"):
        gf.count_generation(model, {"input_ids": inputs["input_ids"]}, max_new_tokens=2)


def test_a_batch_that_is_special_is_not_open() -> None:
    model = built("RwkvForCausalLM", hidden_size=16, num_hidden_layers=1, vocab_size=50)
    found = gf.count_generation(model, {"input_ids": ids(1, 4)}, max_new_tokens=3)
    assert found.flops == sum(found.at(token).flops for token in (1, 2, 3))
    with pytest.raises(gf.ModelSpecError, match="no function of 'B', but of N"):
        found.subs(B=4)


def test_questions_without_an_answer() -> None:
    model = built("LlamaForCausalLM", **SMALL)
    found = gf.count_generation(model, {"input_ids": ids(1, 6)}, max_new_tokens=1)
    with pytest.raises(gf.ModelSpecError, match="takes no further step"):
        found.decode  # noqa: B018 - it raises
    with pytest.raises(gf.ModelSpecError, match="no function of 'S', but of B, N, P"):
        found.subs(S=3)
    with pytest.raises(gf.ModelSpecError, match="P is 0"):
        found.subs(P=0)
    with pytest.raises(gf.ModelSpecError, match="no new token 2"):
        found.at(2)
    with pytest.raises(gf.ModelSpecError, match="no graph of LlamaForCausalLM"):
        found.subs(N=4)


def test_layers_do_not_run_again_for_each_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass over the prompt from which a step starts replays them too, at any depth."""
    runs: list[int] = []
    silu = nn.functional.silu

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        runs[-1] += 1
        return silu(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "silu", counted)
    for depth in (3, 9):
        model = built(
            "MistralForCausalLM", **SMALL | {"num_hidden_layers": depth}, sliding_window=8
        )
        runs.append(0)
        report = gf.count_generation(model, {"input_ids": ids(2, 4)}, max_new_tokens=12)
        assert len(report.decode_graphs) > 1
    assert runs[0] == runs[1]
