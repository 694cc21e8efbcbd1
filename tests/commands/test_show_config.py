"""`show-config`: what it prints is the whole configuration, with what is not the default marked."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl import pipeline
from bdl.commands.show_config import annotated
from bdl.runtime.config import CONFIGURATIONS, Config, known_keys, load_config, to_yaml, value_at
from bdl.runtime.yaml_text import Loader, to_line

RECIPES = ["demo", "gta5_cityscapes_vgg", "synthia_cityscapes_deeplab"]


def marked(text: str) -> dict[str, str]:
    """The keys of the lines that have a comment, and what the comment says."""
    keys, path = {}, []
    for line in text.splitlines():
        depth, name = re.match(r"((?:  )*)(\w+):", line).groups()
        path = [*path[: len(depth) // 2], name]
        if "  # default: " in line:
            keys[".".join(path)] = line.partition("  # default: ")[2]
    return keys


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_it_prints_is_the_same_configuration(tmp_path, capsys, recipe):
    changes = ["seed=7", "out=runs/trial #2", "segmentation.augmentation.crop=[64,48]"]
    if recipe == "demo":
        changes[2] = "segmentation.checkpoints={source-only: 'a: b.pt'}"
    assert pipeline.main(["show-config", "--config", recipe, *changes]) == 0
    copy = tmp_path / "copy.yaml"
    copy.write_text(capsys.readouterr().out, encoding="utf-8")
    assert to_yaml(load_config(copy)) == to_yaml(load_config(recipe, changes))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_key_is_marked_if_it_is_not_the_default(recipe):
    config, default = load_config(recipe), Config()
    sections = {key.rpartition(".")[0] for key in known_keys()}
    differ = {
        key
        for key in known_keys()
        if key not in sections and value_at(config, key) != value_at(default, key)
    }
    assert differ and marked(annotated(config)).keys() == differ
    assert marked(annotated(default)) == {}


def test_it_says_the_default(capsys):
    missing = ["data.target=null", "data.validation=null", "iterations=0"]
    assert pipeline.main(["show-config", *missing, "segmentation.steps=5"]) == 0
    text = capsys.readouterr().out
    assert "\n  steps: 5  # default: 80000\n" in text
    assert "\n  target: null  # default: a section\n  validation: null" in text
    assert "appearance: real" not in text


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_a_line_of_yaml_is_read_back_as_the_value(value):
    text = to_line(value)
    loader = Loader(f"key: {text}  # comment\n")
    assert loader.get_single_data() == {"key": value}


def test_what_is_wrong_is_said_as_by_other_commands(capsys):
    assert pipeline.main(["show-config", "sead=1"]) == 2
    assert "command line: unknown key 'sead'; did you mean 'seed'?" in capsys.readouterr().err


def test_every_recipe_can_be_shown(monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "photos")
    for file in CONFIGURATIONS.glob("[!_]*.yaml"):
        assert "network:" in annotated(load_config(file, problems=[]))
