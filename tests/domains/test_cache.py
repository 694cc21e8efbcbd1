"""Decoded images on disk: the same pixels to the bit, however the cache was left."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdl.domains import loading
from bdl.domains.cache import ImageCache, make_cache
from bdl.domains.datasets import Sample
from bdl.domains.loading import TrainingSamples, View, WholeImages, training_batches
from bdl.runtime.config import DataConfig
from bdl.runtime.errors import UserError

TABLE = np.arange(65_536).astype(np.uint8) // 3


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """Three noisy images, of sizes that no view divides evenly, and their labels."""
    random = np.random.default_rng(0)
    found = []
    for number in range(3):
        image, label = tmp_path / f"{number}.png", tmp_path / f"{number}-label.png"
        Image.fromarray(random.integers(0, 256, (59, 101, 3), np.uint8)).save(image)
        Image.fromarray(random.integers(0, 60, (59, 101), np.uint8)).save(label)
        found.append(Sample(str(number), image, label))
    return found


@pytest.fixture
def cache(tmp_path) -> ImageCache:
    made = ImageCache(tmp_path / "cache", 1e9)
    made.prepare()
    return made


def entries(cache: ImageCache) -> list[Path]:
    return sorted(cache.folder.rglob("*.pixels"))


def items(samples: list[Sample], view: View, cache: ImageCache | None) -> list[dict]:
    data = TrainingSamples(samples, view, 0, "test", TABLE, cache)
    return [data[number] for number in range(3 * len(samples))]


def require_equal(found: list[dict], expected: list[dict]) -> None:
    for item, other in zip(found, expected, strict=True):
        assert item.keys() == other.keys()
        for key in item:
            assert item[key].dtype == other[key].dtype and torch.equal(item[key], other[key])


VIEWS = {
    "as stored": View(),
    "resized": View(size=(64, 40), flip=True),
    "cut": View(size=(64, 40), crop=(33, 32), flip=True),
    "cut of a width": View(width=77, crop=(40, 30)),
    "zoomed": View(size=(64, 40), crop=(33, 32), scale=(0.9, 1.7), flip=True),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_cache_changes_no_pixel(samples, cache, view, monkeypatch):
    expected = items(samples, view, None)
    require_equal(items(samples, view, cache), expected)
    assert len(entries(cache)) == 2 * len(samples)

    def unused(file):
        raise AssertionError(f"{file} was decoded again")

    monkeypatch.setattr(loading, "open_image", unused)
    monkeypatch.setattr(loading, "open_label", unused)
    require_equal(items(samples, view, cache), expected)


def test_a_cut_without_zoom_is_a_part_of_the_resized_image(samples):
    (item,) = items(samples[:1], View(size=(64, 40), crop=(33, 32)), None)[:1]
    whole = Image.open(samples[0].image).resize((64, 40), Image.Resampling.BICUBIC)
    whole = torch.from_numpy(np.array(whole)).permute(2, 0, 1)
    labels = Image.open(samples[0].label).resize((64, 40), Image.Resampling.NEAREST)
    labels = torch.from_numpy(np.array(labels).astype(np.int64) // 3)
    places = [
        (top, left)
        for top in range(40 - 32 + 1)
        for left in range(64 - 33 + 1)
        if torch.equal(whole[:, top : top + 32, left : left + 33], item["image"])
    ]
    assert len(places) == 1
    top, left = places[0]
    assert torch.equal(labels[top : top + 32, left : left + 33], item["label"])


def test_whole_images_share_entries_with_trainings_of_the_same_size(samples, cache):
    unlabelled = [Sample(sample.name, sample.image, None) for sample in samples]
    items(unlabelled, View(size=(64, 40)), cache)
    made = entries(cache)
    whole = WholeImages(samples, (64, 40), TABLE, cache)
    plain = WholeImages(samples, (64, 40), TABLE)
    require_equal([whole[index] for index in range(3)], [plain[index] for index in range(3)])
    assert whole[0]["label"].shape == (59, 101)
    assert len(made) == 3 and len(entries(cache)) == 6  # the labels, at their own size


def test_a_changed_file_takes_the_place_of_its_entry(samples, cache):
    view = VIEWS["resized"]
    items(samples, view, cache)
    before = entries(cache)
    other = Image.open(samples[0].image).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    other.save(samples[0].image)
    os.utime(samples[1].image)  # unchanged, but the cache cannot know
    require_equal(items(samples, view, cache), items(samples, view, None))
    assert entries(cache) == before


def test_a_file_changed_under_its_old_size_and_time_is_a_changed_file(samples, cache):
    """As `cp -p`, rsync and many correcting tools leave it."""
    file = samples[0].image.with_suffix(".bmp")
    sample = [Sample("a", file, None)]
    for turned in (False, True):
        picture = Image.open(samples[0].image)
        (picture.transpose(Image.Transpose.ROTATE_180) if turned else picture).save(file)
        os.utime(file, ns=(0, 0))
        view = VIEWS["resized"]
        require_equal(items(sample, view, cache), items(sample, view, None))
    assert len(entries(cache)) == 1


def test_another_table_gives_other_labels(samples, cache):
    items(samples, VIEWS["resized"], cache)
    zeros = TrainingSamples(samples, VIEWS["resized"], 0, "test", TABLE * 0, cache)
    assert zeros[0]["label"].unique().tolist() == [0]


def cut_off(content: bytes) -> bytes:
    return content[:-1]


def zeroed_end(content: bytes) -> bytes:  # what a power cut may leave
    return content[:-512] + bytes(512)


def one_bit(content: bytes) -> bytes:
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


def other_shape(content: bytes) -> bytes:
    return content.replace(b"[40, 64", b"[40, 65")


def nothing(content: bytes) -> bytes:
    return b""


def no_header(content: bytes) -> bytes:
    return content[5:]


def a_list(content: bytes) -> bytes:
    return b"[1]\n"


@pytest.mark.parametrize(
    "damage", [cut_off, zeroed_end, one_bit, other_shape, nothing, no_header, a_list]
)
def test_a_damaged_entry_is_made_anew(samples, cache, damage):
    view = VIEWS["resized"]
    expected = items(samples, view, cache)
    whole = [entry.read_bytes() for entry in entries(cache)]
    for entry in entries(cache):
        entry.write_bytes(damage(entry.read_bytes()))
    cache.prepare()
    require_equal(items(samples, view, cache), expected)
    assert [entry.read_bytes() for entry in entries(cache)] == whole


def used(cache: ImageCache) -> int:
    return int((cache.folder / "bdl-cache.bytes").read_text())


def test_a_full_cache_adds_no_more(samples, tmp_path):
    view = View(size=(64, 40))
    limit = 2 * (64 * 40 * 3 + 200)  # two images, not three
    cache = ImageCache(tmp_path / "cache", limit)
    cache.prepare()
    unlabelled = [Sample(sample.name, sample.image, None) for sample in samples]
    require_equal(items(unlabelled, view, cache), items(unlabelled, view, None))
    held = sum(entry.stat().st_size for entry in entries(cache))
    assert len(entries(cache)) == 2 and used(cache) == held <= limit


def test_workers_that_write_the_same_entries_agree(samples, cache):
    data = TrainingSamples(samples, VIEWS["cut"], 0, "test", TABLE, cache)
    plain = TrainingSamples(samples, VIEWS["cut"], 0, "test", TABLE)
    by_two, by_none = (
        [batch["a"] for batch in training_batches({"a": one}, 0, 12, 2, workers)]
        for one, workers in ((data, 2), (plain, 0))
    )
    require_equal(by_two, by_none)
    assert len(entries(cache)) == 6
    assert used(cache) == sum(entry.stat().st_size for entry in entries(cache))
    assert not list(cache.folder.rglob("*.bdl-partial"))


def test_what_a_kill_left_is_removed_and_counted_anew(samples, cache):
    items(samples, VIEWS["cut"], cache)
    counted = used(cache)
    entries(cache)[0].with_suffix(".pixels.bdl-partial").write_bytes(b"half")
    (cache.folder / "bdl-cache.bytes").write_text("")
    cache.prepare()
    assert used(cache) == counted and not list(cache.folder.rglob("*.bdl-partial"))


def test_only_what_a_cache_wrote_is_removed(samples, cache, tmp_path):
    """Whatever else lies in the folder, and whatever it is called."""
    items(samples, VIEWS["cut"], cache)
    part = entries(cache)[0].parent
    theirs = [
        cache.folder / "old.partial/thesis.doc",
        cache.folder / "movie.mp4.partial",
        cache.folder / "movie.bdl-partial",
        cache.folder / "ab/notes.txt",
        cache.folder / "ab/notes.bdl-partial",
        cache.folder / "lock",
        cache.folder / "bytes",
        part / "mine.pixels.bdl-partial",
        part / "mine.pixels",
    ]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    counted = used(cache)
    ImageCache(cache.folder, 1e9).prepare()
    assert all(file.read_text() == "mine" for file in theirs) and used(cache) == counted


def test_a_cache_that_cannot_be_written_costs_time_alone(samples, cache, monkeypatch):
    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bdl.domains.cache.atomic", no_room)
    require_equal(items(samples, VIEWS["cut"], cache), items(samples, VIEWS["cut"], None))
    assert not entries(cache)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    cache = make_cache(DataConfig(cache=str(tmp_path / "file" / "cache")))
    assert cache is not None
    with pytest.raises(UserError, match=r"data\.cache: .*file is not a folder"):
        cache.prepare()


def test_errors_of_files_stay_errors(samples, cache):
    samples[1].image.write_bytes(b"no image")
    samples[2].image.unlink()
    data = TrainingSamples(samples, View(), 0, "test", TABLE, cache)
    said = []
    for number in range(3):
        try:
            data[number]
        except UserError as error:
            said.append(str(error))
    unreadable, missing = sorted(said)
    assert "1.png: is not a readable image" in unreadable and "2.png: no such file" in missing
