"""The configuration: defaults, files that build on files, overrides, and errors that help."""

import logging
import math
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bdl.runtime import config as module
from bdl.runtime.config import (
    Config,
    DomainConfig,
    SegmentationConfig,
    SegmenterTraining,
    TranslationConfig,
    TranslatorTraining,
    find_config,
    known_keys,
    load_config,
    part_of,
    to_yaml,
    value_at,
)
from bdl.runtime.config_checks import smallest_inputs, wanted
from bdl.runtime.config_keys import RENAMED, Key, all_keys, set_value
from bdl.runtime.errors import UserError
from bdl.runtime.yaml_text import to_text


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write_file


def test_defaults_are_the_papers():
    config = Config()
    assert (config.iterations, config.self_training_steps, config.init) == (2, 2, "initial")
    weights = config.translation.weights
    assert (weights.adversarial, weights.cycle, weights.identity) == (1, 10, 5)
    assert (weights.perceptual, weights.perceptual_reconstruction) == ((0.1,), (10,))
    assert (config.translation.load_width, config.translation.crop) == (1024, (452, 452))
    assert (config.translation.lr, config.translation.betas) == (2e-4, (0.5, 0.999))
    assert (config.translation.constant_epochs, config.translation.decay_epochs) == (10, 10)
    assert (config.translation.batch_size, config.translation.pool_size) == (4, 50)
    segmentation = config.segmentation
    assert (segmentation.network, segmentation.batch_size) == ("deeplab_v2", 1)
    assert (segmentation.steps, segmentation.pseudo_label_steps) == (80_000, 120_000)
    optimizer = segmentation.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.head_multiplier) == ("sgd", 2.5e-4, 10)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    # But for the schedule, which ends with the training; the published recipes state theirs.
    assert (segmentation.schedule.steps, segmentation.schedule.power) == (None, 0.9)
    adversarial = segmentation.adversarial
    assert (adversarial.weight, adversarial.lr, adversarial.betas) == (1e-3, 1e-4, (0.9, 0.99))
    labels = segmentation.pseudo_labels
    assert (labels.quantile, labels.max_threshold) == (0.5, 0.9)
    assert config.data.source.size == (1280, 720)
    assert config.data.target.size == config.data.validation.size == (1024, 512)


def test_an_empty_file_is_the_defaults(write):
    assert load_config(write("empty.yaml", "")) == Config()
    assert load_config(write("braces.yaml", "{}")) == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5", [0.5] * 3), ("2", [2.0] * 3), ("[0, 0.1]", [0.0, 0.1, 0.1]), ("[3]", [3.0] * 3)],
)
def test_a_number_by_round_is_one_or_several_and_the_last_one_stays(write, text, expected):
    config = load_config(write("own.yaml", f"translation: {{weights: {{perceptual: {text}}}}}"))
    weights = [config.translation.weights.of_round(k) for k in (1, 2, 3)]
    assert [one.perceptual for one in weights] == expected
    assert {one.perceptual_reconstruction for one in weights} == {10.0}
    assert load_config(write("again.yaml", module.to_yaml(config))) == config


def test_a_list_of_any_length_may_be_one_value(write):
    config = load_config(write("own.yaml", "segmentation: {pseudo_labels: {scales: 1.5}}"))
    assert config.segmentation.pseudo_labels.scales == (1.5,)


def test_a_file_changes_what_it_names_and_overrides_come_last(write):
    file = write("own.yaml", "seed: 3\nsegmentation: {optimizer: {lr: 0.1}, steps: 7}\n")
    config = load_config(file, ["segmentation.steps=9", "data.source.size=[64,32]", "out=a b"])
    assert (config.seed, config.segmentation.optimizer.lr, config.segmentation.steps) == (3, 0.1, 9)
    assert config.data.source.size == (64, 32) and config.out == "a b"
    assert config.segmentation.optimizer.momentum == 0.9
    assert config.data.source.layout == "gta5"


def test_files_build_on_files_beside_them(write):
    write("first.yaml", "seed: 1\niterations: 1\nsegmentation: {steps: 1, batch_size: 2}")
    write("second.yaml", "base: first.yaml\niterations: 3\nsegmentation: {steps: 3}")
    third = write("deeper/third.yaml", "base: ../second.yaml\nsegmentation: {steps: 4}")
    config = load_config(third, ["seed=9"])
    assert (config.seed, config.iterations) == (9, 3)
    assert (config.segmentation.steps, config.segmentation.batch_size) == (4, 2)


def test_files_build_on_the_projects_own(write):
    config = load_config(write("own.yaml", "base: demo\nseed: 5"))
    assert (config.seed, config.data.label_space) == (5, "camvid11")


def test_null_is_taken_where_there_is_a_default_without_a_value(write):
    config = load_config(write("own.yaml", "segmentation: {pseudo_label_steps: null}"))
    assert config.segmentation.pseudo_label_steps is None


@pytest.mark.parametrize("file", sorted(module.CONFIGURATIONS.glob("*.yaml")), ids=lambda f: f.stem)
def test_the_projects_own_configurations_are_valid(file, monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "photos")  # where one of them has its data from
    assert isinstance(load_config(file), Config)


def test_own_configurations_are_found_by_name_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = module.CONFIGURATIONS / "demo.yaml"
    assert find_config("demo") == find_config("demo.yaml") == expected
    assert find_config("configs/demo.yaml") == expected
    (tmp_path / "demo.yaml").write_text("")
    assert find_config("demo.yaml") == Path("demo.yaml")


@pytest.mark.parametrize("name", ["elsewhere/demo.yaml", "./demo.yaml", "nothing", "", "."])
def test_files_that_are_not_there_are_named(tmp_path, monkeypatch, name):
    """Another folder's demo.yaml is not silently the project's own."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such configuration file; .*demo"):
        find_config(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sed: 1", "unknown key 'sed'; did you mean 'seed'?"),
        ("segmentation: {optimiser: {lr: 1}}", "did you mean 'segmentation.optimizer'?"),
        ("translation: {cycle: 5}", "did you mean 'translation.weights.cycle'?"),
        ("momentum: 0.5", "did you mean 'segmentation.optimizer.momentum'?"),
        ("segmentation: {lr: 1}", "did you mean 'segmentation.optimizer.lr'?"),
        ("data: {source: {path: /x}}", "unknown key 'data.source.path'"),
        ("qqqq: 1", "unknown key 'qqqq'"),
        ("seed: many", "seed: is 'many', must be a whole number of at least 0"),
        ("seed: 1.5", "seed: is 1.5, must be a whole number of at least 0"),
        ("seed:", "seed: is null, must be a whole number"),
        ("out: null", "out: is null, must be a folder"),
        ("out: ''", "out: is empty; give the folder"),
        ("data: {cache: ' '}", "data.cache: is empty; give the folder, or null for none"),
        ("translation: {flip: 3}", "translation.flip: is 3, must be true or false"),
        ("compile: 3", "compile: '3' is not one of auto, true, false"),
        (
            "translation: {weights: {perceptual: []}}",
            "translation.weights.perceptual: is [], must be a number, or list of numbers by round",
        ),
        ("translation: {weights: {perceptual: [1, -1]}}", "perceptual: is [1.0, -1.0], must be"),
        ("translation: {weights: {perceptual: fast}}", "perceptual: is 'fast', must be a number"),
        (
            "translation: {method: fda, images: made}",
            "translation.method: is fda, and translation.images gives images that are translated",
        ),
        ("translation: {method: cut}", "translation.method: 'cut' is not one of cyclegan, fda"),
        ("translation: {fda: {beta: 0.6}}", "translation.fda.beta: is 0.6, must be a number from"),
        ("translation: {images: [3]}", "translation.images: is [3], must be a folder, or null"),
        ("translation: {checkpoints: x}", "translation.checkpoints: is 'x', must be {name: file}"),
        ("segmentation: {optimizer: {lr: fast}}", "segmentation.optimizer.lr: is 'fast', must be"),
        (
            "data: {source: {size: [a, b]}}",
            "data.source.size: is ['a', 'b'], must be [width, height] in pixels, each at least 8",
        ),
        ("data: {source: {size: [1, 2, 3]}}", "data.source.size: is [1, 2, 3], must be [width"),
        ("data: {source: {size: [64]}}", "data.source.size: is [64]"),
        ("data: {source: {size: [64, 4]}}", "data.source.size: is [64, 4]"),
        ("init: null", "init: null is not one of initial, previous, adapted"),
        ("init: fresh", "init: 'fresh' is not one of initial, previous, adapted"),
        ("seed: -1", "seed: is -1, must be a whole number of at least 0"),
        ("devices: 0", "devices: is 0, must be "),
        ("segmentation: {steps: 0}", "segmentation.steps: is 0"),
        ("segmentation: {optimizer: {lr: .nan}}", "segmentation.optimizer.lr: is nan"),
        ("segmentation: {optimizer: {momentum: -1}}", "segmentation.optimizer.momentum: is -1"),
        ("segmentation: {optimizer: {weight_decay: -1}}", "optimizer.weight_decay: is -1"),
        ("segmentation: {optimizer: {head_multiplier: -1}}", "optimizer.head_multiplier: is -1"),
        ("segmentation: {schedule: {power: -1}}", "segmentation.schedule.power: is -1"),
        ("segmentation: {schedule: {gamma: -1}}", "segmentation.schedule.gamma: is -1"),
        ("segmentation: {pseudo_labels: {quantile: 1.1}}", "segmentation.pseudo_labels.quantile"),
        (
            "segmentation: {pseudo_labels: {max_threshold: -0.1}}",
            "segmentation.pseudo_labels.max_threshold",
        ),
        ("segmentation: {augmentation: {scale: [2, 1]}}", "segmentation.augmentation.scale"),
        ("segmentation: {augmentation: {hue: 0.6}}", "segmentation.augmentation.hue"),
        ("segmentation: {adversarial: {betas: [0.9, 1]}}", "segmentation.adversarial.betas"),
        ("translation: {betas: [0.9]}", "translation.betas"),
        (
            "segmentation: {class_mixing: true}",
            "segmentation.class_mixing: needs source and target images of one size, has ",
        ),
        (
            "data: {source: {size: null}, target: {size: null}}\n"
            "segmentation: {class_mixing: true}",
            "segmentation.class_mixing: needs source and target images of one size, has ",
        ),
        ("translation: {crop: [16, 64]}", "translation.crop: is [16, 64]"),
        ("translation: {crop: [], load_width: 64}", "translation.crop: is [], must be [width"),
        (
            "segmentation: {augmentation: {crop: [31, 64]}}",
            "segmentation.augmentation.crop: is [31",
        ),
        ("data: {target: {size: [64, 31]}}", "data.target.size: is [64, 31], must be at least 32"),
        ("segmentation: {pseudo_labels: {scales: []}}", "pseudo_labels.scales: is [], must be"),
        ("segmentation: {pseudo_labels: {scales: [1, 0]}}", "scales: is [1.0, 0.0], must be"),
        ("segmentation: {pseudo_labels: {scales: [0.01]}}", "scales: is [0.01]: images of less"),
        (
            "{data: {target: {size: null}}, segmentation: {pseudo_labels: {scales: [2]}}}",
            "segmentation.pseudo_labels.scales: is [2.0], of which size? Set data.target.size",
        ),
        ("translation: {weights: {cycle: -1}}", "translation.weights.cycle: is -1"),
        (
            "translation: {weights: {adversarial: 0, cycle: 0, identity: 0}}",
            "translation.weights.adversarial: is 0, as are translation.weights.cycle and "
            "translation.weights.identity; set one of them above 0",
        ),
        ("translation: {constant_epochs: 0, decay_epochs: 0}", "translation.constant_epochs: is 0"),
        ("translation: {constant_epochs: 0, decay_epochs: 1}", "translation.constant_epochs: is 0"),
        ("{devices: 3, translation: {batch_size: 4}}", "translation.batch_size: is 4"),
        ("data: {validation: }", "data.validation: is empty; give its keys, or null for none"),
        ("data: null", "data: has keys of its own; set data.KEY"),
        ("data: {target: null}", "data.target: is null, and iterations=2 adapts to it; set iter"),
        ("segmentation: {schedule: {name: step}}", "schedule.steps: is null; schedule.name=step"),
        (
            "segmentation: {schedule: {steps: 100}, steps: 101}",
            "segmentation.schedule.steps: is 100, where the rate becomes 0, but segmentation.steps "
            "is 101",
        ),
        (
            "segmentation: {schedule: {steps: 100}, steps: 100, pseudo_label_steps: 101}",
            "segmentation.schedule.steps: is 100, where the rate becomes 0, but "
            "segmentation.pseudo_label_steps is 101",
        ),
        ("seed: 1\nseed: 2", "is not valid YAML: 'seed' is given again in line 2"),
        ("segmentation: {steps:5}", "'steps:5' lacks a space after the colon in line 1"),
        (
            "data:\n  target:\n    images: */*.png",
            "in line 3; put quotes around */*.png if it is text",
        ),
        ("data:\n  target:\n    images: {split}/*", "put quotes around {split}/* if"),
        ("data:\n\tlabel_space: x", "in line 2; indent by spaces, not by tabs"),
        ("out: ${nowhere}", "out: '${nowhere}' cannot be looked up"),
        ("out: ${nowhere", "out: '${nowhere' is not a valid ${...}"),
        ("out: '???'", "out: is '???', which stands for a missing value"),
        ("- a list", "must be a mapping of keys to values"),
        ("a: [1", "is not valid YAML"),
        ("base: missing.yaml", "base: missing.yaml: no such configuration file"),
        ("base: own.yaml", "builds on itself"),
        ("base: ./demo.yaml", "base: ./demo.yaml: no such configuration file"),
        ("base: own", "; did you mean 'own.yaml'?"),
    ],
)
def test_errors_name_the_file_and_the_key_in_one_line(write, text, expected):
    file = write("own.yaml", text)
    with pytest.raises(UserError) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and expected in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "command line: 'seed' is not of the form key=value"),
        ("segmentation.stepz=3", "command line: unknown key 'segmentation.stepz'; did you mean"),
        ("seed=x", "command line: seed: is 'x', must be a whole number of at least 0"),
        ("seed=", "command line: seed: is null"),
        ("translation.crop=[32", "command line: translation.crop: '[32' is not valid YAML"),
        ("data=3", "command line: data: has keys of its own; set data.KEY"),
        ("data.validation=", "command line: data.validation: is empty; give its keys, or null"),
        ("seed=!!python/name:os.x y", "command line: seed: '!!python/name:os.x y' is not valid"),
    ],
)
def test_errors_of_overrides_name_the_command_line(write, override, expected):
    with pytest.raises(UserError) as caught:
        load_config(write("own.yaml", ""), [override])
    assert str(caught.value).startswith(expected)


def test_small_images_are_fine_where_no_discriminator_sees_them(write):
    load_config(write("a.yaml", "iterations: 0\ndata: {target: {size: [16, 16]}}"))
    text = "segmentation: {adversarial: {weight: 0}}\ndata: {target: {size: [16, 16]}}"
    load_config(write("b.yaml", text))


@pytest.mark.parametrize(
    "text", ["iterations: 0", "translation.method: fda", "translation.weights.identity: 1"]
)
def test_weights_of_0_are_fine_where_no_translator_is_trained_with_nothing_else(write, text):
    text = f"translation.weights: {{adversarial: 0, cycle: 0, identity: 0}}\n{text}"
    load_config(write("own.yaml", text))


@pytest.mark.parametrize("key", ["iterations", "self_training_steps"])
def test_any_sizes_are_fine_where_no_classes_are_mixed(write, key):
    file = write("a.yaml", "segmentation: {class_mixing: true}\ndata: {source: {size: null}}")
    with pytest.raises(UserError, match="class_mixing"):
        load_config(file)
    load_config(file, [f"{key}=0"])


def test_the_smallest_inputs_are_what_the_discriminators_take():
    from bdl.segmentation.networks.discriminator import OutputDiscriminator
    from bdl.translation.networks import PatchDiscriminator

    least = {name: side for _, side, name in smallest_inputs(Config())}
    judges = {
        "patch discriminator": lambda side: PatchDiscriminator(2)(torch.rand(1, 3, side, side)),
        "output discriminator": lambda side: OutputDiscriminator(3, 2)(
            torch.rand(1, 3, side, side)
        ),
    }
    assert least.keys() == judges.keys()
    for name, judge in judges.items():
        assert judge(least[name]).numel() >= 1
        with pytest.raises((ValueError, RuntimeError)):
            judge(least[name] - 1)


def test_known_keys_are_all_keys():
    keys = known_keys()
    assert len(keys) == len(set(keys))
    assert {"seed", "translation.weights.cycle", "segmentation.optimizer.lr"} <= set(keys)

    def count(section: object) -> int:
        values = [getattr(section, item.name) for item in fields(section)]
        return len(values) + sum(count(value) for value in values if is_dataclass(value))

    config = Config()
    config.data.target_labelled = DomainConfig()  # null by default
    assert len(keys) == count(config)
    for key in keys:
        value_at(config, key)


def test_an_environment_variable_that_is_not_set_is_named_with_the_way_out(monkeypatch):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    with pytest.raises(UserError) as raised:
        load_config("camvid_day_dusk")
    assert str(raised.value).endswith(
        "data.source.root: the environment variable CAMVID_ROOT is not set; "
        "set it, or give data.source.root=VALUE"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"width": 4, "dilations": [1]}),
        (["segmentation.options.width=8"], {"width": 8, "dilations": [1]}),
        (["segmentation.network=compact"], {"width": 4, "dilations": [1]}),
        (["segmentation.network=deeplab_v2"], {}),
        (["segmentation.network=deeplab_v2", "segmentation.options.branches=2"], {"branches": 2}),
    ],
)
def test_options_go_with_the_network_that_they_were_given_for(tmp_path, overrides, expected):
    file = tmp_path / "own.yaml"
    file.write_text("segmentation: {network: compact, options: {width: 4, dilations: [1]}}")
    assert load_config(file, overrides).segmentation.options == expected


def test_options_of_a_base_are_dropped_with_its_network(tmp_path):
    (tmp_path / "base.yaml").write_text("segmentation: {network: compact, options: {width: 4}}")
    file = tmp_path / "own.yaml"
    file.write_text("base: base.yaml\nsegmentation: {network: deeplab_v2}")
    assert load_config(file).segmentation.options == {}


# Every key, by its type and range


def just_outside(key: Key) -> list[float]:
    """Numbers next to the ends of the key's range that do not lie in it."""
    ends, whole = key.range, key.hint is int or get_args(key.hint)[:1] == (int,)
    below = (lambda end: int(end) - 1) if whole else (lambda end: math.nextafter(end, -math.inf))
    above = (lambda end: int(end) + 1) if whole else (lambda end: math.nextafter(end, math.inf))
    outside = [below(ends.least)] if ends.least is not None else [ends.above]
    if ends.most is not None:
        outside.append(above(ends.most))
    if ends.below is not None:
        outside.append(ends.below)
    return outside if whole else [*outside, math.nan, math.inf, -math.inf]


def at_the_edge(key: Key) -> list[float]:
    ends = key.range
    edge = ends.least if ends.least is not None else math.nextafter(ends.above, math.inf)
    far = ends.most if ends.most is not None else edge
    return [edge, math.nextafter(ends.below, -math.inf) if ends.below is not None else far]


def filled(key: Key, number: float) -> Any:
    """A value of the key in which all numbers are that."""
    return [number, number] if get_origin(key.hint) is tuple else number


WITH_RANGE = [name for name, key in all_keys().items() if key.range is not None]


@pytest.mark.parametrize("name", WITH_RANGE)
def test_a_key_with_a_range_takes_its_edges_and_nothing_outside(write, name):
    key = all_keys()[name]

    def refused(number: float) -> bool:
        problems: list[str] = []
        file = write("own.yaml", to_text({name: filled(key, number)}))
        load_config(file, problems=problems)
        # What does not go together with other keys is another matter.
        said = [line for line in problems if line.endswith(f", must be {wanted(key)}")]
        assert all(line.startswith(f"{file}: {name}: is ") for line in said)
        return bool(said)

    assert all(map(refused, just_outside(key)))
    assert not any(map(refused, at_the_edge(key)))


def test_every_number_has_a_range():
    """A number that may be anything is one whose range was forgotten."""
    for name, key in all_keys().items():
        if key.hint in (int, float) or get_args(key.hint)[:1] in ((int,), (float,)):
            assert key.range is not None, name


WITH_CHOICES = [name for name, key in all_keys().items() if key.choices]


@pytest.mark.parametrize("name", WITH_CHOICES)
def test_a_key_with_choices_names_them_for_another_word(write, name):
    key = all_keys()[name]
    for word in ("another", key.choices[0].upper()):
        with pytest.raises(UserError) as caught:
            load_config(write("own.yaml", ""), [f"{name}={word}"])
        said = f"command line: {name}: '{word}' is not one of {', '.join(key.choices)}"
        assert str(caught.value) == said
    for choice in key.choices:
        problems: list[str] = []
        config = load_config(write("own.yaml", ""), [f"{name}={choice}"], problems)
        assert value_at(config, name) == choice


def test_null_is_a_value_of_just_the_optional_keys(write):
    file = write("own.yaml", "")
    for name, key in all_keys().items():
        problems: list[str] = []
        config = load_config(file, [f"{name}=null"], problems)
        assert key.optional is not bool([line for line in problems if f": {name}: " in line]) or (
            name == "data.target"  # which the iterations of the default need
        )
        if key.optional:
            assert value_at(config, name) is None


# Text


def texts() -> list[str]:
    return [name for name, key in all_keys().items() if key.hint is str]


# Of other types than text, or of none, for a reader of YAML
PLAIN = ["0016", "2024_11_02", "2024-11-02", "1e3", "no", "yes", "0x1f", "12:30", "true", ".nan"]
PLAIN += ["a=b", "x'y", "ä 道", "a\\b", "$x", "a,b", "<<", "="]
NOT_PLAIN = ["runs/trial #2", "*/*.png", "{split}/*", "[a]", "a: b", "- a", "&a", "!b", "%", "@"]
NOT_PLAIN += ["`", " a", "|", ">", "?", "#x"]
LOOKS_LOOKED_UP = ["${x}", "a/${x.y}/b", "${", "${}", "$${x}", "\\${x}", "${oc.decode:1}"]


@pytest.mark.parametrize("text", [*PLAIN, *NOT_PLAIN, *LOOKS_LOOKED_UP])
def test_text_stays_text(write, text):
    for name in ("out", "data.target.split", "data.source.images", "segmentation.network"):
        config = load_config(write("own.yaml", ""), [f"{name}={text}"], [])
        assert value_at(config, name) == text
        # And so it is in the file that is written of it.
        again = load_config(write("again.yaml", to_yaml(config)), problems=[])
        assert again == config
    if text in PLAIN:
        assert load_config(write("own.yaml", f"out: {text}")).out == text


@pytest.mark.parametrize("text", ["0016", "~no", "no", "1e3", "null_", "a b"])
def test_text_in_keys_of_free_names_stays_text(write, text):
    for override in (f"k1/translator={text}", f"={{k1/translator: {text}}}"):
        joint = "" if override.startswith("=") else "."
        overrides = [f"translation.checkpoints{joint}{override}"]
        config = load_config(write("own.yaml", ""), overrides)
        assert config.translation.checkpoints == {"k1/translator": text}
    both = "segmentation: {checkpoints: {no: 1.0}}"
    config = load_config(write("own.yaml", both), ["segmentation.checkpoints.k1/segmentation-0=x"])
    assert config.segmentation.checkpoints == {"no": "1.0", "k1/segmentation-0": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("'null'", "null"), ('"a b"', "a b"), ("'it''s'", "it's"), ("'", "'"), ("'a' or 'b'",) * 2],
)
def test_text_that_is_quoted_as_a_whole_is_what_stands_in_the_quotes(write, text, expected):
    assert load_config(
        write("own.yaml", ""), [f"data.source.labels={text}"]
    ).data.source.labels == (expected)


@settings(deadline=None, max_examples=50)
@given(text=st.text("$\\{}:.ax", min_size=1))
@example(text="\\\\${a}\\${b}${c}")
def test_text_of_the_command_line_is_not_looked_up(text):
    overrides = [f"data.source.labels=x{text}", f"translation.checkpoints.k1/translator=x{text}"]
    config = load_config("demo", overrides)
    assert config.data.source.labels == f"x{text}"
    assert config.translation.checkpoints == {"k1/translator": f"x{text}"}


def test_what_is_documented_is_looked_up_on_the_command_line_too(write, monkeypatch):
    monkeypatch.setenv("PHOTOS", "/photos")
    file = write("own.yaml", "seed: 7")
    overrides = ["out=runs/${seed}-${x}", "data.source.root=${oc.env:PHOTOS}/a"]
    overrides += ["data.target.root=${oc.env:NONE,/b}", "segmentation.steps=${seed}"]
    config = load_config(file, overrides)
    assert (config.out, config.segmentation.steps) == ("runs/7-${x}", 7)
    assert (config.data.source.root, config.data.target.root) == ("/photos/a", "/b")
    with pytest.raises(UserError, match="the environment variable NOWHERE is not set"):
        load_config(file, ["out=${oc.env:NOWHERE}"])


def test_numbers_are_read_as_people_write_them(write):
    overrides = ["seed=0016", "translation.lr=1e-5", "segmentation.options.a.b=1e-3"]
    config = load_config(write("own.yaml", "segmentation: {network: x}"), overrides)
    assert (config.seed, config.translation.lr) == (16, 1e-5)
    assert config.segmentation.options == {"a": {"b": 1e-3}}


def test_a_leading_tilde_is_the_home_folder_in_every_path(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for name, key in all_keys().items():
        if "path" in key.metadata:
            inner = ".k1/x" if get_origin(key.hint) is dict else ""
            config = load_config(write("own.yaml", ""), [f"{name}{inner}=~/x~y"])
            value = value_at(config, name)
            assert (value["k1/x"] if inner else value) == "/home/me/x~y"
    config = load_config(write("own.yaml", "data: {source: {images: ~/x}}"))
    assert config.data.source.images == "~/x"  # a pattern below the root


# Where a value is from


def test_whoever_set_a_value_is_blamed_for_it(write):
    base = write("base.yaml", "segmentation: {steps: 0}\ndevices: 1")
    file = write("own.yaml", "base: base.yaml\nseed: -1")

    def said(*overrides: str) -> list[str]:
        problems: list[str] = []
        load_config(file, list(overrides), problems)
        return problems

    assert [line.split(": is")[0] for line in said()] == [
        f"{file}: seed",
        f"{base}: segmentation.steps",
    ]
    assert [line.split(": is")[0] for line in said("seed=-2", "segmentation.steps=3")] == [
        "command line: seed"
    ]
    # Of two that do not go together, the later.
    together = said("seed=1", "segmentation.steps=1", "devices=3")
    assert [line.split(": is")[0] for line in together] == [
        "command line: translation.batch_size",
        "command line: segmentation.batch_size",
    ]


def test_all_problems_are_said_at_once(write):
    problems: list[str] = []
    overrides = [
        "sed=1",
        "seed=x",
        "init=y",
        "seed",
        "devices=0",
        "out=",
        "data.target.root=${oc.env:NONE}",
    ]
    config = load_config(write("own.yaml", "saed: 1"), overrides, problems)
    assert len(problems) == 8 and all(len(line.splitlines()) == 1 for line in problems)
    assert (config.seed, config.init, config.data.target.root) == (0, "initial", None)


# Data sets that are not there


def test_without_a_target_there_is_source_only(write):
    file = write("own.yaml", "data: {target: null}\nsegmentation: {class_mixing: true}")
    assert load_config(file, ["iterations=0"]).data.target is None
    with pytest.raises(UserError, match=r"own\.yaml: data\.target: is null"):
        load_config(file)
    with pytest.raises(UserError, match=r"command line: data\.target: is null"):
        load_config(file, ["iterations=1"])


def test_a_data_set_can_be_taken_away_and_given_again(write):
    config = load_config(write("own.yaml", ""), ["data.validation=null"])
    assert config.data.validation is None
    assert load_config(write("again.yaml", to_yaml(config))) == config
    assert value_at(config, "data.validation.size") is None
    config = load_config(
        write("own.yaml", "data: {validation: null}"),
        ["data.validation.root=photos", "data.validation.size=[64,32]"],
    )
    validation = config.data.validation
    assert (validation.layout, validation.root, validation.size) == ("folder", "photos", (64, 32))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("layout=${oc.env:NOT_SET}", "the environment variable NOT_SET is not set"),
        ("scenes=-1", "is -1, must be a whole number of at least 0"),
    ],
)
def test_a_section_that_is_null_by_default_has_defaults_of_its_own(write, override, said):
    problems: list[str] = []
    file = write("own.yaml", "data: {target_labelled: {root: photos}}")
    load_config(file, [f"data.target_labelled.{override}"], problems)
    assert len(problems) == 1 and said in problems[0]
    assert load_config(file).data.target_labelled == DomainConfig(root="photos")


def test_what_is_taken_away_needs_no_environment_variable(monkeypatch):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    roots = ["data.source.root=a", "data.target.root=b"]
    assert load_config("camvid_day_dusk", [*roots, "data.validation=null"]).data.validation is None


# The schedule


@pytest.mark.parametrize(
    "text",
    [
        "{schedule: {steps: 100}, steps: 100, pseudo_label_steps: 100}",
        "{schedule: {steps: 100}, steps: 100, pseudo_label_steps: null}",
        "{schedule: {steps: 100, power: 0}, steps: 200, pseudo_label_steps: 200}",
        "{schedule: {steps: 100, name: step}, steps: 200, pseudo_label_steps: 200}",
        "{schedule: {steps: null}, steps: 200, pseudo_label_steps: 200}",
    ],
)
def test_a_rate_that_lasts_to_the_end_is_fine(write, text):
    load_config(write("own.yaml", f"segmentation: {text}"))


def test_a_training_that_never_runs_may_be_longer_than_the_schedule(write):
    text = "segmentation: {schedule: {steps: 100}, steps: 100, pseudo_label_steps: 200}"
    file = write("own.yaml", text)
    for key in ("iterations", "self_training_steps"):
        load_config(file, [f"{key}=0"])
    rounds = ["iterations=1", "self_training_steps=1"]
    with pytest.raises(UserError, match="where the rate becomes 0"):
        load_config(file, rounds)
    load_config(file, [*rounds, "segmentation.checkpoints.k1/segmentation-1=given.pt"])


# Old names, parts, files


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names_of_keys_are_still_read_with_a_note(write, caplog, monkeypatch, old, new):
    monkeypatch.setattr(logging.getLogger("bdl"), "propagate", True)
    assert old not in all_keys()
    file = write("old.yaml", to_text({old: 0.25}))
    assert value_at(load_config(file), new) == 0.25
    assert value_at(load_config(write("own.yaml", ""), [f"{old}=0.5"]), new) == 0.5
    notes = [f"{origin}: {old} is called {new} now" for origin in (file, "command line")]
    assert caplog.messages == notes
    with pytest.raises(UserError, match=f"did you mean '{new}'"):
        load_config(file, [f"{old}s=1"])


def test_parts_of_a_section_are_what_a_training_reads():
    config = TranslationConfig(batch_size=7, images="x")
    part = config.of_round(1)
    assert type(part) is TranslatorTraining and part.batch_size == 7
    config.generator.width = 99
    assert part.generator.width == 64
    segmentation = part_of(SegmenterTraining, SegmentationConfig(options={"a": 1}))
    assert {item.name for item in fields(segmentation)} == {
        "network",
        "options",
        "batch_size",
        "optimizer",
        "schedule",
        "augmentation",
    }
    assert segmentation.options == {"a": 1}


@pytest.mark.parametrize("file", sorted(module.CONFIGURATIONS.glob("*.yaml")), ids=lambda f: f.stem)
def test_what_is_written_is_read_as_the_same(write, file, monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "~photos/${x}/0016")
    config = load_config(file)
    assert load_config(write("again.yaml", to_yaml(config))) == config


@settings(deadline=None, max_examples=50)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1))
@example(text="\\\\${a}\\${b}${c}")
@example(text="null")
@example(text="'null'")
def test_any_text_is_written_so_that_it_is_read_as_the_same(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("any") / "own.yaml"
    config = Config()
    for name in ("data.source.images", "data.target.split"):
        set_value(config, name, f"x{text}")
    config.data.validation.labels = text
    config.segmentation.options = {"x": text, "y": [text]}
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(file, problems=[]) == config


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("demmo", "demo"),
        ("configs/demmo.yaml", "configs/demo.yaml"),
        ("camvid_day_dask", "camvid_day_dusk"),
        ("mien.yaml", "mine.yaml"),
        ("mine", "mine.yaml"),
        ("run", "run/config.yaml"),
        ("elsewhere/demo2.yaml", "demo"),
    ],
)
def test_a_mistyped_file_or_recipe_is_suggested(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    for file in ("mine.yaml", "run/config.yaml", "configs/demo.yaml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    with pytest.raises(UserError) as caught:
        load_config(name)
    assert str(caught.value).startswith(f"{name}: no such configuration file; the project's own")
    assert str(caught.value).endswith(f"; did you mean '{meant}'?")


def test_a_file_that_is_not_in_utf_8_says_so(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_bytes('out: "Stra\u00dfe"'.encode("latin-1"))
    with pytest.raises(UserError, match=r"is not valid YAML: .*; store it as text in UTF-8"):
        load_config(file)


def test_an_error_is_one_line_whatever_files_are_called(tmp_path):
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "new\nline.yaml")
    assert "new\\nline.yaml: no such" in str(caught.value) and "\n" not in str(caught.value)


def test_sections_of_comments_alone_and_dotted_keys_are_fine(write):
    text = "segmentation:\n  # steps: 3\nsegmentation.optimizer.lr: 0.5\n"
    assert load_config(write("own.yaml", text)).segmentation.optimizer.lr == 0.5


def test_checking_a_configuration_takes_no_torch():
    code = (
        "import sys; from bdl.runtime.config import load_config; load_config('demo'); "
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("key", ["compile", "replay"])
@pytest.mark.parametrize("text", ["auto", "true", "false", '"true"'])
def test_a_switch_is_read_and_written(tmp_path, key, text):
    """YAML's true and false are words of it, as auto is."""
    file = tmp_path / "a.yaml"
    file.write_text(f"{key}: {text}\n", encoding="utf-8")
    for config in (load_config(file), load_config("demo", [f"{key}={text}"])):
        assert getattr(config, key) == text.strip('"')
        (tmp_path / "b.yaml").write_text(to_yaml(config), encoding="utf-8")
        assert load_config(tmp_path / "b.yaml") == config
