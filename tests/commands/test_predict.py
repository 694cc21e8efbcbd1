"""`predict`: what it writes is what the predictor gives, and bad input is one line."""

import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from bdl.commands.predict import LOCK
from bdl.domains.images import open_label
from bdl.pipeline import main
from bdl.segmentation.predictor import Predictor
from bdl.segmentation.stages import RESULT
from tests.helpers.predictor import SPACE, make_network, photo, save


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model" / RESULT, make_network())


def test_command_writes_labels_overlays_and_probabilities(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    (photos / "trip").mkdir(parents=True)
    photo(seed=1).save(photos / "a.png")
    photo(30, 20, seed=2).save(photos / "trip" / "b.jpg", quality=95)
    arguments = ["predict", "--checkpoint", str(checkpoint), "--images", str(photos)]
    arguments += ["--out", str(out), "--device", "cpu", "--quiet"]
    assert main([*arguments, "--probabilities"]) == 0
    assert main(arguments) == 0  # its own results, inside the folder, are no photos
    assert capsys.readouterr().out == ""
    made = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert made == {
        "labels/a.png",
        "labels/trip/b.png",
        "overlays/a.jpg",
        "overlays/trip/b.jpg",
        "probabilities/a.npz",
        "probabilities/trip/b.npz",
        "predictions.jsonl",
        LOCK,
    }
    predictor = Predictor(checkpoint, device="cpu")
    for name, file in {"a": photos / "a.png", "trip/b": photos / "trip" / "b.jpg"}.items():
        labels = np.asarray(open_label(out / "labels" / f"{name}.png"))
        assert np.array_equal(labels, predictor(file))
        with np.load(out / "probabilities" / f"{name}.npz", allow_pickle=False) as content:
            assert content["probabilities"].dtype == np.float16
            assert tuple(content["classes"]) == SPACE.names
            assert np.allclose(content["probabilities"].sum(0), 1, atol=5e-3)
    image = Image.open(out / "labels" / "a.png")
    assert image.getpalette()[:33] == SPACE.palette()[:33]


def test_two_that_write_into_one_folder_are_not_mixed(
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bdl.runtime.lock._PATIENCE", 0.05)
    photo().save(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["predict", "--checkpoint", str(checkpoint), "--images", str(tmp_path / "a.png")]
    arguments += ["--out", str(out), "--device", "cpu", "--quiet"]
    with FileLock(out / LOCK):
        assert main(arguments) == 2
    assert f"error: {out}: another predict writes there; wait" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == [LOCK]
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--images": "nowhere"}, "nowhere: no such file or folder"),
        ({"--images": "empty"}, "empty: holds no images"),
        ({"--images": "broken.png"}, "broken.png: is not a readable image"),
        ({"--checkpoint": "nowhere"}, "nowhere: no such file or folder"),
        ({"--checkpoint": "empty"}, "empty: holds no finished segmentation network"),
        ({"--checkpoint": "broken.png"}, "broken.png: cannot be read as a weights file"),
        ({"--out": "broken.png"}, "--out: "),
        ({"--size": ["4", "4"]}, "size: is 4 4"),
        ({"--scales": ["0"]}, "scales: must be one or more numbers from 0.1 to 10"),
        ({"--scales": ["1", "1e3"]}, "scales: must be one or more numbers from 0.1 to 10"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture,
    change: dict,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"not an image")
    photo().save(tmp_path / "a.png")
    options = {"--checkpoint": str(checkpoint), "--images": "a.png", "--out": "out"} | change
    arguments = ["predict", "--device", "cpu"]
    for name, values in options.items():
        listed = [values] if isinstance(values, str) else values
        in_folder = name in ("--checkpoint", "--images", "--out")
        arguments += [name, *(str(tmp_path / v) if in_folder else v for v in listed)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_photo_changed_under_its_old_size_and_time_is_predicted_again(
    tmp_path: Path, checkpoint: Path
) -> None:
    file = tmp_path / "photo.bmp"
    arguments = ["predict", "--checkpoint", str(checkpoint), "--images", str(file), "--device"]
    for seed in (1, 2):
        photo(seed=seed).save(file)
        os.utime(file, ns=(0, 0))
        assert main([*arguments, "cpu", "--out", str(tmp_path / "out")]) == 0
        labels = np.asarray(open_label(tmp_path / "out" / "labels" / "photo.png"))
        assert np.array_equal(labels, Predictor(checkpoint, device="cpu")(file))


def test_a_photo_whose_name_is_too_long_is_left_out(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    """For the files made of it, though not for its own; the others are labelled."""
    (tmp_path / "photos").mkdir()
    for name in ("a", "n" * 251, "z"):
        photo().save(tmp_path / f"photos/{name}.png")
    out = tmp_path / "out"
    folders = ["--images", str(tmp_path / "photos"), "--out", str(out)]
    assert main(["predict", "--device", "cpu", "--checkpoint", str(checkpoint), *folders]) == 0
    said = capsys.readouterr().out
    assert "its name is too long" in said and "1 photo could not be used" in said
    assert sorted(file.name for file in (out / "labels").iterdir()) == ["a.png", "z.png"]
