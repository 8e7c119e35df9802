"""Values of inputs: what they decide in a model's Python, they decide in its graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from calls import meta
from torch import nn

import graphflops as gf


@pytest.fixture
def onevision() -> tuple[nn.Module, dict[str, Any]]:
    """A small LLaVA-OneVision: how many crops it makes follows from the values of an input."""
    config = transformers.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        image_grid_pinpoints=[[28, 28], [28, 56]],
    )
    with torch.device("meta"):
        model = transformers.LlavaOnevisionForConditionalGeneration._from_config(config).eval()
    # The crops are computed from the values of image_sizes, which a trace does not have.
    inputs = {
        "input_ids": meta(1, 20, dtype=torch.int64),
        "pixel_values": meta(1, 3, 3, 28, 28),
        "image_sizes": torch.tensor([[28, 56]]),
        "use_cache": False,
    }
    return model, inputs


def test_sizes_that_follow_from_values_of_inputs(onevision: Any) -> None:
    model, inputs = onevision
    report = gf.count(model, kwargs=inputs)
    assert report.complete
    # 3 crops of 2 x 2 patches.
    costs = report.by_module()
    assert costs["model.vision_tower.encoder.layers.1.mlp.fc1"].macs == 3 * 4 * 32 * 64
    assert set(inputs) == {"input_ids", "pixel_values", "image_sizes", "use_cache"}
    (note,) = report.capture.notes
    assert "follow from values" in note


def test_a_branch_on_constants_of_the_code_is_no_matter_of_inputs() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.arange(4) < 4
            return x if bool(mask.all()) else x @ x

    report = gf.count(Masked(), (torch.ones(2, 2),))
    assert report.complete
    assert report.macs == 0
    assert report.capture.notes == ()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_values_decide_branches_loops_and_shapes(device: str) -> None:
    class Packed(nn.Module):
        """Attention over the images of a batch that are packed in one row."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8, device=device)
            self.register_buffer("stride", torch.tensor(2))

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            ends = torch.cumsum(lengths, 0).tolist()
            starts = torch.tensor([0, *ends[:-1]], device=lengths.device)
            rows = [self.linear(x[a:b]) for a, b in zip(starts.tolist(), ends, strict=True)]
            padded = torch.zeros(len(rows), int(lengths.max()), 8)
            kept = padded[torch.arange(padded.shape[1]) < lengths[:, None]]
            return kept[:: self.stride].sum() if lengths[0] > 1 else kept

    lengths = torch.tensor([3, 1])
    report = gf.count(Packed(), (meta(4, 8), lengths))
    linears = [r.call for r in report.records if r.call.op == "aten::linear"]
    assert [call.outputs[0].shape for call in linears] == [(3, 8), (1, 8)]
    # 3 + 1 true values in the mask; every second row of 4 is summed: 2 x 8 elements to 1.
    assert report.by_operator()["aten::sum"].flops == 2 * 8 - 1
    assert lengths.tolist() == [3, 1]


def test_what_is_written_over_is_not_known_any_more() -> None:
    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
            n += 1  # known: 4
            known = x[: int(n[0])]
            n.copy_(self.linear(x)[0, :1].long())
            return known, x[: n[0]]

    x, n = torch.zeros(6, 2), torch.tensor([3])
    report = gf.count(Overwritten(), (x, n))
    slices = [r.call.outputs[0].shape for r in report.records if r.call.op == "aten::slice"]
    assert slices[0] == (4, 2)
    assert slices[-1] == (6, 2)  # the whole, for anything up to that may be asked for
    assert [(size.value, size.operator) for size in report.capture.data_sizes][1:] == [
        (6, "aten::slice")
    ]
    assert n.tolist() == [3]


def test_a_tensor_of_the_model_is_not_written_to() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.calls = torch.tensor(1)  # neither parameter nor buffer

        def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
            self.calls += n
            return self.linear(x)

    model = Counting()
    gf.count(model, (torch.zeros(6, 2), torch.tensor(3)))
    assert model.calls.item() == 1


def test_a_forward_that_converts_a_part_to_what_it_is() -> None:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> Any:
            self.classifier = self.classifier.to(torch.float32)
            return self.classifier(x)

    assert gf.count(Router().to("meta"), (meta(2, 4),)).macs == 2 * 4 * 3


def test_values_in_lists_of_tensors_and_in_names() -> None:
    class Patches(nn.Module):
        """Leaves out the patches that are covered, and picks a layer by its name."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"layer_1": nn.Linear(2, 2)})

        def forward(self, x: torch.Tensor, covered: torch.Tensor) -> Any:
            left = torch.full_like(x[..., 0], True).bool()
            rows, columns = zip(*covered, strict=True)
            left[rows, columns] = False
            return self.layers[f"layer_{covered[0, 1]}"](x[left])

    covered = torch.tensor([[0, 1], [1, 3]])
    report = gf.count(Patches(), (meta(2, 4, 2), covered))
    # 2 of 2 x 4 are covered.
    assert report.macs == (2 * 4 - 2) * 2 * 2


def test_what_lies_where_something_unknown_lay_is_known() -> None:
    class Reusing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(20):
                torch.zeros(8).copy_(x)
                x = x[: int(torch.full((8,), 9.0)[0])]
            return x

    assert gf.count(Reusing(), (meta(8),)).complete


def test_a_mask_that_is_written_through_stays_known() -> None:
    class Masked(nn.Module):
        """Adds features at the same positions after each of two layers, as deepstack does."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: torch.Tensor, ids: torch.Tensor, features: torch.Tensor) -> Any:
            chosen = ids == 1
            for layer in self.layers:
                x = x.clone()
                x[chosen] = layer(x[chosen] + features)
            return x

    ids = torch.tensor([1, 0, 0, 1, 1, 0])
    report = gf.count(Masked().to("meta"), (meta(6, 4), ids, meta(3, 4)))
    assert report.macs == 2 * (3 * 4 * 4)


def test_offsets_that_are_allocated_and_then_written() -> None:
    class Packed(nn.Module):
        """Takes the rows of each image out of a packed sequence."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
            starts = torch.empty(lengths.shape, dtype=lengths.dtype)
            starts[0] = 0
            starts[1:] = lengths.cumsum(0)[:-1]
            rows = zip(starts, starts + lengths, strict=True)
            arange: Any = torch.arange
            return [self.linear(x[arange(first, last)][:2]) for first, last in rows]

    report = gf.count(Packed(), (torch.zeros(8, 4), torch.tensor([1, 7])))
    assert report.macs == (1 + 2) * 4 * 5


@pytest.mark.parametrize("allocate", [torch.empty, torch.empty_like, torch.Tensor.new_empty])
def test_integers_that_unknown_ones_are_written_to_are_unknown(allocate: Any) -> None:
    class Copying(nn.Module):
        def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
            given = {torch.empty: (2,), torch.empty_like: (n,)}.get(allocate, (n, 2))
            copy = allocate(*given, dtype=torch.int64)
            copy.copy_(n)
            return x.repeat(copy[0], 1)

    report = gf.count(Copying(), (meta(2, 4), meta(2, dtype=torch.int64)))
    assert [size.name for size in report.capture.data_sizes] == ["u0"]
