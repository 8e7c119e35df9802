"""Arguments of the public functions that make no sense are refused in a sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from torch import nn
from torch.export import Dim

import graphflops as gf
from graphflops.core.arguments import whole_number

BOGUS: Any = "bogus"
LINEAR = nn.Linear(3, 4)
X = torch.empty(2, 3)


def open_batch(dim: Any = "B") -> gf.Report:
    return gf.count(LINEAR, (X,), dynamic_shapes=({0: dim},))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    with torch.device("meta"):
        model: nn.Module = LlamaForCausalLM(
            LlamaConfig(num_hidden_layers=1, vocab_size=10, **sizes)
        ).eval()
    return model


def generated(**options: Any) -> gf.GenerationReport:
    prompt = {"input_ids": torch.zeros(1, 3, dtype=torch.int64, device="meta")}
    return gf.count_generation(llama(), **{"inputs": prompt, "max_new_tokens": 2, **options})


def trained(**options: Any) -> gf.TrainingReport:
    return gf.count_training(LINEAR, (X,), **options)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: open_batch().subs(B=-5), "B is -5. Give a whole number, 1 or more."),
    (lambda: open_batch().subs(B=0), "B is 0. Give a whole number, 1 or more."),
    (lambda: open_batch().subs(B=2.5), "B is 2.5. Give a whole number, 1 or more."),  # type: ignore[arg-type]  # so is this
    (lambda: open_batch().subs(B="8"), "B is '8'. Give a whole number"),  # type: ignore[arg-type]  # and this
    (lambda: open_batch().subs(B=True), "B is True. Give a whole number"),
    (lambda: open_batch().subs(S=8), "have no symbol 'S'"),
    (
        lambda: open_batch(Dim("batch", max=64)).subs(batch=1000),
        "holds where batch <= 64, so not for batch = 1000",
    ),
    (
        lambda: gf.count(LINEAR, (torch.empty(5, 3),), dynamic_shapes=({0: Dim("b", min=4)},)).subs(
            b=3
        ),
        "holds where b >= 4, so not for b = 3",
    ),
    (lambda: gf.count(LINEAR, (X,), dynamic_shapes=({2: "B"},)), "has 2 axes, and none is 2"),
    (lambda: gf.count(LINEAR, (X,), dynamic_shapes=({-1: "B"},)), "has 2 axes, and none is -1"),
    (
        lambda: gf.count(LINEAR, (X,), dynamic_shapes={"input": {7: "B"}}),
        "has 2 axes, and none is 7. Write it as",
    ),
    (lambda: gf.count(LINEAR, (X,), on_unknown=BOGUS), "on_unknown is 'bogus'. Give one of 'warn'"),
    (lambda: gf.count(LINEAR, (X,), on_unknown=None), "on_unknown is None."),  # type: ignore[arg-type]  # nor this
    (lambda: gf.count(LINEAR, (X,), convention=3), "3 is no convention"),  # type: ignore[arg-type]  # nor this
    (lambda: gf.count(LINEAR, {"input": X}), "args is a mapping of inputs by name. Give it as kwa"),  # type: ignore[arg-type]  # nor this
    (lambda: gf.count(LINEAR, 3), "args is of type int. Give a tuple of the positional inputs."),  # type: ignore[arg-type]  # nor this
    (lambda: gf.count(LINEAR, "x"), "args is of type str."),
    (lambda: gf.count(LINEAR, kwargs=X), "kwargs is of type Tensor. Give a mapping of inputs"),  # type: ignore[arg-type]  # nor this
    (
        lambda: gf.count(LINEAR, kwargs={1: X}),  # type: ignore[dict-item]  # nor this
        "kwargs is of type dict. Give a mapping of inputs by",
    ),
    (lambda: trained(steps=1.5), "steps is 1.5. Give a whole number, 1 or more."),
    (
        lambda: trained(gradient_accumulation_steps=True),
        "gradient_accumulation_steps is True. Give a whole number",
    ),
    (lambda: trained(steps=0), "steps is 0. Give a whole number, 1 or more."),
    (lambda: trained(on_unknown="Warn"), "on_unknown is 'Warn'. Did you mean 'warn'"),
    (lambda: trained(optimizer=3), "3 is no optimizer known here"),
    (lambda: trained().mfu(float("nan"), 1.0), "is no measurement"),
    (lambda: gf.count_training(LINEAR, {"input": X}), "Give it as kwargs"),  # type: ignore[arg-type]  # nor this
    (lambda: generated(max_new_tokens=2.5), "max_new_tokens is 2.5. Give a whole number"),
    (lambda: generated(max_new_tokens=0), "max_new_tokens is 0. Give a whole number, 1 or more"),
    (lambda: generated(logits_to_keep=-1), "logits_to_keep is -1. Give a whole number, 0 or more"),
    (lambda: generated(cache="dynamik"), "cache is 'dynamik'. Did you mean 'dynamic'"),
    (lambda: generated(on_unknown="bogus"), "on_unknown is 'bogus'."),
    (lambda: generated(inputs=X), "inputs is of type Tensor. Give a mapping of inputs by name"),
    (lambda: generated().subs(P=2.5), "P is 2.5. Give a whole number, 1 or more."),  # type: ignore[arg-type]  # nor this
    (lambda: generated().subs(N=-1), "N is -1. Give a whole number, 1 or more."),
    (lambda: generated().at(1.5), "token is 1.5. Give a whole number"),  # type: ignore[arg-type]  # nor this
    (lambda: open_batch().sorted_records(BOGUS), "key is 'bogus'. Give one of 'order', 'flops'"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED, ids=[said[:40] for _, said in REFUSED])
def test_what_makes_no_sense_is_refused_in_a_sentence(
    call: Callable[[], object], said: str
) -> None:
    with pytest.raises(gf.GraphFlopsError) as refusal:
        call()
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), sympy.Integer(3), torch.tensor(3)])
def test_whole_numbers_of_every_type_are_taken(three: Any) -> None:
    assert whole_number("steps", three) == 3
    assert type(whole_number("steps", three)) is int
    assert trained(steps=three).steps == 3
    assert open_batch().subs(B=three).macs == 3 * 3 * 4
    assert generated(max_new_tokens=three).new_tokens == 3


def test_a_tensor_for_args_is_one_input() -> None:
    # Its first axis is a batch of examples, no sequence of inputs.
    for args in (X, (X,), [X]):
        assert gf.count(LINEAR, args).macs == 2 * 3 * 4
        assert gf.count_training(LINEAR, args).forward.macs == 2 * 3 * 4


def test_an_encoder_and_a_tensor() -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.empty(3, 5, 64)
    # By token 4 x 64 x 64 for attention's projections, 2 x 64 x 128 beside it; and 2 x 5 x 64
    # for its scores and what they weight, in each of 2 layers for 3 x 5 tokens.
    macs = 2 * 3 * 5 * (4 * 64 * 64 + 2 * 64 * 128 + 2 * 5 * 64)
    assert gf.count(encoder, x).macs == macs


@torch.library.custom_op("graphflops_tests::nobody_knows", mutates_args=())
def nobody_knows(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@nobody_knows.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


nobody_knows.register_autograd(lambda _, gradient: gradient)


class Unknown(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        return nobody_knows(self.inner(x))


def test_a_warning_points_to_the_line_of_the_caller() -> None:
    model = llama()
    model.lm_head = Unknown(model.get_submodule("lm_head"))
    prompt = {"input_ids": torch.zeros(1, 3, dtype=torch.int64, device="meta")}
    calls: list[Callable[[], object]] = [
        lambda: gf.count(Unknown(LINEAR), (X,)),
        lambda: gf.count_training(Unknown(LINEAR), (X,)),
        lambda: gf.count_generation(model, prompt, max_new_tokens=2),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        (warning,) = [found for found in caught if found.category is gf.UnknownOpWarning]
        assert warning.filename == __file__
        assert warning.lineno == call.__code__.co_firstlineno
