"""Two processes that train a model in two stages: the program of ``test_pipeline_split.py``."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.pipelining import ScheduleGPipe, pipeline

import graphflops as gf


class Masked(nn.Module):
    """Layers that all take an input of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = (layer(x) * mask).relu_()
        return x


def train(rank: int, init_file: str) -> None:
    """Print if the gradients of a stage are those of the model in one process."""
    init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, x, mask = Masked(), torch.randn(4, 8), torch.rand(4, 8)
    pipe = pipeline(model, (x[:2], mask[:2]), split_policy=gf.split_policy(2))
    stage: Any = pipe.build_stage(rank, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, 2, loss_fn=lambda out, _: out.sum(), scale_grads=False)
    inputs, target = ((x, mask), None) if rank == 0 else ((), torch.zeros(4, 8))
    schedule.step(*inputs, target=target)
    model(x, mask).sum().backward()
    whole = dict(model.named_parameters())
    same = [
        torch.allclose(p.grad, whole[n].grad, atol=1e-6)  # type: ignore[arg-type]  # a step was made
        for n, p in stage.submod.named_parameters()
    ]
    print(f"{rank}:{len(same) == 4 and all(same)}", flush=True)  # noqa: T201 - what the test reads
    destroy_process_group()


if __name__ == "__main__":
    processes: Any = torch.multiprocessing
    processes.spawn(train, (sys.argv[1],), nprocs=2)
