"""``count_generation``: a prefill pass over a prompt, then one decode step per token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import sympy

from graphflops.capture.counting_thread import in_counting_thread
from graphflops.capture.fake.data_sizes import UndecidedSizeError
from graphflops.capture.fake.symbolic_shapes import FixedSizeError
from graphflops.capture.generation import (
    Prompt,
    capture_decode,
    capture_prefill,
    make_prompt,
)
from graphflops.capture.generation_state import GenerationState, extrapolate
from graphflops.core import arguments
from graphflops.core.guards import holds
from graphflops.core.ir import Capture
from graphflops.counting import forward
from graphflops.counting.renamed import refuse_renamed
from graphflops.errors import CaptureError
from graphflops.pricing.registry import Registry
from graphflops.reports.decoding import DecodeGraph
from graphflops.reports.generation import GenerationReport
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
        inputs: Inputs of the first pass by name: ``input_ids`` (B x P) and, if the model takes
            them, images, audio, masks. The inputs of an encoder, and ``decoder_input_ids`` if
            the decoder starts with more than one token. ``use_cache=True`` for a model whose
            generation config disables the cache.
        max_new_tokens: N, the number of tokens to generate for each sequence.
        logits_to_keep: Number of positions at the end of the prompt for which logits are
            computed; 0 means all. Ignored if the model has no such input.
        cache: ``"dynamic"`` grows with each token, up to a sliding window if the model has
            one; ``"static"`` has its final length from the start, and attention is computed
            over all of it.
        convention: Way of counting, as in :func:`graphflops.count`.
        registry: Your own handlers, which precede those of the convention.
        on_unknown: As in :func:`graphflops.count`.
        reuse_layers: As in :func:`graphflops.count`.

    Raises:
        ModelSpecError: The model cannot generate, an argument is invalid, or there is no such
            convention.
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
    prices = forward.resolve_registry(convention, registry)
    start = time.perf_counter()
    with translate_version_errors():
        prompt = make_prompt(
            model,
            inputs,
            new_tokens=max_new_tokens,
            static=cache == "static",
            logits_to_keep=logits_to_keep,
        )
        counter = _GraphCounter(prompt, prices, reuse_layers=reuse_layers)
        report = counter.prefill(max_new_tokens)
        while (cached := report.next_without_a_graph()) is not None:
            graph = counter.decode_graph(cached, report.last_cached)
            report = replace(report, decode_graphs=(*report.decode_graphs, graph))
    report = replace(report, seconds=time.perf_counter() - start)
    if not report.complete and on_unknown != "ignore":
        forward.report_unsupported(report, on_unknown)
    return report


_REFUTATIONS = 2
"""How often a state may turn out to grow unevenly before that is no longer tried."""


class _GraphCounter:
    """Capture and pricing of the graphs of a generation, with as many symbols as they allow."""

    def __init__(self, prompt: Prompt, registry: Registry, *, reuse_layers: bool) -> None:
        self._prompt = prompt
        self._registry = registry
        self._reuse_layers = reuse_layers
        self._name = type(prompt.model).__name__
        # The number of images follows from values of the inputs: the batch stays concrete.
        self._symbols = frozenset("BPM" if prompt.is_text else "PM")
        self._states: list[GenerationState] = []
        """States after the calls that were captured, in their order."""
        self._keeps_states = True
        self._refutations_left = _REFUTATIONS
        self._last_was_single = False

    def prefill(self, new_tokens: int) -> GenerationReport:
        """Return a report of prefill, without decode graphs."""
        prompt = self._prompt
        notes = [*prompt.notes]
        try:
            captured, state = capture_prefill(
                prompt, self._symbols, reuse_layers=self._reuse_layers
            )
            self._check(captured, prompt.sizes)
        except CaptureError:
            captured, state = capture_prefill(prompt, frozenset(), reuse_layers=self._reuse_layers)
            self._symbols = frozenset()  # no size of the state is open
            notes.append("The pass over the prompt cannot be captured for a length that is open.")
        self._record(state)
        return GenerationReport(
            model=self._name,
            symbolic_prefill=self._report(captured),
            decode_graphs=(),
            sizes={**prompt.sizes, "N": new_tokens},
            cache=prompt.cache,
            notes=tuple(notes),
        )

    def decode_graph(self, cached: int, end: int) -> DecodeGraph:
        """Return the graph of a decode step.

        Args:
            cached: Number of tokens in the cache.
            end: Number of tokens in the cache at the last step.
        """
        try:
            return (
                self._graph_from_open_state(cached)
                or self._graph_from_grown_state(cached)
                or self._graph_after_pass(cached)
                or self._graph_at_one_size(cached, end)
            )
        except CaptureError as error:
            if "B" not in self._symbols or not _follows_routing(error):
                raise
            self._symbols -= {"B"}
            return self.decode_graph(cached, end)

    def _graph_from_open_state(self, cached: int) -> DecodeGraph | None:
        """Return a graph from a state that is known for any number of tokens from here on."""
        # Symbolic sizes are at least 2: a graph with one cached token is captured with two.
        sizes = self._sizes(max(cached, 2))
        states = (s for s in reversed(self._states) if s.holds(sizes) and s.is_open(sizes))
        if (state := next(states, None)) is None:
            return None
        try:
            return self._capture(cached, self._symbols | {"K"}, state)
        except FixedSizeError:
            return None
        except CaptureError as error:
            self._raise_if_routing(error)
            self._forget_states()
            return None

    def _graph_from_grown_state(self, cached: int) -> DecodeGraph | None:
        """Return the graph of this step and of all that follow, if the state grows evenly.

        Two states, one token apart, show by how much it may grow. A step from a state of any
        length that has grown so proves it, if it leads to one that has grown by as much again.
        """
        before, state = self._state(cached - 1), self._state(cached)
        may_grow = self._last_was_single and self._refutations_left
        if not may_grow or before is None or state is None:
            return None
        open_sizes = self._symbols | {"K"}
        closed = {n: size for n, size in self._prompt.sizes.items() if n not in open_sizes}
        grown = extrapolate(
            before.bind({**closed, "K": cached - 1}),
            state.bind({**closed, "K": cached}),
            cached - 1,
        )
        if grown is None:
            return None
        self._refutations_left -= 1
        try:
            graph = self._capture(cached, open_sizes, grown)
        except CaptureError as error:
            self._raise_if_routing(error)
            return None
        if not self._states[-1].is_equal(grown):
            self._states.pop()
            self._last_was_single = True
            return None
        self._refutations_left += 1
        return graph

    def _graph_after_pass(self, cached: int) -> DecodeGraph | None:
        """Return a graph that starts after a pass over any number of tokens."""
        is_known_to_fail = not self._prompt.is_encoder_decoder or self._last_was_single
        if is_known_to_fail and self._state(cached) is not None:
            return None
        try:
            return self._capture(cached, self._symbols | {"K"})
        except CaptureError as error:
            self._raise_if_routing(error)
            return None

    def _graph_at_one_size(self, cached: int, end: int) -> DecodeGraph:
        """Return a graph for one number of cached tokens, such as one that just fills a window.

        If the next number needs its own graph too, the number may not matter: the loop of a
        state-space model over its prompt needs a concrete length, but the step is the same for
        any length.
        """
        was_single, state = self._last_was_single, self._state(cached)
        if state is not None:
            try:
                return _at_one_size(self._capture(cached, self._symbols, state), cached)
            except CaptureError as error:
                self._raise_if_routing(error)
                self._forget_states()
        try:
            graph = self._capture(cached, self._symbols)
        except CaptureError:  # the graph does not hold for a symbolic batch either
            self._symbols = frozenset()
            graph = self._capture(cached, self._symbols)
        may_be_equal = was_single and cached < end and self._state(cached + 1) is None
        if may_be_equal and graph.report.total == self._capture(end, self._symbols).report.total:
            captured = graph.report.capture
            note = (
                f"A step costs the same with {cached} tokens in the cache and with {end}; in "
                "between that is taken for granted."
            )
            captured = replace(captured, notes=(*captured.notes, note))
            return replace(graph, report=replace(graph.report, capture=captured))
        return _at_one_size(graph, cached)

    def _capture(
        self, cached: int, symbols: frozenset[str], state: GenerationState | None = None
    ) -> DecodeGraph:
        captured, after = capture_decode(
            self._prompt, cached, symbols, state, reuse_layers=self._reuse_layers
        )
        self._check(captured, self._sizes(max(cached, 2)))
        self._record(after)
        self._last_was_single = "K" not in symbols
        return DecodeGraph(report=self._report(captured), cached=cached)

    def _record(self, state: GenerationState | None) -> None:
        if state is not None and self._keeps_states:
            self._states.append(state)

    def _state(self, cached: int) -> GenerationState | None:
        """Return the state with so many tokens in the cache, if a captured call has left it."""
        sizes = self._sizes(cached)
        return next((state for state in reversed(self._states) if state.holds(sizes)), None)

    def _forget_states(self) -> None:
        """Start steps from passes over their tokens: values are needed, not just shapes."""
        self._states.clear()
        self._keeps_states = False

    def _raise_if_routing(self, error: CaptureError) -> None:
        if "B" in self._symbols and _follows_routing(error):
            raise error

    def _sizes(self, cached: int) -> dict[str, int]:
        return {**self._prompt.sizes, "K": cached}

    def _check(self, captured: Capture, sizes: Mapping[str, int]) -> None:
        """Check that a graph with symbols is valid for some sizes.

        Raises:
            CaptureError: It is not: the batch that it was captured with is a special case.
        """
        for condition in captured.assumptions:
            if holds(condition, sizes) is False:
                raise CaptureError(f"the graph of {self._name} holds only where {condition}.")

    def _report(self, captured: Capture) -> Report:
        return forward.make_report(captured, self._name, self._registry)


def _at_one_size(graph: DecodeGraph, cached: int) -> DecodeGraph:
    """Return a graph that holds for one number of tokens in the cache."""
    condition = sympy.Eq(sympy.Symbol("K", positive=True, integer=True), cached)
    captured = replace(graph.report.capture, assumptions=(condition,))
    return replace(graph, report=replace(graph.report, capture=captured))


def _follows_routing(error: CaptureError) -> bool:
    """Return True if a graph needs the number of tokens over which routers balance their choices.

    A step has one token for each sequence.
    """
    return isinstance(error.__cause__, UndecidedSizeError)
