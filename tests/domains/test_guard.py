"""What labels hold is told before a training; what cannot be meant, check and run refuse alike."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

from bdl import pipeline
from bdl.domains import guard
from bdl.domains.exports import about_mixed_masks, is_smoothed_mask
from bdl.domains.guard import Held, judge
from bdl.domains.index import INDEX
from bdl.domains.label_space import load_label_space
from tests.helpers import layouts

TWO = "classes: [{name: soil, color: [1, 2, 3]}, {name: weed, color: [128, 0, 0]}]\n"
THREE = (
    "classes: [{name: a, color: [0, 0, 0]}, {name: b, color: [128, 0, 0]},"
    " {name: c, color: [0, 128, 0]}]\n"
)
KNOWN = "encodings: {known: {0: soil, 1: weed, 7: null}}\n"
MASK = "encodings: {mask: {0: soil, 255: weed}}\n"


def space_of(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    return load_label_space(str(tmp_path / "space.yaml"))


def judged(tmp_path, text, amounts, encoding="train_id", learned=True, whole=True):
    held = Held(amounts, space_of(tmp_path, text), encoding)
    return judge(held, "data.source", learned, whole)


@pytest.mark.parametrize(
    ("text", "amounts", "encoding", "problem"),
    [
        (TWO, {0: 1, 255: 3}, "train_id", r"0 and 255 alone.*mask: \{0: soil, 255: weed\}"),
        (TWO + MASK, {0: 1, 255: 3}, "train_id", "set data.source.encoding to mask"),
        (TWO + MASK, {0: 1, 255: 3}, "mask", None),
        (TWO, {0: 1, 1: 1, 255: 3}, "train_id", None),
        (TWO, {0: 1}, "train_id", "one class alone, soil"),
        (TWO, {1: 1, 255: 1}, "train_id", "one class alone, weed, and else 255"),
        (THREE, {0: 1, 255: 3}, "train_id", "one class alone, a"),
        (TWO, {200: 1, 201: 3}, "train_id", r"no label file holds an id .*\(they hold 200, 201\)"),
        (TWO, {255: 3}, "train_id", "no label file holds an id of a class"),
        (TWO, {7: 1, 24_001: 3, 26_000: 2}, "train_id", "instance ids"),
        (TWO, {0x010203: 1, 0x800000: 2}, "color", None),
        (TWO, {0: 1, 0xFFFFFF: 2}, "color", r"they hold #000000, #ffffff"),
        # By a wrong encoding, of which 0 is a class by chance: few of them are counted.
        (TWO, {0: 30, 1: 10, 7: 60}, "train_id", "60.0 % of its labelled pixels are ignored.*: 7;"),
        (TWO, {0: 30, 1: 20, 7: 50}, "train_id", None),
        (TWO + KNOWN, {0: 30, 1: 10, 7: 60}, "known", None),
        (TWO, {0: 30, 1: 10, 255: 60}, "train_id", None),
    ],
)
def test_what_cannot_be_meant(tmp_path, text, amounts, encoding, problem):
    told = judged(tmp_path, text, amounts, encoding)
    if problem is None:
        assert told.problems == []
    else:
        (line,) = told.problems
        assert line.startswith("data.source: ") and "\n" not in line
        assert re.search(problem, line), line


def test_what_may_be_meant_is_a_warning(tmp_path):
    def warned(amounts, **options):
        told = judged(tmp_path, THREE + options.pop("more", ""), amounts, **options)
        assert told.problems == []
        return " ".join(told.warnings)

    assert "1.0 % of its labelled pixels" not in warned({0: 50, 1: 49, 2: 1000, 9: 11})
    assert "ids are no class of 'space': 9, 65" in warned({0: 50, 1: 45, 2: 1, 9: 3, 65: 1})
    # Of an id that the encoding leaves out on purpose nothing is said.
    stated = "encodings: {own: {0: a, 1: b, 2: c, 9: null}}\n"
    assert warned({0: 50, 1: 45, 2: 1, 9: 4}, more=stated, encoding="own") == ""
    assert "60.0 % of its pixels are ignored" in warned({0: 20, 1: 19, 2: 1, 255: 60})
    assert "no label file holds a pixel of c" in warned({0: 1, 1: 1})
    assert warned({0: 1, 1: 1}, whole=False) == warned({0: 1, 1: 1}, learned=False) == ""
    assert "one class alone, a, and say little of the others" in warned({0: 1}, learned=False)


def write(root, ids, count=3, size=(16, 8)):
    for number in range(count):
        layouts.image(root / f"images/{number:03d}.png", size)
        values = ids[number] if isinstance(ids, list) else ids
        layouts.label(root / f"labels/{number:03d}.png", layouts.ids(*values, size=size))


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """setup(label space, source ids, validation ids): the options of a tiny run on made data."""
    monkeypatch.chdir(tmp_path)

    def make(text, source_ids, validation_ids=None, count=3, **sections):
        (tmp_path / "space.yaml").write_text(text)
        data = {"label_space": "space.yaml", "workers": 0, "target": None, "validation": None}
        for role, ids in (("source", source_ids), ("validation", validation_ids)):
            if ids is not None:
                write(tmp_path / role, ids, count)
                data[role] = {"layout": "folder", "root": role, **sections.get(role, {})}
        content = {
            "out": "run",
            "iterations": 0,
            "device": "cpu",
            "data": data,
            "segmentation": {
                "network": "compact",
                "options": {"width": 4, "dilations": [1]},
                "steps": 1,
                "batch_size": 1,
            },
        }
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
        return ["--config", "c.yaml"]

    return make


KINDS = {
    "sound": (THREE, (0, 1, 2), (0, 1, 2), {}),
    "0 and 255": (TWO, (0, 255), (0, 255), {}),
    "0 and 255 of validation": (TWO, (0, 1), (0, 255), {}),
    "0 and 255 by an encoding": (TWO + MASK, (0, 255), (0, 1), {"source": {"encoding": "mask"}}),
    "0, 1 and 255": (TWO, (0, 1, 255), None, {}),
    "0, 128 and 255": (
        TWO + "encodings: {m: {0: soil, 128: weed}}",
        (0, 128, 255),
        None,
        {"source": {"encoding": "m"}},
    ),
    "no class": (THREE, (200, 201), None, {}),
    "shifted by one": (THREE, (1, 2, 3), (1, 2, 3), {}),
    "validation by a wrong encoding": (
        TWO + MASK,
        (0, 1),
        (0, 1, 1),
        {"validation": {"encoding": "mask"}},
    ),
    "classes of validation that the source lacks": (THREE, (0, 1), (0, 2, 2), {}),
    "one class": (THREE, (1,), (0, 1), {}),
    "a problem of one class": ("classes: [{name: a, color: [1, 2, 3]}]", (0,), None, {}),
    "one class to measure on": (THREE, (0, 1, 2), (1,), {}),
    "instance ids": (THREE, (7, 8), None, {}),
    "ids in the place of colours": (THREE, (0, 1, 2), None, {"source": {"encoding": "color"}}),
    "an encoding that is not there": (THREE, (0, 1), None, {"source": {"encoding": "no"}}),
}
REFUSED = {
    "0 and 255",
    "0 and 255 of validation",
    "no class",
    "validation by a wrong encoding",
    "one class",
    "instance ids",
    "a problem of one class",
    "ids in the place of colours",
    "an encoding that is not there",
}


@pytest.mark.parametrize("kind", KINDS)
def test_check_and_run_agree(setup, tmp_path, capsys, kind):
    text, source, validation, sections = KINDS[kind]
    options = setup(text, source, validation, **sections)
    if kind == "instance ids":
        for file in (tmp_path / "source/labels").iterdir():
            Image.fromarray(layouts.ids(7, 11, 24_000).astype(np.uint16)).save(file)
    expected = 2 if kind in REFUSED else 0
    said = {}
    for command in ("check", "check --pixels", "run --dry-run", "run"):
        assert pipeline.main([*command.split(), *options]) == expected, command
        said[command] = capsys.readouterr()
    if expected:
        # What is known of the files may be kept; on a fast machine they are too new for that.
        known = {".bdl", INDEX, Path(INDEX).with_suffix(".lock").name}
        assert {file.name for file in (tmp_path / "run").glob("*")} <= known
        line = said["run"].err.strip().removeprefix("error: ").partition(" (and ")[0]
        for command in ("check", "check --pixels"):
            assert f"problem: {line}" in said[command].out


def test_a_finished_run_keeps_what_it_was_warned_of(setup, tmp_path, capsys):
    """The terminal, log.txt, the page, and the same command once more."""
    text, source, validation, _ = KINDS["classes of validation that the source lacks"]
    options = setup(text, source, validation)
    warned = "66.4 % of its labelled pixels are of classes that data.source has nowhere: c;"
    idle = "segmentation.class_mixing has no effect"
    for command in (["run"], ["run"], ["evaluate", "--k", "0", "--again"]):
        assert pipeline.main([*command, *options, "segmentation.class_mixing=true"]) == 0
        said = capsys.readouterr().out
        assert said.count(warned) == 1 and said.count(idle) == 1
        page = (tmp_path / "run/report.html").read_text()
        assert page.count(warned) == 1 and page.count(idle) == 1
    logged = (tmp_path / "run/log.txt").read_text()
    assert logged.count(warned) == 2 and logged.count("data.source: 3 images of 16x8") == 2
    write(tmp_path / "source", (0, 1, 2))
    for file in (tmp_path / "source/images").iterdir():  # none of which is a validation image
        ImageOps.invert(Image.open(file)).save(file)
    assert pipeline.main(["run", *options, "out=other"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert not (tmp_path / "other/warnings.txt").exists()


def test_colours_are_learned_from_and_measured_on(setup, tmp_path, capsys):
    """By the classes' own colours, and by an encoding of others; what is transparent is ignored."""
    more = 'encodings: {painted: {"#0A0B0C": a, "#ffffff": b, "#ff0000": c}}\n'
    options = setup(
        THREE + more,
        (0, 1, 2),
        (0, 1, 2),
        source={"encoding": "painted"},
        validation={"encoding": "color"},
    )
    tables = {
        "source": [[10, 11, 12, 255], [255, 255, 255, 255], [255, 0, 0, 255]],
        "validation": [[0, 0, 0, 255], [128, 0, 0, 255], [0, 128, 0, 0]],
    }
    for role, table in tables.items():
        for file in (tmp_path / role / "labels").iterdir():
            colors = np.array(table, np.uint8)[layouts.ids(0, 1, 2)]
            Image.fromarray(colors).save(file)
    assert pipeline.main(["run", *options]) == 0
    said = capsys.readouterr().out
    assert "all 3 label files: a 33.6 %, b 33.6 %, c 32.8 %, ignored 0.0 %" in said
    assert "all 3 label files: a 33.6 %, b 33.6 %, ignored 32.8 %" in said


def test_a_run_looks_at_some_labels_and_says_at_how_many(setup, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(guard, "LOOKED_AT", 4)
    ids = [(0, 1)] * 9
    ids[4] = (0, 1, 2)  # not among the four that are spread over nine
    options = setup(THREE, ids, count=9)
    assert pipeline.main(["run", "--dry-run", *options]) == 0
    said = capsys.readouterr().out
    assert "data.source: 9 images of 16x8" in said
    assert "4 of 9 label files: a 50.0 %, b 50.0 %, ignored 0.0 %" in said
    assert "not in them: c" in said and "warning" not in said
    assert pipeline.main(["check", "--pixels", *options]) == 0
    said = capsys.readouterr().out
    assert "all 9 label files" in said and "not in them" not in said


def test_all_labels_are_read_before_a_run_refuses(setup, capsys, monkeypatch):
    """Those that it looks at first may be the dull ones."""
    monkeypatch.setattr(guard, "LOOKED_AT", 2)
    ids = [(0,), (1,), (0,)]
    options = setup(THREE, ids)
    assert pipeline.main(["run", "--dry-run", *options]) == 0
    assert "all 3 label files" in capsys.readouterr().out


def test_sizes_and_orientations_are_told(setup, tmp_path, capsys):
    options = setup(THREE, (0, 1, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    layouts.image(tmp_path / "source/images/000.png", (8, 16))
    Image.open(tmp_path / "source/images/000.png").save(
        tmp_path / "source/images/000.png", exif=exif
    )
    layouts.image(tmp_path / "source/images/001.png", (32, 16))
    layouts.label(tmp_path / "source/labels/001.png", layouts.ids(0, 1, 2, size=(32, 16)))
    pipeline.main(["check", *options])
    said = capsys.readouterr().out
    assert "3 images of 16x8 (2), 32x16 (1); 1 of them held otherwise, read upright" in said


@pytest.mark.parametrize(
    ("folder", "names", "advice"),
    [
        ("panoptic_train2017", None, "panoptic ids .*panoptic2semantic_segmentation.py"),
        (
            "SegmentationClass",
            "a:0,0,0::\nb:128,0,0::\n",
            "labelmap.txt names its colours: init-co",
        ),
        ("masks", None, '"color" for the label space\'s own'),
    ],
)
def test_colours_in_the_place_of_ids_are_recognised(setup, tmp_path, capsys, folder, names, advice):
    options = setup(THREE, (0, 1, 2), source={"labels": f"{folder}/*.png"})
    (tmp_path / "source/labels").rename(tmp_path / "source" / folder)
    for file in (tmp_path / "source" / folder).iterdir():
        Image.open(file).convert("RGB").save(file)
    if names:
        (tmp_path / "source/labelmap.txt").write_text(names)
    for command in ("check", "run"):
        assert pipeline.main([command, *options]) == 2
        said = capsys.readouterr()
        text = said.out if command == "check" else said.err
        assert re.search(f"is a colour image, not a label map; .*{advice}", text)


SMOOTH = {0: 400, 255: 300, **dict.fromkeys(range(6, 254, 8), 3)}  # levels of a resized mask


@pytest.mark.parametrize(
    ("amounts", "is_smoothed"),
    [
        (SMOOTH, True),
        ({**SMOOTH, 128: 60}, False),  # a class of its own
        ({0: 400, 128: 100, 255: 300}, False),
        ({number: amount for number, amount in SMOOTH.items() if number != 255}, False),
        ({0: 400, 255: 300, **dict.fromkeys(range(1, 19), 9)}, False),  # train ids
        ({0: 400, 255: 300, **dict.fromkeys(range(1, 182), 2)}, False),  # many classes
        ({0: 400, 254: 1, 255: 300, **dict.fromkeys(range(1, 19), 9)}, False),
        (
            {0: 400, 255: 300, **{round(i * 255 / 9): 9 for i in range(1, 9)}},
            False,
        ),
        (dict.fromkeys(range(256), 1), False),
        ({}, False),
    ],
)
def test_masks_whose_edges_were_smoothed(tmp_path, amounts, is_smoothed):
    assert is_smoothed_mask(amounts) == is_smoothed
    told = judged(tmp_path, TWO, amounts)
    assert ("resized smoothly" in " ".join(told.problems)) == is_smoothed


@pytest.mark.parametrize("method", ["BILINEAR", "BICUBIC", "LANCZOS", "BOX", "NEAREST"])
def test_a_resized_mask_is_refused_by_all_commands(setup, tmp_path, capsys, method):
    encoding = "encodings: {mask: {0: soil, 255: weed}}\n"
    options = setup(TWO + encoding, (0, 255), source={"encoding": "mask"})
    rows, columns = np.mgrid[:60, :90]
    mask = (((rows - 30) ** 2 + (columns - 40) ** 2 < 400) * 255).astype(np.uint8)
    for file in (tmp_path / "source/labels").iterdir():
        layouts.image(tmp_path / "source/images" / file.name, (40, 27))
        Image.fromarray(mask).resize((40, 27), Image.Resampling[method]).save(file)
    expected = 0 if method == "NEAREST" else 2
    for command in ("check", "run --dry-run"):
        assert pipeline.main([*command.split(), *options]) == expected
        said = "".join(capsys.readouterr())
        assert ("data.source: its label files hold 0, 255 and many levels" in said) == expected // 2
    folder = ["--source", "source", "--target", "source/images", "--out", "own.yaml"]
    assert pipeline.main(["init-config", *folder]) == expected
    assert ("--source: its label files hold 0, 255" in capsys.readouterr().err) == expected // 2


@pytest.mark.parametrize(
    ("held", "warned"),
    [
        ([{0, 1}, {0, 255}, {0}], True),
        ([{1}, {255}], True),
        ([{0, 1}, {0, 255}, {0, 1, 255}], False),  # 255 is what is ignored
        ([{0, 1}, {0, 2}, {0, 255}], False),
        ([{0, 255}, {255}], False),
        ([{0, 1}], False),
        ([], False),
    ],
)
def test_masks_that_count_otherwise(setup, capsys, held, warned):
    files = [Path(f"{number}.png") for number in range(len(held))]
    line = about_mixed_masks(files, held)
    assert (line is not None) == warned
    if not held:
        return
    sections = [(TWO, {}), (TWO + "encodings: {own: {0: soil, 1: weed, 255: null}}\n", {})]
    sections[1][1]["encoding"] = "own"
    for number, (text, section) in enumerate(sections):
        options = setup(text, [tuple(ids) for ids in held], count=len(held), source=section)
        pipeline.main(["check", *options])
        said = capsys.readouterr().out
        # Of an encoding that leaves 255 out on purpose nothing is said.
        assert ("0 and 255, which is ignored; store" in said) == (warned and number == 0)
