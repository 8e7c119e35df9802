"""What every worker of the zoo starts with: loaded once, by the server they are forked from."""

from __future__ import annotations

import time

_start = time.perf_counter()

import torch  # noqa: E402 - the clock starts first

import graphflops as gf  # noqa: E402
from benchmarks import zoo_peer  # noqa: E402, F401 - with zoo_worker, so that edits do not mix in
from graphflops.models import Options, known, resolve  # noqa: E402
from graphflops.runtime.patches import QUIET  # noqa: E402

# A worker has one core, and threads of the server would not be there after a fork.
torch.set_num_threads(1)
with QUIET.holding():
    # transformers, timm, torchvision, and what export loads only when it is first used.
    known()
    tiny = resolve("hf:bert", Options(overrides={"num_hidden_layers": 1}))
    gf.count(tiny.model, kwargs=tiny.kwargs)
    del tiny

SECONDS = time.perf_counter() - _start
"""How long that took."""
