"""The commands of single stages: which stage they mean, and what they need."""

import re

import pytest

from tests.helpers.said import error_line


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
    assert expected in error_line(
        capsys, command("segment", "--k", 0, f"out={run.folder}", "--replace", override)
    )


def test_a_stage_whose_input_is_of_other_settings_is_refused(tiny_run, command, capsys):
    arguments = ["--k", 0, f"out={tiny_run.folder}", "segmentation.steps=11"]
    message = error_line(capsys, command("evaluate", *arguments))
    assert "source-only/evaluation needs source-only (segmentation.steps was 10, is 11" in message
