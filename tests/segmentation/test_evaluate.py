"""Evaluation: the confusion matrix by hand, its means, and the order of softmax and upsampling."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from bdl.domains.datasets import Sample
from bdl.domains.label_space import LabelSpace
from bdl.domains.loading import WholeImages
from bdl.runtime.errors import UserError
from bdl.segmentation.evaluate import (
    ConfusionMatrix,
    evaluate,
    mean_iou,
    prediction_path,
    summarize,
    worst_first,
)
from bdl.segmentation.metrics import ImageScore
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.predict import probabilities
from bdl.segmentation.stages import confidence_path, worst_path

SPACE = LabelSpace(
    "tiny",
    names=("red", "green", "blue", "never"),
    colors=((255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)),
    encodings={"train_id": {0: 0, 1: 1, 2: 2, 3: 3}, "shifted": {10: 0, 11: 1, 12: 2}},
    subsets={"warm": (0, 1), "rare": (3,)},
)


class Colors(Segmenter):
    """Scores are the three channels, times 10, and a class that never wins."""

    num_classes = 4
    looks = 0  # how often it was asked

    def scores(self, images: Tensor) -> Tensor:
        self.looks += 1
        return torch.cat([10 * images, torch.full_like(images[:, :1], -10)], 1)


# The matrix


def test_confusion_matrix_by_hand():
    matrix = ConfusionMatrix(4)
    label = torch.tensor([[0, 0, 0, 1], [1, 2, 255, 255]])
    prediction = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]])
    matrix.update(prediction, label)
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    # red: 2 hits, 3 labelled and 3 predicted; green: 1, 2 and 3; blue: 0, 1 and 0.
    assert matrix.iou()[:3] == pytest.approx([2 / 4, 1 / 4, 0])
    assert math.isnan(matrix.iou()[3])
    summary = summarize(matrix, SPACE)
    assert summary.miou == pytest.approx((1 / 2 + 1 / 4) / 3)  # without the class never seen
    assert summary.subsets["warm"] == pytest.approx(3 / 8)
    assert summary.subsets["rare"] is None
    assert summary.iou == [0.5, 0.25, 0, None]
    assert summary.confusion == matrix.counts.tolist()


def test_a_class_predicted_but_never_there_counts_as_0():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert matrix.iou() == [0.5, 0]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 4))
def test_one_matrix_over_all_images_whatever_their_order(seed, images):
    """Not a mean over images: the sums of hits and unions count."""
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2, 255], (images, 3, 4))
    predictions = random.integers(0, 3, (images, 3, 4))
    matrix = ConfusionMatrix(3)
    for index in random.permutation(images):
        matrix.update(torch.from_numpy(predictions[index]), torch.from_numpy(labels[index]))
    for train_id, iou in enumerate(matrix.iou()):
        valid = labels != 255
        hits = ((labels == train_id) & (predictions == train_id)).sum()
        union = (valid & ((labels == train_id) | (predictions == train_id))).sum()
        assert (math.isnan(iou) and union == 0) or iou == pytest.approx(hits / union)


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "prediction is 3x2, label 2x3"),
        (torch.tensor([[4]]), torch.tensor([[0]]), "prediction holds ids outside"),
        (torch.tensor([[255]]), torch.tensor([[0]]), "prediction holds ids outside"),
        (torch.tensor([[0]]), torch.tensor([[19]]), "label holds ids outside"),
        (torch.tensor([[0]]), torch.tensor([[-1]]), "label holds ids outside"),
    ],
)
def test_ids_and_sizes_that_cannot_be_are_errors(prediction, label, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(4).update(prediction, label)


def test_mean_iou_of_nothing():
    assert mean_iou([math.nan, 0.5, 0.25]) == pytest.approx(0.375)
    assert mean_iou([math.nan]) is None


# Probabilities


class Pair(Segmenter):
    """Two score pixels side by side, whatever the image."""

    num_classes = 2

    def scores(self, images: Tensor) -> Tensor:
        return torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])


def test_softmax_comes_before_upsampling(fabric):
    """Half way between two pixels stands the mean of their probabilities, not of their scores."""
    maps = probabilities(fabric, Pair(), torch.zeros(1, 3, 1, 3))
    left, right = 0.5, 1 / (1 + math.exp(-4))
    expected = [left, (left + right) / 2, right]
    assert maps[0, 0, 0].tolist() == pytest.approx(expected)
    assert abs(expected[1] - 1 / (1 + math.exp(-2))) > 0.1  # what the other order gives
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 1, 3))
    # In training the logits are upsampled.
    assert Pair()(torch.zeros(1, 3, 1, 3))[0, 0, 0].tolist() == [0, 2, 4]


def test_argmax_comes_after_upsampling(fabric):
    """A class that wins at no score pixel can win between them."""

    class Between(Segmenter):
        num_classes = 3

        def scores(self, images: Tensor) -> Tensor:
            shares = torch.tensor([[0.6, 0.0], [0.0, 0.6], [0.4, 0.4]])
            return shares.clamp_min(1e-9).log().view(1, 3, 1, 2)

    maps = probabilities(fabric, Between(), torch.zeros(1, 3, 1, 5))
    assert maps.argmax(1)[0, 0].tolist() == [0, 0, 2, 1, 1]


def test_probabilities_at_another_size(fabric):
    maps = probabilities(fabric, Colors(), torch.rand(1, 3, 8, 10), (15, 20))
    assert maps.shape == (1, 4, 15, 20) and maps.dtype == torch.float32
    assert not maps.requires_grad


# The stage


@pytest.fixture
def images(tmp_path) -> list[Sample]:
    """Two images of 4 x 2: red, green, blue, red in the columns; labels 10, 11, 12 and 99."""
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0]], np.uint8)
    samples = []
    for number in range(2):
        image, label = tmp_path / f"{number}.png", tmp_path / f"{number}-label.png"
        Image.fromarray(np.stack([colors, colors])).save(image)
        ids = np.array([[10, 11, 11, 12], [10, 11, 99, 10]], np.uint8)
        Image.fromarray(ids).save(label)
        samples.append(Sample(str(number), image, label))
    return samples


def test_the_stage_by_hand(run, tmp_path, images):
    whole = WholeImages(images, None, SPACE.table("shifted"))
    metrics = evaluate(run, tmp_path, Colors(), whole, SPACE, size=None, frames=[1])
    # Each image: red hits 3 of 3 and stands once where blue is; green hits 2 of 3; blue none of 1.
    assert metrics.confusion == [[6, 0, 0, 0], [0, 4, 2, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert metrics.iou == [pytest.approx(6 / 8), pytest.approx(4 / 6), 0, None]
    assert metrics.miou == pytest.approx((6 / 8 + 4 / 6) / 3)
    assert metrics.images == 2
    assert not prediction_path(tmp_path, 0).exists()
    with Image.open(prediction_path(tmp_path, 1)) as prediction:
        assert np.asarray(prediction).tolist() == [[0, 1, 2, 0]] * 2


def test_the_worst_images_are_kept_with_the_confidence_in_them(run, tmp_path, images):
    """By hand: the first image has 5 of 7 pixels right, in the second one 2 of 8; one
    without labels is no worst image, however it is predicted."""
    for number, ids in ((1, [[11, 12, 10, 10]] * 2), (2, [[99] * 4] * 2)):
        label = tmp_path / f"{number}-label.png"
        Image.fromarray(np.array(ids, np.uint8)).save(label)
    images.append(Sample("2", images[0].image, tmp_path / "2-label.png"))
    whole = WholeImages(images, None, SPACE.table("shifted"))
    network = Colors()
    metrics = evaluate(run, tmp_path, network, whole, SPACE, size=None, frames=[])
    assert network.looks == 3 + 3  # once more for each that may be among the worst
    # Red, green, blue and red are predicted in each row.
    assert metrics.worst == [
        ImageScore(1, pytest.approx(2 / 8)),
        ImageScore(0, pytest.approx(5 / 7)),
    ]
    for place, score in enumerate(metrics.worst):
        ids = np.asarray(Image.open(worst_path(tmp_path, place)))
        assert ids.tolist() == [[0, 1, 2, 0]] * 2, score
        confidence = np.asarray(Image.open(confidence_path(tmp_path, place))) / 255
        # Scores of 10 for the colour, 0 for the two others, and -10.
        expected = 1 / (1 + 2 * math.exp(-10) + math.exp(-20))
        assert confidence.shape == (2, 4) and np.abs(confidence - expected).max() <= 0.5 / 255


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8))
def test_images_are_ordered_by_what_is_right_of_them(counts):
    counts = [(min(pair), max(pair)) for pair in counts]
    scores = worst_first(counts)
    assert sorted(score.index for score in scores) == list(range(len(counts)))
    shares = [score.right for score in scores]
    labelled = [share for share in shares if not math.isnan(share)]
    assert labelled == sorted(labelled) and shares[: len(labelled)] == labelled


def test_scored_at_the_labels_size(run, tmp_path, images):
    """Images used at half the size of their labels: the prediction is brought to the labels'."""
    whole = WholeImages(images, (2, 1), SPACE.table("shifted"))
    metrics = evaluate(run, tmp_path, Colors(), whole, SPACE, size=None, frames=[])
    assert np.sum(metrics.confusion) == 2 * 7


def test_scored_at_a_given_size_labels_are_resized_by_nearest(run, tmp_path, images):
    whole = WholeImages(images, None, SPACE.table("shifted"))
    metrics = evaluate(run, tmp_path, Colors(), whole, SPACE, size=(8, 4), frames=[])
    assert np.sum(metrics.confusion, 1).tolist() == [24, 24, 8, 0]


def test_labels_of_another_encoding_are_noticed(run, tmp_path, images):
    whole = WholeImages(images, None, SPACE.table("train_id"))
    with pytest.raises(UserError, match=r"no pixel .* check data\.validation\.encoding"):
        evaluate(run, tmp_path, Colors(), whole, SPACE, size=None, frames=[])
