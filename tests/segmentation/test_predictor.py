"""Predictions on photos: the same labels as evaluation, at any size, by windows, flips, scales."""

import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from bdl.domains.images import Photo, open_image
from bdl.domains.tensors import to_tensor, to_unit
from bdl.domains.views import View
from bdl.reports.records import Row
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.files import tells_case_apart, write_json
from bdl.segmentation import maps as maps_module
from bdl.segmentation import predictor as predictor_module
from bdl.segmentation.maps import Maps
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.predict import probabilities, window_starts, windowed
from bdl.segmentation.prediction_record import PredictionRecord
from bdl.segmentation.predictor import (
    Predicted,
    Predictor,
    find_photos,
    find_segmenter,
    overlay,
    predict_files,
)
from bdl.segmentation.run_view import RunView, run_view
from bdl.segmentation.stages import RESULT
from tests.helpers.predictor import SPACE, make_network, photo, save


@pytest.fixture(scope="module")
def network() -> Segmenter:
    return make_network()


@pytest.fixture
def checkpoint(tmp_path: Path, network: Segmenter) -> Path:
    return save(tmp_path / "model" / RESULT, network)


def test_a_photo_gets_the_labels_that_evaluation_gives(checkpoint: Path) -> None:
    predictor = Predictor(checkpoint, device="cpu")
    images = to_unit(to_tensor(photo())[None])
    expected = probabilities(predictor.fabric, predictor.network, images).argmax(1)[0]
    found = predictor(photo())
    assert found.dtype == np.uint8 and np.array_equal(found, expected.numpy())
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": (24, 16)},
        {"window": (16, 16)},
        {"window": (100, 100)},
        {"flip": True},
        {"scales": (0.5, 1.0, 1.5), "flip": True, "window": (20, 12)},
    ],
)
def test_probabilities_have_the_photos_size_and_sum_to_one(checkpoint: Path, options: dict) -> None:
    maps = Predictor(checkpoint, device="cpu", **options).probabilities(photo(50, 33))
    assert maps.shape == (SPACE.num_classes, 33, 50) and maps.dtype == torch.float32
    assert torch.allclose(maps.sum(0), torch.ones(33, 50), atol=1e-5)
    assert maps.min() >= 0


def test_flipping_makes_mirrored_photos_mirrored_labels(checkpoint: Path) -> None:
    predictor = Predictor(checkpoint, device="cpu", flip=True)
    image = photo()
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert torch.allclose(
        predictor.probabilities(mirrored).flip(-1), predictor.probabilities(image), atol=1e-5
    )


def test_scales_are_the_mean_of_predictions_at_each(checkpoint: Path) -> None:
    image = photo()
    single = [
        Predictor(checkpoint, device="cpu", scales=(scale,)).probabilities(image)
        for scale in (1.0, 2.0)
    ]
    both = Predictor(checkpoint, device="cpu", scales=(1.0, 2.0)).probabilities(image)
    assert not torch.allclose(single[0], single[1], atol=1e-3)
    assert torch.allclose(both, (single[0] + single[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"flip": True, "scales": (0.5, 1.0), "window": (20, 12)}])
def test_labels_made_by_rows_are_those_of_the_probabilities(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    """Of which there are never more than a few rows at once."""
    predictor = Predictor(checkpoint, device="cpu", **options)
    expected = predictor.probabilities(photo(50, 33)).argmax(0)
    monkeypatch.setattr(maps_module, "_VALUES", 4 * 50 * SPACE.num_classes)
    assert [block.shape[2] for _, block in predictor.maps(photo(50, 33)).blocks()] == [4] * 8 + [1]
    assert np.array_equal(predictor(photo(50, 33)), expected.numpy())


class Pointwise(Segmenter):
    """Scores that depend on a pixel alone: windows must then change nothing."""

    num_classes = 3

    def scores(self, images: Tensor) -> Tensor:
        return 4 * images


@pytest.mark.parametrize("window", [(8, 8), (9, 20), (32, 48), (64, 64)])
def test_windows_of_a_pointwise_network_change_nothing(
    checkpoint: Path, window: tuple[int, int]
) -> None:
    fabric = Predictor(checkpoint, device="cpu").fabric
    images = to_unit(to_tensor(photo())[None])
    whole = probabilities(fabric, Pointwise(), images)
    maps = windowed(fabric, Pointwise(), images, window)
    assert maps.size == whole.shape[-2:]
    assert torch.allclose(maps.rows(0, maps.size[0]), whole)


@given(st.integers(1, 300), st.integers(1, 100))
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int) -> None:
    starts = window_starts(length, window)
    assert starts == sorted(set(starts)) and starts[0] == 0
    assert starts[-1] + window >= length
    assert all(start + window <= length for start in starts) or starts == [0]
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(step <= max(1, 2 * window // 3) for step in steps)


def rows_in(folder: Path, *rows: tuple[int, int, str | None]) -> None:
    content = [
        Row(f"k{k}/segmentation-{i}", k, i, 0.427, {}, {}, 1.0, note).as_json()
        for k, i, note in rows
    ]
    write_json(folder / "results.json", content)


def test_a_run_folder_means_its_last_finished_network(tmp_path: Path, network: Segmenter) -> None:
    save(tmp_path / "source-only" / RESULT, network, {})
    for k, i in ((2, 0), (10, 0), (9, 3)):
        save(tmp_path / f"k{k}/segmentation-{i}" / RESULT, network, {}, k, i)
    save(tmp_path / "k11/segmentation-0" / RESULT, network)  # has no manifest: not finished
    assert find_segmenter(tmp_path) == tmp_path / "k10/segmentation-0" / RESULT
    assert find_segmenter(tmp_path / "k9/segmentation-3").parent.name == "segmentation-3"


def test_a_run_folder_means_the_last_network_that_its_results_name(
    tmp_path: Path,
    network: Segmenter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever else lies there; and one line says which, and if it is not the configuration's."""
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "handlers", [])  # of an earlier test's console
    for k, i in ((1, 0), (2, 1), (3, 0)):
        save(tmp_path / f"k{k}/segmentation-{i}" / RESULT, network, {}, k, i)
    rows_in(tmp_path, (2, 1, None), (1, 0, None))
    caplog.set_level("INFO", log.name)
    assert find_segmenter(tmp_path) == tmp_path / "k2/segmentation-1" / RESULT
    (line,) = caplog.messages
    assert line == f"{tmp_path}: takes k2/segmentation-1, M(2,1), mIoU 42.7 %"
    caplog.clear()
    rows_in(tmp_path, (1, 0, None), (2, 1, "made from an earlier k1/translator"))
    assert find_segmenter(tmp_path) == tmp_path / "k2/segmentation-1" / RESULT
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.message.endswith("mIoU 42.7 %; made from an earlier k1/translator")
    rows_in(tmp_path, (2, 0, None))
    with pytest.raises(UserError, match=r"segmenter\.pt: no such file, though results\.json"):
        find_segmenter(tmp_path)


def test_without_a_run_its_records_tell_the_size(tmp_path: Path, network: Segmenter) -> None:
    """The target's, else the source's, keeping the photo's shape; a file alone tells nothing."""
    both = {"data.source": {"size": [40, 20]}, "data.target": {"size": [64, 32]}}
    file = save(tmp_path / "a" / RESULT, network, both)
    assert run_view(file) == RunView(size=(64, 32))
    unseen = {"data.source": {"size": None, "width": 40}, "data.target": None}
    source_only = save(tmp_path / "b" / RESULT, network, unseen)
    assert run_view(source_only) == RunView(width=40)
    as_stored = save(tmp_path / "c" / RESULT, network, {"data.target": {"size": None}})
    assert run_view(as_stored) == RunView()
    assert run_view(save(tmp_path / "d" / RESULT, network)) == RunView()
    by_default = Predictor(file, device="cpu").probabilities(photo(48, 36))
    explicit = Predictor(file, device="cpu", size=(64, 48)).probabilities(photo(48, 36))
    assert torch.equal(by_default, explicit)


@given(
    st.tuples(st.integers(8, 4000), st.integers(8, 4000)),
    st.tuples(st.integers(8, 4000), st.integers(8, 4000)),
)
def test_a_size_stretches_photos_of_the_validation_images_shape_alone(
    size: tuple[int, int], stored: tuple[int, int]
) -> None:
    view = RunView(size=size, stored=(stored,))
    assert view.full_size(stored) == size
    assert view.full_size((2 * stored[0], 2 * stored[1])) == size
    width, height = 2 * stored[0], stored[1] + 10  # another shape
    assert view.full_size((width, 3 * height))[0] == size[0]
    assert view.full_size((width, 3 * height)) == View(width=size[0]).full_size((width, 3 * height))


def test_photos_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that the picture must be turned by 90 degrees
    photo(48, 32).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (32, 48)


def test_an_overlay_is_half_photo_half_color() -> None:
    labels = np.zeros((2, 3), np.uint8)
    grey = Image.new("RGB", (3, 2), (100, 100, 100))
    red, green, blue = SPACE.colors[0]
    expected = [(100 + red) // 2, (100 + green) // 2, (100 + blue) // 2]
    pixels = np.asarray(overlay(grey, labels, SPACE), int)
    assert abs(pixels - expected).max() <= 1


@pytest.fixture
def predict(tmp_path: Path, checkpoint: Path) -> Callable[..., Predicted]:
    """predict(network=checkpoint, **options) of the photos below photos/ into out/."""
    for number in range(3):
        (tmp_path / "photos").mkdir(exist_ok=True)
        photo(seed=number).save(tmp_path / f"photos/{number}.png")

    def call(network: Path = checkpoint, out: str = "out", **options: object) -> Predicted:
        predictor = Predictor(network, device="cpu", **options)
        (tmp_path / out).mkdir(exist_ok=True)
        photos = find_photos(tmp_path / "photos", tmp_path / out)
        return predict_files(predictor, Console(speaking=False), photos, tmp_path / out, False)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_what_is_done_is_not_done_again(
    tmp_path: Path, predict: Callable, network: Segmenter
) -> None:
    assert predict() == Predicted(3, 0, 0)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/labels").iterdir()}
    assert predict() == Predicted(0, 3, 0)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out/labels").iterdir()} == before
    photo(seed=9).save(tmp_path / "photos/1.png")  # another photo
    (tmp_path / "out/overlays/2.jpg").unlink()
    assert predict() == Predicted(2, 1, 0)
    assert predict(flip=True) == Predicted(3, 0, 0)  # other settings
    other = save(tmp_path / "other" / RESULT, network.train(False))
    assert predict(other, flip=True) == Predicted(0, 3, 0)  # the same network elsewhere


@pytest.mark.parametrize("place", ["labels/1.png", "overlays/1.jpg"])
def test_nothing_of_others_is_replaced(tmp_path: Path, predict: Callable, place: str) -> None:
    theirs = tmp_path / "out" / place
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"1\.(png|jpg): is there already.*another folder with --out"
    ):
        predict()
    assert contents(tmp_path / "out") == {place: b"mine"}


def test_a_prediction_that_was_corrected_by_hand_is_the_users(
    tmp_path: Path, predict: Callable
) -> None:
    predict()
    (tmp_path / "out/labels/1.png").write_bytes(b"corrected by hand")
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"labels.1\.png: is there already"):
        predict(flip=True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("moment", ["labels", "overlays", "record"])
def test_it_goes_on_where_it_was_killed(
    tmp_path: Path, predict: Callable, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    expected = predict(out="whole")
    assert expected == Predicted(3, 0, 0)

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        target = {
            "labels": (predictor_module, "write_labels"),
            "overlays": (predictor_module, "overlay"),
            "record": (PredictionRecord, "finish"),
        }[moment]
        patched.setattr(*target, kill)
        predict()
    with open(tmp_path / "out/predictions.jsonl", "a") as record:
        record.write('{"photo": "2", "fi')  # what a power cut leaves of a line
    assert predict() == Predicted(3, 0, 0)
    for kind in ("labels", "overlays"):
        assert contents(tmp_path / "out" / kind) == contents(tmp_path / "whole" / kind)


def test_photos_are_read_and_written_while_others_are_predicted(
    predict: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last photo is read before the first is predicted, whose files come after the last is:
    whoever did one after the other would wait for ever."""
    read, predicted = threading.Event(), threading.Event()
    opened, written = predictor_module.open_image, predictor_module.write_labels
    look = Predictor.maps

    def open_image(file: Path) -> Photo:
        if file.stem == "2":
            read.set()
        return opened(file)

    def write_labels(file: Path, *arguments: object) -> None:
        assert predicted.wait(30)
        written(file, *arguments)

    def predict_one(self: Predictor, one: Photo) -> Maps:
        assert read.wait(30)
        maps = look(self, one)
        count[0] += 1
        if count[0] == 3:
            predicted.set()
        return maps

    count = [0]
    monkeypatch.setattr(predictor_module, "open_image", open_image)
    monkeypatch.setattr(predictor_module, "write_labels", write_labels)
    monkeypatch.setattr(Predictor, "maps", predict_one)
    assert predict() == Predicted(3, 0, 0)


def test_photos_that_cannot_be_read_are_left_out(
    tmp_path: Path, predict: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "photos/1.png").write_bytes(b"no photo")
    predictor = Predictor(tmp_path / "model" / RESULT, device="cpu")
    console = Console(speaking=False)
    logging.getLogger("bdl").setLevel(logging.INFO)
    logging.getLogger("bdl").propagate = True
    photos = find_photos(tmp_path / "photos", tmp_path / "out")
    made = predict_files(predictor, console, photos, tmp_path / "out", False)
    assert made == Predicted(2, 0, 1) and "1.png: is not a readable image" in caplog.text
    for number in (0, 2):
        (tmp_path / f"photos/{number}.png").write_bytes(b"no photo")
    with pytest.raises(UserError, match="so it is with all 3 photos"):
        predict(out="other")


def test_its_own_results_and_hidden_files_are_no_photos(tmp_path: Path, predict: Callable) -> None:
    predict(out="photos")
    (tmp_path / "photos/._0.png").write_bytes(b"")
    predict(out="photos/old")
    assert set(find_photos(tmp_path / "photos", tmp_path / "out")) == {"0", "1", "2"}
    assert predict(out="photos") == Predicted(0, 3, 0)


def test_names_that_differ_in_case_do_not_replace_each_other(
    tmp_path: Path, predict: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos/a").mkdir()
    photo(seed=1).save(tmp_path / "photos/a/x.png")
    photo(seed=2).save(tmp_path / "photos/a/X.jpg")
    if tells_case_apart(tmp_path):
        assert predict(out="apart") == Predicted(5, 0, 0)
        assert (tmp_path / "apart/labels/a/x.png").is_file()
    monkeypatch.setattr("bdl.domains.matching.tells_case_apart", lambda folder: False)
    with pytest.raises(UserError, match=r"differs from that of .* only in case"):
        predict()
    assert not contents(tmp_path / "out")


def test_two_photos_of_one_name_are_refused(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    photo().save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png.*same name as a\.jpg"):
        find_photos(tmp_path, tmp_path / "out")
