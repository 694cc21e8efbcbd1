"""What is measured of translations, against numbers worked out by hand and libraries called
directly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from bdl.domains.datasets import Sample
from bdl.domains.loading import WholeImages
from bdl.domains.tensors import to_unit
from bdl.runtime.device import seed_torch
from bdl.runtime.files import write_json
from bdl.runtime.values import plain, restored
from bdl.translation.measure import (
    FrozenModels,
    SemanticDrift,
    kernel_distance,
    measure_translations,
    similarity,
)
from bdl.translation.metrics import KernelDistance, MeasureMetrics


def ids(*values: int) -> Tensor:
    return torch.tensor(values).view(1, 1, -1)


# Semantic drift


def test_drift_by_hand() -> None:
    """Eight pixels: one is not labelled; of the six right on the source, two became trees, of
    the one wrong there, the error was recovered from."""
    drift = SemanticDrift(3)
    drift.update(
        label=ids(0, 0, 1, 1, 1, 1, 255, 2),
        on_source=ids(0, 0, 1, 1, 1, 1, 0, 0),
        on_translation=ids(0, 2, 1, 1, 1, 2, 1, 2),
    )
    assert plain(drift.summarize()) == {
        "right_on_source": 6 / 7,
        "right_on_translation": 5 / 7,
        "lost": 2 / 6,
        "recovered": 1.0,
        "worst": [
            {"label": 0, "predicted": 2, "share": 1 / 2},
            {"label": 1, "predicted": 2, "share": 1 / 4},
        ],
        "on_source": [[2, 0, 0], [0, 4, 0], [1, 0, 0]],
        "on_translation": [[1, 0, 1], [0, 3, 1], [0, 0, 1]],
        "of_right": [[1, 0, 1], [0, 3, 1], [0, 0, 0]],
    }


def test_the_networks_own_errors_are_not_the_translators() -> None:
    """A network that takes every sky for a tree, before and after, has lost nothing."""
    drift = SemanticDrift(3)
    drift.update(ids(0, 1, 1, 1), ids(0, 2, 2, 2), ids(0, 2, 2, 2))
    found = drift.summarize()
    assert (found.lost, found.recovered, found.worst) == (0, 0, [])
    assert found.right_on_source == found.right_on_translation == 1 / 4


def test_a_few_pixels_of_a_class_are_not_named() -> None:
    """One of two trees became sky: 50 %, but of 2 pixels in 3002. It stays in the matrix."""
    drift = SemanticDrift(3)
    label = torch.tensor([0] * 3000 + [2] * 2)
    after = label.clone()
    after[0], after[-1] = 1, 1
    drift.update(label, label, after)
    found = drift.summarize()
    assert found.of_right[2] == [0, 1, 1]
    assert [pair.label for pair in found.worst] == [0]


def test_without_labels_there_are_no_shares() -> None:
    drift = SemanticDrift(3)
    drift.update(ids(255, 255), ids(0, 1), ids(1, 1))
    found = drift.summarize()
    shares = ("right_on_source", "right_on_translation", "lost", "recovered")
    assert [getattr(found, key) for key in shares] == [None] * 4
    assert found.worst == []


triples = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 255]), st.integers(0, 2), st.integers(0, 2)), max_size=40
)


@given(triples, triples)
def test_matrices_count_pixels(first: list, second: list) -> None:
    """Over all images together, each matrix is the count of pairs, made here one by one."""
    drift = SemanticDrift(3)
    for pixels in (first, second):
        label, before, after = torch.tensor(pixels, dtype=torch.int64).view(-1, 3).T
        drift.update(label, before, after)
    expected = {key: np.zeros((3, 3), int) for key in ("on_source", "on_translation", "of_right")}
    for label, before, after in first + second:
        if label != 255:
            expected["on_source"][label, before] += 1
            expected["on_translation"][label, after] += 1
            expected["of_right"][label, after] += label == before
    found = drift.summarize()
    assert {key: getattr(found, key) for key in expected} == {
        k: v.tolist() for k, v in expected.items()
    }


# Distance of sets of images


class Colors(nn.Module):
    """Features of an image: mean and spread of each colour."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)


def photos(count: int, seed: int, shift: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (
        torch.rand(count, 3, 8, 8, generator=random) * torch.rand(count, 3, 1, 1, generator=random)
        + shift
    )


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kid_is_torchmetrics_with_the_network_given_as_a_module(shift: float) -> None:
    images, target = photos(9, 0, shift).double(), photos(12, 1).double()
    metric = KernelInceptionDistance(Colors(), subsets=50, subset_size=4)
    metric.set_dtype(torch.float64)
    metric.update(target, real=True)
    metric.update(images, real=False)
    seed_torch(3, "kid")
    mean, std = (float(value) for value in metric.compute())
    found = kernel_distance(Colors()(images), Colors()(target), 3)
    assert found == KernelDistance(pytest.approx(mean), pytest.approx(std))
    assert (mean > 0.1) == (shift > 0)


def test_kid_of_equal_sets_is_about_zero_and_repeats() -> None:
    features = Colors()(photos(40, 0))
    found = kernel_distance(features, features, 0)
    assert found is not None and abs(found.mean) < 2 * found.std < 0.1
    assert kernel_distance(features, features, 0) == found
    assert kernel_distance(features, features, 1) != found


@pytest.mark.parametrize(("value", "distance"), [(1.0, 7.0), (0.0, 0.0)])
def test_kid_of_two_points_by_hand(value: float, distance: float) -> None:
    """All features (1, 1), the target's (0, 0): k(x, y) = (x.y / 2 + 1)^3 gives 8 + 1 - 2."""
    found = kernel_distance(torch.full((6, 2), value), torch.zeros(5, 2), 0)
    assert found == KernelDistance(pytest.approx(distance), pytest.approx(0))


def test_kid_needs_two_images_of_each() -> None:
    assert kernel_distance(torch.zeros(1, 2), torch.zeros(9, 2), 0) is None
    assert kernel_distance(torch.zeros(2, 2), torch.zeros(2, 2), 0) == KernelDistance(0, 0)


# Likeness


def test_identical_images_have_ssim_1() -> None:
    image = photos(1, 0)[0]
    assert similarity(image, image) == pytest.approx(1)
    assert similarity(image, photos(1, 1)[0]) < 0.5


def test_ssim_of_flat_images_by_hand() -> None:
    """Without texture only the means count: (2 a b + c) / (a^2 + b^2 + c), c = (0.01 255)^2."""
    a, b, c = 51, 204, 2.55**2
    found = similarity(torch.full((3, 9, 9), a / 255), torch.full((3, 9, 9), b / 255))
    assert found == pytest.approx((2 * a * b + c) / (a * a + b * b + c))


# All of it


def write(folder: Path, name: str, values: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name)
    return folder / name


@pytest.fixture
def sets(tmp_path: Path) -> tuple[WholeImages, WholeImages, WholeImages]:
    """Three grey images with their darker part labelled 0 and the lighter 1, their negatives as
    translations, and two targets. The second source image has labels at twice its size."""
    random = np.random.default_rng(0)
    source, translated, target = [], [], []
    for number in range(3):
        grey = random.integers(0, 256, (8, 16), np.uint8)
        scale = 2 if number == 1 else 1
        labels = np.kron(grey >= 128, np.ones((scale, scale))).astype(np.uint8)
        image = np.repeat(grey[..., None], 3, 2)
        label = write(tmp_path / "labels", f"{number}.png", labels)
        source.append(Sample(str(number), write(tmp_path / "a", f"{number}.png", image), label))
        negative = write(tmp_path / "b", f"{number}.png", 255 - image)
        translated.append(Sample(str(number), negative, None))
    for number in range(2):
        image = random.integers(0, 256, (8, 16, 3), np.uint8)
        target.append(Sample(str(number), write(tmp_path / "c", f"{number}.png", image), None))
    table = np.full(65_536, 255, np.uint8)
    table[:2] = 0, 1
    return (
        WholeImages(source, None, table),
        WholeImages(translated, None),
        WholeImages(target, None),
    )


def bright(images: Tensor, size: tuple[int, int]) -> Tensor:
    """A network of two classes, dark and light; it has every label of `sets` right."""
    resized = nn.functional.interpolate(images, size, mode="nearest-exact")
    return (resized.mean(1) * 255 > 127.5).long()


MODELS = FrozenModels(bright, 2, Colors(), "colours")


class Negative(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 1 - images


def measured(run, sets, back: nn.Module | None, count: int = 9) -> MeasureMetrics:
    return measure_translations(run, *sets, MODELS, back, count, seed=0)


def test_a_negative_breaks_every_pixel_and_comes_back_whole(run, sets, tmp_path) -> None:
    found = measured(run, sets, Negative())
    drift = found.drift
    assert drift is not None
    assert (found.images, found.target_images) == (3, 2)
    shares = ("right_on_source", "right_on_translation", "lost", "recovered")
    assert [getattr(drift, key) for key in shares] == [1, 0, 1, None]
    assert np.sum(drift.of_right) == 8 * 16 * (1 + 4 + 1)
    assert {pair.label: pair.predicted for pair in drift.worst} == {0: 1, 1: 0}
    assert found.reconstruction_l1 == pytest.approx(0, abs=1e-6)
    assert found.ssim < 0
    write_json(tmp_path / "metrics.json", plain(found))  # which refuses what is not JSON
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert restored(MeasureMetrics, stored) == found


def test_what_the_frozen_network_sees_on_the_target_is_counted(run, sets) -> None:
    found, seen = measured(run, sets, None), torch.zeros(2)
    for index in range(len(sets[2])):
        image = to_unit(sets[2][index]["image"][None])
        size = (image.shape[-2], image.shape[-1])
        seen += torch.bincount(bright(image, size).flatten(), minlength=2)
    assert found.on_target == seen.int().tolist() and sum(found.on_target) > 0


@pytest.mark.parametrize(
    ("on_target", "known"), [([50, 50], True), ([0, 100], False), ([], True), ([2, 98], False)]
)
def test_a_network_that_does_not_know_the_target_finds_no_faults(
    run, sets, on_target, known
) -> None:
    """Labels are about half and half; older runs have not counted."""
    assert replace(measured(run, sets, None), on_target=on_target).knows_target == known


def test_kid_is_that_of_the_images_in_order(run, sets) -> None:
    found = measured(run, sets, None)
    assert found.reconstruction_l1 is None and found.kid.features == "colours"
    source, translated, target = (
        torch.cat([Colors()(to_unit(images[i]["image"][None])) for i in range(len(images))])
        for images in sets
    )
    assert found.kid.source == kernel_distance(source, target, 0)
    assert found.kid.translated == kernel_distance(translated, target, 0)


def test_untouched_images_break_nothing(run, sets) -> None:
    source, _, target = sets
    same = WholeImages(source.samples, None)
    found = measured(run, (source, same, target), nn.Identity())
    assert (found.drift.lost, found.ssim, found.reconstruction_l1) == (0, 1, 0)
    assert found.kid.source == found.kid.translated


def test_no_more_images_are_looked_at_than_asked_for(run, sets) -> None:
    found = measured(run, sets, None, count=2)
    assert (found.images, found.target_images) == (2, 2)
    # The first and the last: the one between has labels of another size.
    assert np.sum(found.drift.on_source) == 8 * 16 * 2


def test_translations_of_another_size_are_compared_at_the_sources(run, sets, tmp_path) -> None:
    """Twice as large and otherwise untouched: as good as the same, but for the resampling."""
    source, _, target = sets
    larger = []
    for sample in source.samples:
        with Image.open(sample.image) as image:
            twice = np.asarray(image).repeat(2, 0).repeat(2, 1)
        larger.append(Sample(sample.name, write(tmp_path / "d", f"{sample.name}.png", twice), None))
    found = measured(run, (source, WholeImages(larger, None), target), None)
    assert found.drift.lost < 0.1
    assert found.ssim > 0.8
