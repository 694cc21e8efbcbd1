"""The configuration: defaults, files that build on files, overrides, and errors that help."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch

from runtime import config as module
from runtime.config import Config, find_config, known_keys, load_config, value_at
from runtime.errors import UserError


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
    assert (weights.perceptual, weights.perceptual_reconstruction) == (0.1, 10)
    assert (config.translation.load_width, config.translation.crop) == (1024, [452, 452])
    assert (config.translation.lr, config.translation.betas) == (2e-4, [0.5, 0.999])
    assert (config.translation.constant_epochs, config.translation.decay_epochs) == (10, 10)
    assert (config.translation.batch_size, config.translation.pool_size) == (4, 50)
    segmentation = config.segmentation
    assert (segmentation.network, segmentation.batch_size) == ("deeplab_v2", 1)
    assert (segmentation.steps, segmentation.pseudo_label_steps) == (80_000, 120_000)
    optimizer = segmentation.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.head_multiplier) == ("sgd", 2.5e-4, 10)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    assert (segmentation.schedule.steps, segmentation.schedule.power) == (250_000, 0.9)
    adversarial = segmentation.adversarial
    assert (adversarial.weight, adversarial.lr, adversarial.betas) == (1e-3, 1e-4, [0.9, 0.99])
    labels = segmentation.pseudo_labels
    assert (labels.portion, labels.cap) == (0.5, 0.9)
    assert config.data.source.size == [1280, 720]
    assert config.data.target.size == config.data.validation.size == [1024, 512]


def test_an_empty_file_is_the_defaults(write):
    assert load_config(write("empty.yaml", "")) == Config()
    assert load_config(write("braces.yaml", "{}")) == Config()


def test_a_file_changes_what_it_names_and_overrides_come_last(write):
    file = write("own.yaml", "seed: 3\nsegmentation: {optimizer: {lr: 0.1}, steps: 7}\n")
    config = load_config(file, ["segmentation.steps=9", "data.source.size=[64,32]", "out=a b"])
    assert (config.seed, config.segmentation.optimizer.lr, config.segmentation.steps) == (3, 0.1, 9)
    assert config.data.source.size == [64, 32] and config.out == "a b"
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


@pytest.mark.parametrize("name", ["elsewhere/demo.yaml", "nothing", "", "."])
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
        ("seed: many", "seed: "),
        ("seed: 1.5", "seed: "),
        ("translation: {images: [3]}", "translation.images: "),
        ("segmentation: {optimizer: {lr: fast}}", "segmentation.optimizer.lr: "),
        ("data: {source: {size: [a, b]}}", "data.source.size"),
        ("data: {source: {size: [64]}}", "data.source.size: is [64]"),
        ("data: {source: {size: [64, 4]}}", "data.source.size: is [64, 4]"),
        ("init: fresh", "init: 'fresh' is not one of initial, previous, adapted"),
        ("seed: -1", "seed: is -1, must be "),
        ("devices: 0", "devices: is 0, must be "),
        ("segmentation: {steps: 0}", "segmentation.steps: is 0"),
        ("segmentation: {optimizer: {lr: .nan}}", "segmentation.optimizer.lr: is nan"),
        ("segmentation: {optimizer: {momentum: -1}}", "segmentation.optimizer.momentum: is -1"),
        ("segmentation: {optimizer: {weight_decay: -1}}", "optimizer.weight_decay: is -1"),
        ("segmentation: {optimizer: {head_multiplier: -1}}", "optimizer.head_multiplier: is -1"),
        ("segmentation: {schedule: {power: -1}}", "segmentation.schedule.power: is -1"),
        ("segmentation: {schedule: {gamma: -1}}", "segmentation.schedule.gamma: is -1"),
        ("segmentation: {pseudo_labels: {portion: 1.1}}", "segmentation.pseudo_labels.portion"),
        ("segmentation: {pseudo_labels: {cap: -0.1}}", "segmentation.pseudo_labels.cap"),
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
        ("translation: {constant_epochs: 0, decay_epochs: 0}", "translation.constant_epochs: is 0"),
        ("translation: {constant_epochs: 0, decay_epochs: 1}", "translation.constant_epochs: is 0"),
        ("{devices: 3, translation: {batch_size: 4}}", "translation.batch_size: is 4"),
        ("- a list", "must be a mapping of keys to values"),
        ("a: [1", "is not valid YAML"),
        ("base: missing.yaml", "base: missing.yaml: no such configuration file"),
        ("base: own.yaml", "builds on itself"),
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
        ("seed=x", "command line: seed: "),
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


@pytest.mark.parametrize("key", ["iterations", "self_training_steps"])
def test_any_sizes_are_fine_where_no_classes_are_mixed(write, key):
    file = write("a.yaml", "segmentation: {class_mixing: true}\ndata: {source: {size: null}}")
    with pytest.raises(UserError, match="class_mixing"):
        load_config(file)
    load_config(file, [f"{key}=0"])


def test_the_smallest_inputs_are_what_the_discriminators_take():
    from segmentation.networks.discriminator import OutputDiscriminator
    from translation.networks import PatchDiscriminator

    least = {name: side for _, side, name in module._smallest_inputs(Config())}
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

    assert len(keys) == count(Config())
    for key in keys:
        value_at(Config(), key)


def test_checked_keys_exist():
    """A range or choice for a key that was renamed would check nothing."""
    checked = {*module._CHOICES, *module._AT_LEAST, *module._AT_MOST, *module._PAIRS}
    assert checked <= set(known_keys())


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
