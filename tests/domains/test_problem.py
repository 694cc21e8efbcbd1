"""The data sets of a configuration, as what trains on them and looks at them sees them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.domains.check import check_problem
from bdl.domains.index import Index
from bdl.domains.loading import View
from bdl.domains.overlap import shared_files
from bdl.domains.problem import Problem
from bdl.pipeline import algorithm
from bdl.runtime.config import Config, DataConfig, DomainConfig
from bdl.runtime.console import Console
from bdl.runtime.errors import UserError
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


def given_translations(folder: Path, sizes: list[tuple[int, int]], **source):
    """The problem of a source of 64 x 48 and the folder of its translations, of these sizes."""
    for number, size in enumerate(sizes):
        layouts.image(folder / f"source/images/{number}.png", (64, 48))
        layouts.label(folder / f"source/labels/{number}.png", layouts.ids(0, 1, size=(64, 48)))
        layouts.image(folder / f"translated/{number}.png", size, value=number)
    domain = DomainConfig(layout="folder", root=str(folder / "source"), **source)
    data = DataConfig("camvid11", source=domain, target=domain, validation=None)
    config = Config(out=str(folder / "run"), data=data)
    config.translation.images = str(folder / "translated")
    return config, Problem(data, folder / "run")


@pytest.mark.parametrize(
    ("size", "source", "fits"),
    [
        ((64, 48), {}, True),
        ((32, 24), {}, True),  # smaller, as label maps may be
        ((128, 96), {}, True),
        ((48, 64), {}, False),  # turned
        ((48, 48), {}, False),  # cut
        ((64, 24), {}, False),
        ((64, 24), {"size": (64, 24)}, True),  # as the source is used, too
    ],
)
def test_translations_show_the_frame_of_their_source_image(tmp_path, size, source, fits):
    config, problem = given_translations(tmp_path, [(64, 48), size], **source)
    files, told = problem.translations(tmp_path / "translated")
    assert list(files) == ["0", "1"] and len(told.samples) == len(told.sizes) == 1 + fits
    if fits:
        assert told.flaws == [] and algorithm(config, problem)
        return
    (line,) = told.flaws
    assert line.startswith(f"{tmp_path / 'translated/1.png'}: is {size[0]}x{size[1]}, the source")
    assert str(tmp_path / "source/images/1.png") in line and "64x48" in line
    with pytest.raises(UserError, match="neither cut nor turned") as caught:
        algorithm(config, problem)
    assert "on_error" not in str(caught.value)  # which translations have not
    problems = check_problem(config, problem, False, False, Console())
    assert line in problems


@given(st.lists(st.integers(0, 5), max_size=6), st.lists(st.integers(0, 5), max_size=6))
def test_files_of_one_content_are_told_whatever_their_names(tmp_path_factory, ours, theirs):
    folder = tmp_path_factory.mktemp("shared")
    sides = []
    for side, contents in (("a", ours), ("b", theirs)):
        files = [folder / f"{side}{number}" for number in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(bytes([content]) * (1 + content // 2))  # two are as long as each other
        sides.append(files)
    shared = shared_files(*sides, Index(None))
    assert all(one.read_bytes() == other.read_bytes() for one, other in shared)
    assert [one for one, _ in shared] == [
        file for file, content in zip(sides[0], ours, strict=True) if content in theirs
    ]


@pytest.mark.parametrize("role", ["source", "target"])
def test_validation_images_that_are_learned_from_are_told(tmp_path, monkeypatch, role):
    """The same photo under another name; nothing is said of others."""
    for number, name in enumerate(("source", "target", "validation")):
        for i in range(2):
            layouts.image(tmp_path / name / f"images/{i}.png", value=10 * number + i)
            layouts.label(tmp_path / name / f"labels/{i}.png", layouts.ids(0, 1))
    roles = {
        name: DomainConfig(layout="folder", root=str(tmp_path / name))
        for name in ("source", "target", "validation")
    }
    data = DataConfig("camvid11", **roles)
    config = Config(out=str(tmp_path / "run"), data=data)
    assert Problem(data, tmp_path / "run").overlaps() == []
    copy = tmp_path / role / "images/1.png"
    copy.write_bytes((tmp_path / "validation/images/0.png").read_bytes())
    (line,) = Problem(data, tmp_path / "run").overlaps()
    assert line.startswith(f"data.{role}: 1 of the 2 validation images are among its images (")
    assert str(copy) in line and str(tmp_path / "validation/images/0.png") in line
    said = []
    monkeypatch.setattr("bdl.domains.check.log.warning", lambda *words: said.append(words[-1]))
    check_problem(config, Problem(data, tmp_path / "run"), False, False, Console())
    assert line in said
