"""Which files a pattern means: all that it says, nothing that is no photo, and a word of both."""

import os
import re
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bdl.domains import matching
from bdl.domains.endings import IMAGE_ENDINGS, LABEL_ENDINGS, is_image, without_ending
from bdl.domains.images import open_image
from bdl.domains.matching import Names, fill, find, normal, parts_of, require_image_pattern
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import mark


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def found(root: Path, pattern: str) -> list[str]:
    return [match.path for match in find(root, parts_of(pattern, "images")).matches]


NAMES = st.text(alphabet="ab1[é.", min_size=1, max_size=3).filter(
    lambda name: not name.startswith(".") and not name.endswith(".")
)
PATHS = st.lists(
    st.tuples(st.lists(NAMES, max_size=3), NAMES, st.sampled_from([".png", ".PNG", ".jpg"])),
    max_size=8,
)
PART = st.one_of(
    st.just("*"), NAMES, st.builds(lambda a, b: f"{a}*{b}", NAMES, NAMES), st.just("**")
)
LAST = st.sampled_from(["*", "*.png", "a*", "*1.jpg", "a*b.png", "*.Png"])


def expression(pattern: str) -> re.Pattern[str]:
    """The pattern by its definition, as one regular expression of whole paths."""
    *parts, last = pattern.split("/")
    text = ""
    for part in parts:
        whole = re.escape(part).replace(r"\*", "[^/]*")
        text += "(?:[^/]+/)*" if part == "**" else f"{whole}/"
    stem, ending = os.path.splitext(last)
    stem = re.escape(stem).replace(r"\*", "[^/]*")
    return re.compile(f"{text}{stem}(?i:{re.escape(ending)})")


@settings(max_examples=150, deadline=None)
@given(PATHS, st.lists(PART, max_size=3), LAST)
def test_what_matches_is_what_the_definition_says(paths, parts, last):
    with tempfile.TemporaryDirectory() as folder:
        root, made = Path(folder), set()
        for folders, stem, ending in paths:
            path = "/".join([*folders, stem + ending])
            try:
                touch(root, path)
            except OSError:  # a file is where a folder should be
                continue
            made.add(path)
        pattern = "/".join([*parts, last])
        expected = {path for path in made if expression(pattern).fullmatch(normal(path))}
        matches = find(root, parts_of(pattern, "images")).matches
        assert {match.path for match in matches} == expected
        assert [match.path for match in matches] == sorted(expected)
        for match in matches:  # what the wildcards took, put back, is the file again
            back = fill(parts_of(pattern, "images"), match.filled)
            assert without_ending(back) == without_ending(normal(match.path))


def test_two_stars_are_any_depth_also_none(tmp_path):
    touch(tmp_path, "images/a.png", "images/x/b.png", "images/x/y/c.png", "d.png")
    below = ["images/a.png", "images/x/b.png", "images/x/y/c.png"]
    assert found(tmp_path, "images/**/*.png") == found(tmp_path, "images/**") == below
    assert found(tmp_path, "**/*.png") == ["d.png", *below]
    assert found(tmp_path, "**/y/*.png") == ["images/x/y/c.png"]
    with pytest.raises(UserError, match=r"\*\* must stand alone .* write \*\*/\*\.png"):
        parts_of("images/**.png", "images")


def test_endings_are_compared_without_case_and_other_case_is_said(tmp_path):
    touch(tmp_path, "IMG_1.JPG", "IMG_2.jpg", "img_3.jpg")
    result = find(tmp_path, parts_of("IMG_*.jpg", "images"))
    assert [match.path for match in result.matches] == ["IMG_1.JPG", "IMG_2.jpg"]
    assert result.passed.lines() == [
        "files and folders that match only if case is ignored (1): img_3.jpg"
    ]
    touch(tmp_path, "Images/a.png")
    result = find(tmp_path, parts_of("images/*", "images"))
    assert not result.matches and result.passed.other_case == {"Images"}


def test_other_endings_are_counted(tmp_path):
    touch(tmp_path, "a.png", "b.heic", "c.HEIC", "notes.txt", "d")
    lines = find(tmp_path, parts_of("*", "images")).passed.lines()
    assert lines == ["files whose ending is no image's (4): none (1), .heic (2), .txt (1)"]
    with pytest.raises(UserError, match=r"images: .* end with \.heic, which are not read"):
        require_image_pattern("images/*.heic", "images")
    for ending in IMAGE_ENDINGS:
        require_image_pattern(f"images/*{ending.upper()}", "images")
    for pattern in ("images/*", "a.b/*", "x/v1.*"):
        require_image_pattern(pattern, "images")


def test_one_list_of_endings_is_that_of_the_reader(tmp_path):
    """What is found can be read, and each format that can be read is found."""
    Image.init()
    read, named = set(), set()
    for ending, kind in Image.registered_extensions().items():
        if kind not in Image.SAVE or kind not in Image.OPEN:
            continue
        file = tmp_path / f"image{ending}"
        try:
            Image.new("1" if ending == ".pbm" else "L", (32, 32)).save(file, format=kind)
        except (OSError, ValueError, KeyError):
            continue  # not of this build, or kind of pixels
        try:
            open_image(file)
        except UserError:
            assert not is_image(file.name), file.name
        else:
            read.add(kind)
            named |= {kind} if is_image(file.name) else set()
    assert read == named >= {"PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "GIF"}
    assert set(LABEL_ENDINGS) < set(IMAGE_ENDINGS)


def test_hidden_files_and_our_own_are_passed_over_unless_named(tmp_path):
    touch(
        tmp_path,
        "a.png",
        "._a.png",
        ".ipynb_checkpoints/a.png",
        "__MACOSX/a.png",
        "run/k1/translated/images/b.png",
        "run/k1/translated/manifest.json",
        "run/k1/translated/metrics.json",
        "run/evaluation.unfinished-1/c.png",
        "run/evaluation.unfinished-1/begun.json",
        "out/labels/a.png",
        "out/photo.png",
    )
    touch(tmp_path, "run/run.lock")
    (tmp_path / "out/predictions.jsonl").write_text(
        '{"photo": "a", "files": {"labels/a.png": null}}'
    )
    result = find(tmp_path, parts_of("**/*", "images"))
    assert [match.path for match in result.matches] == ["a.png", "out/photo.png"]
    assert result.passed.hidden == {"._a.png", ".ipynb_checkpoints", "__MACOSX"}
    assert result.passed.ours == {
        "run/k1/translated",
        "run/evaluation.unfinished-1",
        "out/labels/a.png",
    }
    assert found(tmp_path / "run", "k1/translated/images/*") == ["k1/translated/images/b.png"]
    assert found(tmp_path, ".ipynb_checkpoints/*") == [".ipynb_checkpoints/a.png"]


@pytest.mark.parametrize("ours", ["cache", "run"])
def test_photos_in_a_folder_that_we_keep_things_in_stay_photos(tmp_path, ours):
    """A user may set the cache, or a run's folder, to one that holds their photos."""
    touch(tmp_path, "photos/a.png", "photos/b/c.png", "photos/run.lock")
    mark(tmp_path / "photos", ours)
    assert found(tmp_path, "**/*") == ["photos/a.png", "photos/b/c.png"]
    assert found(tmp_path, "*/*") == ["photos/a.png"]


def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path, "data/day/a.png", "elsewhere/night/b.png")
    (tmp_path / "data/night").symlink_to(tmp_path / "elsewhere/night")
    (tmp_path / "data/day/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/day/self.png").symlink_to(tmp_path / "data/day/self.png")
    (tmp_path / "data/day/gone.png").symlink_to(tmp_path / "nowhere.png")
    result = find(tmp_path / "data", parts_of("**/*.png", "images"))
    assert [match.path for match in result.matches] == ["day/a.png", "night/b.png"]
    assert result.passed.loops == {"day/up"}
    assert result.broken == ["day/gone.png", "day/self.png"]
    assert found(tmp_path / "data", "*/*.png") == ["day/a.png", "night/b.png"]


@pytest.mark.parametrize("pattern", ["**/*.png", "*/*.png", "private/*.png", "private/x/*.png"])
def test_a_folder_that_cannot_be_listed_is_an_error_that_names_it(tmp_path, monkeypatch, pattern):
    touch(tmp_path, "open/a.png", "private/b.png", "private/x/c.png")
    scandir = os.scandir

    def refuse(place):
        if str(place).rstrip("/").endswith(("private", "private/x")):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(matching.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"private(/x)?: this folder cannot be listed"):
        found(tmp_path, pattern)
    assert found(tmp_path, "open/*.png") == ["open/a.png"]


@pytest.mark.parametrize("folder", ["frames [2024]", "a?b", "{x}", "a+b(c)", "$x^", "!a"])
def test_only_stars_are_special(tmp_path, folder):
    touch(tmp_path, f"{folder}/a.png", f"other/{folder}.png")
    assert found(tmp_path, f"{folder}/*.png") == found(tmp_path, f"{folder}/a.png")
    assert found(tmp_path, f"{folder}/*.png") == [f"{folder}/a.png"]
    assert found(tmp_path, f"*/{folder}.png") == [f"other/{folder}.png"]


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_names_are_found_in_either_normal_form(tmp_path, stored, asked):
    path = unicodedata.normalize(stored, "straßé/bild é.png")
    touch(tmp_path, path)
    assert found(tmp_path, unicodedata.normalize(asked, "straßé/*é.png")) == [path]
    names = Names(tmp_path)
    assert names.find(unicodedata.normalize(asked, "straßé/bild é.png")) == path
    assert names.find("straßé/anderes.png") is None and names.find("x/y.png") is None


def test_labels_are_found_whatever_the_case_of_their_ending(tmp_path):
    touch(tmp_path, "labels/a.PNG", "labels/b.png", "labels/B.PNG")
    names = Names(tmp_path)
    assert names.find("labels/a.png") == "labels/a.PNG"
    assert names.find("labels/b.png") == "labels/b.png"
    assert names.find("labels/A.png") is None
    assert names.beside("labels/z.png") == ["B.PNG", "a.PNG", "b.png"]
