"""predict looks at photos as the run evaluates images: their score is the run's mIoU."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdl import pipeline
from bdl.domains.label_space import load_label_space
from bdl.runtime.config import SegmentationConfig
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.run_view import RunView, run_view
from bdl.segmentation.stages import RESULT
from tests.helpers import layouts

STORED = (64, 48)
OPTIONS = {"width": 4, "dilations": [1]}
ROLES = ("source", "target", "validation")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A network of random weights that predicts several classes."""
    torch.manual_seed(0)
    network = build_segmenter("compact", 11, **OPTIONS)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.3)
    config = SegmentationConfig(network="compact", options=OPTIONS)
    save_segmenter(tmp_path / "given.pt", network, config, load_label_space("camvid11"))
    return tmp_path / "given.pt"


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    random = np.random.default_rng(0)
    for role in ROLES:
        for name in "ab":
            file = tmp_path / role / f"images/{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            coarse.resize(STORED, Image.Resampling.BICUBIC).save(file)
            ids = random.integers(0, 11, (STORED[1], STORED[0]), dtype=np.uint8)
            layouts.label(tmp_path / role / f"labels/{name}.png", ids)
    return [
        f"out={tmp_path / 'run'}",
        "device=cpu",
        "precision=32-true",
        "iterations=0",
        "data.label_space=camvid11",
        *(f"data.{role}.layout=folder" for role in ROLES),
        *(f"data.{role}.encoding=train_id" for role in ROLES),
        *(f"data.{role}.root={tmp_path / role}" for role in ROLES),
        f"segmentation.options={json.dumps(OPTIONS)}",
        "segmentation.batch_size=1",
        "segmentation.steps=2",
    ]


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize(
    ("sizes", "view"),
    [
        ({"validation": "size=[96,24]"}, RunView((96, 24), None, (STORED,))),
        (
            {"source": "size=[24,16]", "target": "size=[40,30]", "validation": "size=[32,24]"},
            RunView((32, 24), None, (STORED,)),
        ),
        ({"validation": "width=40"}, RunView(None, 40, (STORED,))),
        ({"source": "size=[32,24]", "validation": "size=null"}, RunView(None, None, (STORED,))),
    ],
)
def test_scores_of_predictions_are_the_runs(
    tmp_path: Path, settings: list[str], given: Path, is_given: bool, sizes: dict, view: RunView
) -> None:
    """Of a moved run, too, whose own data is gone."""
    settings += [f"data.{role}.size=null" for role in ROLES]
    settings += [f"data.{role}.{size}" for role, size in sizes.items()]
    if is_given:
        settings.append(f"segmentation.checkpoints.source-only={given}")
    else:
        settings.append(f"segmentation.weights={given}")
    assert pipeline.main(["run", "--config", "demo", *settings]) == 0
    shutil.move(tmp_path / "run", tmp_path / "moved")
    shutil.move(tmp_path / "validation", tmp_path / "photos")
    (row,) = json.loads((tmp_path / "moved/results.json").read_text())
    assert run_view(tmp_path / "moved/source-only" / RESULT) == view
    images, out = str(tmp_path / "photos/images"), str(tmp_path / "out")
    arguments = ["--images", images, "--out", out, "--device", "cpu"]
    assert pipeline.main(["predict", "--checkpoint", str(tmp_path / "moved"), *arguments]) == 0
    score = ["score", "--predictions", f"{out}/labels", "--labels", str(tmp_path / "photos/labels")]
    space = ["--label-space", "camvid11", "--encoding", "train_id"]
    assert pipeline.main([*score, *space, "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["miou"] == pytest.approx(row["miou"], abs=1e-6)


def test_without_validation_the_configuration_tells(
    tmp_path: Path, settings: list[str], given: Path
) -> None:
    """Of the target, whatever trained the network; a copy of its file tells nothing."""
    settings += [
        "data.validation=null",
        "data.source.size=[24,16]",
        "data.target.width=40",
        "data.target.size=null",
        f"segmentation.checkpoints.source-only={given}",
    ]
    assert pipeline.main(["run", "--config", "demo", *settings]) == 0
    file = tmp_path / "run/source-only" / RESULT
    assert run_view(file) == RunView(width=40)
    shutil.copy(file, tmp_path / "run" / RESULT)
    assert run_view(tmp_path / "run" / RESULT) == RunView()
