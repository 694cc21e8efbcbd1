"""Class-wise thresholds against a plain sort, and the stage against a plain implementation."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from torch import nn

from bdl.domains.datasets import Sample
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.runtime.config import PseudoLabelConfig
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.pseudo_labels import ClassThresholds, make_pseudo_labels
from bdl.segmentation.stages import pseudo_label_path

CLASSES = 4


def plain(
    labels: np.ndarray, confidence: np.ndarray, quantile: float = 0.5, max_threshold: float = 0.9
) -> list[float]:
    """The thresholds by a sort in float64."""
    thresholds = []
    for train_id in range(CLASSES):
        values = np.sort(confidence[labels == train_id].astype(np.float64))
        if len(values) == 0:
            thresholds.append(0.0)
            continue
        # Python's round takes halves to the even neighbour.
        place = min(round(quantile * len(values)), len(values) - 1)
        thresholds.append(min(float(values[place]), max_threshold))
    return thresholds


def thresholds_of(labels, confidence, **options) -> list[float]:
    thresholds = ClassThresholds(CLASSES, **options)
    thresholds.update(labels, confidence)
    return thresholds.values().tolist()


@st.composite
def pixels(draw):
    """Labels and confidences; few distinct values, so that ties and max_threshold come up."""
    count = draw(st.integers(0, 60))
    labels = draw(npst.arrays(np.int64, count, elements=st.integers(0, CLASSES - 1)))
    level = st.one_of(
        st.floats(0, 1, width=32),
        st.sampled_from(
            [
                0.0,
                0.25,
                0.5,
                1.0,
                float(np.float32(0.9)),
                float(np.nextafter(np.float32(0.9), np.float32(1))),
                1e-38,
                1e-45,
            ]
        ),
    )
    return labels, draw(npst.arrays(np.float32, count, elements=level))


QUANTILES = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
LIMITS = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.floats(0, 1))


@settings(deadline=None, max_examples=200)
@given(pixels=pixels(), quantile=QUANTILES, max_threshold=LIMITS)
@example(pixels=(np.zeros(0, np.int64), np.zeros(0, np.float32)), quantile=0.5, max_threshold=0.9)
def test_thresholds_equal_a_plain_sort(pixels, quantile, max_threshold):
    found = thresholds_of(*pixels, quantile=quantile, max_threshold=max_threshold)
    assert found == plain(*pixels, quantile, max_threshold)


@settings(deadline=None, max_examples=40)
@given(pixels=pixels(), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_many_updates_are_one(pixels, cuts):
    thresholds = ClassThresholds(CLASSES)
    for labels, confidence in zip(*(np.split(part, sorted(cuts)) for part in pixels), strict=True):
        thresholds.update(labels, confidence)
    assert thresholds.values().tolist() == plain(*pixels)


@settings(deadline=None, max_examples=40)
@given(pixels=pixels(), cut=st.integers(0, 60), quantile=QUANTILES)
def test_processes_together_get_the_thresholds_of_all_pixels(pixels, cut, quantile):
    """Two processes: each sums what both have counted, in as many exchanges."""
    shares = [ClassThresholds(CLASSES, quantile), ClassThresholds(CLASSES, quantile)]
    for share, part in zip(shares, (slice(None, cut), slice(cut, None)), strict=True):
        share.update(pixels[0][part], pixels[1][part])
    # What the other process sends, exchange by exchange; with it, its later counts are right.
    sent: list[list[np.ndarray]] = [[], []]

    def exchange(rank: int, counts: np.ndarray) -> np.ndarray:
        number = len(sent[rank])
        sent[rank].append(counts.copy())
        other = sent[1 - rank]
        return counts + other[number] if number < len(other) else counts

    # Until what is sent does not change any more: as if both ran at the same time.
    for _ in range(4):
        found = []
        for rank in (0, 1):
            sent[rank] = []
            found.append(shares[rank].values(lambda counts, rank=rank: exchange(rank, counts)))
    expected = plain(*pixels, quantile)
    assert found[0].tolist() == found[1].tolist() == expected


def test_pixels_can_be_added_after_the_thresholds_were_asked_for():
    thresholds = ClassThresholds(CLASSES)
    thresholds.update(np.array([0, 0, 0]), np.array([0.1, 0.2, 0.3], np.float32))
    thresholds.values()
    thresholds.update(np.array([0, 0]), np.array([0.4, 0.5], np.float32))
    assert thresholds.values()[0] == np.float32(0.3)


@pytest.mark.parametrize(
    ("count", "place"),
    # 0.5 n to even: 0.5 -> 0, 1 -> 1, 1.5 -> 2, 2.5 -> 2, 3.5 -> 4, 4.5 -> 4
    [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4), (9, 4)],
)
def test_halves_round_to_even(count, place):
    confidence = np.linspace(0.1, 0.8, count, dtype=np.float32)
    assert thresholds_of(np.zeros(count, int), confidence)[0] == confidence[place]


def test_a_class_never_predicted_has_the_threshold_0():
    assert thresholds_of(np.array([1]), np.array([0.7], np.float32)) == [0, np.float32(0.7), 0, 0]


def test_the_threshold_is_exact_where_upper_halves_agree():
    """Values that differ in the last bits of float32 only."""
    base = np.float32(0.5).view(np.uint32)
    values = (base + np.arange(101, dtype=np.uint32)).view(np.float32)
    np.random.default_rng(0).shuffle(values)
    found = thresholds_of(np.zeros(101, int), values)[0]
    assert np.float32(found).view(np.uint32) - base == 50


def test_tensors_of_any_shape_are_taken():
    labels = torch.tensor([[[0, 0], [1, 0]]])
    confidence = torch.tensor([[[0.2, 0.4], [0.6, 0.3]]])
    found = thresholds_of(labels, confidence)
    assert found == plain(labels.numpy(), confidence.numpy())


def test_wrong_pixels_are_refused():
    thresholds = ClassThresholds(CLASSES)
    with pytest.raises(ValueError, match=r"label 4 is not in 0\.\.3"):
        thresholds.update(np.array([4]), np.array([0.5], np.float32))
    with pytest.raises(ValueError, match="2 labels for 1 confidences"):
        thresholds.update(np.array([1, 1]), np.array([0.5], np.float32))


# The stage


class Linear(Segmenter):
    """Scores by one 1x1 convolution, for which numpy can stand in."""

    def __init__(self, num_classes: int, stride: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, num_classes, 1, stride)
        nn.init.normal_(self.convolution.weight, std=6)

    def scores(self, images):
        return self.convolution(images)


def corner_aligned(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with corners on corners, in float64."""
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, maps.shape[axis] - 1, size)
        low = np.minimum(np.floor(at).astype(int), maps.shape[axis] - 2)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        maps = np.take(maps, low, axis) * (1 - part) + np.take(maps, low + 1, axis) * part
    return maps


def test_the_stage_equals_a_plain_implementation(run, tmp_path):
    space = load_label_space("camvid11")
    random = np.random.default_rng(0)
    network = Linear(space.num_classes)
    samples, labels, confidence = [], [], []
    weight = network.convolution.weight.detach().double().numpy()[..., 0, 0]
    bias = network.convolution.bias.detach().double().numpy()
    for number in range(4):
        pixels = random.integers(0, 256, (12, 20, 3), np.uint8)
        file = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(file)
        samples.append(Sample(f"town/{number}", file, None))
        scores = np.tensordot(weight, pixels[::2, ::2] / 255, (1, 2)) + bias[:, None, None]
        exponentials = np.exp(scores - scores.max(0))
        maps = corner_aligned(exponentials / exponentials.sum(0), 12, 20)
        labels.append(maps.argmax(0))
        confidence.append(maps.max(0))
    folder = tmp_path / "out"
    metrics = make_pseudo_labels(
        run,
        folder,
        network,
        WholeImages(samples, None),
        None,
        space,
        PseudoLabelConfig(quantile=0.3, max_threshold=0.6),
    )
    kept_of = dict.fromkeys(space.names, 0)
    limits = {}
    for train_id, name in enumerate(space.names):
        values = np.sort(np.array(confidence)[np.array(labels) == train_id])
        limits[name] = min(values[round(0.3 * len(values))], 0.6) if len(values) else 0.0
        assert metrics.classes[train_id].threshold == pytest.approx(limits[name], abs=1e-6)
        assert metrics.classes[train_id].predicted == len(values)
    assert sum(limit == 0.6 for limit in limits.values()) >= 1  # max_threshold had a part
    assert sum(0 < limit < 0.6 for limit in limits.values()) >= 2
    by_id = np.array(list(limits.values()))
    for sample, predicted, sure in zip(samples, labels, confidence, strict=True):
        with Image.open(pseudo_label_path(folder, sample.name)) as image:
            found = np.asarray(image)
        expected = np.where(sure >= by_id[predicted], predicted, 255)
        # At the threshold itself float32 and float64 may differ.
        clear = np.abs(sure - by_id[predicted]) > 1e-6
        assert (found[clear] == expected[clear]).all() and clear.mean() > 0.95
        assert set(np.unique(found[~clear])) <= set(np.unique(predicted[~clear])) | {255}
        for train_id, name in enumerate(space.names):
            kept_of[name] += int((found == train_id).sum())
    for name, item in zip(space.names, metrics.classes, strict=True):
        assert kept_of[name] == round(item.kept * item.predicted)
    assert metrics.kept == pytest.approx(sum(kept_of.values()) / (4 * 12 * 20))
    assert metrics.images == 4
    assert not (folder / "predictions").exists()


def test_the_pixel_at_the_threshold_is_kept(run, tmp_path):
    """One image of one colour: every confidence equals the threshold, and nothing is lost."""
    file = tmp_path / "0.png"
    Image.new("RGB", (8, 6), (90, 200, 30)).save(file)
    space = load_label_space("camvid11")
    images = WholeImages([Sample("0", file, None)], None)
    network = Linear(space.num_classes, stride=1)  # nothing is interpolated
    metrics = make_pseudo_labels(
        run,
        tmp_path / "out",
        network,
        images,
        None,
        space,
        PseudoLabelConfig(max_threshold=1.0),
    )
    assert metrics.kept == 1


class RightHalf(Linear):
    """Sees the right half of an image alone: mirrored, it sees the left one too."""

    def scores(self, images):
        seen = images.clone()
        seen[..., : images.shape[-1] // 2] = 0
        return super().scores(seen)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (1.5,), (1.0, 0.5, 1.5)])
def test_the_mean_over_mirror_images_and_scales_counts(run, tmp_path, flip, scales):
    """Against the same mean made plainly; without cut, every pixel has its label."""
    file = tmp_path / "0.png"
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).save(file)
    space = load_label_space("camvid11")
    sizes = [(round(scale * 16), round(scale * 12)) for scale in scales]
    images = WholeImages([Sample("0", file, None)], (16, 12), scales=scales)
    network = RightHalf(space.num_classes, stride=1).eval()
    config = PseudoLabelConfig(quantile=0.0, max_threshold=0.0, flip=flip)
    made = make_pseudo_labels(run, tmp_path / "out", network, images, (16, 12), space, config)
    assert made.kept == 1
    maps = []
    with torch.no_grad():
        for size in sizes:
            unit = WholeImages([Sample("0", file, None)], size)[0]["image"][None] / 255
            maps.append(network.scores(unit).softmax(1)[0])
            if flip:
                maps.append(network.scores(unit.flip(-1)).softmax(1)[0].flip(-1))
    expected = sum(corner_aligned(one.double().numpy(), 12, 16) for one in maps) / len(maps)
    with Image.open(pseudo_label_path(tmp_path / "out", "0")) as image:
        found = np.asarray(image)
    ordered = np.sort(expected, 0)
    clear = ordered[-1] - ordered[-2] > 1e-5  # elsewhere rounding decides
    assert (found == expected.argmax(0))[clear].all() and clear.mean() > 0.95
