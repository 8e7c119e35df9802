"""Inference mode below autograd, where all that is left of it is tensors without a version.

A count tells by the versions of tensors what was written to. Below autograd it runs outside of
inference mode, and a model that enters the mode runs without gradients instead: the operators are
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.runtime.patches import AttributePatch


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave inference mode for a block; gradients stay disabled."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


class _GradientMode:
    """Stand-in for torch's guard of inference mode, which sets the mode of gradients alone.

    Args:
        mode: True to enter inference mode, False to leave it.
    """

    def __init__(self, mode: bool) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        self._before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(not self._mode)

    def __exit__(self, *_: object) -> None:
        torch._C._set_grad_enabled(self._before)


def _guard(original: Any, is_held: Callable[[], bool]) -> Callable[[bool], Any]:
    def make(mode: bool) -> Any:
        stands_in = is_held() and COUNT_FLAGS.below_autograd
        return _GradientMode(mode) if stands_in else original(mode)

    return make


INFERENCE_MODE_PATCH = AttributePatch(torch._C, "_InferenceMode", _guard)
