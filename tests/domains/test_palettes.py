"""Indices of palette files are class ids only if one index is one colour in all files."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bdl import pipeline
from bdl.domains.draft import draft_label_space
from bdl.domains.images import read_header, shown_colors
from bdl.domains.index import Index
from bdl.domains.label_space import load_label_space
from bdl.domains.palettes import ambiguous_palettes
from bdl.domains.survey import survey
from bdl.runtime.errors import UserError
from tests.helpers import layouts

ROAD, SKY, HOUSE, BLACK, WHITE = 0x804080, 0x4682B4, 0x464646, 0, 0xFFFFFF
IDENTITY = [grey * 0x010101 for grey in range(256)]


def write(file: Path, indices: list[int], palette: list[int] | None) -> Path:
    """A PNG of some indices, shown in the colours of a palette; None: grey, without one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(layouts.ids(*indices).astype(np.uint8))
    if palette is not None:
        image.putpalette([c >> shift & 255 for c in palette for shift in (16, 8, 0)])
    image.save(file)
    return file


def ambiguity(folder: Path, *contents, space=None) -> str | None:
    files = [write(folder / f"{i}{e}", *c) for i, (*c, e) in enumerate(with_endings(contents))]
    return ambiguous_palettes(files, Index(None), "data.source", space)


def with_endings(contents):
    return [(*content, ".png") if len(content) == 2 else content for content in contents]


@pytest.mark.parametrize(
    "contents",
    [
        [([0, 1], [ROAD, SKY]), ([1, 0], [ROAD, SKY])],
        [([0, 1], [ROAD, SKY]), ([0, 2], [ROAD, SKY, HOUSE])],  # cut off at what occurs
        [([0, 1], [ROAD, SKY, HOUSE]), ([0, 1], [ROAD, SKY, WHITE])],  # what never occurs
        [([0, 1], [ROAD, SKY]), ([0, 1, 2], None)],  # grey ids beside
        [([0, 1], [ROAD, SKY]), ([0, 1], IDENTITY)],
        [([0, 1], [ROAD, SKY]), ([0, 1], [ROAD, SKY], ".bmp"), ([0], [ROAD, SKY], ".tif")],
        [([0, 9], IDENTITY), ([0, 7], IDENTITY[:8])],
        [([0, 1], [BLACK, WHITE]), ([0], [BLACK, WHITE])],  # as files of one bit
        [([2, 2], [ROAD, SKY, HOUSE])],  # the only colour is a grey
        [([0, 2], None), ([1], None)],
    ],
)
def test_palettes_that_agree_are_no_question(tmp_path, contents):
    assert ambiguity(tmp_path, *contents) is None


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([([0, 1], [ROAD, SKY]), ([0, 1], [SKY, ROAD])], "index 0 as #4682b4, that of .*0.png as"),
        ([([0, 1], [BLACK, WHITE]), ([0, 1], [WHITE, BLACK])], "index 0 as #ffffff"),
        ([([0, 1], [0, 0x020202]), ([0, 1], [0x020202, 0])], "index 0 as #020202"),
        ([([0, 1], [ROAD, SKY]), ([0, 1], [SKY, ROAD], ".bmp")], "index 0 as #4682b4"),
        ([([0, 1, 2], [0, 0x020202, 0x0A0A0A])], "index 1 as the grey 2"),
        ([([1], [0x0A0A0A, 0])] * 2, "index 1 as the grey 0"),
    ],
)
def test_palettes_that_differ_are_refused_in_a_line(tmp_path, contents, said):
    line = ambiguity(tmp_path, *contents)
    assert "\n" not in line and "data.source.encoding of colours" in line
    assert re.search(said, line), line


@given(st.permutations(range(4)), st.lists(st.permutations(range(4)), max_size=3))
def test_maps_are_refused_where_two_files_number_colours_otherwise(tmp_path_factory, one, others):
    """The kind: the same picture, whose colours each file numbers in an order of its own."""
    colors = [ROAD, SKY, HOUSE, 0x0000FF]
    files = [([0, 1, 2, 3], [colors[i] for i in order]) for order in (one, *others)]
    line = ambiguity(tmp_path_factory.mktemp("p"), *files)
    assert (line is None) == all(order == one for order in others)


def test_only_what_differs_is_decoded(tmp_path, monkeypatch):
    def never(file):
        raise AssertionError(file)

    monkeypatch.setattr("bdl.domains.index.shown_colors", never)
    alike = [([0, 1], [ROAD, SKY])] * 3
    assert ambiguity(tmp_path, *alike) is None
    with pytest.raises(AssertionError):
        ambiguity(tmp_path, *alike, ([0, 1], [SKY, ROAD]))


def test_greys_of_the_classes_own_are_meant(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "classes: [{name: a, color: [9, 9, 9]}, {name: b, color: [3, 3, 3]}]"
    )
    space = load_label_space(str(tmp_path / "s.yaml"))
    content = ([0, 1, 255], [0x090909, 0x030303])
    assert ambiguity(tmp_path, content) is not None
    assert ambiguity(tmp_path, content, space=space) is None
    assert ambiguity(tmp_path, ([0, 1], [0x030303, 0x090909]), space=space) is not None


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_a_palette_is_read_without_its_pixels(tmp_path, ending):
    file = write(tmp_path / f"a{ending}", [0, 2, 3], [ROAD, SKY, HOUSE])
    assert shown_colors(file) == {0: ROAD, 2: HOUSE, 3: 0}
    header = read_header(file)
    assert header.palette and not header.is_grey
    assert header.palette == read_header(write(tmp_path / "b.png", [1], [ROAD, SKY, HOUSE])).palette
    assert read_header(write(tmp_path / f"c{ending}", [0, 2], IDENTITY)).palette == ""
    assert read_header(write(tmp_path / "d.png", [0, 2], None)).palette == ""


def test_init_config_takes_such_maps_by_their_colours(tmp_path):
    for number, palette in enumerate(([ROAD, SKY], [SKY, ROAD])):
        layouts.image(tmp_path / f"images/{number}.png")
        write(tmp_path / f"labels/{number}.png", [0, 1], palette)
    taken = survey(str(tmp_path), "train", True, "--source")
    assert taken.by_color and taken.ids == {SKY: 0.5, ROAD: 0.5}


def test_files_that_a_known_layout_reads_by_ids_are_refused(tmp_path):
    layouts.cityscapes(tmp_path)
    for number, file in enumerate(sorted(tmp_path.glob("gtFine/train/*/*_labelIds.png"))):
        write(file, [7, 8], [*IDENTITY[:7], *([ROAD, SKY] if number else [SKY, ROAD])])
    with pytest.raises(UserError, match="indices are no class ids"):
        survey(str(tmp_path), "train", True, "--source")


def test_shown_colours_are_those_that_pillow_shows(tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.integers(1, 1 << 24, 200).tolist()
    file = write(tmp_path / "a.png", rng.integers(0, 200, 128).tolist(), colors)
    shown = np.asarray(Image.open(file).convert("RGB")).astype(int) @ [1 << 16, 1 << 8, 1]
    assert set(shown_colors(file).values()) == set(shown.flat)


def roles(folder: Path, palettes: dict[str, list[list[int]]], encodings=("train_id", "train_id")):
    """The options of a run on the labels 0 and 1, shown by each role's palettes, one a file."""
    data = {"label_space": str(folder / "s.yaml"), "workers": 0, "target": None}
    (folder / "s.yaml").write_text(
        "classes: [{name: road, color: [128, 64, 128]}, {name: sky, color: [70, 130, 180]}]"
    )
    for (role, shown), encoding in zip(palettes.items(), encodings, strict=True):
        for number, palette in enumerate(shown):
            layouts.image(folder / role / f"images/{number}.png", value=10 * len(role) + number)
            write(folder / role / f"labels/{number}.png", [0, 1], palette)
        data[role] = {"layout": "folder", "root": str(folder / role), "encoding": encoding}
    content = {"out": str(folder / "run"), "iterations": 0, "device": "cpu", "data": data}
    (folder / "c.yaml").write_text(yaml.safe_dump(content))
    return ["--config", str(folder / "c.yaml"), "segmentation.network=compact"]


def test_check_and_run_refuse_what_no_file_tells(tmp_path, capsys):
    mixed = [[ROAD, SKY], [SKY, ROAD]]
    options = roles(tmp_path, {"source": mixed, "validation": mixed}, ("train_id", "color"))
    for command in (["check"], ["run", "--dry-run"]):
        assert pipeline.main([*command, *options]) == 2
        said = "".join(capsys.readouterr())
        assert "source/labels/1.png: its palette shows index 0 as #4682b4" in said
        assert "validation/labels" not in said  # which go by colours
    assert pipeline.main(["check", *options, "data.source.encoding=color"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_roles_whose_palettes_differ_are_a_warning(tmp_path, capsys):
    palettes = {"source": [[ROAD, SKY]], "validation": [[SKY, ROAD]]}
    options = roles(tmp_path, palettes)
    assert pipeline.main(["check", *options]) == 0
    assert "warning: " in (said := capsys.readouterr().out)
    assert "validation/labels/0.png: its palette shows index 0 as #4682b4" in said
    assert pipeline.main(["check", *options, "data.validation.encoding=color"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_init_config_counts_no_ids_beside_colours(tmp_path, monkeypatch):
    roles(tmp_path, {"source": [[ROAD, SKY], [SKY, ROAD]], "validation": [[ROAD, SKY]]})
    monkeypatch.chdir(tmp_path)
    surveys = {role: survey(role, "train", True, f"--{role}") for role in ("source", "validation")}
    with pytest.raises(UserError, match="--validation: its labels hold ids, those of --source col"):
        draft_label_space(surveys)


@pytest.mark.parametrize("side", ["predictions", "labels"])
def test_score_counts_no_indices_that_are_no_ids(tmp_path, capsys, side):
    roles(tmp_path, {"source": [[ROAD, SKY]]}, ["train_id"])
    palettes = {"predictions": [[ROAD, SKY]] * 2, "labels": [[ROAD, SKY]] * 2}
    options = [f"--label-space={tmp_path / 's.yaml'}", "--encoding=train_id"]
    for folder in palettes:
        options.append(f"--{folder}={tmp_path / folder}")
    for refused in (False, True):
        if refused:
            palettes[side] = [[ROAD, SKY], [SKY, ROAD]]
        for folder, shown in palettes.items():
            for number, palette in enumerate(shown):
                write(tmp_path / folder / f"{number}.png", [0, 1], palette)
        assert pipeline.main(["score", *options]) == 2 * refused
    said = capsys.readouterr().err
    assert f"{side}/1.png: its palette shows index 0 as #4682b4" in said
    assert ("an encoding of colours" in said) == (side == "labels")
