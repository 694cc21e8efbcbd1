"""Images of several sizes and shapes go through the whole loop, and none is stretched."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdl import pipeline
from bdl.domains.problem import Problem
from bdl.runtime.config import load_config

SIZES = ((96, 48), (48, 64), (80, 80))


@pytest.fixture
def mixed(tmp_path, monkeypatch) -> Path:
    """Folders of three roles whose images have three shapes; we are beside them."""
    random = np.random.default_rng(0)
    for role in ("source", "target", "validation"):
        for number, (width, height) in enumerate(SIZES):
            pixels = random.integers(0, 256, (height, width, 3), np.uint8)
            ids = (pixels[..., 0] > 128).astype(np.uint8)
            for kind, content in (("images", pixels), ("labels", ids)):
                folder = tmp_path / role / kind
                folder.mkdir(parents=True, exist_ok=True)
                if role != "target" or kind == "images":
                    Image.fromarray(content).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    folders = ["--source", "source", "--target", "target", "--validation", "validation"]
    assert pipeline.main(["init-config", *folders]) == 0
    return tmp_path


def test_they_are_used_at_one_width_in_their_own_shapes(mixed):
    narrow = ["data.target.width=40", "segmentation.augmentation.crop=[32,16]"]
    config = load_config("mine.yaml", narrow)
    problem = Problem(config.data, mixed)
    for scale, width in ((1.0, 40), (0.5, 20)):
        images = problem.target.whole(scales=[scale])
        shapes = [tuple(images[number]["image"].shape) for number in range(3)]
        assert shapes == [(3, round(h * width / w), width) for w, h in SIZES]


def test_the_drafted_loop_runs(mixed, capsys):
    small = ["segmentation.network=compact", "segmentation.options={width: 4}"]
    small += ["segmentation.steps=2", "translation.steps_per_epoch=1", "iterations=1"]
    small += ["translation.generator.width=2", "translation.discriminator_width=2"]
    small += ["data.workers=0", "translation.constant_epochs=1", "translation.decay_epochs=0"]
    assert pipeline.main(["run", "--config", "mine.yaml", *small]) == 0, capsys.readouterr().err
    for number, (width, height) in enumerate(SIZES):
        maps = [f"k1/translated/images/{number}.png", f"k1/pseudo-labels-1/labels/{number}.png"]
        for file in maps:
            made = Image.open(Path("runs/mine") / file)
            assert abs(made.width / made.height - width / height) < 0.05


def test_a_size_beside_a_width_is_refused(mixed, capsys):
    assert pipeline.main(["check", "--config", "mine.yaml", "data.source.size=[96,48]"]) == 2
    assert "data.source.width" in capsys.readouterr().out
