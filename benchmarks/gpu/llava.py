"""Memory of a published generation on a GPU: ``python -m benchmarks.gpu.llava --output DIR``.

LLaVA-OneVision-7B with random weights looks at the image of the published report (16 crops, 7,405
prompt tokens) and writes 7 tokens. Nothing else of this project is imported than what measures.
``DIR/llava_onevision.json`` has the bytes that the caching allocator held at most, as seen all the
time and as seen only where a module begins or ends, and the tensors that were alive at the peak,
with the line that made each. ``--dry-run`` is a tiny model on the CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.gpu.device import Cpu, Cuda, Device

CONFIG = Path(__file__).parents[2] / "examples" / "configs" / "llava-onevision-7b"
CROPS, PROMPT_TOKENS, NEW_TOKENS = 16, 7405, 7
IMAGE_SIZE = (3 * 384, 5 * 384)
SMALLEST = 1 << 20
"""Bytes of a tensor that is listed."""
_TINY = {
    "text_config": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    "vision_config": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}


def build(device: torch.device, *, tiny: bool) -> nn.Module:
    """Return the model in bfloat16 with random weights."""
    sizes: dict[str, Any] = json.loads((CONFIG / "config.json").read_text("utf-8"))
    if tiny:
        sizes = {**sizes, **{part: {**sizes[part], **_TINY[part]} for part in _TINY}}
        sizes["text_config"] |= {"num_attention_heads": 4, "num_key_value_heads": 2}
        sizes["vision_config"]["num_attention_heads"] = 4
    config = transformers.LlavaOnevisionConfig(**sizes)
    with device:
        model: nn.Module = transformers.LlavaOnevisionForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16
        )
    return model.eval()


@torch.no_grad()
def inputs_of(model: Any, device: torch.device) -> dict[str, torch.Tensor]:
    """Return an image in crops, and a prompt with a placeholder for each of its features."""
    images = {
        "pixel_values": torch.randn(1, CROPS, 3, 384, 384, dtype=torch.bfloat16, device=device),
        "image_sizes": torch.tensor([IMAGE_SIZE], device=device),
    }
    found = model.model.get_image_features(**images)
    features = getattr(found, "pooler_output", found)
    count = sum(part.shape[0] for part in features)
    ids = torch.randint(0, 1000, (1, PROMPT_TOKENS), device=device)
    ids[0, 10 : 10 + count] = model.config.image_token_id
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images}


@contextmanager
def module_boundaries(model: nn.Module) -> Iterator[list[int]]:
    """Yield the largest number of allocated bytes where a module begins or ends."""
    largest = [0]

    def read(*_: object) -> None:
        largest[0] = max(largest[0], torch.cuda.memory_allocated())

    handles = [
        handle
        for module in model.modules()
        for handle in (
            module.register_forward_pre_hook(read),
            module.register_forward_hook(read),
        )
    ]
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


def live_at_peak(snapshot: dict[str, Any], base: int) -> tuple[int, list[dict[str, Any]]]:
    """Return the peak of the allocator's events above a base, and the large blocks alive then."""
    live: dict[int, dict[str, Any]] = {}
    now, peak, at_peak = base, base, []
    for event in snapshot["device_traces"][0]:
        if event["action"] == "alloc":
            live[event["addr"]] = event
            now += event["size"]
            if now > peak:
                peak, at_peak = now, [*live.values()]
        elif event["action"] == "free_requested":
            gone = live.pop(event["addr"], None)
            now -= gone["size"] if gone else event["size"]
    large = [event for event in at_peak if event["size"] >= SMALLEST]
    return peak, [{"bytes": e["size"], "made": _frames(e)} for e in large]


def _frames(event: dict[str, Any]) -> list[str]:
    """Return the innermost lines of Python that made a block."""
    frames = event.get("frames", [])
    return [f"{Path(f['filename']).name}:{f['line']} {f['name']}" for f in frames[:6]]


def measure(device: Device, *, tiny: bool) -> dict[str, Any]:
    """Return what the generation took."""
    model: Any = build(device.device, tiny=tiny)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    inputs = inputs_of(model, device.device)
    device.clean()
    start = device.memory()

    def generate() -> None:
        with torch.no_grad():
            model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        device.synchronize()

    def prefill() -> None:
        with torch.no_grad():
            model(**inputs, use_cache=True, logits_to_keep=1)
        device.synchronize()

    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameter_bytes": sum(p.nbytes for p in model.parameters()),
        "prompt_tokens": inputs["input_ids"].shape[1],
        "image_tokens": int((inputs["input_ids"] == model.config.image_token_id).sum()),
        "attention": model.config._attn_implementation,
        "start": start,
    }
    for name, step in (("generate", generate), ("prefill", prefill)):
        device.clean()
        step()
        found[name] = device.memory()
    if not tiny:
        found |= _looked_at(model, device, prefill)
    return found


def _looked_at(model: nn.Module, device: Device, step: Any) -> dict[str, Any]:
    device.clean()
    with module_boundaries(model) as largest:
        step()
    device.clean()
    base = torch.cuda.memory_allocated()
    memory = torch.cuda.memory
    memory._record_memory_history(
        "all", context="alloc", stacks="python", max_entries=1_000_000, clear_history=True
    )
    step()
    peak, alive = live_at_peak(memory._snapshot(), base)
    memory._record_memory_history(None)
    return {"at_module_boundaries": largest[0], "peak_of_events": peak, "alive_at_peak": alive}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the result")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    device: Device = Cpu() if arguments.dry_run else Cuda()
    found = {
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **device.properties(),
        },
        **measure(device, tiny=arguments.dry_run),
    }
    path = arguments.output / "llava_onevision.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shown = {key: value for key, value in found.items() if key != "alive_at_peak"}
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
