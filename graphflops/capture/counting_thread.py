"""State of the thread that counts: patches in it, and restoration of the process after it.

Models run eagerly under fake tensors. That takes flags, patched functions and modes, most of
which torch keeps once for the whole process, while other threads run and train models.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from graphflops.capture.fake.class_attributes import CLASS_ATTRIBUTES
from graphflops.capture.torch_internals.composite_kernels import COMPOSITE_KERNELS
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.capture.torch_internals.dynamo import UnpatchedDynamo
from graphflops.capture.torch_internals.inference_mode import INFERENCE_MODE_PATCH
from graphflops.capture.torch_internals.process_patches import (
    TORCH_PATCHES,
    LiftFlag,
)
from graphflops.capture.torch_internals.random_numbers import GENERATORS, OwnGenerators, RandomState
from graphflops.capture.torch_internals.thread_state import ThreadState
from graphflops.capture.transformers_compat import ReadableValues, RegisteredClasses
from graphflops.runtime import patches
from graphflops.runtime.interruption import SIGNALS, close_suspended_generators
from graphflops.runtime.patches import NoGarbageCollection, Patches, hold_counts
from graphflops.runtime.versions import translate_version_errors

_P = ParamSpec("_P")
_R = TypeVar("_R")

patches.is_traced_by_dynamo = torch.compiler.is_dynamo_compiling

COUNTING = Patches(
    UnpatchedDynamo(*TORCH_PATCHES),
    NoGarbageCollection(),
    LiftFlag(),
    OwnGenerators(),
    RegisteredClasses(),
    ReadableValues(),
    CLASS_ATTRIBUTES,
    *TORCH_PATCHES,
    *COMPOSITE_KERNELS,
    INFERENCE_MODE_PATCH,
)
"""Patches of a thread that counts."""


def in_counting_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that counts in the calling thread, and then restores thread and process.

    Not a context manager: an interruption of its exit would leave the process changed.
    """

    @functools.wraps(function)
    def count(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if COUNTING.is_held():
            return function(*args, **kwargs)
        state, handled = (ThreadState.now(), RandomState(), hold_counts()), sys.exc_info()[1]
        try:
            SIGNALS.install()
            with translate_version_errors():
                COUNTING.hold()
            return function(*args, **kwargs)
        except BaseException as error:
            SIGNALS.defer()
            close_suspended_generators(error, handled)
            raise
        finally:
            try:
                _restore(*state)
            except BaseException:
                _restore(*state)
                raise

    return count


def _restore(thread: ThreadState, random: RandomState, counts: dict[Patches, int]) -> None:
    """Restore all state; may be called again if it was interrupted."""
    SIGNALS.defer()
    thread.restore()
    for patch_set, count in counts.items():
        patch_set.release(count)
    random.restore()
    COUNT_FLAGS.reset()
    GENERATORS.begin()
    SIGNALS.restore()
