"""The thread that counts: the process as it sees it, and left as it was found.

Models run eagerly under fake tensors. That takes flags, patched functions and modes, most of
which torch keeps once for the whole process; other threads run and train models meanwhile.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from graphflops.capture.fake.class_attributes import CLASS_ATTRIBUTES
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.capture.torch_internals.process_patches import (
    TORCH_PATCHES,
    DynamoTables,
    LiftFlag,
)
from graphflops.capture.torch_internals.random_numbers import GENERATORS, OwnGenerators, RandomState
from graphflops.capture.torch_internals.thread_state import ThreadState
from graphflops.capture.transformers_compat import RegisteredClasses
from graphflops.runtime import patches
from graphflops.runtime.interruption import SIGNALS, close_suspended_generators
from graphflops.runtime.patches import NoGarbageCollection, Patches, hold_counts
from graphflops.runtime.versions import translate_version_errors

_P = ParamSpec("_P")
_R = TypeVar("_R")

patches.is_traced_by_dynamo = torch.compiler.is_dynamo_compiling

COUNTING = Patches(
    DynamoTables(),
    NoGarbageCollection(),
    LiftFlag(),
    OwnGenerators(),
    RegisteredClasses(),
    CLASS_ATTRIBUTES,
    *TORCH_PATCHES,
)
"""Changes to the process that a thread which counts sees."""


def in_counting_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function count in the thread that calls it, and leave thread and process as found.

    Not a ``with`` statement: its end could be interrupted as everything else can.
    """

    @functools.wraps(function)
    def count(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if COUNTING.is_held():
            return function(*args, **kwargs)
        before, handled = (ThreadState.now(), RandomState(), hold_counts()), sys.exc_info()[1]
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
                _leave(*before)
            except BaseException:
                _leave(*before)
                raise

    return count


def _leave(thread: ThreadState, numbers: RandomState, holds: dict[Patches, int]) -> None:
    """Put everything back; may be called again when it was interrupted."""
    SIGNALS.defer()
    thread.restore()
    for held, number in holds.items():
        held.release(number)
    numbers.restore()
    COUNT_FLAGS.reset()
    GENERATORS.begin()
    SIGNALS.restore()
