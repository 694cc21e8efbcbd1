"""runtime/config_idle.py: settings that nothing reads are said, and only where the user gave them.

That keys are idle that no stage reads, and no others, is in test_plan.py. Here are those that a
stage's fingerprint holds with its section.
"""

from pathlib import Path

import pytest

from bdl.runtime.config import CONFIGURATIONS, Config, load_config, value_at
from bdl.runtime.config_idle import idle
from bdl.runtime.config_keys import default_of, set_value
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.schedule import rate_factor
from bdl.segmentation.train import make_optimizer


def is_idle(config: Config, key: str) -> bool:
    return any(one.holds(key) for one in idle(config))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_has_what_is_not_idle(name):
    config, network = Config(), build_segmenter("compact", 3, width=4)
    config.segmentation.optimizer.name = name
    (group, *_) = make_optimizer(network, config.segmentation.optimizer).param_groups
    for key in ("momentum", "betas"):
        assert is_idle(config, f"segmentation.optimizer.{key}") == (key not in group)


@pytest.mark.parametrize("name", ["poly", "step"])
def test_a_schedule_follows_what_is_not_idle(name):
    for key in ("power", "gamma"):
        config = Config()
        schedule = config.segmentation.schedule
        schedule.name, schedule.steps = name, 5
        factors = []
        for value in (0.3, 0.7):
            setattr(schedule, key, value)
            factors.append(
                [rate_factor(schedule, step, 20) for step in range(5)]
                + [rate_factor(schedule, 5, 20)]
            )
        key = f"segmentation.schedule.{key}"
        assert is_idle(config, key) == (factors[0] == factors[1]), key


@pytest.mark.parametrize("network", ["compact", "fcn8s_vgg16", "deeplab_v2"])
def test_rates_are_idle_where_a_network_has_one_kind(network):
    config = Config()
    config.segmentation.network = network
    built = build_segmenter(network, 3)
    printed, effective = (
        [(group.multiplier, group.decays, len(list(group.parameters))) for group in groups]
        for groups in (built.parameter_groups("printed"), built.parameter_groups("effective"))
    )
    assert is_idle(config, "segmentation.optimizer.rates") == (printed == effective)


@pytest.mark.parametrize(("rounds", "steps"), [(1, 1), (1, 2), (2, 1), (2, 0), (0, 1)])
def test_growth_is_limited_from_the_second_pseudo_labels_on(rounds, steps):
    config = Config(iterations=rounds, self_training_steps=steps)
    assert is_idle(config, "segmentation.pseudo_labels.max_growth") == (rounds * steps < 2)


def notes(file: str | Path, *overrides: str) -> list[str]:
    lines: list[str] = []
    load_config(file, overrides, notes=lines)
    return lines


def test_what_the_user_gives_without_effect_is_a_line_for_each_reason():
    fda, limit = "translation.method=fda", "segmentation.pseudo_labels.max_growth"
    assert notes("demo", fda, "iterations=1", "translation.weights.perceptual=1", f"{limit}=2") == [
        f"{limit} has no effect: the run's only pseudo labels have none before them",
        f"translation.weights.perceptual has no effect: {fda} trains no translator",
    ]
    (line,) = notes("demo", fda, *(f"translation.{key}=1" for key in ("lr", "batch_size")))
    assert line.startswith("translation.batch_size, translation.lr have no effect: ")
    settings = ["load_width=96", "flip=false", "lr=1", "batch_size=1", "pool_size=3"]
    (line,) = notes("demo", fda, *(f"translation.{setting}" for setting in settings))
    assert " and 2 more have no effect" in line and line.count("translation.") == 4


def test_nothing_is_said_of_what_was_given_before_nor_of_own_files(tmp_path, monkeypatch):
    """A command line that leaves rounds out does not mean the file's translators."""
    monkeypatch.setenv("CAMVID_ROOT", "photos")
    for file in sorted(CONFIGURATIONS.glob("[a-z]*.yaml")):
        for overrides in ([], ["iterations=0", "data.target_labelled=null"]):
            assert notes(file, *overrides) == []
    file = tmp_path / "mine.yaml"
    file.write_text("translation: {lr: 0.5, method: fda}\n")
    assert len(notes(file)) == 1
    file.write_text("translation: {lr: 0.5}\n")
    assert notes(file, "translation.method=fda") == notes(file, "iterations=0") == []
    usual = default_of("translation.lr")
    file.write_text(f"translation: {{lr: {usual}, method: fda}}\n")  # as a run's config.yaml has it
    assert notes(file) == []


def test_a_section_is_idle_with_all_that_is_in_it():
    config = Config(iterations=0)
    for key in ("translation.weights.cycle", "translation.lr", "segmentation.adversarial.weight"):
        set_value(config, key, value_at(config, key))
        assert is_idle(config, key)
    assert not is_idle(config, "segmentation.steps")
