"""`run`: what it says when something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdl import pipeline
from bdl.domains import index
from tests.helpers import layouts
from tests.helpers.said import error_line

ROOT = Path(__file__).parents[2]


def test_dry_run_writes_nothing(command, tmp_path):
    assert command("run", "--dry-run", f"out={tmp_path / 'run'}") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def photos(tmp_path, monkeypatch) -> list[str]:
    """Settings of a data set of six files, which count as old the moment they are written."""
    monkeypatch.setattr(index, "_FRESH", -10.0)
    root = tmp_path / "photos"
    for number in range(3):
        layouts.image(root / f"images/{number}.png", (64, 32), value=number)
        layouts.label(root / f"labels/{number}.png", layouts.ids(number, 5, size=(64, 32)))
    settings = ["layout=folder", f"root={root}", "encoding=train_id"]
    roles = [f"data.{role}.{setting}" for role in ("source", "validation") for setting in settings]
    return ["iterations=0", "segmentation.steps=2", *roles]


def test_a_second_run_reads_no_file_of_the_users_again(command, tmp_path, photos, monkeypatch):
    out = tmp_path / "run"
    assert command("run", "--dry-run", f"out={out}", *photos) == 0
    assert not out.exists()
    assert command("run", f"out={out}", *photos) == 0

    def look(*_):
        raise AssertionError("a file was looked at again")

    with monkeypatch.context() as patch:
        patch.setattr(index, "_outcome", look)
        for name in ("run", "check"):
            assert command(name, f"out={out}", *photos) == 0
    # Corrected, of the same size: what was learned from it is of other data.
    layouts.label(tmp_path / "photos/labels/1.png", layouts.ids(6, 5, size=(64, 32)))
    assert command("run", f"out={out}", *photos) == 2


def test_what_is_known_of_files_outlives_a_run_that_fails(command, tmp_path, photos, monkeypatch):
    (tmp_path / "photos/labels/2.png").write_bytes(b"")
    arguments = [f"out={tmp_path / 'run'}", *photos]
    assert command("run", *arguments) == 2
    looked = []
    outcome = index._outcome
    monkeypatch.setattr(index, "_outcome", lambda *given: looked.append(given) or outcome(*given))
    assert command("run", *arguments) == 2
    assert looked == []


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_ablation_reads_each_file_once(command, tmp_path, photos, monkeypatch, dry):
    hashed = []
    hash_file = index._hash
    monkeypatch.setattr(index, "_hash", lambda file: hashed.append(file) or hash_file(file))
    arguments = ["--seeds", 0, 1, f"out={tmp_path / 'all'}", *photos]
    assert command("ablate", *arguments, *dry) == 0
    assert len(hashed) == len(set(hashed)) == 6


def test_a_finished_run_says_so_without_torch(tiny_run, tiny_config, tmp_path):
    run = tiny_run.copy(tmp_path / "run")
    code = (
        "import json, sys; from bdl.pipeline import main; status = main(sys.argv[1:]); "
        "print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--config", tiny_config, f"out={run.folder}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    status, modules = json.loads(done.stderr)
    assert status == 0 and "k2/segmentation-1" in done.stdout
    assert "0 of 21 stages to run" in done.stdout
    assert {"torch", "torchvision", "lightning", "timm", "kornia"} & set(modules) == set()
    assert run.rows() == tiny_run.rows()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sed=1", "command line: unknown key 'sed'; did you mean 'seed'?"),
        ("seed=one", "command line: seed: "),
        ("seed=-1", "seed: is -1, must be a whole number of at least 0"),
        ("device=tpu", "device: 'tpu' is not one of auto, cpu, cuda, mps"),
        ("precision=16-mixed", "precision: 16-mixed needs a GPU"),
        ("translation.crop=[32]", "translation.crop: is [32], must be [width, height]"),
        (
            "segmentation.pseudo_labels.max_threshold=1.5",
            "segmentation.pseudo_labels.max_threshold: is 1.5",
        ),
        ("segmentation.weights=none.pt", "segmentation.weights: none.pt cannot be read"),
        ("data.label_space=cityscapes", "data.label_space: 'cityscapes' is neither a file nor"),
        ("data.source.layout=gta", "data.source.layout: 'gta' is not one of folder, gta5"),
        ("data.source.layout=gta5", "data.source.root: is not set"),
        ("data.target.root=missing", "data.target.root: missing is not a folder"),
        ("data.source.encoding=gray", "data.source.encoding: 'gray' is not in the label space"),
        ("translation.batch_size=3 devices=2", "translation.batch_size: is 3, must be a multiple"),
        (
            "translation.constant_epochs=0 translation.decay_epochs=1",
            "translation.constant_epochs: is 0",
        ),
        ("translation.images=missing", "translation.images: missing is not a folder"),
    ],
)
def test_wrong_settings_are_one_line_that_names_them(command, tmp_path, capsys, override, expected):
    out = tmp_path / "run"
    assert expected in error_line(capsys, command("run", f"out={out}", *override.split()))
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("segment --k 3", "segment --k 3: no such stage with iterations=2"),
        ("segment --k 1 --i 2", "segment --k 1 --i 2: no such stage with iterations=2"),
        ("pseudo-label --i 0", "there are k1/pseudo-labels-1, k2/pseudo-labels-1"),
        ("run --from-stage k1/segmenter", "--from-stage: no stage 'k1/segmenter'; the stages are"),
        ("evaluate --k 0", "source-only/evaluation needs source-only (not made yet); run first: "),
        ("export --k 1", "k1/translated needs k1/translator (not made yet)"),
        ("measure --k 1", "k1/translated/measures needs k1/translated (not made yet); run first: "),
        ("measure translation.measure_images=0", "measure: no such stage with"),
    ],
)
def test_wrong_commands_are_one_line_that_names_what_is_missing(
    command, tmp_path, capsys, arguments, expected
):
    name, *options = arguments.split()
    assert expected in error_line(capsys, command(name, *options, f"out={tmp_path / 'run'}"))


def test_a_missing_configuration_is_named(capsys):
    message = error_line(capsys, pipeline.main(["run", "--config", "nowhere/demo2.yaml"]))
    assert message.startswith("nowhere/demo2.yaml: no such configuration file; the project's own")


def test_a_broken_configuration_is_named(tmp_path, capsys):
    file = tmp_path / "broken.yaml"
    file.write_text("seed: [1,\nout: x")
    message = error_line(capsys, pipeline.main(["run", "--config", str(file)]))
    assert message.startswith(f"{file}: is not valid YAML")


def test_a_file_that_no_run_made_is_left_alone(command, tmp_path, capsys):
    """With the name of one that the stage makes it is in the way, with any other it is not."""
    precious = tmp_path / "run/source-only/segmenter.pt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    message = error_line(capsys, command("run", f"out={tmp_path / 'run'}", "iterations=0"))
    assert str(precious) in message and "was not made by a run" in message
    assert precious.read_text() == "years of work"
    thesis = precious.rename(precious.with_name("thesis.txt"))
    assert command("run", f"out={tmp_path / 'run'}", "iterations=0") == 0
    assert thesis.read_text() == "years of work" and precious.is_file()


def test_an_out_that_is_a_file_is_named(command, tmp_path, capsys):
    file = tmp_path / "run"
    file.write_text("")
    assert f"out: {file}" in error_line(capsys, command("run", f"out={file}", "iterations=0"))


def test_a_broken_image_is_named(tiny_run, command, tmp_path, capsys):
    """In the middle of a training that has its images from a folder."""
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for number in range(3):
        file = root / f"images/{number}.png"
        Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(file)
        Image.fromarray(np.zeros((32, 64), np.uint8)).save(root / f"labels/{number}.png")
    file.write_bytes(file.read_bytes()[:60])
    settings = ["iterations=0", "data.source.layout=folder", f"data.source.root={root}"]
    message = error_line(capsys, command("run", f"out={tmp_path / 'run'}", *settings))
    assert message.startswith(f"{file}: is not a readable image")


def test_the_program_ends_with_status_2_and_one_line(tmp_path):
    """From the outside, as a shell sees it."""
    done = subprocess.run(
        [sys.executable, "pipeline.py", "run", f"out={tmp_path / 'run'}", "itertions=1"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    expected = "error: command line: unknown key 'itertions'; did you mean 'iterations'?\n"
    assert done.stderr == expected
