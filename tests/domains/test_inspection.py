"""Unusable files: found by their headers before training, named, and left out where so set."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from domains.datasets import Sample, find_samples
from domains.inspection import find_flaws, flaw, same_frame, usable
from domains.loading import TrainingSamples, View
from domains.problem import Problem
from runtime.config import DataConfig, DomainConfig
from runtime.errors import UserError
from tests.domains import layouts


def samples_of(root):
    return find_samples(DomainConfig(layout="gta5", root=str(root)), "data.source", labelled=True)


def damage_label_size(root):
    layouts.palette_label(root / "labels/00002.png", layouts.ids(7, size=(16, 12)))
    return r"labels.00002\.png: is 16x12, its image .*images.00002\.png 16x8"


def damage_with_text(root):
    (root / "images/00002.png").write_text("<html>404</html>")
    return r"images.00002\.png: is not a readable image"


def damage_by_emptying(root):
    (root / "images/00002.png").write_bytes(b"")
    return r"images.00002\.png: is not a readable image"


def damage_by_cutting(root):
    file = root / "labels/00002.png"
    file.write_bytes(file.read_bytes()[:-20])
    return r"labels.00002\.png: is not a readable image \(the file is cut off\)"


def damage_with_colours(root):
    layouts.image(root / "labels/00002.png")
    return r"labels.00002\.png: is a RGB image, not a label map"


DAMAGES = [
    damage_label_size,
    damage_with_text,
    damage_by_emptying,
    damage_by_cutting,
    damage_with_colours,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_flaw_is_named_in_one_line(tmp_path, damage):
    pattern = damage(layouts.gta5(tmp_path))
    samples = samples_of(tmp_path)
    found = list(find_flaws(samples))
    assert [sample.name for sample, _ in found] == ["00002"]
    assert "\n" not in found[0][1]
    with pytest.raises(UserError, match=pattern) as caught:
        usable(samples, "stop", "data.source")
    assert "1 of the 3 samples of data.source" in str(caught.value)
    assert "data.source.on_error=skip" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_skip_leaves_it_out_and_says_how_many(tmp_path, damage, caplog):
    damage(layouts.gta5(tmp_path))
    logging.getLogger("bdl").propagate = True
    with caplog.at_level(logging.INFO, "bdl"):
        samples = usable(samples_of(tmp_path), "skip", "data.source")
    assert [sample.name for sample in samples] == ["00001", "00003"]
    assert "data.source: 1 of 3 samples left out" in caplog.text


def test_nothing_left_is_an_error_even_with_skip(tmp_path):
    layouts.gta5(tmp_path)
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"all 3 samples of data\.source"):
        usable(samples_of(tmp_path), "skip", "data.source")


def test_a_missing_label_stops_or_is_left_out(tmp_path):
    layouts.gta5(tmp_path)
    (tmp_path / "labels/00001.png").unlink()
    with pytest.raises(UserError, match=r"00001\.png: no such label file, for image .*1 of the 3"):
        samples_of(tmp_path)
    domain = DomainConfig(layout="gta5", root=str(tmp_path), on_error="skip")
    samples = find_samples(domain, "data.source", labelled=True)
    assert [sample.name for sample in samples] == ["00002", "00003"]


@pytest.mark.parametrize("make", [layouts.gta5, layouts.synthia, layouts.cityscapes])
def test_whole_data_sets_have_no_flaws(tmp_path, make):
    domain = DomainConfig(layout=make.__name__, root=str(make(tmp_path)))
    samples = find_samples(domain, "data.source", labelled=True)
    counted = []
    assert list(find_flaws(samples, lambda: counted.append(1))) == []
    assert len(counted) == len(samples) == 3


def test_an_image_without_label_is_looked_at_alone(tmp_path):
    layouts.image(tmp_path / "a.png")
    assert flaw(Sample("a", tmp_path / "a.png", None)) is None
    assert "no such file" in flaw(Sample("b", tmp_path / "b.png", None))


@pytest.mark.parametrize(
    ("image", "label", "same"),
    [
        ((1914, 1052), (1914, 1052), True),
        ((1914, 1052), (1914, 1046), False),
        ((1914, 1052), (957, 526), True),
        ((1242, 375), (621, 188), True),
        ((1280, 720), (720, 1280), False),
    ],
)
def test_same_frame(image, label, same):
    assert same_frame(image, label) is same
    assert same_frame(label, image) is same


def problem(tmp_path, on_error):
    config = DataConfig()
    config.source = DomainConfig(layout="gta5", root=str(tmp_path / "gta5"), on_error=on_error)
    for role in ("target", "validation"):
        split = "train" if role == "target" else "val"
        domain = DomainConfig(layout="cityscapes", root=str(tmp_path / "city"), split=split)
        setattr(config, role, domain)
    return Problem(config, tmp_path / "run")


def test_what_a_result_depends_on_covers_the_samples_left_out(tmp_path):
    layouts.gta5(tmp_path / "gta5")
    layouts.cityscapes(tmp_path / "city")
    whole = problem(tmp_path, "stop").settings("source")
    assert problem(tmp_path, "skip").settings("source") == whole
    file = tmp_path / "gta5/images/00002.png"
    # Of the same number of bytes, so that only leaving it out tells.
    file.write_bytes(b"x" * file.stat().st_size)
    partial = problem(tmp_path, "skip")
    assert partial.count("source") == 2
    assert partial.settings("source") != whole
    with pytest.raises(UserError, match=r"00002\.png"):
        problem(tmp_path, "stop").count("source")


def test_the_target_labels_are_not_needed(tmp_path):
    layouts.gta5(tmp_path / "gta5")
    layouts.cityscapes(tmp_path / "city")
    for file in (tmp_path / "city/gtFine/train").rglob("*.png"):
        file.unlink()
    assert problem(tmp_path, "stop").count("target") == 3


def test_translated_images_of_another_shape_keep_their_labels(tmp_path):
    """Translations are made at the training size, whose shape need not be that of GTA5's files."""
    layouts.image(tmp_path / "image.png", size=(16, 9))
    ids = np.zeros((14, 18), np.uint8)
    ids[:, 9:] = 1  # left half 0, right half 1
    Image.fromarray(ids).save(tmp_path / "label.png")
    sample = Sample("a", tmp_path / "image.png", tmp_path / "label.png")
    item = TrainingSamples([sample], View(size=(16, 8)), seed=0, purpose="source")[0]
    expected = torch.zeros(8, 16, dtype=torch.int64)
    expected[:, 8:] = 1
    assert item["image"].shape == (3, 8, 16) and item["label"].equal(expected)
    unsized = TrainingSamples([sample], View(), seed=0, purpose="source")[0]
    assert isinstance(unsized, UserError) and "must show the same frame" in str(unsized)


def test_an_encoding_that_the_label_space_lacks_is_named_by_its_key(tmp_path):
    layouts.gta5(tmp_path / "gta5")
    layouts.cityscapes(tmp_path / "city")
    space = tmp_path / "rooms.yaml"
    space.write_text("classes: [{name: floor, color: [1, 2, 3]}]")
    config = problem(tmp_path, "stop").config
    config.label_space = str(space)
    with pytest.raises(UserError, match=r"data\.source\.encoding: 'label_id' is not in the label"):
        Problem(config, tmp_path / "run")
    config.source.encoding = config.validation.encoding = "train_id"
    # The target's labels, counted by label ids in this layout, are never opened.
    assert Problem(config, tmp_path / "run").encoding("target") == "label_id"
