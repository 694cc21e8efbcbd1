"""From files to batches: cuts that image and label share, and an order that nothing disturbs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bdl.domains.cache import ImageCache
from bdl.domains.datasets import Sample
from bdl.domains.images import open_image
from bdl.domains.loading import (
    Crop,
    StepBatches,
    TrainingSamples,
    View,
    WholeImages,
    draw_crop,
    share,
    training_batches,
    whole_images,
)
from bdl.runtime.errors import UserError


def drawn(view: View, stored: tuple[int, int], count: int = 200) -> list[Crop]:
    random = np.random.default_rng(0)
    return [draw_crop(view, stored, random) for _ in range(count)]


# Views and cuts


@pytest.mark.parametrize(
    ("view", "size"),
    [
        (View(), (1914, 1052)),
        (View(size=(1280, 720)), (1280, 720)),
        (View(width=1024), (1024, 563)),  # 1052 x 1024 / 1914 = 562.8
    ],
)
def test_full_size(view, size):
    assert view.full_size((1914, 1052)) == size
    assert {cut.size for cut in drawn(view, (1914, 1052), 3)} == {size}
    assert {cut.box for cut in drawn(view, (1914, 1052), 3)} == {(0, 0, 1, 1)}


def test_crops_lie_anywhere_inside():
    cuts = drawn(View(crop=(30, 20)), (40, 24))
    lefts = {round(cut.box[0] * 40, 6) for cut in cuts}
    tops = {round(cut.box[1] * 24, 6) for cut in cuts}
    assert lefts == set(range(11)) and tops == set(range(5))
    for cut in cuts:
        assert cut.size == (30, 20) and not cut.mirrored
        assert (cut.box[2] - cut.box[0]) * 40 == pytest.approx(30)
        assert (cut.box[3] - cut.box[1]) * 24 == pytest.approx(20)


def test_about_every_second_is_mirrored():
    mirrored = sum(cut.mirrored for cut in drawn(View(flip=True), (40, 24), 1000))
    assert mirrored == pytest.approx(500, abs=80)  # five standard deviations


@settings(deadline=None)
@given(
    stored=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    low=st.floats(1, 1.5),
    more=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_zoomed_crops_stay_inside_and_show_what_the_zoom_says(stored, low, more, seed):
    view = View(crop=(16, 12), scale=(low, low + more))
    cut = draw_crop(view, stored, np.random.default_rng(seed))
    left, top, right, bottom = cut.box
    assert 0 <= left < right <= 1 + 1e-9 and 0 <= top < bottom <= 1 + 1e-9
    # 16 pixels of the zoomed image; its width is rounded.
    zoomed = 16 / (right - left)
    assert low * stored[0] - 0.51 <= zoomed <= (low + more) * stored[0] + 0.51


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="crop 64x20 is larger than the image, 48x32"):
        draw_crop(View(crop=(64, 20)), (48, 32), np.random.default_rng(0))


# Samples


def coordinates(width: int, height: int) -> np.ndarray:
    """An image whose red and green tell the column and the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], 2).astype(np.uint8)


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """Five images that tell each pixel's place and, in blue, their number; labels likewise."""
    found = []
    for number in range(5):
        pixels = coordinates(40, 24)
        pixels[..., 2] = number
        image, label = tmp_path / f"{number}.png", tmp_path / f"{number}-label.png"
        Image.fromarray(pixels).save(image)
        # The label of a pixel is its column, but row 0 tells the number.
        ids = pixels[..., 0].copy()
        Image.fromarray(ids).save(label)
        found.append(Sample(str(number), image, label))
    return found


def numbers(items: list[dict]) -> list[int]:
    return [int(item["image"][2, 0, 0]) for item in items]


def test_image_and_label_are_cut_and_mirrored_alike(samples):
    data = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "test")
    directions = set()
    for number in range(20):
        item = data[number]
        assert item["image"].shape == (3, 12, 20) and item["image"].dtype == torch.uint8
        assert item["label"].shape == (12, 20) and item["label"].dtype == torch.int64
        assert torch.equal(item["image"][0].long(), item["label"])
        directions.add(int(item["label"][0].diff()[0]))
        rows = item["image"][1, :, 0].long()
        assert rows.diff().unique().tolist() == [1]  # never upside down
    assert directions == {1, -1}


def test_zoomed_image_and_label_agree(samples):
    """Bicubic for the image, nearest for the label: half a source pixel apart at most."""
    data = TrainingSamples(samples, View(crop=(20, 12), scale=(1.5, 2.5)), 0, "test")
    for number in range(10):
        item = data[number]
        inner = (slice(2, -2), slice(2, -2))
        apart = item["image"][0].float() - item["label"].float()
        assert apart[inner].abs().max() <= 1.01
        assert apart[inner].mean().abs() < 0.3


def test_labels_are_mapped_and_never_interpolated(samples):
    table = np.full(65_536, 255, np.uint8)
    table[:20], table[20:40] = 3, 9
    view = View(size=(37, 22), crop=(20, 12), scale=(0.9, 2.0))
    data = TrainingSamples(samples, view, 0, "test", table)
    found = {int(label) for number in range(20) for label in data[number]["label"].unique()}
    assert found == {3, 9}


def test_labels_of_half_the_resolution_show_the_same_frame(samples, tmp_path):
    for sample in samples:
        with Image.open(sample.label) as label:
            small = label.resize((20, 12), Image.Resampling.NEAREST)
        small.save(sample.label)
    data = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "test")
    for number in range(10):
        item = data[number]
        assert (item["image"][0].float() - item["label"].float()).abs().max() <= 2


def test_every_image_comes_once_an_epoch_in_a_new_order(samples):
    data = TrainingSamples(samples, View(), 0, "test")
    epochs = [numbers([data[5 * epoch + place] for place in range(5)]) for epoch in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_draws_depend_on_number_seed_and_purpose_alone(samples):
    view = View(crop=(20, 12), flip=True)
    first = TrainingSamples(samples, view, 0, "test")
    items = [first[number] for number in range(10)]
    again = TrainingSamples(samples, view, 0, "test")
    for number in reversed(range(10)):
        assert torch.equal(again[number]["image"], items[number]["image"])
    for other in (
        TrainingSamples(samples, view, 1, "test"),
        TrainingSamples(samples, view, 0, "x"),
    ):
        same = [torch.equal(other[n]["image"], items[n]["image"]) for n in range(10)]
        assert sum(same) < 5


def batches_of(data: TrainingSamples, *arguments, **options) -> Iterator[dict]:
    """The batches of a single role."""
    return (batch["a"] for batch in training_batches({"a": data}, *arguments, **options))


# Batches


@given(
    start=st.integers(0, 20),
    steps=st.integers(0, 12),
    each=st.integers(1, 4),
    world_size=st.integers(1, 5),
)
def test_all_processes_together_see_each_number_once(start, steps, each, world_size):
    batch_size = each * world_size
    seen = []
    for rank in range(world_size):
        batches = list(StepBatches(start, start + steps, batch_size, rank, world_size))
        assert len(batches) == steps and all(len(batch) == each for batch in batches)
        seen.append(batches)
    for step in range(steps):
        together = sorted(number for batches in seen for number in batches[step])
        first = (start + step) * batch_size
        assert together == list(range(first, first + batch_size))


@given(count=st.integers(0, 50), world_size=st.integers(1, 7))
def test_shares_are_each_index_once(count, world_size):
    shares = [share(count, rank, world_size) for rank in range(world_size)]
    assert sorted(index for part in shares for index in part) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batches_do_not_depend_on_workers_or_on_where_they_start(samples):
    data = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "test")
    whole = list(batches_of(data, 0, 6, 2, workers=0))
    assert [batch["image"].shape for batch in whole] == [(2, 3, 12, 20)] * 6
    by_workers = list(batches_of(data, 0, 6, 2, workers=2))
    resumed = list(batches_of(data, 4, 6, 2, workers=0))
    for found, expected in zip([*by_workers, *resumed], [*whole, *whole[4:]], strict=True):
        assert found.keys() == expected.keys() == {"image", "label"}
        assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_random_state_is_left_alone(samples, workers):
    """What draws from it in a training, as dropout does, must go on as it would have."""
    data = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "test")
    before = torch.get_rng_state()
    assert len(list(batches_of(data, 2, 6, 2, workers))) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_share_a_batch(samples):
    data = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "test")
    whole = list(batches_of(data, 1, 4, 4, workers=0))
    for rank in (0, 1):
        shares = batches_of(data, 1, 4, 4, workers=0, rank=rank, world_size=2)
        for found, batch in zip(shares, whole, strict=True):
            assert torch.equal(found["image"], batch["image"][rank::2])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unusable_sample_is_an_error_of_one_line(samples, workers):
    samples[3].image.write_bytes(b"no image")
    data = TrainingSamples(samples, View(), 0, "test")
    with pytest.raises(UserError, match=r"3\.png: is not a readable image") as caught:
        list(batches_of(data, 0, 5, 1, workers))
    assert len(str(caught.value).splitlines()) == 1


def test_images_of_different_sizes_in_one_batch_are_named(samples):
    Image.new("RGB", (50, 30)).save(samples[2].image)
    samples = [Sample(sample.name, sample.image, None) for sample in samples]
    data = TrainingSamples(samples, View(), 0, "test")
    with pytest.raises(UserError, match=r"different sizes .*\(24, 40\), \(30, 50\)"):
        list(batches_of(data, 0, 1, 5, 0))


def test_a_crop_that_does_not_fit_names_the_image(samples):
    data = TrainingSamples(samples, View(crop=(50, 12)), 0, "test")
    with pytest.raises(UserError, match=r"\d.png: crop 50x12 is larger than the image, 40x24"):
        list(batches_of(data, 0, 1, 1, 0))


def test_a_label_of_another_frame_is_refused(samples):
    for sample in samples:
        Image.fromarray(np.zeros((40, 24), np.uint8)).save(sample.label)
    data = TrainingSamples(samples, View(), 0, "test")
    with pytest.raises(UserError, match=r"label.png: is 24x40, .* must show the same frame"):
        list(batches_of(data, 0, 1, 1, 0))


def test_roles_that_share_a_loader_see_what_each_sees_alone(samples):
    """The same batches as one role after the other, though sizes and lengths differ."""
    first = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "first")
    second = TrainingSamples(samples[:3], View(crop=(8, 6)), 0, "second")
    roles = {"first": first, "none": None, "second": second}
    alone = [list(batches_of(data, 1, 5, 2, workers=0)) for data in (first, second)]
    for batch, *expected in zip(training_batches(roles, 1, 5, 2, workers=2), *alone, strict=True):
        assert list(batch) == ["first", "second"]
        for found, one in zip(batch.values(), expected, strict=True):
            assert all(torch.equal(found[key], one[key]) for key in ("image", "label"))


# Whole images


def test_an_image_at_several_scales_is_decoded_once(samples, tmp_path, monkeypatch):
    """And is at each what it is at that size alone; from a cache it is not decoded at all."""
    scales, opened = (1.0, 0.5, 1.5), []
    monkeypatch.setattr(
        "bdl.domains.loading.open_image",
        lambda file, orientation: opened.append(file) or open_image(file, orientation),
    )
    kept = ImageCache(tmp_path / "cache", 1e9)
    kept.prepare()
    for cache, decoded in ((None, 5), (kept, 5), (kept, 0)):
        opened.clear()
        images = WholeImages(samples, (20, 12), None, cache, scales=scales)
        found = list(whole_images(images, range(5), workers=0))
        assert len(opened) == decoded
        for scale, size in zip(scales, [(20, 12), (10, 6), (30, 18)], strict=True):
            alone = WholeImages(samples, size)
            for number, item in enumerate(found):
                at = [item["image"], *item["others"]][scales.index(scale)]
                assert torch.equal(at[0], alone[number]["image"])


def test_whole_images_come_in_their_order_with_labels_at_their_own_size(samples):
    table = np.arange(65_536).clip(0, 255).astype(np.uint8)
    images = WholeImages(samples, (20, 12), table)
    found = list(whole_images(images, [3, 1], workers=0))
    assert [int(item["index"]) for item in found] == [3, 1]
    assert [int(item["image"][0, 2, 5, 5]) for item in found] == [3, 1]
    assert found[0]["image"].shape == (1, 3, 12, 20)
    assert found[0]["label"].shape == (1, 24, 40)
    assert found[0]["label"][0, 0].tolist() == list(range(40))


def test_whole_images_as_stored_are_not_touched(samples):
    (item,) = whole_images(WholeImages(samples, None), [0], workers=0)
    assert item.keys() == {"index", "image"}
    expected = torch.from_numpy(coordinates(40, 24)).permute(2, 0, 1)
    assert torch.equal(item["image"][0], expected)


def test_a_spawned_worker_gets_the_same_samples(samples):
    """What Windows and macOS do with a data set: it travels pickled."""
    import pickle

    data = TrainingSamples(samples, View(crop=(20, 12), flip=True), 0, "test")
    first = data[7]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[7]["image"], first["image"])
    assert isinstance(copy.samples[0].image, Path)
