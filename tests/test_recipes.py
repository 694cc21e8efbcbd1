"""The paper's recipes: every number, one by one, and a plan on tiny data in the true layouts."""

import pytest

from bdl import pipeline
from bdl.runtime.config import CONFIGURATIONS, Config, load_config, value_at
from bdl.runtime.errors import UserError
from tests.helpers import layouts

RECIPES = [
    "gta5_cityscapes_deeplab",
    "gta5_cityscapes_vgg",
    "synthia_cityscapes_deeplab",
    "synthia_cityscapes_vgg",
]
COMMON = {
    "iterations": 2,
    "self_training_steps": 2,
    "init": "initial",
    "precision": "32-true",
    "data.label_space": "cityscapes19",
    "data.target.layout": "cityscapes",
    "data.target.split": "train",
    "data.target.size": (1024, 512),
    "data.validation.layout": "cityscapes",
    "data.validation.split": "val",
    "data.validation.size": (1024, 512),
    "translation.images": None,
    "translation.load_width": 1024,
    "translation.crop": (452, 452),
    "translation.flip": True,
    "translation.batch_size": 4,
    "translation.constant_epochs": 10,
    "translation.decay_epochs": 10,
    "translation.steps_per_epoch": None,
    "translation.lr": 2e-4,
    "translation.betas": (0.5, 0.999),
    "translation.generator.width": 64,
    "translation.generator.blocks": 9,
    "translation.generator.skip": False,
    "translation.generator.grain": 0.0,
    "translation.discriminator_width": 64,
    "translation.pool_size": 50,
    "translation.weights.adversarial": 1.0,
    "translation.weights.cycle": 10.0,
    "translation.weights.identity": 5.0,
    "translation.weights.perceptual": (0.1,),
    "translation.weights.perceptual_reconstruction": (10.0,),
    "segmentation.steps": 80_000,
    "segmentation.pseudo_label_steps": 120_000,
    "segmentation.batch_size": 1,
    "segmentation.adversarial.betas": (0.9, 0.99),
    "segmentation.adversarial.width": 64,
    "segmentation.pseudo_labels.quantile": 0.5,
    "segmentation.pseudo_labels.max_threshold": 0.9,
    "segmentation.class_mixing": False,
    "segmentation.originals": False,
    "segmentation.pseudo_labels.flip": False,
    "segmentation.pseudo_labels.scales": (1.0,),
    "segmentation.augmentation.flip": False,
    "segmentation.augmentation.scale": (1.0, 1.0),
    "segmentation.augmentation.crop": None,
    "segmentation.augmentation.brightness": 0.0,
    "segmentation.evaluation.size": (2048, 1024),
}
SOURCES = {
    "gta5": {
        "data.source.layout": "gta5",
        "data.source.size": (1280, 720),
        "data.source.on_error": "skip",
    },
    "synthia": {"data.source.layout": "synthia", "data.source.size": (1280, 760)},
}
NETWORKS = {
    "deeplab": {
        "segmentation.network": "deeplab_v2",
        "segmentation.options": {"branches": 2},
        "segmentation.optimizer.name": "sgd",
        "segmentation.optimizer.lr": 2.5e-4,
        "segmentation.optimizer.head_multiplier": 10.0,
        "segmentation.optimizer.momentum": 0.9,
        "segmentation.optimizer.weight_decay": 5e-4,
        "segmentation.optimizer.rates": "effective",
        "segmentation.schedule.name": "poly",
        "segmentation.schedule.steps": 250_000,
        "segmentation.schedule.power": 0.9,
        "segmentation.adversarial.weight": 1e-3,
        "segmentation.adversarial.lr": 1e-4,
    },
    "vgg": {
        "segmentation.network": "fcn8s_vgg16",
        "segmentation.options": {},
        "segmentation.optimizer.name": "adam",
        "segmentation.optimizer.lr": 1e-5,
        "segmentation.optimizer.head_multiplier": 1.0,
        "segmentation.optimizer.betas": (0.9, 0.99),
        "segmentation.optimizer.weight_decay": 0.0,
        "segmentation.schedule.name": "step",
        "segmentation.schedule.steps": 50_000,
        "segmentation.schedule.gamma": 0.1,
        "segmentation.adversarial.weight": 1e-4,
        "segmentation.adversarial.lr": 1e-6,
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_number_is_the_published_one(recipe):
    config = load_config(recipe)
    source, _, network = recipe.split("_")
    expected = COMMON | SOURCES[source] | NETWORKS[network]
    assert {key: value_at(config, key) for key in expected} == expected
    assert config.out == "runs/" + recipe.replace("_", "-")
    assert value_at(config, "segmentation.weights").startswith("weights/")


# What the schedule and the pseudo labels of the project's own recipes were when their results were
# made: steps, pseudo_label_steps, the schedule's steps, quantile, max_threshold, scales.
MEASURED = {
    "demo": (400, 500, 520, 0.9, 0.98, (1.0,)),
    "camvid_day_dusk": (2400, None, 2480, 0.0, 0.0, (0.75, 1.0, 1.333, 1.667, 2.0)),
    "streets_camvid_day": (1200, None, 1240, 0.5, 0.9, (1.0, 1.333, 1.667, 2.0)),
}


@pytest.mark.parametrize("recipe", MEASURED)
def test_the_other_recipes_are_those_that_were_measured(recipe, monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "photos")
    config = load_config(recipe).segmentation
    labels, schedule = config.pseudo_labels, config.schedule
    assert (schedule.name, schedule.power) == ("poly", 0.9)
    assert MEASURED[recipe] == (
        config.steps,
        config.pseudo_label_steps,
        schedule.steps,
        labels.quantile,
        labels.max_threshold,
        labels.scales,
    )


def test_the_recipes_are_listed_and_their_common_parts_are_not():
    names = {file.stem for file in CONFIGURATIONS.glob("[!_]*.yaml")}
    assert set(RECIPES) <= names
    with pytest.raises(UserError) as caught:
        load_config("unheard_of")
    assert all(name in str(caught.value) for name in RECIPES)
    assert "_published" not in str(caught.value)


@pytest.fixture
def overrides(tmp_path) -> list[str]:
    layouts.gta5(tmp_path / "gta5", count=8)
    layouts.synthia(tmp_path / "synthia", count=8)
    layouts.cityscapes(tmp_path / "cityscapes")
    (tmp_path / "weights.pt").write_bytes(b"only its hash is taken before a training")
    return [
        f"out={tmp_path / 'run'}",
        f"data.target.root={tmp_path / 'cityscapes'}",
        f"data.validation.root={tmp_path / 'cityscapes'}",
        f"segmentation.weights={tmp_path / 'weights.pt'}",
    ]


def plan(recipe: str, *overrides: str) -> int:
    return pipeline.main(["run", "--config", recipe, "--dry-run", *overrides])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_plan_is_algorithm_1(tmp_path, overrides, capsys, recipe):
    source = recipe.split("_")[0]
    assert plan(recipe, f"data.source.root={tmp_path / source}", *overrides) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    planned = {line[1]: " ".join(line[2:4]) for line in lines if line and line[0] == "run"}
    networks = {"source-only": 80_000}
    for k in (1, 2):
        networks |= {
            f"k{k}/segmentation-0": 80_000,
            f"k{k}/segmentation-1": 120_000,
            f"k{k}/segmentation-2": 120_000,
        }
    # 8 images in batches of 4, 20 epochs less the last, which learns nothing.
    expected = {f"k{k}/translator": "38 steps" for k in (1, 2)}
    expected |= {f"k{k}/translated": "8 images" for k in (1, 2)}
    # All 8 source images, which are fewer than 200, and all 3 of the target.
    expected |= {f"k{k}/translated/measures": "11 images" for k in (1, 2)}
    expected |= {f"k{k}/pseudo-labels-{i}": "3 images" for k in (1, 2) for i in (1, 2)}
    for name, steps in networks.items():
        expected |= {name: f"{steps} steps", f"{name}/evaluation": "2 images"}
    assert planned == expected
    assert not (tmp_path / "run").exists()


def test_translated_images_take_the_place_of_the_translator(tmp_path, overrides, capsys):
    source = f"data.source.root={tmp_path / 'gta5'}"
    given = f"translation.images={tmp_path / 'translated'}"
    for number in range(1, 9):
        layouts.image(tmp_path / f"translated/{number:05d}.png", size=(20, 12))
    assert plan("gta5_cityscapes_deeplab", source, given, *overrides) == 0
    out = capsys.readouterr().out
    assert "k2/segmentation-2" in out and "translator" not in out.split("stages to run")[1]
    (tmp_path / "translated/00003.png").unlink()
    assert plan("gta5_cityscapes_deeplab", source, given, *overrides) == 2
    assert "lacks 1 of 8 source images by name: 00003" in capsys.readouterr().err
    (tmp_path / "translated/00003.png").write_bytes(b"")
    assert plan("gta5_cityscapes_deeplab", source, given, *overrides) == 2
    assert "00003.png: is not a readable image" in capsys.readouterr().err


def test_pairs_of_different_size_are_left_out_of_gta5(tmp_path, overrides, capsys):
    layouts.palette_label(tmp_path / "gta5/labels/00005.png", layouts.ids(7, size=(16, 12)))
    source = f"data.source.root={tmp_path / 'gta5'}"
    assert plan("gta5_cityscapes_deeplab", source, *overrides) == 0
    assert "data.source: 1 of 8 samples left out" in capsys.readouterr().out
    assert plan("gta5_cityscapes_deeplab", source, "data.source.on_error=stop", *overrides) == 2
    assert "00005.png: is 16x12, its image" in capsys.readouterr().err


def test_what_is_missing_is_said_with_what_to_do(tmp_path, overrides, capsys):
    assert plan("gta5_cityscapes_deeplab") == 2
    assert "data.source.root=DIR" in capsys.readouterr().err
    source = f"data.source.root={tmp_path / 'gta5'}"
    assert plan("gta5_cityscapes_deeplab", source, *overrides[:3]) == 2
    error = capsys.readouterr().err
    assert "segmentation.weights: weights" in error and "import-weights" in error


def test_a_file_builds_on_several_and_the_last_wins(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\niterations: 5\n")
    (tmp_path / "b.yaml").write_text("seed: 2\nself_training_steps: 7\n")
    (tmp_path / "c.yaml").write_text("base: [a.yaml, b.yaml]\nself_training_steps: 1\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.seed, config.iterations, config.self_training_steps) == (2, 5, 1)
    (tmp_path / "d.yaml").write_text("base: c.yaml\nseed: 9\n")
    config = load_config(tmp_path / "d.yaml")
    assert (config.seed, config.iterations) == (9, 5)
    assert load_config(tmp_path / "a.yaml").device == Config().device
    (tmp_path / "e.yaml").write_text("base: [a.yaml, gone.yaml]\n")
    with pytest.raises(UserError, match=r"e\.yaml: base: gone\.yaml: no such configuration file"):
        load_config(tmp_path / "e.yaml")
    (tmp_path / "a.yaml").write_text("base: [d.yaml]\n")
    with pytest.raises(UserError, match="builds on itself"):
        load_config(tmp_path / "c.yaml")
