"""The data sets of a configuration, as what trains on them and looks at them sees them."""

from pathlib import Path

import numpy as np
import pytest

from bdl.domains.loading import View
from bdl.domains.problem import Problem
from bdl.pipeline import algorithm
from bdl.runtime.config import Config, DataConfig, DomainConfig
from bdl.runtime.stage import as_setting
from tests.helpers import layouts, pictures

STORED = (9, 5)  # width and height of the photos as stored; all were held sideways


def photos(root: Path, label: tuple[int, int]) -> DomainConfig:
    """Photos of EXIF orientation 6, which turns them to the right, with label maps of a size."""
    for number in range(2):
        file = root / f"images/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*STORED[::-1], 3))
        pictures.png(file, pixels, 8, pictures.COLOR, orientation=6)
        ids = np.arange(label[0] * label[1]).reshape(label[::-1]) % 3
        layouts.label(root / f"labels/{number}.png", ids)
    return DomainConfig(layout="folder", root=str(root), encoding="train_id")


@pytest.mark.parametrize(("label", "turns"), [(STORED[::-1], 1), (STORED, 0)])
def test_photos_are_read_as_their_label_maps_fit(tmp_path, label, turns):
    """Upright, or as stored where only that fits: in training, uncut, and in all that they make."""
    domain = photos(tmp_path / "photos", label)
    data = DataConfig(label_space="camvid11", source=domain, target=domain, validation=domain)
    problem = Problem(data, tmp_path / "run")
    assert problem.validation is not None
    for images in (problem.source, problem.validation):
        samples = images.samples()
        training = images.training(samples, View(), 0)[0]
        assert training["image"].shape[1:] == training["label"].shape == label[::-1]
        for n, item in enumerate(images.whole()):
            pixels = np.random.default_rng(n).integers(0, 256, (*STORED[::-1], 3))
            expected = np.rot90(pixels, -turns).transpose(2, 0, 1)
            assert np.array_equal(item["image"].numpy(), expected)
            assert item["label"].shape == label[::-1]
    # Labels of the target are never opened: its photos are upright.
    assert problem.target.orientation == "upright"
    (target, *_) = problem.target.whole()
    assert target["image"].shape[1:] == STORED


def test_how_photos_are_read_is_a_setting_of_what_uses_them(tmp_path):
    """The same photos with other label maps are other pixels to learn from."""
    stages = []
    for label in (STORED, STORED[::-1]):
        domain = photos(tmp_path / "photos", label)
        config = Config(iterations=0, out=str(tmp_path / "run"))
        config.data = DataConfig("camvid11", source=domain, target=domain, validation=domain)
        problem = Problem(config.data, tmp_path / "run")
        stages.append(algorithm(config, problem))
        setting = as_setting(problem.source.without_labels())
        assert setting["orientation"] == ("stored" if label == STORED else "upright")
    for stored, upright in zip(*stages, strict=True):
        assert stored != upright
