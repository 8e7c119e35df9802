"""Canaries of torch's autograd engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from graphflops.capture.torch_internals import autograd_engine

X = torch.ones(2, 3)


def in_backward(ask: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    x = X.clone().requires_grad_()
    y = (x * 2).sum()
    x.register_hook(lambda _: answers.append(ask()))  # type: ignore[no-untyped-call]  # torch's gap
    y.backward()  # type: ignore[no-untyped-call]  # likewise
    return answers[0]


def hooks() -> bool:
    before = autograd_engine.top_saved_tensors_hooks(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        return before is None and autograd_engine.top_saved_tensors_hooks(True) is not None


def sequence() -> bool:
    before = autograd_engine.next_sequence_number()
    X.clone().requires_grad_().mul(2)
    return bool(autograd_engine.next_sequence_number() > before)


def engine_is_called() -> bool:
    code = autograd_engine.run_backward_engine.__code__
    frames: list[Any] = []

    def look() -> None:
        frame: Any = sys._getframe()
        while frame is not None:
            frames.append(frame.f_code)
            frame = frame.f_back

    in_backward(look)
    return code in frames


AUTOGRAD: dict[str, Callable[[], bool]] = {
    "autograd_engine.current_node": lambda: (
        autograd_engine.current_node() is None
        and in_backward(autograd_engine.current_node) is not None
    ),
    "autograd_engine.current_graph_task_id": lambda: (
        autograd_engine.current_graph_task_id() == -1
        and in_backward(autograd_engine.current_graph_task_id) >= 0
    ),
    "autograd_engine.next_sequence_number": sequence,
    "autograd_engine.top_saved_tensors_hooks": hooks,
    "autograd_engine.run_backward_engine": engine_is_called,
    "autograd_engine.saved_tensors": lambda: (
        len(autograd_engine.saved_tensors(X.clone().requires_grad_().exp().grad_fn)) == 1
    ),
    "autograd_engine.count_references": lambda: autograd_engine.count_references(X.clone())[0] == 1,
}
