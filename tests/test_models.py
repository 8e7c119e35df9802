"""Model names: every form of one, plugins' own schemes, and what is said of a wrong one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import torchvision
import transformers

import graphflops as gf
from graphflops.models import Options, known, resolve, search
from graphflops.models.workload import InputSpec

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"
TINY = {"model_type": "bert", "hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 48}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _shapes(name: str, **options: Any) -> dict[str, list[int]]:
    made = resolve(name, Options(**options)).kwargs
    return {key: list(value.shape) for key, value in made.items() if hasattr(value, "shape")}


def _macs(name: str, **options: Any) -> float:
    workload = resolve(name, Options(**options))
    report = gf.count(workload.model, workload.args, workload.kwargs)
    assert report.complete
    return float(report.macs)


@pytest.mark.parametrize(
    ("name", "built"),
    [
        ("bert", "BertModel"),
        ("bert@BertForSequenceClassification", "BertForSequenceClassification"),
        ("bert@AutoModelForMaskedLM", "BertForMaskedLM"),
        # AutoModel knows none of these: another task, or the model in their own code.
        ("superpoint", "SuperPointForKeypointDetection"),
        ("siglip_text_model", "SiglipTextModel"),
        ("dia_encoder", "DiaEncoder"),
    ],
)
def test_the_class_of_a_transformers_type(
    name: str, built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("graphflops.models.huggingface")
    monkeypatch.setattr(module, "transformers_inputs", lambda *_: ({}, ()))
    overrides = {"num_hidden_layers": 1} if name.startswith("bert") else {}
    workload = resolve(f"hf:{name}", Options(overrides=overrides))
    assert type(workload.model).__name__ == built
    assert {p.device.type for p in workload.model.parameters()} == {"meta"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with three models, and no network."""
    models: dict[str, dict[str, Any]] = {
        "org/tiny": {"config.json": TINY | {"architectures": ["BertForMaskedLM"]}},
        "org/wide": {"config.json": TINY | {"hidden_size": 48}},
        "org/coded": {
            "config.json": TINY
            | {
                "model_type": "coded",
                "auto_map": {
                    "AutoConfig": "configuration_coded.CodedConfig",
                    "AutoModel": "modeling_coded.CodedModel",
                },
            },
            "configuration_coded.py": "from transformers import BertConfig\n\nclass CodedConfig(BertConfig):\n    model_type = 'coded'\n",
            "modeling_coded.py": "from transformers import BertModel\nfrom .configuration_coded import CodedConfig\n\nclass CodedModel(BertModel):\n    config_class = CodedConfig\n",
        },
    }
    for name, files in models.items():
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        for revision, reference in (("main", COMMIT), ("v2", COMMIT[::-1])):
            snapshot = folder / "snapshots" / reference
            snapshot.mkdir(parents=True)
            for file, text in files.items():
                (snapshot / file).write_text(text if isinstance(text, str) else json.dumps(text))
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / revision).write_text(reference)
    second = tmp_path / "hub" / "models--org--tiny" / "snapshots" / COMMIT[::-1] / "config.json"
    second.write_text(json.dumps(TINY | {"num_hidden_layers": 2}))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("hub")
def test_a_name_on_the_hub_comes_from_its_cache_without_network() -> None:
    model = resolve("hf:org/tiny", Options()).model
    assert type(model).__name__ == "BertForMaskedLM"
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (1, 24)
    assert resolve("hf:org/tiny", Options(revision="v2")).model.config.num_hidden_layers == 2
    assert resolve("hf:org/tiny", Options(revision=COMMIT)).model.config.num_hidden_layers == 1
    headed = resolve("hf:org/wide@BertForTokenClassification", Options()).model
    assert type(headed).__name__ == "BertForTokenClassification"


def test_a_folder_here_wins_over_the_hub(hub: Path) -> None:
    here = hub / "org" / "tiny"
    here.mkdir(parents=True)
    (here / "config.json").write_text(json.dumps(TINY | {"hidden_size": 36}))
    for name in ("org/tiny", "org/tiny/config.json", str(here), "org/tiny@BertModel"):
        assert resolve(f"hf:{name}", Options()).model.config.hidden_size == 36


@pytest.mark.usefixtures("hub")
def test_code_of_a_model_runs_only_with_permission() -> None:
    with pytest.raises(gf.ModelSpecError, match="allow that code to run: --trust-remote-code"):
        resolve("hf:org/coded", Options())
    options = Options(trust_remote_code=True, overrides={"num_hidden_layers": 2})
    for name in ("hf:org/coded", "hf:org/coded@AutoModel", "hf:org/coded@CodedModel"):
        model = resolve(name, options).model
        assert type(model).__name__ == "CodedModel"
        assert model.config.num_hidden_layers == 2


# Billions of multiply-adds as torchvision publishes them with its weights.
PUBLISHED: dict[str, dict[str, Any]] = {
    "resnet50": {},
    "vit_b_16": {},
    "swin_t": {},
    "inception_v3": {},
    "regnet_y_400mf": {},
    "fcn_resnet50": {"aux_loss": True},  # its weights have the auxiliary head
    "r3d_18": {},
    "mvit_v2_s": {},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_count_by_name_alone_is_what_torchvision_publishes(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    found = _macs(f"torchvision:{name}", overrides=PUBLISHED[name])
    assert round(found / 1e9, 3) == published


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16"])
def test_timm_and_torchvision_agree_on_the_same_architecture(name: str) -> None:
    theirs = {"resnet50": "resnet50", "vit_b_16": "vit_base_patch16_224"}[name]
    assert _macs(f"timm:{theirs}") == _macs(f"torchvision:{name}")


def test_source_lines_are_the_models_own() -> None:
    workload = resolve("torchvision:alexnet", Options())
    report = gf.count(workload.model, workload.args, workload.kwargs)
    assert {record.call.source_line.split(":")[0] for record in report.records} == {
        "torchvision/models/alexnet.py"
    }


SHAPES: list[tuple[str, dict[str, Any], dict[str, list[int]]]] = [
    ("timm:resnet18", {}, {"x": [1, 3, 224, 224]}),
    ("timm:resnet18", {"batch_size": 2, "image_size": 64}, {"x": [2, 3, 64, 64]}),
    ("timm:resnet18", {"overrides": {"in_chans": 1}}, {"x": [1, 1, 224, 224]}),
    ("timm:resnet18", {"inputs": {"x": InputSpec(shape=(1, 3, 9, 9), dtype=None)}}, {"x": [1, 3, 9, 9]}),
    ("timm:vit_tiny_patch16_224", {"image_size": 96}, {"x": [1, 3, 96, 96]}),
    ("timm:vit_tiny_patch16_224", {"overrides": {"img_size": 96}}, {"x": [1, 3, 96, 96]}),
    ("timm:xception41", {}, {"x": [1, 3, 299, 299]}),
    ("torchvision:vit_b_32", {"image_size": 64}, {"x": [1, 3, 64, 64]}),
    ("torchvision:vit_h_14", {}, {"x": [1, 3, 518, 518]}),
    ("torchvision:fcn_resnet50", {}, {"x": [1, 3, 520, 520]}),
    ("torchvision:mc3_18", {"batch_size": 2}, {"x": [2, 3, 16, 112, 112]}),
    ("torchvision:raft_small", {}, {"image1": [1, 3, 520, 960], "image2": [1, 3, 520, 960]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "shapes"), SHAPES)
def test_inputs_are_what_the_model_was_made_for(
    name: str, options: dict[str, Any], shapes: dict[str, list[int]]
) -> None:
    assert _shapes(name, **options) == shapes


def test_detection_takes_a_list_of_images() -> None:
    (images,) = resolve("torchvision:ssd300_vgg16", Options(batch_size=2)).kwargs.values()
    assert [list(image.shape) for image in images] == [[3, 800, 800]] * 2


def test_keywords_and_dtype_reach_the_constructor() -> None:
    options = Options(overrides={"num_classes": 10}, dtype="bfloat16")
    for name in ("timm:resnet18", "torchvision:resnet18"):
        workload = resolve(name, options)
        assert list(workload.model.fc.weight.shape) == [10, 512]
        tensors = [*workload.model.parameters(), *workload.kwargs.values()]
        assert {(t.device.type, t.dtype) for t in tensors} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("hf:bert", {"hf:bert": "BertModel", "hf:bert-generation": "BertGenerationEncoder"}),
        ("hf:siglip_text*", {"hf:siglip_text_model": "SiglipTextConfig"}),
        ("resnet152", {"timm:resnet152": "resnet", "torchvision:resnet152": "classification"}),
        ("torchvision:raft_*", dict.fromkeys(("torchvision:raft_large", "torchvision:raft_small"), "optical flow")),
    ],
)  # fmt: skip
def test_names_are_found_by_a_part_or_a_glob(pattern: str, found: dict[str, str]) -> None:
    assert found.items() <= search(pattern)[0].items()


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("resnet50", {}, "no model name. Did you mean timm:resnet50, torchvision:resnet50?"),
    ("hf:bertt", {}, "has no model type 'bertt'. Did you mean hf:bert,"),
    ("timm:resnet5O", {}, "has no model 'resnet5O'. Did you mean timm:resnet50,"),
    ("torchvision:vit_base_patch16_224", {}, "Did you mean timm:vit_base_patch16_224"),
    ("hf:bert@BertForMasked", {}, "has no model class 'BertForMasked'. Did you mean BertForMaskedLM"),
    ("hf:bert@GPT2Model", {}, "cannot build a 'bert' as 'GPT2Model'. Did you mean BertModel"),
    ("hf:bert@AutoModelForCTC", {}, "cannot build a 'bert' as 'AutoModelForCTC'"),
    ("hf:sam_mask_decoder", {}, "Give the type of the model it is part of"),
    ("hf:org/absent", {}, "Download its config.json and give hf:PATH, or set HF_HOME"),
    ("hf:org/tiny", {"revision": "v3"}, "org/tiny at v3 is not on this machine"),
    ("hf:org/-", {}, "cannot be fetched from the hub"),
    ("hf:a/b/c", {}, "a/b/c does not exist"),
    ("hf:bert", {"revision": "main"}, "--revision does not apply"),
    ("hf:bert", {"trust_remote_code": True}, "--trust-remote-code does not apply"),
    ("timm:resnet18", {"seq_len": 3}, "--seq-len does not apply to a timm model"),
    ("timm:resnet18", {"overrides": {"colour": 1}}, "timm:resnet18 cannot be built so: "),
    ("torchvision:resnet18", {"overrides": {"colour": 1}}, "unexpected keyword argument 'colour'"),
    ("torchvision:vit_b_16", {"image_size": 100}, "torchvision:vit_b_16 cannot be built so: Input shape indivisible by patch size."),
    ("torchvision:resnet18", {"audio_seconds": 3.0}, "--audio-seconds does not apply"),
    ("torchvision:resnet18", {"inputs": {"y": InputSpec(shape=(1,), dtype=None)}}, "no input named 'y'"),
    ("models.py:x", {"image_size": 3}, "--image-size does not apply"),
    ("model.pt2", {"revision": "x"}, "--revision does not apply"),
]  # fmt: skip


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("name", "options", "sentence"), WRONG)
def test_a_wrong_name_or_option_is_a_sentence(
    name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(gf.ModelSpecError) as caught:
        resolve(name, Options(**options))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value)[-1] in ".?'"


def test_nothing_matches() -> None:
    with pytest.raises(gf.ModelSpecError, match=r"matches 'resnet5O'. Did you mean timm:resnet50"):
        search("resnet5O")


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        (None, "timm: names need timm. Run: pip install 'graphflops[timm]'"),
        ("import not_there", "timm: names need timm, which lacks not_there. Run: pip install"),
        ("raise OSError('no libfoo.')", "does not import (OSError: no libfoo). Run: pip install"),
    ],
)
def test_a_missing_extra_says_which_line_installs_it(
    package: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    if package is None:
        monkeypatch.setitem(sys.modules, "timm", None)
    else:
        (tmp_path / "timm.py").write_text(package)
        monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(gf.ModelSpecError) as caught:
        resolve("timm:resnet18", Options())
    assert sentence in str(caught.value)
    # Other names are listed all the same.
    found, missing = search("resnet18")
    assert "torchvision:resnet18" in found
    assert sentence in missing[0]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example plugin, a broken one, and one that wants a scheme of ours."""
    modules = {"example": "graphflops_example.models", "broken": "not_there:at_all", "hf": "mine"}
    for name, value in modules.items():
        info = tmp_path / f"graphflops_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: g-{name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[graphflops.models]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(PLUGIN))


@pytest.mark.usefixtures("plugins")
def test_a_package_brings_model_names_of_its_own() -> None:
    assert _named("example:scan", batch_size=2, seq_len=10) == [2, 10, 16]
    assert search("example:*")[0] == {
        "example:scan": "16 channels",
        "example:scan-wide": "64 channels",
    }
    for name, sentence in {
        "example:nothing": "Known: example:scan, example:scan-wide",
        "scan-wid": "Did you mean example:scan-wide",
        "broken:x": r"the resolver of broken: names \(not_there:at_all\) cannot be loaded",
    }.items():
        with pytest.raises(gf.ModelSpecError, match=sentence):
            resolve(name, Options())
    # The rest is listed all the same, and nobody takes hf: from us.
    found, missing = known()
    assert "hf:bert" in found
    assert [sentence.split(":")[0] for sentence in missing] == ["the resolver of broken"]


def _named(name: str, **options: Any) -> list[int]:
    (x,) = resolve(name, Options(**options)).args
    return list(x.shape)
