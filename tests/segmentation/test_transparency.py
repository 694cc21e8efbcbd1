"""Transparent pixels are no data: ignored in predictions, pseudo labels and scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bdl.domains.datasets import Sample
from bdl.domains.images import open_image, open_label
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.runtime.config import PseudoLabelConfig, SegmentationConfig
from bdl.runtime.errors import UserError
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.evaluate import evaluate, prediction_path
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.predictor import Predictor, predict_files
from bdl.segmentation.pseudo_labels import make_pseudo_labels, pseudo_label_path
from bdl.segmentation.score import own_table
from bdl.segmentation.stages import RESULT

SPACE = load_label_space("camvid11")


def make_network() -> Segmenter:
    torch.manual_seed(0)
    built = build_segmenter("compact", SPACE.num_classes, width=4)
    for module in built.modules():  # else all classes score alike and every argmax is a tie
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    return built.eval()


def save(file: Path, network: Segmenter) -> Path:
    config = SegmentationConfig(network="compact", options={"width": 4})
    save_segmenter(file, network, config, SPACE)
    return file


def write(folder: Path, transparent: bool) -> Sample:
    """A photo of 48x32, whose left half is transparent, or cut away; its label is 3 all over."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(noise).resize((48, 32), Image.Resampling.BICUBIC))
    if transparent:
        alpha = np.full((32, 48), 255, np.uint8)
        alpha[:, :24] = 0
        pixels = np.dstack([pixels, alpha])
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(np.full((32, 48), 3, np.uint8)).save(folder / "label.png")
    return Sample("a", folder / "a.png", folder / "label.png")


def test_predictions_are_255_there_and_arrays_are_photos(tmp_path: Path, console) -> None:
    sample = write(tmp_path / "photos", transparent=True)
    predictor = Predictor(save(tmp_path / "model" / RESULT, make_network()), device="cpu")
    labels = predictor(sample.image)
    assert (labels[:, :24] == 255).all() and (labels[:, 24:] < SPACE.num_classes).all()
    with Image.open(sample.image) as image:
        assert np.array_equal(predictor(image), labels)
    predict_files(predictor, console, {"a": sample.image}, tmp_path / "out", keep_maps=False)
    assert np.array_equal(open_label(tmp_path / "out/labels/a.png"), labels)
    filled = open_image(sample.image).pixels
    assert np.array_equal(predictor(filled)[:, 24:], labels[:, 24:])
    with pytest.raises(UserError, match="photo: is an array of 32 x 48 uint8, must be"):
        predictor(filled[..., 0])


def test_pseudo_labels_are_255_there_and_thresholds_do_not_count_it(run, tmp_path) -> None:
    """The thresholds are those of the pixels that are left."""
    sample = write(tmp_path / "photos", transparent=True)
    network = make_network()
    metrics = make_pseudo_labels(
        run,
        tmp_path / "out",
        network,
        WholeImages([sample], None),
        None,
        SPACE,
        PseudoLabelConfig(quantile=0.5, max_threshold=0.999),
    )
    assert metrics.transparent == 0.5
    assert sum(each.predicted for each in metrics.classes) == 32 * 24
    found = np.asarray(open_label(pseudo_label_path(tmp_path / "out", "a")))
    assert (found[:, :24] == 255).all()
    predictor = Predictor(save(tmp_path / "model" / RESULT, network), device="cpu")
    maps = predictor.probabilities(sample.image)[:, :, 24:].numpy()
    labels, confidence = maps.argmax(0), maps.max(0)
    for train_id, each in enumerate(metrics.classes):
        values = np.sort(confidence[labels == train_id])
        wanted = min(values[round(0.5 * len(values))], 0.999) if len(values) else 0
        assert each.threshold == pytest.approx(wanted, abs=1e-6)


def test_scores_do_not_count_it(run, tmp_path) -> None:
    sample = write(tmp_path / "photos", transparent=True)
    whole = WholeImages([sample], None, own_table(SPACE))
    metrics = evaluate(run, tmp_path / "out", make_network(), whole, SPACE, None, [0])
    assert np.sum(metrics.confusion) == 32 * 24
    written = np.asarray(open_label(prediction_path(tmp_path / "out", 0)))
    assert (written[:, :24] == 255).all() and (written[:, 24:] < SPACE.num_classes).all()


@pytest.mark.parametrize("size", [(1, 1), (24, 2000), (70_000, 2)])
def test_photos_of_odd_shapes_get_labels_and_overlays(tmp_path: Path, console, size) -> None:
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "a.png")
    predictor = Predictor(save(tmp_path / "model" / RESULT, make_network()), device="cpu")
    predict_files(predictor, console, {"a": tmp_path / "a.png"}, tmp_path / "out", keep_maps=False)
    assert open_label(tmp_path / "out/labels/a.png").size == size
    overlay = open_image(tmp_path / "out/overlays/a.jpg")
    assert max(overlay.size) == min(max(size), 65_500)
