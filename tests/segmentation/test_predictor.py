"""Predictions on photos: the same labels as evaluation, at any size, by windows, flips, scales."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from domains.images import open_label, to_tensor, to_unit
from domains.label_space import load_label_space
from pipeline import main
from runtime.config import SegmentationConfig
from runtime.errors import UserError
from runtime.files import write_json
from runtime.stages import MANIFEST
from segmentation.networks import build_segmenter
from segmentation.networks.base import Segmenter
from segmentation.predict import probabilities, window_starts, windowed_probabilities
from segmentation.predictor import (
    Predictor,
    find_photos,
    find_segmenter,
    open_photo,
    overlay,
    trained_size,
)
from segmentation.train import RESULT, save_segmenter

SPACE = load_label_space("camvid11")


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    built = build_segmenter("compact", SPACE.num_classes, width=4)
    for module in built.modules():  # else all classes score alike and every argmax is a tie
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    return built.eval()


def save(file: Path, network: Segmenter, settings: dict | None = None) -> Path:
    config = SegmentationConfig(network="compact", options={"width": 4})
    save_segmenter(file, network, config, SPACE)
    if settings is not None:
        record = {"fingerprint": "", "inputs": {}, "files": 1, "seconds": 0.0}
        write_json(file.parent / MANIFEST, {**record, "settings": settings})
    return file


@pytest.fixture
def checkpoint(tmp_path: Path, network: Segmenter) -> Path:
    return save(tmp_path / "model" / RESULT, network)


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


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
    assert torch.allclose(windowed_probabilities(fabric, Pointwise(), images, window), whole)


@given(st.integers(1, 300), st.integers(1, 100))
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int) -> None:
    starts = window_starts(length, window)
    assert starts == sorted(set(starts)) and starts[0] == 0
    assert starts[-1] + window >= length
    assert all(start + window <= length for start in starts) or starts == [0]
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(step <= max(1, 2 * window // 3) for step in steps)


def test_a_run_folder_means_its_last_finished_network(tmp_path: Path, network: Segmenter) -> None:
    settings = {"source": {"size": [40, 20]}, "target": {"size": [64, 32]}}
    save(tmp_path / "source-only" / RESULT, network, settings)
    for name in ("k2/segmentation-0", "k10/segmentation-0", "k9/segmentation-3"):
        save(tmp_path / name / RESULT, network, settings)
    save(tmp_path / "k11/segmentation-0" / RESULT, network)  # has no manifest: not finished
    assert find_segmenter(tmp_path) == tmp_path / "k10/segmentation-0" / RESULT
    assert find_segmenter(tmp_path / "k9/segmentation-3").parent.name == "segmentation-3"


def test_photos_are_taken_to_the_width_of_training(tmp_path: Path, network: Segmenter) -> None:
    """The target's, else the source's; and keeping their shape."""
    both = {"source": {"size": [40, 20]}, "target": {"size": [64, 32]}}
    file = save(tmp_path / "a" / RESULT, network, both)
    assert trained_size(file) == (64, 32)
    source_only = save(tmp_path / "b" / RESULT, network, {"source": {"size": [40, 20]}})
    assert trained_size(source_only) == (40, 20)
    as_stored = save(tmp_path / "c" / RESULT, network, {"target": {"size": None}})
    assert trained_size(as_stored) is None
    assert trained_size(save(tmp_path / "d" / RESULT, network)) is None
    by_default = Predictor(file, device="cpu").probabilities(photo(48, 36))
    explicit = Predictor(file, device="cpu", size=(64, 48)).probabilities(photo(48, 36))
    assert torch.equal(by_default, explicit)


def test_a_new_size_is_no_reason_to_search_for_algorithms(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN's search takes seconds on a GPU, and photos may all differ in size."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    predictor = Predictor(checkpoint, device="cpu")
    seen = []
    convolution = next(m for m in predictor.network.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    predictor(photo())
    assert seen == [False]
    assert torch.backends.cudnn.benchmark  # a training beside it goes on as it was


def test_photos_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that the picture must be turned by 90 degrees
    photo(48, 32).save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == (32, 48)


def test_an_overlay_is_half_photo_half_color() -> None:
    labels = np.zeros((2, 3), np.uint8)
    grey = Image.new("RGB", (3, 2), (100, 100, 100))
    red, green, blue = SPACE.colors[0]
    expected = [(100 + red) // 2, (100 + green) // 2, (100 + blue) // 2]
    pixels = np.asarray(overlay(grey, labels, SPACE), int)
    assert abs(pixels - expected).max() <= 1


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


def test_two_photos_of_one_name_are_refused(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    photo().save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png.*same name as a\.jpg"):
        find_photos(tmp_path, tmp_path / "out")


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
        ({"--scales": ["0"]}, "scales: must be one or more numbers above 0"),
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
