"""Scores of prediction files: equal to the published script's numbers, and what it overlooks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdl import pipeline
from bdl.commands.score import counting_of
from bdl.domains.label_space import LabelSpace, load_label_space
from bdl.runtime.config import SegmentationConfig
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import RUN, mark
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.score import detect_encoding, find_pairs
from tests.helpers import layouts

SPACE = load_label_space("cityscapes19")
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
MIOU16 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]
MIOU13 = [0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]


def scored(tmp_path, *arguments: str) -> dict:
    file = tmp_path / "scores.json"
    folders = [f"--predictions={tmp_path / 'predictions'}", f"--labels={tmp_path / 'labels'}"]
    assert pipeline.main(["score", *folders, "--json", str(file), *arguments]) == 0
    return json.loads(file.read_text())


def refused(tmp_path, capsys, *arguments: str) -> str:
    folders = [f"--predictions={tmp_path / 'predictions'}", f"--labels={tmp_path / 'labels'}"]
    assert pipeline.main(["score", *folders, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def as_published(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """IoU by class, from one 19 x 19 histogram counted pixel by pixel."""
    counts = np.zeros((19, 19))
    for prediction, label in pairs:
        for predicted, true in zip(prediction.ravel(), label.ravel(), strict=True):
            if true < 19:
                counts[true, predicted] += 1
    with np.errstate(invalid="ignore"):
        return counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())


def write_frames(tmp_path, classes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three frames in the true layout of Cityscapes, with predictions as the published script
    writes them."""
    random = np.random.default_rng(0)
    pairs = []
    for number in range(3):
        label = random.choice([*classes, 255], (24, 48))
        wrong = random.random(label.shape) < 0.4
        prediction = np.where(wrong | (label == 255), random.choice(classes, label.shape), label)
        frame = f"munster_{number:06d}_000019"
        stored = np.array([*LABEL_IDS, *[0] * 237])[label]
        layouts.label(tmp_path / f"labels/munster/{frame}_gtFine_labelIds.png", stored)
        layouts.image(tmp_path / f"labels/munster/{frame}_gtFine_color.png")
        layouts.label(tmp_path / f"predictions/{frame}_leftImg8bit.png", prediction)
        layouts.image(tmp_path / f"predictions/{frame}_leftImg8bit_color.png")
        pairs.append((prediction, label))
    return pairs


def test_numbers_of_the_published_script(tmp_path):
    expected = as_published(write_frames(tmp_path, list(range(19))))
    scores = scored(tmp_path)
    assert set(scores) == {"miou", "miou16", "miou13", "iou"}
    assert scores["iou"] == pytest.approx(dict(zip(SPACE.names, expected, strict=True)))
    assert scores["miou"] == pytest.approx(expected.mean())
    assert scores["miou16"] == pytest.approx(expected[MIOU16].mean())
    assert scores["miou13"] == pytest.approx(expected[MIOU13].mean())


def test_a_missing_class_is_null_and_left_out_of_every_mean(tmp_path):
    present = [train_id for train_id in range(19) if train_id not in (7, 16)]
    expected = as_published(write_frames(tmp_path, present))
    assert np.isnan(expected[[7, 16]]).all()
    scores = scored(tmp_path)
    assert scores["iou"]["traffic sign"] is None and scores["iou"]["train"] is None
    assert scores["miou"] == pytest.approx(np.nanmean(expected))
    assert scores["miou16"] == pytest.approx(np.nanmean(expected[MIOU16]))
    assert scores["miou13"] == pytest.approx(np.nanmean(expected[MIOU13]))


@pytest.mark.parametrize("encoding", ["train_id", "label_id"])
def test_labels_as_train_ids_and_as_label_ids_give_the_same(tmp_path, encoding):
    prediction = layouts.ids(0, 1, 13, 13)
    label = layouts.ids(0, 0, 13, 255)
    stored = label if encoding == "train_id" else np.array([*LABEL_IDS, *[0] * 237])[label]
    layouts.label(tmp_path / "predictions/deep/a.png", prediction)
    layouts.palette_label(tmp_path / "labels/a.png", stored)
    detected = scored(tmp_path)
    assert detected == scored(tmp_path, "--encoding", encoding)
    assert detected["iou"]["road"] == 0.5 and detected["iou"]["car"] == 1.0
    assert detected["iou"]["sidewalk"] == 0.0 and detected["iou"]["sky"] is None
    assert detected["miou"] == 0.5


def test_predictions_under_ignored_labels_do_not_matter(tmp_path):
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 255, 1))
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 255, 1))
    assert scored(tmp_path)["miou"] == 1.0


@pytest.mark.parametrize("value", [19, 254])
def test_a_prediction_that_is_no_class_is_an_error(tmp_path, capsys, value):
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, value))
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 1, 255))
    error = refused(tmp_path, capsys)
    assert "a.png" in error and f"predicts {value}" in error and "0 to 18" in error


def test_nothing_predicted_is_a_miss_and_counted(tmp_path, capsys):
    """255 is void to other programs: the pixels count against the labels' classes alone."""
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 0, 0, 1))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 0, 255, 1))
    scores = scored(tmp_path)
    assert scores["iou"]["road"] == pytest.approx(2 / 3) and scores["iou"]["sidewalk"] == 1.0
    assert "missed: 25.0 % of the labelled pixels" in capsys.readouterr().out


def test_what_is_ignored_and_unknown_is_said(tmp_path, capsys):
    layouts.label(tmp_path / "labels/a.png", layouts.ids(7, 8, 255, 4))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 1, 0, 0))
    scored(tmp_path, "--encoding", "label_id")
    said = capsys.readouterr().out
    assert "ignored: 50.0 % of the labels' pixels" in said
    assert "ids that are no class: 4 (32 pixels)" in said


def test_labels_of_mostly_unknown_ids_are_refused(tmp_path, capsys):
    layouts.label(tmp_path / "labels/a.png", layouts.ids(7, 200, 201, 201))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0))
    error = refused(tmp_path, capsys, "--encoding", "label_id")
    assert "75.0 % of their pixels" in error and "201 (64 pixels), 200 (32 pixels)" in error


@pytest.mark.parametrize(
    ("label", "prediction"),
    [
        ("{}", "{}_pred"),
        ("{}_gt", "{}"),
        ("mask_{}", "frame_{}_out"),
        ("day/{}_ids", "day/{}"),
        ("{}", "x/{}_leftImg8bit"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_what_names_share_makes_no_difference(tmp_path, label, prediction, count):
    if count == 1 and "mask" in label:
        pytest.skip("what a single name is of nobody can tell")
    for number in range(count):
        name = f"{number:03d}"
        layouts.label(tmp_path / f"labels/{label.format(name)}.png", layouts.ids(number))
        layouts.label(tmp_path / f"predictions/{prediction.format(name)}.png", layouts.ids(number))
    assert scored(tmp_path, "--encoding", "train_id")["miou"] == 1.0


def test_hidden_files_and_other_endings_are_no_label_maps(tmp_path):
    layouts.label(tmp_path / "labels/a.TIF", layouts.ids(0))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0))
    layouts.image(tmp_path / "predictions/a.jpg")
    for place in ("labels", "predictions"):
        (tmp_path / place / "._a.png").write_bytes(b"")
    assert scored(tmp_path)["miou"] == 1.0


ROOMS = "classes: [{name: floor, color: [1, 2, 3]}, {name: wall, color: [4, 5, 6]}]\n"


def write_network(file: Path, space: LabelSpace) -> Path:
    config = SegmentationConfig(network="compact", options={"width": 4})
    save_segmenter(file, build_segmenter("compact", space.num_classes, width=4), config, space)
    return file


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose labels hold 1 for its class 0, and 0 for its class 1."""
    space = tmp_path / "rooms.yaml"
    space.write_text(f"{ROOMS}encodings: {{turned: {{0: wall, 1: floor}}}}\n")
    folder = tmp_path / "run"
    mark(folder, RUN)
    domain = {"layout": "folder", "root": str(tmp_path), "encoding": "turned"}
    data = {"label_space": str(space), "validation": domain, "source": {"layout": "gta5"}}
    (folder / "config.yaml").write_text(json.dumps({"out": str(folder), "data": data}))
    write_network(folder / "k1/segmentation-0/segmenter.pt", load_label_space(str(space)))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 1))
    layouts.label(tmp_path / "labels/a.png", layouts.ids(1, 1))
    return folder


def test_the_label_space_of_a_network(tmp_path):
    own = tmp_path / "rooms.yaml"
    own.write_text(ROOMS)
    file = write_network(tmp_path / "own/segmenter.pt", load_label_space(str(own)))
    rooms = counting_of(file.parent)
    assert rooms.space.names == ("floor", "wall") and not rooms.space.encodings
    known = counting_of(write_network(tmp_path / "known/segmenter.pt", SPACE))
    assert known.space == SPACE and known.encoding is None
    with pytest.raises(UserError, match="no such file or folder"):
        counting_of(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no finished segmentation network"):
        counting_of(tmp_path)


def test_how_labels_count_is_asked_where_a_network_alone_is_given(tmp_path, capsys):
    """--run, in the place of --label-space; a folder that is no run's is named before it loads."""
    own = tmp_path / "rooms.yaml"
    own.write_text(ROOMS)
    file = write_network(tmp_path / "run/segmenter.pt", load_label_space(str(own)))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 1))
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 0))
    expected = {"miou": 0.25, "iou": {"floor": 0.5, "wall": 0.0}}
    assert scored(tmp_path, "--run", str(file.parent), "--encoding", "own") == expected
    for asked in ("auto", "train_id"):
        error = refused(tmp_path, capsys, "--run", str(file), "--encoding", asked)
        assert "does not say how label files count" in error and "--encoding own" in error
    assert "nowhere: no such file or folder; give a run's" in refused(
        tmp_path, capsys, "--run", str(tmp_path / "nowhere")
    )
    with pytest.raises(SystemExit) as stop:
        scored(tmp_path, "--run", str(file), "--label-space", str(own))
    assert stop.value.code == 2


@pytest.mark.parametrize("given", ["", "k1/segmentation-0", "k1/segmentation-0/segmenter.pt"])
def test_labels_count_as_those_of_the_run_do(tmp_path, capsys, run, given):
    """Not by the ids in them, which train ids could be as well."""
    scores = scored(tmp_path, "--run", str(run / given))
    assert scores["iou"] == {"floor": 0.5, "wall": 0.0}
    said = capsys.readouterr().out
    assert f"classes: the 2 of 'rooms', the label space of {run}" in said
    assert f"labels: taken as turned, as data.validation of {run} says" in said
    assert "segmentation-0" not in said  # no network is used
    own = scored(tmp_path, "--run", str(run / given), "--encoding", "own")
    assert own["iou"] == {"floor": 0.0, "wall": 0.5}


def test_without_validation_labels_count_as_those_of_the_source(tmp_path, run):
    file = run / "config.yaml"
    content = json.loads(file.read_text())
    content["data"] |= {"source": content["data"]["validation"], "validation": None}
    file.write_text(json.dumps(content))
    counting = counting_of(run)
    assert (counting.encoding, counting.said_by) == ("turned", f"as data.source of {run} says")


def test_labels_whose_names_say_otherwise_are_asked_about(tmp_path, capsys, run):
    (tmp_path / "labels/a.png").rename(tmp_path / "labels/a_gtFine_labelTrainIds.png")
    error = refused(tmp_path, capsys, "--run", str(run))
    assert "hold train_id by their names, and turned as data.validation of" in error
    scored(tmp_path, "--run", str(run), "--encoding", "turned")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (ROOMS.replace("floor", "soil").replace("wall", "floor"), "another order of them"),
        (ROOMS.replace("[{name: floor", "[{name: door, color: [7, 7, 7]}, {name: floor"), "other"),
        (None, "config.yaml: data.label_space: .*call score where the run was made"),
    ],
)
def test_a_label_space_that_is_not_the_networks_any_more(tmp_path, capsys, run, classes, message):
    space = tmp_path / "rooms.yaml"
    space.unlink()
    if classes is not None:
        space.write_text(f"{classes}encodings: {{turned: {{0: floor, 1: floor}}}}\n")
    network = run / "k1/segmentation-0"
    assert re.search(message, refused(tmp_path, capsys, "--run", str(network)))


@pytest.mark.parametrize("encoding", ["train_id", "label_id"])
def test_of_both_kinds_of_label_files_the_one_that_is_asked_for_is_taken(tmp_path, encoding):
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 1))
    layouts.label(tmp_path / "labels/a_gtFine_labelTrainIds.png", layouts.ids(0, 1))
    layouts.label(tmp_path / "labels/a_gtFine_labelIds.png", layouts.ids(7, 8))
    assert scored(tmp_path, "--encoding", encoding)["miou"] == 1.0


def test_another_size_is_an_error_that_names_both(tmp_path, capsys):
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, size=(16, 8)))
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, size=(32, 16)))
    error = refused(tmp_path, capsys)
    assert str(tmp_path / "predictions/a.png") in error and "16x8" in error
    assert str(tmp_path / "labels/a.png") in error and "32x16" in error


def test_a_label_without_prediction_is_an_error(tmp_path, capsys):
    for name in "ab":
        layouts.label(tmp_path / f"labels/{name}.png", layouts.ids(0))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0))
    error = refused(tmp_path, capsys)
    assert "b.png: no prediction" in error and "1 of 2" in error


def test_colours_in_the_place_of_ids_are_refused(tmp_path, capsys):
    layouts.image(tmp_path / "predictions/a.png")
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0))
    assert "a.png: is a colour image, not a label map" in refused(tmp_path, capsys)


def test_missing_and_empty_folders(tmp_path, capsys):
    assert "--labels: " in refused(tmp_path, capsys)
    (tmp_path / "labels").mkdir()
    assert "no PNG files" in refused(tmp_path, capsys)
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0))
    assert "--predictions: " in refused(tmp_path, capsys)


def test_labels_of_which_nothing_counts(tmp_path, capsys):
    layouts.label(tmp_path / "labels/a.png", layouts.ids(255))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0))
    assert "check --encoding" in refused(tmp_path, capsys)


def test_labels_of_0_and_255(tmp_path, capsys):
    """255 is ignored, which leaves one class and a score of 100, unless an encoding lists it."""
    classes = "classes: [{name: soil, color: [1, 2, 3]}, {name: weed, color: [9, 0, 0]}]\n"
    (tmp_path / "plain.yaml").write_text(classes)
    (tmp_path / "both.yaml").write_text(classes + "encodings: {mask: {0: soil, 255: weed}}\n")
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 255))
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0))
    error = refused(tmp_path, capsys, "--label-space", str(tmp_path / "plain.yaml"))
    assert "mask: {0: soil, 255: weed}" in error
    scores = scored(tmp_path, "--label-space", str(tmp_path / "both.yaml"))
    assert scores["iou"] == {"soil": 0.5, "weed": 0.0}


def test_labels_by_colour(tmp_path):
    space = load_label_space("camvid11")
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 1))
    pixels = np.array(space.colors, np.uint8)[layouts.ids(0, 1)]
    (tmp_path / "labels").mkdir()
    Image.fromarray(pixels).save(tmp_path / "labels/a.png")
    arguments = ["--label-space", "camvid11", "--encoding", "color"]
    assert scored(tmp_path, *arguments)["miou"] == 1.0


def test_repeated_names_are_told_apart_by_their_folders(tmp_path):
    for folder, value in (("x", 0), ("y", 1)):
        layouts.label(tmp_path / f"labels/{folder}/1.png", layouts.ids(value))
        layouts.label(tmp_path / f"predictions/{folder}/1.png", layouts.ids(value))
    assert scored(tmp_path)["iou"]["sidewalk"] == 1.0
    assert len(find_pairs(tmp_path / "predictions", tmp_path / "labels").files) == 2


@pytest.mark.parametrize(
    ("space", "ids", "encoding"),
    [
        ("cityscapes19", (0, 1, 255), "own"),
        ("cityscapes19", (7, 8, 26), "label_id"),
        ("cityscapes19", (0, 23, 255), "label_id"),
        ("cityscapes19", (255,), "own"),
        ("camvid11", (0, 3, 9), "own"),
        ("camvid11", (0, 1, 13, 18), "train_id"),
        ("camvid11", (7, 11, 33), "label_id"),
    ],
)
def test_how_labels_count_is_detected(tmp_path, space, ids, encoding):
    layouts.label(tmp_path / "a.png", layouts.ids(*ids))
    assert detect_encoding([tmp_path / "a.png"], load_label_space(space)) == encoding


@pytest.mark.parametrize(
    ("space", "ids", "choices"),
    [
        # Building and traffic sign of the label space, or building and pole of Cityscapes.
        ("camvid11", (2, 5), r"2, 5, do not tell .* own, train_id, label_id"),
        ("cityscapes19", (7, 8, 11), "do not tell"),  # road, sidewalk, building; or train ids
        ("cityscapes19", (0, 200), "do not tell"),
        ("cityscapes19", (0, 7, 20, 21), "do not tell"),  # SYNTHIA has them all, too
    ],
)
def test_what_cannot_be_detected_is_asked_for(tmp_path, space, ids, choices):
    layouts.label(tmp_path / "a.png", layouts.ids(*ids))
    with pytest.raises(UserError, match=choices):
        detect_encoding([tmp_path / "a.png"], load_label_space(space))


@pytest.mark.parametrize(("ids", "encoding"), [((0, 1), None), ((1, 2), "mine"), ((3, 9), "mine")])
def test_the_users_own_encodings_are_thought_of(tmp_path, ids, encoding):
    space = tmp_path / "rooms.yaml"
    stored = (
        "encodings: {turned: {0: wall, 1: floor}, mine: {1: wall, 2: floor, 3: floor, 9: null}}"
    )
    space.write_text(ROOMS + stored)
    layouts.label(tmp_path / "a.png", layouts.ids(*ids))
    if encoding is None:
        with pytest.raises(UserError, match="do not tell"):
            detect_encoding([tmp_path / "a.png"], load_label_space(str(space)))
    else:
        detected = detect_encoding([tmp_path / "a.png"], load_label_space(str(space)))
        assert detected == encoding


def test_own_label_space(tmp_path):
    space = tmp_path / "rooms.yaml"
    space.write_text("classes: [{name: floor, color: [1, 2, 3]}, {name: wall, color: [4, 5, 6]}]")
    layouts.label(tmp_path / "predictions/a.png", layouts.ids(0, 1))
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 0))
    scores = scored(tmp_path, "--label-space", str(space))
    assert scores == {"miou": 0.25, "iou": {"floor": 0.5, "wall": 0.0}}


def test_pairs_that_only_look_alike_are_told(tmp_path, capsys):
    for number in range(2):
        for side, name in (("labels", f"day_{number}"), ("predictions", f"night_{number}")):
            layouts.label(tmp_path / side / f"{name}.png", layouts.ids(0, 1))
    scored(tmp_path, "--label-space", "camvid11", "--encoding", "train_id")
    said = capsys.readouterr().out
    assert said.count("paired ") == 1
    assert f"{tmp_path / 'predictions/night_0.png'} with {tmp_path / 'labels/day_0.png'}; " in said
    for file in sorted(tmp_path.glob("*/*.png")):
        file.rename(file.with_name(f"frame_{file.stem[-1]}_{file.parent.name}.png"))
    scored(tmp_path, "--label-space", "camvid11", "--encoding", "train_id")
    assert "paired" not in capsys.readouterr().out
