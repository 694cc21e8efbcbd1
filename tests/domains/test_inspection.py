"""Unusable files: found by their headers before training, named, and left out where so set."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from bdl.domains.datasets import Sample, find_samples
from bdl.domains.index import Index
from bdl.domains.inspection import (
    inspect_domain,
    inspect_samples,
    same_frame,
    usable_samples,
)
from bdl.domains.loading import TrainingSamples, View
from bdl.domains.problem import Problem
from bdl.runtime.config import DataConfig, DomainConfig
from bdl.runtime.errors import UserError
from tests.helpers import layouts


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


def damage_inside(root):
    """Where the header tells nothing of it."""
    file = root / "images/00002.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    return r"images.00002\.png: is not a readable image"


def damage_inside_a_jpeg(root):
    file = root / "images/00002.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    Image.fromarray(noise).save(file, format="JPEG")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 4] + b"\xff\xd9")
    return r"images.00002\.png: is not a readable image"


def damage_with_colours(root):
    layouts.image(root / "labels/00002.png")
    return r"labels.00002\.png: is a colour image, not a label map"


DAMAGES = [
    damage_label_size,
    damage_with_text,
    damage_by_emptying,
    damage_by_cutting,
    damage_inside,
    damage_inside_a_jpeg,
    damage_with_colours,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_flaw_is_named_in_one_line(tmp_path, damage):
    pattern = damage(layouts.gta5(tmp_path))
    samples = samples_of(tmp_path)
    inspection = inspect_samples(samples, inside=True)
    (line,) = inspection.flaws
    assert [sample.name for sample in inspection.samples] == ["00001", "00003"]
    assert "\n" not in line
    with pytest.raises(UserError, match=pattern) as caught:
        usable_samples(inspection, "stop", "data.source")
    assert "1 of the 3 samples of data.source" in str(caught.value)
    assert "data.source.on_error=skip" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_skip_leaves_it_out_and_says_how_many(tmp_path, damage, caplog):
    damage(layouts.gta5(tmp_path))
    logging.getLogger("bdl").propagate = True
    with caplog.at_level(logging.INFO, "bdl"):
        inspection = inspect_samples(samples_of(tmp_path), pixels=True, inside=True)
        samples = usable_samples(inspection, "skip", "data.source")
    assert [sample.name for sample in samples] == ["00001", "00003"]
    assert "data.source: 1 of 3 samples left out" in caplog.text


def damage_in_the_middle(root):
    file = root / "images/00002.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(file)
    layouts.label(root / "labels/00002.png", layouts.ids(7, size=(64, 64)))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255  # the header and the end are whole
    file.write_bytes(content)


def damage_of_the_label(root):
    file = root / "labels/00002.png"
    layouts.image(root / "images/00002.png", size=(64, 64))
    Image.effect_noise((64, 64), 90).save(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def truncated_jpeg(root):
    file = root / "images/00002.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(file, format="JPEG")
    layouts.label(root / "labels/00002.png", layouts.ids(7, size=(64, 64)))
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage", [*DAMAGES, damage_in_the_middle, damage_of_the_label, truncated_jpeg]
)
def test_one_rule_says_what_may_be_used(tmp_path, damage):
    """What check lists is what a run leaves out, or stops at; and training meets none of it."""
    damage(layouts.gta5(tmp_path))
    for on_error in ("stop", "skip"):
        domain = DomainConfig(layout="gta5", root=str(tmp_path), on_error=on_error)
        found = inspect_domain(domain, "data.source", True, Index(None), pixels=True)
        assert [sample.name for sample in found.samples] == ["00001", "00003"]
        (line,) = found.flaws
        assert "00002.png" in line and "\n" not in line
        if on_error == "stop":
            with pytest.raises(UserError) as caught:
                usable_samples(found, on_error, "data.source")
            assert str(caught.value).startswith(line)
            continue
        assert inspect_domain(domain, "data.source", True, Index(None)).flaws == [line]
        samples = usable_samples(found, on_error, "data.source")
        training = TrainingSamples(samples, View(size=(16, 8)), seed=0, purpose="source")
        assert all(training[number] for number in range(4))


def test_all_that_is_wrong_is_listed(tmp_path):
    layouts.gta5(tmp_path, count=5)
    (tmp_path / "labels/00001.png").unlink()
    (tmp_path / "images/00002.png").write_bytes(b"")
    layouts.image(tmp_path / "labels/00003.png")
    (tmp_path / "images/9.png").symlink_to(tmp_path / "images/nowhere.png")
    domain = DomainConfig(layout="gta5", root=str(tmp_path))
    found = inspect_domain(domain, "data.source", True, Index(None))
    assert [sample.name for sample in found.samples] == ["00004", "00005"]
    assert found.count == 6 and len(found.flaws) == 4
    for text in ("9.png: is a link", "00001.png: no such label", "2.png: is not", "3.png: is a"):
        assert sum(text in line for line in found.flaws) == 1


def test_nothing_left_is_an_error_even_with_skip(tmp_path):
    layouts.gta5(tmp_path)
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(b"")
    inspection = inspect_samples(samples_of(tmp_path))
    with pytest.raises(UserError, match=r"all 3 samples of data\.source"):
        usable_samples(inspection, "skip", "data.source")


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
    for pixels in (False, True):
        inspection = inspect_samples(samples, pixels=pixels, inside=True)
        assert inspection.flaws == [] and len(inspection.samples) == 3


def test_an_image_without_label_is_looked_at_alone(tmp_path):
    layouts.image(tmp_path / "a.png")
    samples = [Sample(name, tmp_path / f"{name}.png", None) for name in "ab"]
    inspection = inspect_samples(samples)
    assert [sample.name for sample in inspection.samples] == ["a"]
    assert len(inspection.flaws) == 1 and "b.png: no such file" in inspection.flaws[0]


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
    whole = problem(tmp_path, "stop").source
    assert problem(tmp_path, "skip").source == whole
    file = tmp_path / "gta5/images/00002.png"
    # Of the same number of bytes, so that only leaving it out tells.
    file.write_bytes(b"x" * file.stat().st_size)
    partial = problem(tmp_path, "skip")
    assert partial.source.count == 2 and partial.source.files != whole.files
    with pytest.raises(UserError, match=r"00002\.png"):
        problem(tmp_path, "stop").source  # noqa: B018


def test_the_target_labels_are_not_needed(tmp_path):
    layouts.gta5(tmp_path / "gta5")
    layouts.cityscapes(tmp_path / "city")
    for file in (tmp_path / "city/gtFine/train").rglob("*.png"):
        file.unlink()
    assert problem(tmp_path, "stop").target.count == 3


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
    with pytest.raises(UserError, match="must show the same frame"):
        TrainingSamples([sample], View(), seed=0, purpose="source")[0]


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
    assert Problem(config, tmp_path / "run").layout("target").encoding == "label_id"
