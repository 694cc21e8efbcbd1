"""Labelled images of the target: the target's by what is in their files, whatever their names."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bdl import pipeline
from bdl.domains.problem import Problem
from bdl.domains.target_labels import match_labels, upright_ids
from bdl.runtime.config import DataConfig, DomainConfig
from tests.helpers import layouts, pictures
from tests.helpers.runs import TINY

SIZE = (64, 32)
STORED = (9, 5)  # width and height of the photos as stored; all were held sideways


def folder_of(root: Path, values: list[int]) -> DomainConfig:
    """Images of one grey each, with labels."""
    for number, value in enumerate(values):
        layouts.image(root / f"images/{root.name}{number}.png", SIZE, value)
        layouts.label(root / f"labels/{root.name}{number}.png", layouts.ids(0, 1, 255, size=SIZE))
    return DomainConfig(layout="folder", root=str(root))


def problem_of(tmp_path: Path, target: DomainConfig, labelled: DomainConfig | None) -> Problem:
    data = DataConfig("camvid11", source=target, target=target, validation=None)
    data.target_labelled = labelled
    return Problem(data, tmp_path / "run")


GREYS = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@settings(deadline=None, max_examples=20)
@given(target=GREYS, labelled=GREYS)
def test_images_are_matched_by_their_contents(tmp_path_factory, target, labelled):
    """Against the same rule on the greys themselves; of equal images the first is meant."""
    folder = tmp_path_factory.mktemp("data")
    domains = [folder_of(folder / n, v) for n, v in (("target", target), ("few", labelled))]
    problem = problem_of(folder, *domains)
    assert problem.target_labelled is not None
    found = match_labels(problem.target, problem.target_labelled)
    known = [f"few{labelled.index(v)}" if v in labelled else None for v in target]
    assert [one and one.name for one in found.known] == known
    added = [f"few{number}" for number, v in enumerate(labelled) if v not in target]
    assert [one.name for one in found.added] == added
    assert all(one is None or one.label is not None for one in found.known)


def test_without_labelled_images_nothing_is_known(tmp_path):
    problem = problem_of(tmp_path, folder_of(tmp_path / "target", [1, 2]), None)
    found = match_labels(problem.target, problem.target_labelled)
    assert found.known == [None, None] and found.added == []


@pytest.mark.parametrize("size", [STORED, STORED[::-1]])
def test_labels_are_turned_with_their_photos(tmp_path, size):
    """The target's photos are upright; label maps may have been drawn on them as stored."""
    ids = np.arange(size[0] * size[1]).reshape(size[::-1]) % 11
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (*STORED[::-1], 3))
        file = tmp_path / f"few/images/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pictures.png(file, pixels, 8, pictures.COLOR, orientation=6)
        layouts.label(tmp_path / f"few/labels/{number}.png", ids)
    domain = DomainConfig(layout="folder", root=str(tmp_path / "few"), encoding="train_id")
    problem = problem_of(tmp_path, domain, domain)
    labelled = problem.target_labelled
    assert labelled is not None and problem.target.orientation == "upright"
    (sample, _) = match_labels(problem.target, labelled).known
    assert sample is not None
    expected = np.rot90(ids, -1) if size == STORED else ids
    table = problem.table("target_labelled")
    assert np.array_equal(upright_ids(labelled, sample), table[expected])


# What check and run say of them


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Labelled folders of all roles in the folder that we are in, and a configuration."""
    monkeypatch.chdir(tmp_path)
    greys = {"source": [1, 2], "target": [3, 4], "few": [4, 5], "validation": [6, 7]}
    for name, values in greys.items():
        folder_of(tmp_path / name, values)
    sections = "".join(
        f"  {role}: {{layout: folder, root: {name}, size: {size}}}\n"
        for role, name, size in (
            ("source", "source", "[64, 32]"),
            ("target", "target", "[64, 32]"),
            ("target_labelled", "few", "null"),
            ("validation", "validation", "[64, 32]"),
        )
    )
    head, _, tail = TINY.partition("  source:")
    tail = tail.partition("  workers:")[2]
    (tmp_path / "c.yaml").write_text(f"out: run\n{head}{sections}  workers:{tail}")
    return tmp_path


def call(command: str, *settings: str) -> int:
    return pipeline.main([command, "--config", "c.yaml", *settings])


def test_check_shows_what_they_hold(data, capsys):
    assert call("check") == 0
    said = capsys.readouterr().out
    assert "data.target_labelled: 2 images of 64x32" in said
    assert "data.target_labelled: 1 of them are images of the target, 1 join it" in said
    told = said.partition("data.target_labelled")[2]
    assert "all 2 label files: road" in told.partition("data.validation")[0]


def test_one_image_of_one_class_is_enough(data, capsys):
    """A few images need not hold every class; what is labelled nowhere is a mistake."""
    (data / "few/images/few1.png").unlink()
    layouts.label(data / "few/labels/few0.png", layouts.ids(0, size=SIZE))
    assert call("check") == 0
    assert "cannot be learned" not in capsys.readouterr().out.partition("target_labelled")[2]
    layouts.label(data / "few/labels/few0.png", layouts.ids(255, size=SIZE))
    assert call("check") == 2
    assert "data.target_labelled: no label file holds an id of a class" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_validation_image_among_them_is_refused(data, capsys, command, ending):
    """Whatever it is called, however it is packed, and also where rounds that learn from it come
    later."""
    (data / "few/images/few0.png").unlink()
    with Image.open(data / "validation/images/validation1.png") as image:
        image.save(data / f"few/images/few0.{ending}", compress_level=0)
    for rounds in ("iterations=0", "iterations=1"):
        assert call(command, rounds) == 2
        said = capsys.readouterr()
        assert (
            f"few/images/few0.{ending}: an image of data.target_labelled is the validation image "
            "validation/images/validation1.png, which may only measure" in said.out + said.err
        )
    assert not (data / "run/source-only").exists()


def test_labels_of_one_image_that_differ_are_said(data, capsys):
    shutil.copy(data / "few/images/few0.png", data / "few/images/few1.png")
    assert call("check") == 0
    assert "labels of one image" not in capsys.readouterr().out
    layouts.label(data / "few/labels/few1.png", layouts.ids(1, 2, size=SIZE))
    assert call("check") == 0
    said = capsys.readouterr().out
    assert "few/labels/few1.png: is not as few/labels/few0.png, though both are labels of" in said


def test_images_of_another_size_do_not_go_into_one_batch(data, capsys):
    own = ["data.source.size=null", "data.target.size=null", "data.validation.size=null"]
    layouts.image(data / "few/images/few1.png", (96, 48))
    layouts.label(data / "few/labels/few1.png", layouts.ids(0, 1, size=(96, 48)))
    (data / "few/images/few0.png").unlink()
    assert call("check", *own) == 2
    said = capsys.readouterr().out
    assert "few1.png is 96x48 and " in said and "which do not go into one batch" in said
    assert "set data.target.size" in said and "set data.target_labelled.size" not in said


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("data.target_labelled.size=[32,16]", "data.target_labelled.size: is [32, 16], and"),
        ("data.target=null", "data.target_labelled: is set, and data.target is null"),
    ],
)
def test_what_does_not_go_with_the_target_is_said(data, capsys, setting, problem):
    assert call("run", setting, "iterations=0") == 2
    assert f"command line: {problem}" in capsys.readouterr().err
