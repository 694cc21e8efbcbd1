"""The command line: which stage a command means, and what it says when something is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import commandline
import pipeline
import results

ROOT = Path(__file__).parents[1]


def fails(capsys, status: int) -> str:
    """The one line on stderr of a command that ended with `status`."""
    assert status == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# Good commands


@pytest.mark.parametrize(
    ("arguments", "stage"),
    [
        ("translate", "k2/translator"),
        ("translate --k 1", "k1/translator"),
        ("export --k 1", "k1/translated"),
        ("measure --k 1", "k1/translated/measures"),
        ("segment", "k2/segmentation-1"),
        ("segment --k 0", "source-only"),
        ("segment --k 1 --i 0", "k1/segmentation-0"),
        ("pseudo-label --k 1", "k1/pseudo-labels-1"),
        ("evaluate --k 0", "source-only/evaluation"),
        ("evaluate --k 2 --i 0", "k2/segmentation-0/evaluation"),
    ],
)
def test_single_stages_run_the_stage_they_mean(
    tiny_run, command, tmp_path, capsys, arguments, stage
):
    run = tiny_run.copy(tmp_path / "run")
    name, *options = arguments.split()
    assert command(name, *options, f"out={run.folder}", "--again", "--dry-run") == 0
    plan = capsys.readouterr().out
    assert re.findall(r"^  run +(\S+) .* forced$", plan, re.MULTILINE) == [stage]


def test_settings_and_options_come_in_any_order(tiny_config):
    mixed = ["run", "seed=1", "--dry-run", "out=x", "--config", str(tiny_config), "iterations=1"]
    options = commandline.parse(mixed)
    assert options.overrides == ["seed=1", "out=x", "iterations=1"]
    assert options.dry_run and options.config == str(tiny_config)
    options = commandline.parse(
        ["ablate", "--iterations", "0", "1", "out=x", "--seeds", "2", "a.b=3"]
    )
    assert (options.iterations, options.seeds) == ([0, 1], [2])
    assert options.overrides == ["out=x", "a.b=3"]
    row = "weak: segmentation.adversarial.weight=0"
    assert commandline.parse(["ablate", "--row", row]).row == [row]


def test_a_path_with_an_equals_sign_is_no_setting(capsys):
    options = commandline.parse(
        ["predict", "--checkpoint", "lr=1/run", "--images", "a=b/", "--out", "c=d"]
    )
    assert [str(options.checkpoint), str(options.images), str(options.out)] == [
        "lr=1/run",
        "a=b",
        "c=d",
    ]
    assert [str(run) for run in commandline.parse(["compare", "seed=1", "seed=2"]).runs] == [
        "seed=1",
        "seed=2",
    ]
    options = commandline.parse(["run", "--config", "lr=1.yaml", "seed=1"])
    assert (options.config, options.overrides) == ("lr=1.yaml", ["seed=1"])
    with pytest.raises(SystemExit):
        commandline.parse(["score", "--predictions", "a", "--labels", "b", "seed=1"])
    assert "score takes no settings, such as seed=1" in capsys.readouterr().err


def test_dry_run_writes_nothing(command, tmp_path):
    assert command("run", "--dry-run", f"out={tmp_path / 'run'}") == 0
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("run", "translate", "export", "segment", "pseudo-label", "evaluate"):
        assert re.search(rf"^ +{name}\b", text, re.MULTILINE)


def test_position_of_networks():
    assert results.position("source-only") == (0, 0)
    assert results.position("k12/segmentation-3") == (12, 3)


# Errors


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sed=1", "command line: unknown key 'sed'; did you mean 'seed'?"),
        ("seed=one", "command line: seed: "),
        ("seed=-1", "seed: is -1, must be a number of at least 0"),
        ("device=tpu", "device: 'tpu' is not one of auto, cpu, cuda, mps"),
        ("precision=16-mixed", "precision: 16-mixed needs a GPU"),
        ("translation.crop=[32]", "translation.crop: is [32], must be [width, height]"),
        ("segmentation.pseudo_labels.cap=1.5", "segmentation.pseudo_labels.cap: is 1.5"),
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
    assert expected in fails(capsys, command("run", f"out={out}", *override.split()))
    assert not out.exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("segmentation.network=unet", "segmentation.network: 'unet' is not one of compact"),
        ("segmentation.options.depth=3", "segmentation.options: compact: "),
        ("segmentation.options.width=wide", "segmentation.options"),
    ],
)
def test_wrong_networks_are_one_line_that_names_them(
    tiny_run, command, tmp_path, capsys, override, expected
):
    run = tiny_run.copy(tmp_path / "run")
    assert expected in fails(capsys, command("segment", "--k", 0, f"out={run.folder}", override))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("segment --k 3", "no stage 'k3/segmentation-1' with iterations=2"),
        ("segment --k 1 --i 2", "no stage 'k1/segmentation-2' with iterations=2"),
        ("pseudo-label --i 0", "no stage 'k2/pseudo-labels-0'"),
        ("run --from-stage k1/segmenter", "--from-stage: no stage 'k1/segmenter'; the stages are"),
        ("evaluate --k 0", "source-only/evaluation needs source-only (not made yet); make that"),
        ("export --k 1", "k1/translated needs k1/translator (not made yet)"),
        ("measure --k 1", "k1/translated/measures needs source-only (not made yet)"),
        ("measure translation.measure_images=0", "no stage 'k2/translated/measures' with"),
    ],
)
def test_wrong_commands_are_one_line_that_names_what_is_missing(
    command, tmp_path, capsys, arguments, expected
):
    name, *options = arguments.split()
    assert expected in fails(capsys, command(name, *options, f"out={tmp_path / 'run'}"))


def test_a_stage_whose_input_is_of_other_settings_is_refused(tiny_run, command, capsys):
    arguments = ["--k", 0, f"out={tiny_run.folder}", "segmentation.steps=11"]
    message = fails(capsys, command("evaluate", *arguments))
    assert "source-only/evaluation needs source-only (steps was 10, is 11" in message


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["run", "--iterations", "3"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --iterations" in capsys.readouterr().err


def test_a_missing_configuration_is_named(capsys):
    message = fails(capsys, pipeline.main(["run", "--config", "nowhere/demo2.yaml"]))
    assert message.startswith("nowhere/demo2.yaml: no such configuration file; the project's own")


def test_a_broken_configuration_is_named(tmp_path, capsys):
    file = tmp_path / "broken.yaml"
    file.write_text("seed: [1,\nout: x")
    message = fails(capsys, pipeline.main(["run", "--config", str(file)]))
    assert message.startswith(f"{file}: is not valid YAML")


def test_a_folder_that_no_run_made_is_left_alone(command, tmp_path, capsys):
    precious = tmp_path / "run/source-only/thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    message = fails(capsys, command("run", f"out={tmp_path / 'run'}", "iterations=0"))
    assert str(precious.parent) in message and "was not made by a run" in message
    assert precious.read_text() == "years of work"


def test_an_out_that_is_a_file_is_named(command, tmp_path, capsys):
    file = tmp_path / "run"
    file.write_text("")
    assert f"out: {file}" in fails(capsys, command("run", f"out={file}", "iterations=0"))


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
    message = fails(capsys, command("run", f"out={tmp_path / 'run'}", *settings))
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
