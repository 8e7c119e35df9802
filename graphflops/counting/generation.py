"""What it costs to continue a prompt: one pass over it, then one step per token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import sympy

from graphflops.capture.counting_thread import in_counting_thread
from graphflops.capture.generation import Left, Prompt, capture_decode, capture_prefill, prompt_of
from graphflops.core import arguments
from graphflops.core.guards import holds
from graphflops.core.ir import Capture
from graphflops.counting import forward
from graphflops.counting.renamed import refuse_renamed
from graphflops.errors import CaptureError
from graphflops.pricing.registry import Registry
from graphflops.reports.generation import DecodeGraph, GenerationReport
from graphflops.reports.report import Report
from graphflops.runtime.versions import translate_version_errors

CacheKind = Literal["dynamic", "static"]


@refuse_renamed
@in_counting_thread
def count_generation(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    max_new_tokens: int,
    logits_to_keep: int = 1,
    cache: CacheKind = "dynamic",
    convention: str = "exact",
    registry: Registry | None = None,
    on_unknown: forward.OnUnknown = "warn",
    reuse_layers: bool = True,
) -> GenerationReport:
    """Count the continuation of a prompt, without running it and without weights.

    N new tokens are one pass over the prompt (prefill), which gives the first, and N - 1
    steps of one token each (decode). Both are captured once, with symbolic sizes: B
    sequences, P prompt tokens, K tokens in the cache; the steps are summed in closed form.
    An encoder, and the vision tower of a vision-language model, run once, in prefill.

    Args:
        model: A transformers model that generates, on any device; meta is enough.
        inputs: Inputs of the first pass by name: ``input_ids`` (B x P) and, where the model
            takes them, images, audio, masks. The inputs of an encoder, and
            ``decoder_input_ids`` if the decoder is to start with more than one token.
            ``use_cache=True`` for a model whose generation config says that it keeps none.
        max_new_tokens: N, tokens to produce for each sequence.
        logits_to_keep: Positions of the prompt that logits are computed for, the last ones;
            0 means all. Ignored where the model has no such input.
        cache: ``"dynamic"`` grows with each token, up to a sliding window where the model has
            one; ``"static"`` has its final length from the start, and attention is computed
            over all of it.
        convention: The way of counting, as in :func:`graphflops.count`.
        registry: Handlers of your own, looked up before those of the convention.
        on_unknown: As in :func:`graphflops.count`.
        reuse_layers: Likewise.

    Raises:
        ModelSpecError: The model cannot generate, an argument makes no sense, or there is no
            such convention.
        CaptureError: The model cannot be captured.
        UnknownOpError: An operator has no price and ``on_unknown`` is ``"raise"``.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(
        ...     hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        ...     vocab_size=10,
        ... )
        >>> with torch.device("meta"):
        ...     model = LlamaForCausalLM(config).eval()
        ...     prompt = {"input_ids": torch.zeros(1, 7, dtype=torch.int64)}
        >>> report = count_generation(model, prompt, max_new_tokens=5)
        >>> report.decode.macs  # 4 x 8 x 8 + 3 x 8 x 16 + 8 x 10 = 720, and 2 x 8 x (K + 1)
        16*K + 736
    """
    max_new_tokens = arguments.whole_number("max_new_tokens", max_new_tokens)
    logits_to_keep = arguments.whole_number("logits_to_keep", logits_to_keep, least=0)
    arguments.check_choice("cache", cache, get_args(CacheKind))
    arguments.check_choice("on_unknown", on_unknown, get_args(forward.OnUnknown))
    inputs = arguments.inputs_by_name("inputs", inputs)
    prices = forward.prices_of(convention, registry)
    start = time.perf_counter()
    with translate_version_errors():
        prompt = prompt_of(
            model,
            inputs,
            new_tokens=max_new_tokens,
            static=cache == "static",
            logits_to_keep=logits_to_keep,
        )
        counting_of = _Counter(prompt, prices, reuse_layers=reuse_layers)
        found = counting_of.prefill(max_new_tokens)
        while (cached := found.next_without_a_graph()) is not None:
            step = counting_of.step(cached, found.last_cached)
            found = replace(found, decode_graphs=(*found.decode_graphs, step))
    found = replace(found, seconds=time.perf_counter() - start)
    if not found.complete and on_unknown != "ignore":
        forward.complain(found, on_unknown)
    return found


class _Counter:
    """Captures and prices the graphs of a generation, with as many symbols as they allow."""

    def __init__(self, prompt: Prompt, registry: Registry, *, reuse_layers: bool) -> None:
        self._prompt = prompt
        self._registry = registry
        self._reuse_layers = reuse_layers
        self._name = type(prompt.model).__name__
        # Images say with values how many they are: their number stays what it is.
        self._symbols = frozenset("BPM" if prompt.is_text else "PM")
        self._left: Left | None = None
        self._alone = False

    def prefill(self, new_tokens: int) -> GenerationReport:
        """A report without steps."""
        prompt = self._prompt
        notes = [*prompt.notes]
        try:
            captured, self._left = capture_prefill(
                prompt, self._symbols, reuse_layers=self._reuse_layers
            )
            self._check(captured, prompt.sizes)
        except CaptureError:
            self._left = None
            captured, _ = capture_prefill(prompt, frozenset(), reuse_layers=self._reuse_layers)
            notes.append("The pass over the prompt cannot be captured for a length that is open.")
        return GenerationReport(
            model=self._name,
            symbolic_prefill=self._report(captured),
            decode_graphs=(),
            sizes={**prompt.sizes, "N": new_tokens},
            cache=prompt.cache,
            notes=tuple(notes),
        )

    def step(self, cached: int, end: int) -> DecodeGraph:
        """The graph of a step with so many tokens in the cache, of which there may be ``end``."""
        left, self._left = self._left, None  # of a prompt of this length, whatever it is
        try:
            found = self._step(cached, self._symbols | {"K"}, left)
        except CaptureError:
            return self._single(cached, end) if left is None else self.step(cached, end)
        self._alone = False
        return found

    def _single(self, cached: int, end: int) -> DecodeGraph:
        """A graph for one number of tokens: where a window is just full, that is a case of its own.

        If the next number is one too, it is not a matter of numbers: the loop over a prompt of a
        state-space model needs some length, and the step is the same whichever it is.
        """
        symbols = self._symbols
        try:
            found = self._step(cached, symbols)
        except CaptureError:  # the batch is special too
            symbols = frozenset()
            found = self._step(cached, symbols)
        captured = found.report.capture
        again, self._alone = self._alone, True
        alike = again and cached < end
        if alike and found.report.total == self._step(end, symbols).report.total:
            note = (
                f"A step costs the same with {cached} tokens in the cache and with {end}; in "
                "between that is taken for granted."
            )
            captured = replace(captured, notes=(*captured.notes, note))
        else:
            only = sympy.Eq(sympy.Symbol("K", positive=True, integer=True), cached)
            captured = replace(captured, assumptions=(only,))
        return replace(found, report=replace(found.report, capture=captured))

    def _step(self, cached: int, symbols: frozenset[str], left: Left | None = None) -> DecodeGraph:
        captured = capture_decode(
            self._prompt, cached, symbols, left, reuse_layers=self._reuse_layers
        )
        # A graph with one token in the cache is captured with two, as all symbols are.
        self._check(captured, {**self._prompt.sizes, "K": max(cached, 2)})
        return DecodeGraph(report=self._report(captured), cached=cached)

    def _check(self, captured: Capture, sizes: Mapping[str, int]) -> None:
        """See whether a graph with symbols holds for the sizes asked about.

        Raises:
            CaptureError: It does not: the batch it was captured with is special.
        """
        for condition in captured.assumptions:
            if holds(condition, sizes) is False:
                raise CaptureError(f"the graph of {self._name} holds only where {condition}.")

    def _report(self, captured: Capture) -> Report:
        return forward.report(captured, self._name, self._registry)
