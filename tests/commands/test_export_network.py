"""Exported networks give the probabilities of the network itself, without this project's code."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bdl.domains.label_space import load_label_space
from bdl.pipeline import main
from bdl.runtime.config import SegmentationConfig
from bdl.segmentation import export_network as module
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.export_network import same_labels
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.predict import probabilities
from bdl.segmentation.predictor import Predictor
from bdl.segmentation.stages import RESULT

SPACE = load_label_space("camvid11")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = build_segmenter("compact", SPACE.num_classes, width=4)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.3)
    config = SegmentationConfig(network="compact", options={"width": 4})
    save_segmenter(tmp_path / RESULT, network, config, SPACE)
    return tmp_path / RESULT


def expected(checkpoint: Path, images: torch.Tensor) -> torch.Tensor:
    predictor = Predictor(checkpoint, device="cpu")
    return probabilities(predictor.fabric, predictor.network, images)


def export(checkpoint: Path, out: Path) -> int:
    arguments = ["--checkpoint", str(checkpoint), "--out", str(out), "--size", "48", "32"]
    return main(["export-network", *arguments])


def test_onnx(checkpoint: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "made" / "net.onnx"
    assert export(checkpoint, out) == 0
    assert [file.name for file in out.parent.iterdir()] == ["net.onnx"]
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": images.numpy()})
    assert np.allclose(found, expected(checkpoint, images).numpy(), atol=1e-4)
    space = json.loads(session.get_modelmeta().custom_metadata_map["label_space"])
    assert space == SPACE.describe()


def test_torch_export(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.pt2"
    assert export(checkpoint, out) == 0
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    extra = {"label_space.json": ""}
    found = torch.export.load(out, extra_files=extra).module()(images)
    assert torch.allclose(found, expected(checkpoint, images), atol=1e-5)
    assert json.loads(extra["label_space.json"]) == SPACE.describe()


def test_what_cannot_be_written_with_free_sizes_is_written_with_fewer(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, tries = torch.export.save, []

    def refuse_the_first(program: torch.export.ExportedProgram, file: object, **options: object):
        tries.append(program)
        if len(tries) == 1:
            raise RuntimeError("Failed serializing a node")
        save(program, file, **options)

    monkeypatch.setattr(torch.export, "save", refuse_the_first)
    out = tmp_path / "net.pt2"
    predictor = Predictor(checkpoint, device="cpu")
    assert module.export_network(predictor, out, (32, 32), free=True) == ("batch",)
    assert len(tries) == 2 and torch.export.load(out)


def test_labels_may_differ_only_where_classes_tie() -> None:
    certain = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1)
    tied = torch.tensor([0.5001, 0.4999]).view(1, 2, 1, 1)
    assert same_labels(certain, certain)
    assert not same_labels(certain.flip(1), certain)
    assert same_labels(tied.flip(1), tied)
    assert not same_labels(certain[:, :1], certain)


@pytest.mark.parametrize("cause", ["wrong", "no size", "ending", "no onnx"])
def test_what_cannot_be_exported_is_not_written(
    cause: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "out" / {"no onnx": "net.onnx", "ending": "net.txt"}.get(cause, "net.pt2")
    arguments = ["--checkpoint", str(checkpoint), "--out", str(out)]
    message = {
        "wrong": "gives other labels",
        "no size": "the size of its run's images is not known",
        "ending": "must end with .onnx or .pt2",
        "no onnx": "ONNX needs onnx, onnxruntime, onnxscript",
    }[cause]
    if cause == "wrong":
        monkeypatch.setattr(module, "same_labels", lambda found, expected: False)
    if cause == "no onnx":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if cause != "no size":
        arguments += ["--size", "16", "16"]
    assert main(["export-network", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists() and not list(out.parent.iterdir())
