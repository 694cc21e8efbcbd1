"""Pseudo labels from round to round, on made-up maps: what changed, what is told and limited."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from bdl.domains.datasets import Sample
from bdl.domains.images import write_labels
from bdl.domains.label_space import IGNORE, load_label_space
from bdl.domains.loading import WholeImages
from bdl.runtime.config import PseudoLabelConfig
from bdl.segmentation.metrics import PseudoLabelMetrics
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.pseudo_labels import Before, make_pseudo_labels
from bdl.segmentation.stages import pseudo_label_path

SPACE = load_label_space("camvid11")
CLASSES = SPACE.num_classes
SIZE = (40, 50)  # height and width
ALL = {"quantile": 0.0, "max_threshold": 0.0}  # no thresholds


class Told(Segmenter):
    """Predicts what images tell it: the class by the red channel, its probability by the green."""

    num_classes = CLASSES

    def scores(self, images: Tensor) -> Tensor:
        ids = (images[:, 0] * 255).round().long()
        sure = 0.2 + 0.79 * images[:, 1]
        maps = torch.zeros(len(images), CLASSES, *images.shape[-2:])
        return maps.scatter(1, ids[:, None], (sure * (CLASSES - 1) / (1 - sure)).log()[:, None])


def image_of(folder: Path, ids: np.ndarray, seed: int = 0) -> tuple[WholeImages, np.ndarray]:
    """An image that tells these classes, and its levels of confidence, which are all different in
    a class as far as there are enough of them."""
    random = np.random.default_rng(seed)
    levels = np.zeros(ids.shape, np.uint8)
    for train_id in np.unique(ids):
        inside = ids == train_id
        levels[inside] = random.permutation(np.arange(inside.sum()) % 256)
    folder.mkdir(exist_ok=True)
    pixels = np.dstack([ids.astype(np.uint8), levels, np.zeros_like(levels)])
    Image.fromarray(pixels).save(folder / "a.png")
    return WholeImages([Sample("a", folder / "a.png", None)], None), levels


def spread_over(**shares: int) -> np.ndarray:
    """Train ids, H x W, of so many pixels each, in order; the rest is road."""
    ids = np.zeros(SIZE[0] * SIZE[1], np.uint8)
    start = 0
    for name, count in shares.items():
        ids[start : start + count] = SPACE.names.index(name)
        start += count
    return ids.reshape(SIZE)


def made(run, folder, images, before=None, **config) -> tuple[PseudoLabelMetrics, np.ndarray]:
    metrics = make_pseudo_labels(
        run,
        folder,
        Told(),
        images,
        None,
        SPACE,
        PseudoLabelConfig(**{**ALL, **config}),
        before or Before(),
    )
    return metrics, np.asarray(Image.open(pseudo_label_path(folder, "a")))


def before_of(folder: Path, ids: np.ndarray) -> Before:
    """Pseudo labels of an earlier round."""
    write_labels(pseudo_label_path(folder, "a"), ids, SPACE)
    counts = np.bincount(ids[ids != IGNORE], minlength=CLASSES)
    return Before(folder=folder, labels=counts.tolist())


def test_the_least_confident_pixels_of_a_class_that_grows_are_left_out(run, tmp_path):
    """Cars may double from 50 to 100 of now 200; buildings, which shrink, and road stay."""
    earlier = spread_over(car=50, building=800)
    ids = spread_over(car=200, building=400)
    images, levels = image_of(tmp_path / "images", ids)
    before = before_of(tmp_path / "before", earlier)
    metrics, labels = made(run, tmp_path / "out", images, before, max_growth=2.0)
    car = ids == SPACE.names.index("car")
    kept = car & (labels != IGNORE)
    assert kept.sum() == 100
    assert levels[kept].min() > levels[car & ~kept].max()
    assert np.array_equal(labels[~car], ids[~car])
    assert metrics.labels[SPACE.names.index("car")] == 100
    without, all_of_them = made(run, tmp_path / "without", images, before)
    assert np.array_equal(all_of_them, ids) and without.kept == 1


def test_a_limit_keeps_to_thresholds_that_are_stricter(run, tmp_path):
    ids = spread_over(car=200)
    images, _ = image_of(tmp_path / "images", ids)
    before = before_of(tmp_path / "before", spread_over(car=150))
    strict = {"quantile": 0.9, "max_threshold": 1.0}
    limited, labels = made(run, tmp_path / "out", images, before, max_growth=1.0, **strict)
    plain, expected = made(run, tmp_path / "plain", images, before, **strict)
    assert np.array_equal(labels, expected) and plain == limited


@pytest.mark.parametrize("config", [{}, {"quantile": 0.5, "max_threshold": 0.6}])
def test_what_is_compared_changes_no_label(run, tmp_path, config):
    images, _ = image_of(tmp_path / "images", spread_over(car=200, building=400))
    before = before_of(tmp_path / "before", spread_over(car=50, building=50))
    _, alone = made(run, tmp_path / "alone", images, None, **config)
    _, beside = made(run, tmp_path / "beside", images, before, **config)
    _, far = made(run, tmp_path / "far", images, before, max_growth=1000.0, **config)
    assert np.array_equal(alone, beside) and np.array_equal(alone, far)


def test_a_class_that_was_never_there_may_begin(run, tmp_path):
    ids = spread_over(pole=100)
    images, levels = image_of(tmp_path / "images", ids)
    before = before_of(tmp_path / "before", spread_over(car=50))
    _, labels = made(run, tmp_path / "out", images, before, max_growth=1.5)
    kept = labels == SPACE.names.index("pole")
    assert kept.sum() == 2 and set(levels[kept]) == {98, 99}  # a thousandth of 2,000 pixels


@given(
    labels=st.lists(st.integers(0, 10_000), min_size=2, max_size=5),
    growth=st.floats(1, 5),
)
def test_no_class_has_to_shrink(labels, growth):
    most = Before(labels=labels).most(growth, sum(labels))
    assert (most >= labels).all() and (most >= 1).all()


def test_what_changed_is_counted_where_both_have_labels(run, tmp_path):
    earlier = spread_over(car=500, building=500)
    earlier[-2:] = IGNORE
    ids = spread_over(car=400, building=700)
    metrics, labels = made(
        run, tmp_path / "out", image_of(tmp_path / "images", ids)[0], before_of(tmp_path, earlier)
    )
    both = earlier != IGNORE
    assert metrics.changed == pytest.approx((earlier != labels)[both].mean())
    assert metrics.changed == pytest.approx((100 + 100) / (2000 - 2 * SIZE[1]))
    first, _ = made(run, tmp_path / "first", image_of(tmp_path / "images", ids)[0])
    assert first.changed is None


def test_classes_that_halve_or_double_are_named_and_no_others(run, tmp_path):
    before = before_of(tmp_path / "before", spread_over(car=8, building=800, pole=500, sky=1))
    images, _ = image_of(tmp_path / "images", spread_over(car=72, building=400, pole=300, sky=0))
    metrics, _ = made(run, tmp_path / "out", images, before)
    (line,) = [text for text in metrics.warnings if "halved" in text]
    assert line == "shares that halved or doubled: building 40.0 to 20.0 %, car 0.4 to 3.6 %"
    assert "pole" not in line and "sky" not in line
    same, _ = made(
        run,
        tmp_path / "same",
        images,
        before_of(tmp_path / "again", spread_over(car=72, building=400, pole=300)),
    )
    assert not [text for text in same.warnings if "halved" in text]


@pytest.mark.parametrize(("seen", "collapsed"), [(0, True), (5, True), (400, False)])
def test_a_network_that_has_collapsed_labels_nothing(run, tmp_path, caplog, seen, collapsed):
    """Said in one line; what the source's labels hold tells a collapse from few things."""
    images, _ = image_of(tmp_path / "images", spread_over(car=seen))
    caplog.set_level(logging.WARNING, "bdl")
    labels = np.bincount([0] * 60 + [2] * 40, minlength=CLASSES)
    metrics, made_labels = made(run, tmp_path / "out", images, Before(source_labels=labels))
    told = [text for text in metrics.warnings if "collapsed" in text]
    assert len(told) == collapsed
    assert metrics.kept == (0 if collapsed else 1)
    assert (made_labels == IGNORE).all() == collapsed
    if collapsed:  # nor is it said of the other classes that they were never predicted
        assert metrics.warnings == told
        assert told[0].startswith("the network has collapsed: to it nearly all of the target is ro")
        assert sum(told[0] in message for message in caplog.messages) == 1
