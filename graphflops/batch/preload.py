"""Imports that the processes of a batch share: a server loads them once, then forks.

What the workers print is no result of theirs, and is dropped.
"""

from __future__ import annotations

import contextlib
import gc
import os

import torch

from graphflops import models
from graphflops.counting.forward import count
from graphflops.counting.generation import count_generation  # noqa: F401 - its imports
from graphflops.counting.training import count_training  # noqa: F401 - likewise
from graphflops.runtime.patches import QUIET


def _drop_prints() -> None:
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123 - a device
        for descriptor in (1, 2):
            os.dup2(devnull.fileno(), descriptor)


def _warm_up() -> None:
    """Load what is loaded at the first use: packages of models, and parts of torch."""
    with QUIET.holding(), contextlib.suppress(Exception):
        models.known()
        layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, device="meta").eval()
        count(layer, torch.empty(1, 2, 8, device="meta"))


_drop_prints()
# A worker has one core, and threads of the server would not be there after a fork.
torch.set_num_threads(1)
_warm_up()
# Objects that are never collected stay shared between the processes.
gc.collect()
gc.freeze()
