"""The words of the command line, in any order, and what is said of those that it does not know."""

import re

import pytest

from bdl import pipeline
from bdl.commands import parser


def test_settings_and_options_come_in_any_order(tiny_config):
    mixed = ["run", "seed=1", "--dry-run", "out=x", "--config", str(tiny_config), "iterations=1"]
    options = parser.parse(mixed)
    assert options.overrides == ["seed=1", "out=x", "iterations=1"]
    assert options.dry_run and options.config == str(tiny_config)
    options = parser.parse(["ablate", "--iterations", "0", "1", "out=x", "--seeds", "2", "a.b=3"])
    assert (options.iterations, options.seeds) == ([0, 1], [2])
    assert options.overrides == ["out=x", "a.b=3"]
    row = "weak: segmentation.adversarial.weight=0"
    assert parser.parse(["ablate", "--row", row]).row == [row]


def test_a_path_with_an_equals_sign_is_no_setting(capsys):
    options = parser.parse(
        ["predict", "--checkpoint", "lr=1/run", "--images", "a=b/", "--out", "c=d"]
    )
    assert [str(options.checkpoint), str(options.images), str(options.out)] == [
        "lr=1/run",
        "a=b",
        "c=d",
    ]
    assert [str(run) for run in parser.parse(["compare", "seed=1", "seed=2"]).runs] == [
        "seed=1",
        "seed=2",
    ]
    options = parser.parse(["run", "--config", "lr=1.yaml", "seed=1"])
    assert (options.config, options.overrides) == ("lr=1.yaml", ["seed=1"])
    with pytest.raises(SystemExit):
        parser.parse(["score", "--predictions", "a", "--labels", "b", "seed=1"])
    assert "score takes no settings, such as seed=1" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("run", "translate", "export", "segment", "pseudo-label", "evaluate"):
        assert re.search(rf"^ +{name}\b", text, re.MULTILINE)


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["run", "--iterations", "3"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --iterations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("runn", "there is no command 'runn'; did you mean 'run'?"),
        ("init_config", "there is no command 'init_config'; did you mean 'init-config'?"),
        ("seed=1 evalute --k 1", "there is no command 'evalute'; did you mean 'evaluate'?"),
        ("qwxz", "there is no command 'qwxz'\n"),
        ("run --confg demo", "unrecognized arguments: --confg; did you mean '--config'?"),
        ("run --dryrun", "did you mean '--dry-run'?"),
        ("predict --checkpoint a --images b --out c --flipp", "did you mean '--flip'?"),
        ("run --qwxz", "unrecognized arguments: --qwxz\n"),
        ("run --source.on_error skip", "as key=value: data.source.on_error=skip"),
        ("run --seed=4", "as key=value: seed=4"),
        ("check --self-training-steps 2", "as key=value: self_training_steps=2"),
        ("ablate --segmentation.step", "as key=value: segmentation.steps=VALUE"),
        ("score --predictions a --labels b --seed 1", "unrecognized arguments: --seed 1\n"),
    ],
)
def test_a_mistyped_word_gets_the_one_that_may_be_meant(capsys, arguments, expected):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(arguments.split())
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and said.splitlines()[-1].startswith("bdl")
    assert expected in said


@pytest.mark.parametrize("name", ["run", "ablate", *parser.SINGLE])
def test_results_of_other_settings_are_replaced_on_demand_alone(name):
    assert not parser.parse([name]).replace
    assert parser.parse([name, "seed=1", "--replace"]).replace
