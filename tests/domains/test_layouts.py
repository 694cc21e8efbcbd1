"""Known data sets, found and read in their true layouts: paths, pairs, class ids."""

import itertools
import logging
import os
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdl.domains.datasets import find_samples, images_of, layout_of, spread
from bdl.domains.images import open_image, open_label
from bdl.domains.label_space import load_label_space
from bdl.runtime.config import DomainConfig
from bdl.runtime.errors import UserError
from tests.helpers import layouts


def found(**settings) -> list:
    return find_samples(DomainConfig(**settings), "data.source", labelled=True)


def train_ids(sample, **settings) -> set[int]:
    encoding = layout_of(DomainConfig(**settings), "data.source").encoding
    table = load_label_space("cityscapes19").table(encoding)
    return set(np.unique(table[np.asarray(open_label(sample.label))]).tolist())


@pytest.mark.parametrize(
    ("layout", "make", "first", "classes"),
    [
        ("gta5", layouts.gta5, "00001", {0, 1, 18, 255}),
        ("synthia", layouts.synthia, "0000000", {0, 1, 18, 255}),
        ("synthia_mapped", layouts.synthia, "0000000", {0, 1, 18, 255}),
        ("cityscapes", layouts.cityscapes, "aachen/aachen_000000_000019_leftImg8bit", {0, 1, 18}),
    ],
)
def test_samples_and_train_ids_of_each_layout(tmp_path, layout, make, first, classes):
    samples = found(layout=layout, root=str(make(tmp_path)))
    assert len(samples) == 3 and samples[0].name == first
    assert [sample.name for sample in samples] == sorted(sample.name for sample in samples)
    for sample in samples:
        width, height = open_image(sample.image).size
        assert np.asarray(open_label(sample.label)).shape == (height, width)
        assert classes <= train_ids(sample, layout=layout) <= classes | {255}


def test_the_split_chooses_cityscapes_images(tmp_path):
    samples = found(layout="cityscapes", root=str(layouts.cityscapes(tmp_path)), split="val")
    assert [sample.name for sample in samples] == [
        "frankfurt/frankfurt_000000_000294_leftImg8bit",
        "munster/munster_000000_000019_leftImg8bit",
    ]
    assert samples[0].label.name == "frankfurt_000000_000294_gtFine_labelIds.png"


def test_16_bit_labels_keep_ids_above_255(tmp_path):
    file = tmp_path / "label.png"
    layouts.synthia_label(file, layouts.ids(3, 260, 40_000))
    assert set(np.unique(np.asarray(open_label(file)))) == {3, 260, 40_000}


def test_palette_labels_give_indices_and_not_brightness(tmp_path):
    file = tmp_path / "label.png"
    layouts.palette_label(file, layouts.ids(0, 7, 33))
    assert set(np.unique(np.asarray(open_label(file)))) == {0, 7, 33}


def test_any_naming_by_pattern(tmp_path):
    layouts.image(tmp_path / "day/cam1/frame.0001.jpg")
    layouts.image(tmp_path / "day/cam2/frame.0001.JPG")
    for camera in ("cam1", "cam2"):
        layouts.label(tmp_path / f"truth/{camera}/frame.0001_L.png", layouts.ids(0))
    samples = found(root=str(tmp_path), images="day/*/*", labels="truth/*/*_L.png")
    assert [sample.name for sample in samples] == ["cam1/frame.0001", "cam2/frame.0001"]
    assert samples[1].label == tmp_path / "truth/cam2/frame.0001_L.png"


def test_two_images_of_one_name_are_refused(tmp_path):
    layouts.image(tmp_path / "images/a.png")
    layouts.image(tmp_path / "images/a.jpg")
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0))
    with pytest.raises(UserError, match=r"a\.png: has the same name as .*a\.jpg"):
        found(root=str(tmp_path))


def listed(root: Path, text: str, **settings) -> list[str]:
    file = root / "list.txt"
    file.write_bytes(text.encode("utf-8"))
    samples = found(root=str(root), list_file=str(file), **settings)
    return [sample.name for sample in samples]


@pytest.mark.parametrize(
    "lines",
    [
        "RGB/0000002.png\nRGB/0000000.png\n",
        "\ufeff0000002.png\r\n\r\n0000000.png\r\n",
        "0000002\n0000000",
        "RGB\\0000002.png\nRGB\\0000000.png\n",
    ],
)
def test_a_list_chooses_and_orders(tmp_path, lines):
    layouts.synthia(tmp_path)
    assert listed(tmp_path, lines, layout="synthia") == ["0000002", "0000000"]


def test_the_published_lists_of_cityscapes_fit(tmp_path):
    layouts.cityscapes(tmp_path)
    lines = "bochum/bochum_000000_000313_leftImg8bit.png\n"
    names = listed(tmp_path, lines, layout="cityscapes")
    assert names == ["bochum/bochum_000000_000313_leftImg8bit"]


def test_names_with_spaces_and_dots_in_a_list(tmp_path):
    for name in ("street one", "frame.0001"):
        layouts.image(tmp_path / f"images/{name}.png")
        layouts.label(tmp_path / f"labels/{name}.png", layouts.ids(0))
    assert listed(tmp_path, "frame.0001\nstreet one.png\n") == ["frame.0001", "street one"]


def test_a_list_names_files_as_people_and_programs_do(tmp_path):
    layouts.synthia(tmp_path)
    lines = [
        "# every second one",
        "./RGB/0000002.png",
        "",
        f"{tmp_path}/RGB/0000000.png",
        "  .\\RGB\\0000001.png ",
    ]
    assert listed(tmp_path, "\n".join(lines), layout="synthia") == ["0000002", "0000000", "0000001"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_list_is_read_with_its_mark_and_in_any_normal_form(tmp_path, encoding, form):
    layouts.image(tmp_path / "images/straßé.png")
    layouts.label(tmp_path / "labels/straßé.png", layouts.ids(0))
    file = tmp_path / "list.txt"
    file.write_bytes(unicodedata.normalize(form, "straßé.png\r\n").encode(encoding))
    assert [s.name for s in found(root=str(tmp_path), list_file=str(file))] == ["straßé"]


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"])
def test_an_empty_list_says_so(tmp_path, text):
    layouts.gta5(tmp_path)
    with pytest.raises(UserError, match=r"data\.source\.list_file: .*list\.txt names no images"):
        listed(tmp_path, text, layout="gta5")


LINE = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["{}", "./{}", "images/{}", "./images/{}", "images\\{}", "{root}/images/{}"]),
    st.sampled_from(["", ".png"]),
    st.sampled_from(["", " ", "\t"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(LINE, max_size=8, unique_by=lambda line: line[0]), st.sampled_from(["\n", "\r\n"]))
def test_a_list_is_the_order_of_its_lines(lines, newline):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        layouts.gta5(root, count=5)
        written = [
            space + form.format(f"{number + 1:05d}{ending}", root=root) + space
            for number, form, ending, space in lines
        ]
        text = newline.join(["# a comment", *written, ""])
        if not lines:
            with pytest.raises(UserError, match="names no images"):
                listed(root, text, layout="gta5")
        else:
            expected = [f"{number + 1:05d}" for number, *_ in lines]
            assert listed(root, text, layout="gta5") == expected


def test_labels_at_any_depth_lie_as_their_images_do(tmp_path):
    for place in ("", "x/", "x/y/"):
        layouts.image(tmp_path / f"images/{place}a.png")
        layouts.label(tmp_path / f"truth/{place}a_L.png", layouts.ids(0))
    samples = found(root=str(tmp_path), images="images/**/*.png", labels="truth/**/*_L.png")
    assert [sample.name for sample in samples] == ["a", "x/a", "x/y/a"]
    assert samples[2].label == tmp_path / "truth/x/y/a_L.png"


@pytest.mark.parametrize("ending", ["PNG", "tif", "bmp"])
def test_a_label_of_any_ending_is_found_by_a_star(tmp_path, ending):
    layouts.image(tmp_path / "images/a.jpg")
    layouts.label(tmp_path / f"labels/a.{ending}", layouts.ids(0))
    samples = found(root=str(tmp_path), labels="labels/*")
    assert samples[0].label == tmp_path / f"labels/a.{ending}"


def test_images_and_labels_of_different_normal_forms_are_pairs(tmp_path):
    for form, place in (("NFC", "images"), ("NFD", "labels")):
        file = tmp_path / place / unicodedata.normalize(form, "straße é.png")
        layouts.label(file, layouts.ids(0))
    (sample,) = found(root=str(tmp_path))
    assert sample.label is not None and sample.label.is_file()
    assert sample.name == unicodedata.normalize("NFC", "straße é")


def test_two_images_that_differ_in_normal_form_alone_are_refused(tmp_path):
    for form in ("NFC", "NFD"):
        layouts.image(tmp_path / "images" / unicodedata.normalize(form, "é.png"))
    with pytest.raises(UserError, match="has the same name as"):
        find_samples(DomainConfig(root=str(tmp_path)), "data.target", labelled=False)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("images\\*.png", r"\\ is no separator here, write images/\*\.png"),
        ("images/*.heic", r"end with \.heic, which are not read"),
        ("images/*.jpg", "check root and images"),
        ("pictures/*", "check root and images"),
        ("other/*", r"files whose ending is no image's \(2\): \.raw \(2\)"),
        ("Images/*", r"match only if case is ignored \(1\): images"),
        ("", None),
    ],
)
@pytest.mark.skipif(os.sep != "/", reason="\\ is a separator on Windows")
def test_why_nothing_is_found(tmp_path, images, message):
    layouts.gta5(tmp_path)
    for name in "ab":
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / f"other/{name}.raw").touch()
    domain = DomainConfig(root=str(tmp_path), images=images)
    if message is None:  # as if it was not set
        assert len(find_samples(domain, "data.target", labelled=False)) == 3
        return
    with pytest.raises(UserError, match=message) as caught:
        find_samples(domain, "data.target", labelled=False)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_passed_over_is_logged(tmp_path, caplog):
    layouts.gta5(tmp_path)
    (tmp_path / "images/._00001.png").touch()
    (tmp_path / "images/Thumbs.db").touch()
    logging.getLogger("bdl").propagate = True
    with caplog.at_level(logging.INFO, "bdl"):
        assert len(found(root=str(tmp_path), images="images/*")) == 3
    assert (
        "data.source: passed over: hidden files and folders (1): images/._00001.png" in caplog.text
    )
    assert "passed over: files whose ending is no image's (1): .db (1)" in caplog.text


def test_patterns_may_lead_out_of_the_root(tmp_path):
    layouts.gta5(tmp_path)
    inside, label = tmp_path / "images", tmp_path / "labels/00001.png"
    (sample, *_) = found(root=str(inside), images="*.png", labels="../labels/*.png")
    assert sample.label is not None and sample.label.samefile(label)
    (sample, *_) = found(root=str(inside), images="*.png", labels=f"{tmp_path}/labels/*.png")
    assert sample.label == label


def test_an_ambiguous_line_is_refused(tmp_path):
    for camera in ("left", "right"):
        layouts.image(tmp_path / f"images/{camera}/0.png")
        layouts.label(tmp_path / f"labels/{camera}/0.png", layouts.ids(0))
    patterns = {"images": "images/*/*.png", "labels": "labels/*/*.png"}
    with pytest.raises(UserError, match=r"'0' names 2 images.*images/left/0.png.*images/right"):
        listed(tmp_path, "0\n", **patterns)
    assert listed(tmp_path, "right/0\n", **patterns) == ["right/0"]


def test_lines_without_an_image_stop_or_are_left_out(tmp_path):
    layouts.gta5(tmp_path)
    lines = "00009.png\n00002.png\n00010.png\n"
    with pytest.raises(UserError, match=r"'00009.png' names no image .*2 of the 3.*on_error=skip"):
        listed(tmp_path, lines, layout="gta5")
    assert listed(tmp_path, lines, layout="gta5", on_error="skip") == ["00002"]


def test_images_of_the_same_names_in_a_folder(tmp_path, caplog):
    samples = found(layout="gta5", root=str(layouts.gta5(tmp_path / "gta5")))
    translated = tmp_path / "translated"
    for name in ("00001.png", "00002.jpg", "00003.png", "00004.png"):
        layouts.image(translated / name)
    (translated / "00001.txt").write_text("notes")
    logging.getLogger("bdl").propagate = True
    with caplog.at_level(logging.INFO, "bdl"):
        images = images_of(samples, translated, "translation.images")
    assert images == {
        "00001": translated / "00001.png",
        "00002": translated / "00002.jpg",
        "00003": translated / "00003.png",
    }
    assert "files of no source image (1): 00004" in caplog.text


def test_names_that_do_not_match_are_listed(tmp_path):
    samples = found(layout="gta5", root=str(layouts.gta5(tmp_path / "gta5")))
    for name in ("00001", "00002_fake_B", "00003_fake_B"):
        layouts.image(tmp_path / f"translated/{name}.png")
    with pytest.raises(UserError) as caught:
        images_of(samples, tmp_path / "translated", "translation.images")
    message = str(caught.value)
    assert "lacks 2 of 3 source images by name: 00002, 00003" in message
    assert "others (2): 00002_fake_B, 00003_fake_B" in message
    with pytest.raises(UserError, match=r"translation.images: .*nowhere is not a folder"):
        images_of(samples, tmp_path / "nowhere", "translation.images")


def test_spread_indices_by_hand():
    assert spread(1, 4) == [0]
    assert spread(3, 4) == [0, 1, 2]
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(10, 1) == [0]


@given(st.integers(0, 300), st.integers(1, 300))
def test_chosen_indices_are_spread_evenly_over_all(available, count):
    chosen = spread(available, count)
    assert len(chosen) == min(available, count)
    steps = {after - before for before, after in itertools.pairwise(chosen)}
    assert all(step >= 1 for step in steps) and (not steps or max(steps) - min(steps) <= 1)
    assert not steps or (chosen[0], chosen[-1]) == (0, available - 1)
