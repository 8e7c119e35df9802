"""The models every counter is given, as configurations; weights are random or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Placement = Literal["cpu", "meta", "fake"]
"""Real weights on the CPU, none on meta, or none on meta within a ``FakeTensorMode``."""

_EXAMPLES = Path(__file__).parents[1] / "examples" / "configs"


@dataclass(frozen=True)
class Model:
    """A transformers model and the input of one forward pass, without torch loaded.

    Attributes:
        title: What tables call it.
        cls: Model class in transformers.
        config: Configuration class in transformers.
        settings: What the configuration sets; all else is its default.
        inputs: Name and shape of the one input.
        weights_fit: Whether float32 weights fit into the memory of an ordinary machine.
    """

    title: str
    cls: str
    config: str
    settings: Mapping[str, Any]
    inputs: tuple[str, tuple[int, ...]]
    weights_fit: bool = True

    def build(self, placement: Placement) -> tuple[Any, dict[str, Any]]:
        """The model in eval mode with its keyword inputs."""
        import torch

        from graphflops.models.optional_dependencies import repair_torchvision

        repair_torchvision()
        import transformers

        name, shape = self.inputs
        dtype = torch.int64 if name == "input_ids" else torch.float32
        with torch.device("cpu" if placement == "cpu" else "meta"):
            config = getattr(transformers, self.config)(**self.settings)
            model = getattr(transformers, self.cls)._from_config(config)
            return model.eval(), {name: torch.zeros(shape, dtype=dtype)}


def _example(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((_EXAMPLES / name / "config.json").read_text())
    return settings


# The cache is switched off in the configuration: some counters pass on nothing but tensors.
MODELS = {
    "bert": Model("BERT-base, 128 tokens", "BertModel", "BertConfig", {}, ("input_ids", (1, 128))),
    "vit": Model(
        "ViT-B/16, 224x224", "ViTModel", "ViTConfig", {}, ("pixel_values", (1, 3, 224, 224))
    ),
    "resnet": Model(
        "ResNet-50, 224x224", "ResNetModel", "ResNetConfig", {}, ("pixel_values", (1, 3, 224, 224))
    ),
    "llama-160m": Model(
        "Llama of 160M, 512 tokens",
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            "vocab_size": 32000,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "use_cache": False,
        },
        ("input_ids", (1, 512)),
    ),
    "llama-8b": Model(
        "Llama-3-8B shape, 2,048 tokens",
        "LlamaForCausalLM",
        "LlamaConfig",
        _example("llama-3-8b") | {"use_cache": False},
        ("input_ids", (1, 2048)),
        weights_fit=False,
    ),
}
