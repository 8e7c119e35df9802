"""Pictures of the page on plots: ``python -m benchmarks.docs_plots``."""

from __future__ import annotations

from pathlib import Path

import graphflops as gf
from graphflops.models import Options, resolve

FOLDER = Path(__file__).parents[1] / "docs" / "tasks"


def main() -> None:
    """Draw a training step of ResNet-50 and a forward pass of Llama 3 8B."""
    resnet = resolve("torchvision:resnet50", Options(batch_size=32))
    resnet.model.train()
    step = gf.count_training(resnet.model, resnet.args, resnet.kwargs, optimizer="adamw")
    step.memory.plot(FOLDER / "memory_resnet50.svg")
    step.time("h100-sxm", dtype="bfloat16").plot_roofline(FOLDER / "roofline_resnet50.svg")
    llama = resolve("hf:examples/configs/llama-3-8b", Options(seq_len=2048))
    forward = gf.count(llama.model, llama.args, llama.kwargs)
    forward.time("h100-sxm", dtype="bfloat16").plot_icicle(FOLDER / "icicle_llama3_8b.svg")


if __name__ == "__main__":
    main()
