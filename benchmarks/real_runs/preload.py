"""What every worker starts with: loaded once, by the server they are forked from."""

from __future__ import annotations

import torch

import graphflops as gf
from graphflops.models import known
from graphflops.runtime.patches import QUIET

torch.set_num_threads(1)
with QUIET.holding():
    known()  # transformers, timm and torchvision
    gf.count_training(torch.nn.Linear(1, 1), (torch.zeros(1, 1),))
