"""Weights of other code: how they are found, matched, and refused layer by layer."""

import logging
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from bdl.domains.label_space import load_label_space
from bdl.runtime.config import SegmenterTraining
from bdl.runtime.errors import UserError
from bdl.segmentation.checkpoint import initial_segmenter, save_segmenter
from bdl.segmentation.networks import timm_backbone
from bdl.segmentation.networks.base import Segmenter

CLASSES = 5
NAMES = [str(number) for number in range(CLASSES)]
COMPACT = {"width": 4, "dilations": [1, 2]}


def start(network: str, file: Path | None, seed: int = 0, **options) -> Segmenter:
    return initial_segmenter(SegmenterTraining(network, options), file, NAMES, seed)


def equal(network: Segmenter, state: dict) -> bool:
    own = network.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items())


@pytest.fixture
def said(caplog):
    """The one line that a load says."""

    def line() -> str:
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1 and "\n" not in lines[0]
        return lines[0]

    caplog.set_level(logging.INFO, "bdl")
    logging.getLogger("bdl").propagate = True
    return line


@pytest.mark.parametrize(
    ("prefix", "holder"),
    [
        ("module.", None),
        ("module.", "state_dict"),
        ("model.", "state_dict"),
        ("_orig_mod.module.", "model"),
        ("module.model.", "model_state_dict"),
    ],
)
def test_known_prefixes_are_dropped_with_a_word(tmp_path, said, prefix, holder):
    given = start("compact", None, seed=7, **COMPACT).state_dict()
    state = {prefix + key: value for key, value in given.items()}
    torch.save({holder: state, "epoch": 3} if holder else state, tmp_path / "own.pt")
    assert equal(start("compact", tmp_path / "own.pt", **COMPACT), given)
    assert f"'{prefix}' before their names is dropped" in said()
    assert f"{len(given)} of {len(given)} tensors are those of compact" in said()


@pytest.mark.parametrize(
    ("backbone", "unused"),
    [
        ("test_resnet", "fc.weight"),
        ("test_convnext", "head."),
        ("test_vit", "norm."),
        ("test_efficientnet", "bn2."),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_state_dict_of_timm_is_the_backbones(tmp_path, said, backbone, unused, ending):
    torch.manual_seed(5)
    whole = timm.create_model(backbone, pretrained=False).eval()
    file = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(whole.state_dict(), file)
    # Also where pretrained weights are wanted: the file's take their place.
    network = start(f"timm:{backbone}", file, width=8).eval()
    line = said()
    assert "they are those of backbone" in line and unused in line and "new: " in line
    found = network.backbone.state_dict()
    names = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    for key, value in found.items():
        assert torch.equal(value, names[key.removeprefix("model.").replace(".", "_")]), key
    fresh = start(f"timm:{backbone}", None, width=8, pretrained=False).state_dict()
    head = {k: v for k, v in fresh.items() if k.startswith(network.head_prefixes)}
    assert head and equal(network, head)


def test_networks_of_smp_take_whole_ones_and_encoders(tmp_path, said, caplog):
    smp = pytest.importorskip("segmentation_models_pytorch")
    whole = smp.create_model("fpn", "resnet18", None, classes=CLASSES)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    network = start("smp:FPN/resnet18", tmp_path / "whole.pt", encoder_weights="imagenet")
    assert equal(network, whole.state_dict()) and "new" not in said()
    caplog.clear()
    save_file(whole.encoder.state_dict(), tmp_path / "encoder.safetensors")
    network = start("smp:FPN/resnet18", tmp_path / "encoder.safetensors")
    assert equal(network, {f"encoder.{k}": v for k, v in whole.encoder.state_dict().items()})
    assert "new: decoder, segmentation_head" in said()
    caplog.clear()
    other = smp.create_model("fpn", "resnet18", None, classes=CLASSES + 2)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    network = start("smp:FPN/resnet18", tmp_path / "other.pt")
    kept = {k: v for k, v in other.state_dict().items() if not k.startswith("segmentation_head")}
    assert equal(network, kept) and "new: segmentation_head" in said()


def test_of_other_classes_all_but_the_classifier_stays(tmp_path):
    space = load_label_space("camvid11")
    options = {"pretrained": False, "width": 8}
    config = SegmenterTraining("timm:test_vit", options)
    network = initial_segmenter(config, None, space.names, seed=3)
    save_segmenter(tmp_path / "given.pt", network, config, space)
    found = start("timm:test_vit", tmp_path / "given.pt", **options)
    kept = {
        key: value
        for key, value in network.state_dict().items()
        if not key.startswith("decoder.classifier.")
    }
    assert equal(found, kept) and any(key.startswith("decoder.") for key in kept)


@pytest.mark.parametrize("kind", ["missing", "of another shape", "unknown"])
def test_mismatches_name_their_layers(tmp_path, kind):
    state = {f"module.{k}": v for k, v in start("compact", None, **COMPACT).state_dict().items()}
    if kind == "missing":
        del state["module.stem.0.weight"]
    elif kind == "unknown":
        state["module.stem.99.weight"] = torch.zeros(1)
    else:
        state["module.stem.0.weight"] = torch.zeros(1, 2)
    torch.save(state, tmp_path / "given.pt")
    with pytest.raises(UserError, match=rf"{kind}: .*stem\.\d+\.weight") as caught:
        start("compact", tmp_path / "given.pt", **COMPACT)
    if kind == "of another shape":
        assert "is (1, 2), must be (4, 3, 3, 3)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_backbone_name_their_layers(tmp_path):
    other = timm.create_model("resnet34", pretrained=False).state_dict()
    torch.save({k: v for k, v in other.items() if ".1." not in k}, tmp_path / "given.pt")
    with pytest.raises(UserError, match=r"does not fit timm:resnet18: missing: backbone\.layer"):
        start("timm:resnet18", tmp_path / "given.pt", width=8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a safetensors file", "is no safetensors file, or damaged"),
        (None, "no such file"),
    ],
)
def test_safetensors_that_cannot_be_read(tmp_path, content, message):
    file = tmp_path / "given.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(file))}: {message}"):
        start("compact", file, **COMPACT)


def test_a_checkpoint_without_weights_says_where_they_were_looked_for(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "given.pt")
    with pytest.raises(UserError, match="holds no weights, neither as tensors by name nor as one"):
        start("compact", tmp_path / "given.pt", **COMPACT)


@pytest.mark.parametrize("backbone", ["resnet18", "pvt_v2_b0"])
def test_a_hub_out_of_reach_is_one_line_with_the_file_to_get(monkeypatch, backbone):
    made = timm.create_model

    def unreachable(name, **options):
        if options.get("pretrained"):
            raise OSError("no route\nto the hub")
        return made(name, **options)

    monkeypatch.setattr(timm_backbone.timm, "create_model", unreachable)
    with pytest.raises(UserError) as caught:
        start(f"timm:{backbone}", None)
    said = str(caught.value)
    assert re.search(rf"https://huggingface.co/timm/{backbone}\S+/model.safetensors", said)
    assert "segmentation.weights=FILE" in said and "\n" not in said


def test_the_file_of_a_backbones_authors_is_read_as_timm_reads_it(tmp_path):
    """ConvNeXt's authors name its layers in another way."""
    whole = timm.create_model("test_convnext", pretrained=False).state_dict()
    theirs = {}
    for key, value in whole.items():
        key = key.replace("head.fc.", "head.").replace("head.norm.", "norm.")
        key = re.sub(r"^stem\.", "downsample_layers.0.", key)
        key = re.sub(r"stages\.(\d)\.blocks\.(\d)", r"stages.\1.\2", key)
        key = re.sub(r"stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", key)
        theirs[key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = value
    torch.save({"model": theirs}, tmp_path / "authors.pth")
    network = start("timm:test_convnext", tmp_path / "authors.pth", width=8)
    names = {key.replace(".", "_"): value for key, value in whole.items()}
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, names[key.replace(".", "_")]), key


def test_how_weights_learned_is_no_property_of_them(tmp_path):
    """Drop path and recomputation may differ between a file and what starts with it."""
    space = load_label_space("camvid11")
    options = {"pretrained": False, "width": 8}
    config = SegmenterTraining("timm:test_vit", {**options, "drop_path": 0.3})
    network = initial_segmenter(config, None, space.names, seed=3)
    save_segmenter(tmp_path / "given.pt", network, config, space)
    start("timm:test_vit", tmp_path / "given.pt", **options, gradient_checkpointing=True)
    with pytest.raises(UserError, match="was made with width=8"):
        start("timm:test_vit", tmp_path / "given.pt", width=16)
