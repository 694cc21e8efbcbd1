"""What is known of files: by content, in a file of ours, and never wrong because it is kept."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdl.domains import index as module
from bdl.domains.datasets import Sample
from bdl.domains.index import INDEX, Index, index_in
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import mark
from tests.helpers import layouts


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of ours for the index; files count as old the moment they are written."""
    monkeypatch.setattr(module, "_FRESH", -10.0)
    mark(tmp_path / "run", "test")
    return tmp_path / "run"


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    root = layouts.gta5(tmp_path / "data")
    return [
        Sample(f"{n:05d}", root / f"images/{n:05d}.png", root / f"labels/{n:05d}.png")
        for n in (1, 2, 3)
    ]


def labels_of(samples: list[Sample]) -> list[Path]:
    return [sample.label for sample in samples if sample.label is not None]


def images_of(samples: list[Sample]) -> list[Path]:
    return [sample.image for sample in samples]


def forbid_looking(monkeypatch) -> None:
    def look(*_):
        raise AssertionError("a file was looked at again")

    monkeypatch.setattr(module, "_outcome", look)


def test_a_second_look_reads_no_file(folder, samples, monkeypatch):
    index = index_in(folder)
    first = (
        index.headers(images_of(samples)),
        index.headers(labels_of(samples)),
        index.ids(labels_of(samples)),
        index.digest_of_images(samples),
        index.digest_of_labels(samples),
        index.decoded(images_of(samples)),
    )
    assert first[0][0].header is not None and first[0][0].header.stored == (16, 8)
    held, counts = np.unique(np.asarray(Image.open(samples[0].label)), return_counts=True)
    assert first[2][0].counts == dict(zip(held.tolist(), counts.tolist(), strict=True))
    forbid_looking(monkeypatch)
    again = index_in(folder)
    assert first == (
        again.headers(images_of(samples)),
        again.headers(labels_of(samples)),
        again.ids(labels_of(samples)),
        again.digest_of_images(samples),
        again.digest_of_labels(samples),
        again.decoded(images_of(samples)),
    )


def test_contents_decide_and_not_times_or_sizes(folder, samples):
    before = index_in(folder)
    images, labels = before.digest_of_images(samples), before.digest_of_labels(samples)
    os.utime(samples[0].image, (1, 1))  # touched
    state = samples[1].label.stat()
    content = bytearray(samples[1].label.read_bytes())
    content[-20] ^= 1  # corrected: as long as before, and with the time that it had
    samples[1].label.write_bytes(content)
    os.utime(samples[1].label, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = index_in(folder)
    assert after.digest_of_images(samples) == images
    assert after.digest_of_labels(samples) != labels
    renamed = [Sample("x", samples[0].image, samples[0].label), *samples[1:]]
    assert after.digest_of_images(renamed) != images
    assert after.digest_of_images(samples[::-1]) != images


def test_a_file_that_was_just_written_is_not_trusted(folder, samples, monkeypatch):
    """It may be written again within the grain of its file system's times."""
    monkeypatch.setattr(module, "_FRESH", 1e6)
    index = index_in(folder)
    first = index.hashes(images_of(samples))
    assert index.hashes(images_of(samples)) == first and not (folder / INDEX).exists()
    layouts.image(samples[0].image, value=17)
    assert index_in(folder).hashes(images_of(samples))[0] != first[0]


def test_flaws_are_kept_and_named_as_they_are_given(folder, samples, monkeypatch):
    samples[1].image.write_bytes(b"no image")
    samples[2].image.unlink()
    found = index_in(folder).headers(images_of(samples))
    assert not found[0].error
    assert found[1].error.startswith(f"{samples[1].image}: is not a readable image")
    assert found[2].error == f"{samples[2].image}: no such file"
    monkeypatch.chdir(samples[1].image.parent)
    (relative,) = index_in(folder).headers([Path("00002.png")])
    assert relative.error.startswith("00002.png: is not a readable image")
    with pytest.raises(UserError, match=r"00003\.png: no such file"):
        index_in(folder).digest_of_images(samples)
    layouts.image(samples[1].image)
    assert not index_in(folder).headers([samples[1].image])[0].error


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 0, "files": {}}', b'{"files": [1]}', b"\xff\xfe", b"[" * 9999],
)
def test_a_damaged_index_is_none(folder, samples, content):
    expected = index_in(folder).hashes(images_of(samples))
    (folder / INDEX).write_bytes(content)
    assert index_in(folder).hashes(images_of(samples)) == expected
    assert json.loads((folder / INDEX).read_text())["files"]


def test_processes_that_share_it_keep_what_the_others_added(folder, samples, monkeypatch):
    one, other = index_in(folder), index_in(folder)
    one.hashes([samples[0].image])
    other.hashes([samples[1].image])
    other.headers([samples[0].image])
    forbid_looking(monkeypatch)
    index_in(folder).hashes([samples[0].image, samples[1].image])
    index_in(folder).headers([samples[0].image])


def test_nothing_is_written_in_a_folder_that_is_not_ours(tmp_path, samples, monkeypatch):
    monkeypatch.setattr(module, "_FRESH", -10.0)
    index = index_in(tmp_path / "run")
    index.hashes(images_of(samples))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    index.save()
    assert not list((tmp_path / "run").iterdir())
    mark(tmp_path / "run", "test")  # now it is
    index.save()
    assert (tmp_path / "run" / INDEX).is_file()


def test_only_what_is_asked_for_is_looked_up(folder, samples, monkeypatch):
    monkeypatch.setattr(module, "_hash", None)
    monkeypatch.setattr(module, "open_image", None)
    monkeypatch.setattr(module, "open_label", None)
    assert not index_in(folder).headers(images_of(samples))[0].error


def test_a_known_file_is_asked_for_its_size_once_and_not_opened(folder, samples, monkeypatch):
    """What a plan of 20,000 images costs, whose files are known."""
    files = images_of(samples)
    index_in(folder).hashes(files)
    asked = []
    stat = os.stat
    monkeypatch.setattr(module, "_hash", None)
    monkeypatch.setattr(
        module.os, "stat", lambda path, **options: asked.append(str(path)) or stat(path, **options)
    )
    index = Index(folder / INDEX)
    assert index.hashes(files) == index.hashes(files)
    ours = [path for path in asked if path in {str(file) for file in files}]
    assert sorted(ours) == sorted(map(str, files))
