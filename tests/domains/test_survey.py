"""What init-config takes for images and labels in folders of any make, and what it leaves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdl.domains.datasets import find_samples
from bdl.domains.survey import survey
from bdl.runtime.errors import UserError
from tests.helpers import layouts

COLORS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)


def photo(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE).save(file)


def grey(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE[..., 0]).save(file)


def ids(file: Path) -> None:
    layouts.label(file, layouts.ids(0, 1, 2))


def colors(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(COLORS[layouts.ids(0, 1, 2)]).save(file)


def make(root: Path, files: dict[str, object], count: int = 3) -> str:
    """Files by pattern; a star is a number."""
    for pattern, write in files.items():
        for number in range(count):
            write(root / pattern.replace("*", f"{number:03d}"))
    return str(root)


# What lies there; patterns of images and labels; how many groups are left.
LABELLED = {
    "depth beside": (
        {"images/*.png": photo, "labels/*.png": ids, "depth/*.png": ids, "flow/*.png": photo},
        ("images/*.png", "labels/*.png", 2),
    ),
    "instances beside": (
        {"rgb/*.jpg": photo, "gt/*_labelIds.png": ids, "gt/*_instanceIds.png": ids},
        ("rgb/*.jpg", "gt/*_labelIds.png", 1),
    ),
    "two kinds of ids": (
        {"rgb/*.png": photo, "gt/*_labelIds.png": ids, "gt/*_labelTrainIds.png": ids},
        ("rgb/*.png", "gt/*_labelIds.png", 1),
    ),
    "grey photos": (
        {"images/*.png": grey, "labels/*.png": ids},
        ("images/*.png", "labels/*.png", 0),
    ),
    "grey photos without a word": (
        {"b/*.png": grey, "c/*.png": ids},
        ("b/*.png", "c/*.png", 0),
    ),
    "endings in capitals": (
        {"images/*.JPG": photo, "labels/*.PNG": ids},
        ("images/*.jpg", "labels/*.png", 0),
    ),
    "tif labels": (
        {"images/*.jpg": photo, "labels/*.tif": ids},
        ("images/*.jpg", "labels/*.tif", 0),
    ),
    "a suffix in the same folder": (
        {"img_*.png": photo, "img_*_mask.png": ids},
        ("*.png", "*_mask.png", 0),
    ),
    "a suffix in another folder": (
        {"images/img_*.png": photo, "masks/img_*_mask.png": ids},
        ("images/*.png", "masks/*_mask.png", 0),
    ),
    "a prefix": (
        {"images/img_*.png": photo, "masks/mask_*.png": ids},
        ("images/img_*.png", "masks/mask_*.png", 0),
    ),
    "another ending in the same folder": (
        {"data/*.jpg": photo, "data/*.png": ids},
        ("data/*.jpg", "data/*.png", 0),
    ),
    "brackets": (
        {"frames [2024]/*.png": photo, "labels [2024]/*.png": ids},
        ("frames [2024]/*.png", "labels [2024]/*.png", 0),
    ),
    "splits without labels of one": (
        {
            "images/train/*.jpg": photo,
            "images/train/b*.jpg": photo,
            "images/test/*.jpg": photo,
            "labels/train/*.png": ids,
            "labels/train/b*.png": ids,
        },
        ("images/train/*.jpg", "labels/train/*.png", 1),
    ),
    "a folder for each drive": (
        {
            f"{drive}/{kind}/*.png": write
            for drive in "ab"
            for kind, write in (("images", photo), ("labels", ids))
        },
        ("*/images/*.png", "*/labels/*.png", 0),
    ),
    "photos called labelled": (
        {"labelled/*.png": photo, "masks/*.png": ids},
        ("labelled/*.png", "masks/*.png", 0),
    ),
    "colour photos of a depth camera": (
        {"color/*.jpg": photo, "depth/*.png": ids, "label/*.png": ids},
        ("color/*.jpg", "label/*.png", 1),
    ),
    "ids rather than their colours": (
        {"images/*.png": photo, "labels/*.png": ids, "label_colors/*.png": colors},
        ("images/*.png", "labels/*.png", 1),
    ),
}


@pytest.mark.parametrize("case", LABELLED)
def test_images_and_labels_are_told_apart(tmp_path, case):
    files, (images, labels, left) = LABELLED[case]
    found = survey(make(tmp_path / "data", files), "train", True, "--source")
    assert (found.domain.images, found.domain.labels) == (images, labels)
    assert len(found.beside) == left and not found.by_color
    assert found.ids == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, abs=0.01)
    # As a run reads them: every image has its label, and no label is an image.
    samples = find_samples(found.domain, "data.source", labelled=True)
    assert found.count == len(samples) and not {s.image for s in samples} & {
        s.label for s in samples
    }


UNLABELLED = {
    "two cameras beside labels": (
        {"monday/*.png": photo, "tuesday/*.png": photo, "labels/*.png": ids},
        "monday/*.png",
        3,
    ),
    "cameras of one name": (
        {"cam_front/*.png": photo, "cam_rear/*.png": photo, "labels/*.png": ids},
        "cam_*/*.png",
        6,
    ),
    "masks among them": ({"img_*.png": photo, "img_*_mask.png": ids}, "*.png", 3),
    "grey photos": ({"a/*.png": grey}, "a/*.png", 3),
    "photos in a folder of masks": ({"masks/*.png": photo}, "masks/*.png", 3),
    "both cases and endings": ({"*.JPG": photo, "b*.png": photo}, "*", 6),
    "labels of a part": ({"images/*.png": photo, "labels/000.png": ids}, "images/*.png", 3),
    "photos of Cityscapes alone": ({"leftImg8bit/train/a/a_*_leftImg8bit.png": photo}, None, 3),
}


@pytest.mark.parametrize("case", UNLABELLED)
def test_images_without_labels(tmp_path, case):
    files, images, count = UNLABELLED[case]
    found = survey(make(tmp_path / "data", files), "train", False, "--target")
    assert (found.domain.images, found.count) == (images, count)
    samples = find_samples(found.domain, "data.target", labelled=False)
    assert len(samples) == count
    assert not [s for s in samples if "mask.png" in s.image.name or s.image.parent.name == "labels"]


def test_every_label_is_read(tmp_path):
    make(tmp_path, {"images/*.png": photo, "labels/*.png": ids}, count=90)
    layouts.label(tmp_path / "labels/055.png", layouts.ids(0, 1, 2, 7))
    assert 7 in survey(str(tmp_path), "train", True, "--source").ids


@pytest.mark.parametrize("labelmap", [True, False])
def test_colours_are_labels(tmp_path, labelmap):
    root = make(tmp_path / "cvat", {"JPEGImages/*.jpg": photo, "SegmentationClass/*.png": colors})
    make(tmp_path / "cvat", {"SegmentationObject/*.png": colors})
    if labelmap:
        (tmp_path / "cvat/labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,0,0::\nweed:0,128,0::\n"
        )
    found = survey(root, "train", True, "--source")
    assert found.by_color and found.domain.labels == "SegmentationClass/*.png"
    assert found.ids.keys() == {0, 0x800000, 0x008000}
    names = {0: "background", 0x800000: "road", 0x008000: "weed"}
    assert found.names == (names if labelmap else {})


def instance_map(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(layouts.ids(7, 11, 24_000, 26_003).astype(np.uint16)).save(file)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images/*.png": photo, "depth/*.png": ids}, r"by their names these are none: depth/\*"),
        ({"images/*.png": photo, "panoptic_val/*.png": colors}, "panoptic ids .*semantic_seg_fold"),
        ({"images/*.png": photo, "labels/*.jpg": grey}, "JPEG, which may change pixels"),
        ({"images/*.png": photo, "labels/*.png": instance_map}, "instance ids .*_gtFine_labelIds"),
        ({"images/*.png": photo}, "no such label file"),
        ({"notes/*.png": lambda file: None}, "is not a folder"),
    ],
)
def test_what_is_no_label_is_said_in_a_line(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        survey(make(tmp_path / "data", files), "train", True, "--source")
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_no_reason_to_stop(tmp_path):
    root = make(tmp_path, {"images/*.png": photo, "labels/*.png": ids})
    (tmp_path / "images/001.png").write_bytes(b"")
    assert survey(root, "train", True, "--source").count == 2


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [("img_*.png", "label_*.png", False), ("day_*.png", "night_*.png", True)],
)
def test_pairs_that_only_look_alike_are_told(tmp_path, monkeypatch, images, labels, told):
    said = []
    monkeypatch.setattr("bdl.domains.survey.log.info", lambda *words: said.append(words))
    survey(make(tmp_path, {f"images/{images}": photo, f"labels/{labels}": ids}), "", True, "-x")
    assert any("paired" in words[0] for words in said) == told
