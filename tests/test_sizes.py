"""However large an input is asked for, no memory is taken for it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from commands import Run
from torch.utils._python_dispatch import TorchDispatchMode

from graphflops.models import Options, resolve
from graphflops.models.inputs.tensors import full, materialize_if_small, repeat_batch

LARGEST = 2**20
HUGE = 10**12


class _NothingLarge(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Fails where a tensor has much more data than a capture looks at."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                assert tensor.untyped_storage().nbytes() <= 64 * LARGEST, func
        return made


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bert", {"batch_size": HUGE}),
        ("t5", {"batch_size": HUGE, "seq_len": 1000}),
        ("t5", {"seq_len": HUGE}),
        ("layoutlm", {"batch_size": HUGE}),
        ("vit", {"batch_size": HUGE}),
        ("vit", {"image_size": 1_000_000}),
        ("clip", {"batch_size": HUGE}),
        ("detr", {"image_size": 1_000_000}),
        ("whisper", {"batch_size": HUGE}),
        ("wav2vec2", {"batch_size": HUGE}),
        ("encodec", {"batch_size": HUGE}),
        ("qwen2_audio", {"batch_size": 100_000}),
        ("videomae", {"batch_size": 10**9}),
        ("patchtst", {"batch_size": HUGE}),
        ("decision_transformer", {"batch_size": HUGE}),
        ("decision_transformer", {"seq_len": HUGE}),
        ("timesfm", {"batch_size": HUGE}),
        ("siglip2", {"image_size": 1_000_000}),
        ("kosmos-2", {"batch_size": 100_000}),
        ("omdet-turbo", {"batch_size": 10**9}),
        ("xcodec2", {"audio_seconds": 1e8}),
    ],
)
def test_inputs_of_any_size_have_no_data(name: str, options: dict[str, Any]) -> None:
    with _NothingLarge():  # type: ignore[no-untyped-call]  # torch's
        workload = resolve(f"hf:{name}", Options(**options))
    sizes = {size for value in workload.kwargs.values() for size in getattr(value, "shape", ())}
    assert max(sizes) >= 100_000


@pytest.mark.parametrize(
    ("arguments", "macs"),
    [
        # 10**12 x 128 tokens, or images: as many times what one costs.
        (("hf:bert", "--batch-size", str(HUGE)), None),
        (("timm:resnet18", "--batch-size", str(HUGE)), None),
        (("models.py:tiny", "--input", "x=1000000000x4"), 10**9 * 4 * 2),
        (("models.py:tiny", "--input", "x=0x4"), 0),
    ],
)
def test_a_batch_of_any_size_is_counted(
    run: Run, arguments: tuple[str, ...], macs: int | None
) -> None:
    code, out, err = run("count", *arguments, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)["totals"]["macs"]
    if macs is None:
        one = json.loads(run("count", arguments[0], "--format", "json")[1])["totals"]["macs"]
        macs = one * HUGE
    assert found == macs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hf:bert", "--batch-size", "9" * 30), "larger than any tensor can be, 2**63 bytes"),
        (("hf:vivit", "--batch-size", str(HUGE)), "larger than any tensor can be"),
        (("timm:resnet18", "--image-size", str(HUGE)), "larger than any tensor can be"),
        (("torchvision:resnet18", "--image-size", str(HUGE)), "larger than any tensor can be"),
        (("models.py:tiny", "--input", "x=" + "9" * 30 + "x4"), "larger than any tensor can be"),
        (("models.py:tiny", "--input", "x=" + "9" * 5000), "is not NAME=SHAPE[:DTYPE]"),
        (("hf:siglip2", "--batch-size", str(HUGE)), "goes through its examples one by one"),
        (("hf:llava", "--batch-size", str(HUGE)), "Ask for at most 100,000."),
        (("hf:wav2vec2", "--audio-seconds", "1e9"), "Ask for at most 600"),
        (
            ("torchvision:fasterrcnn_resnet50_fpn", "--batch-size", str(HUGE)),
            "takes a list of images, one after the other. Ask for at most 1,000.",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_what_is_too_large_is_refused_in_a_sentence(
    run: Run, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = run("count", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert re.search(r"\. (Ask|Give|Write) ", err)


def test_values_are_there_where_a_capture_looks_at_them() -> None:
    assert full((2, 3), 7).tolist() == [[7] * 3] * 2
    assert repeat_batch(torch.tensor([[1, 2]]), 2).tolist() == [[1, 2], [1, 2]]
    assert not full((LARGEST,), 1).is_meta
    assert full((LARGEST + 1,), 1).is_meta
    large = materialize_if_small((HUGE, 2), lambda: torch.zeros(HUGE, 2), torch.bool)
    assert (large.is_meta, large.shape, large.dtype) == (True, (HUGE, 2), torch.bool)
