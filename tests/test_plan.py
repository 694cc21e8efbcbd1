"""From a configuration to stages: which of them a key changes, and what stands for Algorithm 1."""

import os
import re
import shutil
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bdl.domains import index
from bdl.domains.problem import Problem
from bdl.execution import Loop
from bdl.pipeline import algorithm
from bdl.runtime.config import Config, known_keys, load_config, value_at
from bdl.runtime.config_idle import idle
from bdl.runtime.config_keys import set_value
from bdl.runtime.console import Console
from bdl.runtime.errors import UserError
from bdl.runtime.stage import Stage, flatten
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.networks import build_segmenter

ROLES = ("source", "target", "target_labelled", "validation")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Folders of three roles, and other ones of other content beside them."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in (*ROLES, "other"):
        for kind in ("images", "labels", "more", "maps"):
            (folder / name / kind).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / "images" / f"{number}.png")
            Image.fromarray(255 - pixels).save(folder / name / "more" / f"{number}.png")
            ids = random.integers(0, 11, (48, 64), np.uint8)
            Image.fromarray(ids).save(folder / name / "labels" / f"{number}.png")
            Image.fromarray(10 - ids).save(folder / name / "maps" / f"{number}.png")
    (folder / "list.txt").write_text("0.png\n1.png\n", encoding="utf-8")
    network = build_segmenter("compact", 11, width=4)
    torch_file = folder / "segmenter.pt"
    config = Config().segmentation
    config.network, config.options = "compact", {"width": 4}
    space = Problem(load_config(_write(folder), []).data, folder).space
    save_segmenter(torch_file, network, config, space)
    return folder


def _write(folder: Path) -> Path:
    domains = "".join(
        f"  {role}: {{layout: folder, root: {(folder / role).as_posix()}{size}}}\n"
        for role in ROLES
        for size in ["" if role == "target_labelled" else ", size: [64, 48]"]
    )
    file = folder / "config.yaml"
    file.write_text(
        f"out: {(folder / 'run').as_posix()}\niterations: 1\nself_training_steps: 1\n"
        f"data:\n  label_space: camvid11\n{domains}"
        "segmentation:\n  network: compact\n  options: {width: 4}\n  class_mixing: true\n"
        "  augmentation: {crop: [48, 40]}\n"
        "translation:\n  load_width: 64\n  crop: [32, 32]\n",
        encoding="utf-8",
    )
    return file


def stages_of(data: Path, *overrides: str) -> dict[str, Stage]:
    config = load_config(data / "config.yaml", list(overrides))
    stages = algorithm(config, Problem(config.data, Path(config.out)))
    return {stage.name: stage for stage in stages}


M0, F, S, MEASURES = "source-only", "k1/translator", "k1/translated", "k1/translated/measures"
M10, Y, M11 = "k1/segmentation-0", "k1/pseudo-labels-1", "k1/segmentation-1"
NETWORKS = {M0, M10, M11}
EVALUATIONS = {f"{network}/evaluation" for network in NETWORKS}
ADAPTED = {M10, M11}
SOURCE_IMAGES = {M0, F, S, MEASURES, M10, M11}
SOURCE_LABELS = {M0, F, MEASURES, M10, M11}
TARGET = {F, MEASURES, M10, Y, M11}
TARGET_LABELS = {M10, Y, M11}
ALL = {*NETWORKS, *EVALUATIONS, F, S, MEASURES, Y}
NOTHING: set[str] = set()

# For each key: a value that is not the default's, and the stages that read the key.
READS: dict[str, tuple[str, set[str]]] = {
    "out": ("elsewhere", NOTHING),
    "seed": ("5", {*NETWORKS, F, MEASURES}),
    "init": ("previous", {M10, M11}),
    "device": ("cpu", NOTHING),
    "devices": ("1", NOTHING),
    "nodes": ("1", NOTHING),
    "precision": ("bf16-mixed", ALL),
    "compile": ("true", NOTHING),
    "replay": ("true", NOTHING),
    "log_every": ("7", NOTHING),
    "checkpoint_every": ("7", NOTHING),
    "keep_checkpoints": ("7", NOTHING),
    "data.label_space": ("{data}/renamed.yaml", NOTHING),
    "data.workers": ("0", NOTHING),
    "data.cache": ("{data}/cache", NOTHING),
    "data.cache_gb": ("1", NOTHING),
    **{
        f"data.{role}.{key}": (value, reads)
        for role, images, labels in (
            ("source", SOURCE_IMAGES, SOURCE_LABELS),
            ("target", TARGET, NOTHING),
            ("target_labelled", TARGET_LABELS, TARGET_LABELS),
            ("validation", EVALUATIONS, EVALUATIONS),
        )
        for key, value, reads in (
            ("layout", "streets", NOTHING),
            ("root", "{data}/other", images),
            ("split", "val", NOTHING),
            ("images", "more/*", images),
            ("labels", "maps/*.png", labels),
            ("encoding", "train_id", NOTHING),
            ("list_file", "{data}/list.txt", images),
            ("on_error", "skip", NOTHING),
            ("size", "[56,48]", images),
            ("width", f"56;data.{role}.size=null", images),
            ("scenes", "3", NOTHING),
            ("appearance", "real", NOTHING),
        )
    },
    "data.target_labelled.size": ("[64,48]", NOTHING),  # it is the target's
    "data.target_labelled.width": ("null", NOTHING),  # likewise
    "translation.checkpoints": ("null", NOTHING),  # tested below
    "translation.load_width": ("60", {F}),
    "translation.crop": ("[28,28]", {F}),
    "translation.flip": ("false", {F}),
    "translation.batch_size": ("2", {F}),
    "translation.constant_epochs": ("3", {F}),
    "translation.decay_epochs": ("3", {F}),
    "translation.steps_per_epoch": ("3", {F}),
    "translation.lr": ("1", {F}),
    "translation.betas": ("[0.1,0.2]", {F}),
    "translation.pool_size": ("3", {F}),
    "translation.discriminator_width": ("3", {F}),
    "translation.generator.width": ("3", {F}),
    "translation.generator.blocks": ("3", {F}),
    "translation.generator.skip": ("true", {F}),
    "translation.generator.grain": ("0.1", {F}),
    "translation.weights.adversarial": ("3", {F}),
    "translation.weights.cycle": ("3", {F}),
    "translation.weights.identity": ("3", {F}),
    "translation.weights.perceptual": ("3", {F}),
    "translation.weights.perceptual_reconstruction": ("3", {F}),
    "translation.init": ("previous", NOTHING),  # there is no round before
    "translation.trust": ("full", {F}),
    "translation.fda.beta": ("0.1", NOTHING),  # tested below
    "translation.measure_images": ("3", {MEASURES}),
    "translation.gradient_checkpointing": ("true", NOTHING),  # the same gradients
    "segmentation.options": ("{width: 8}", NETWORKS),
    "segmentation.weights": ("{data}/segmenter.pt", NETWORKS),
    "segmentation.steps": ("77", {M0, M10}),
    "segmentation.pseudo_label_steps": ("77", {M11}),
    "segmentation.validate_every": ("7", NOTHING),
    "segmentation.batch_size": ("2", NETWORKS),
    "segmentation.optimizer.name": ("adamw", NETWORKS),
    "segmentation.optimizer.lr": ("1", NETWORKS),
    "segmentation.optimizer.head_multiplier": ("3", NETWORKS),
    "segmentation.optimizer.layer_decay": ("0.5", NETWORKS),
    "segmentation.optimizer.momentum": ("0.5", NETWORKS),
    "segmentation.optimizer.betas": ("[0.1,0.2]", NETWORKS),
    "segmentation.optimizer.weight_decay": ("0.5", NETWORKS),
    "segmentation.optimizer.rates": ("effective", NETWORKS),
    "segmentation.schedule.name": ("step;segmentation.schedule.steps=99", NETWORKS),
    "segmentation.schedule.steps": ("999999", NETWORKS),
    "segmentation.schedule.power": ("0.5", NETWORKS),
    "segmentation.schedule.gamma": ("0.5", NETWORKS),
    "segmentation.schedule.warmup_steps": ("9", NETWORKS),
    "segmentation.adversarial.weight": ("0.5", ADAPTED),
    "segmentation.adversarial.lr": ("0.5", ADAPTED),
    "segmentation.adversarial.betas": ("[0.1,0.2]", ADAPTED),
    "segmentation.adversarial.width": ("3", ADAPTED),
    "segmentation.pseudo_labels.quantile": ("0.4", {Y}),
    "segmentation.pseudo_labels.max_threshold": ("0.8", {Y}),
    "segmentation.pseudo_labels.flip": ("true", {Y}),
    "segmentation.pseudo_labels.scales": ("[1.0,1.5]", {Y}),
    "segmentation.pseudo_labels.max_growth": ("1.5", set()),
    "segmentation.augmentation.flip": ("true", NETWORKS),
    "segmentation.augmentation.scale": ("[1.0,2.0]", NETWORKS),
    "segmentation.augmentation.crop": ("[40,40]", NETWORKS),
    "segmentation.augmentation.brightness": ("0.2", NETWORKS),
    "segmentation.augmentation.contrast": ("0.2", NETWORKS),
    "segmentation.augmentation.saturation": ("0.2", NETWORKS),
    "segmentation.augmentation.hue": ("0.2", NETWORKS),
    "segmentation.originals": ("true", ADAPTED),
    "segmentation.class_mixing": ("false", {M11}),
    "segmentation.evaluation.size": ("[32,32]", EVALUATIONS),
}
# Keys of which another value makes another list of stages, or another kind of stage.
OTHER_STAGES = {
    "iterations",
    "self_training_steps",
    "translation.images",
    "translation.method",
    "segmentation.network",
    "segmentation.checkpoints",
    "data.source",
    "data.target",
    "data.target_labelled",
    "data.validation",
}
IDLE_BY_DEFAULT = {"translation.init", "translation.fda.beta"}
UNTRIED = {f"data.{role}.{key}" for role in ROLES for key in ("layout", "encoding", "split")}


def leaves() -> list[str]:
    """The keys that are no sections, and sections that may be nothing."""
    keys = known_keys()
    sections = {key.rpartition(".")[0] for key in keys}
    return [key for key in keys if key not in sections]


def test_every_key_is_tried():
    assert set(leaves()) - READS.keys() - OTHER_STAGES == set()


@pytest.mark.parametrize("key", [key for key in READS if key not in UNTRIED])
def test_a_key_changes_the_stages_that_read_it(data, key):
    """Their own settings; the fingerprints of what follows change with their inputs."""
    value, reads = READS[key]
    if key == "data.label_space":  # the classes of camvid11, called otherwise
        text = (Path(__file__).parents[1] / "domains/label_spaces/camvid11.yaml").read_text()
        (data / "renamed.yaml").write_text(text.replace("bicycle", "two wheels"))
    if key.endswith("checkpoints"):
        return
    before = stages_of(data)
    after = stages_of(data, *f"{key}={value}".replace("{data}", data.as_posix()).split(";"))
    assert list(after) == list(before)
    changed = {
        name
        for name, stage in after.items()
        if stage.settings != before[name].settings
        or {path.name for path in stage.inputs} != {path.name for path in before[name].inputs}
    }
    assert changed == reads
    following = set(changed)
    for name, stage in after.items():
        if following & {given.name for given in stage.inputs}:
            following.add(name)
    differing = {name for name in after if after[name] != before[name]}
    assert differing == following


GIVEN = "segmentation.checkpoints={{{}}}".format(
    ", ".join(f"{name}: {{data}}/segmenter.pt" for name in (M0, M10))
)
# What makes settings idle; all of it with one round and one step of self-training, if not said.
SITUATIONS: dict[str, list[str]] = {
    "one of each": [],
    "two rounds": ["iterations=2"],
    "source only": ["iterations=0"],
    "no self-training": ["self_training_steps=0"],
    "fda": ["translation.method=fda"],
    "images": ["translation.images={data}/source/more"],
    "no perceptual terms": [
        "translation.weights.perceptual=0",
        "translation.weights.perceptual_reconstruction=0",
    ],
    "no discriminator": ["segmentation.adversarial.weight=0"],
    "given networks": [GIVEN],
    "no validation": ["data.validation=null"],
}
# Idle though they are in fingerprints, which hold a section as a whole (see test_config_idle.py).
IN_SECTIONS = {
    "segmentation.optimizer.betas",
    "segmentation.optimizer.rates",
    "segmentation.schedule.gamma",
}


@pytest.fixture(scope="module")
def other_values(data) -> dict[str, dict[str, Any]]:
    """For each key of the trainings, the values of its entry in READS, by key."""
    values = {}
    for key, (text, reads) in READS.items():
        if not key.startswith("data.") and (reads or key in IDLE_BY_DEFAULT):
            changes = f"{key}={text}".replace("{data}", data.as_posix()).split(";")
            config = load_config(data / "config.yaml", changes)
            names = [change.partition("=")[0] for change in changes]
            values[key] = {name: value_at(config, name) for name in names}
    return values


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_is_told_to_have_no_effect_is_what_no_stage_reads(data, other_values, situation):
    """Each key of the trainings, changed alone: it is idle if, and only if, all stages stay."""
    overrides = [text.replace("{data}", data.as_posix()) for text in SITUATIONS[situation]]
    config = load_config(data / "config.yaml", overrides)
    problem = Problem(config.data, Path(config.out))
    before = algorithm(config, problem)
    told = list(idle(config))
    for key, values in other_values.items():
        changed = deepcopy(config)
        for name, value in values.items():
            set_value(changed, name, value)
        is_idle = any(one.holds(key) for one in told)
        assert is_idle == (algorithm(changed, problem) == before) or key in IN_SECTIONS, key
        assert is_idle or key not in IN_SECTIONS or situation == "two rounds", key


def test_the_plan_is_algorithm_1(data):
    stages = stages_of(data, "iterations=2")
    parts = ["translator", "translated", "translated/measures", "segmentation-0"]
    parts += ["segmentation-0/evaluation", "pseudo-labels-1", "segmentation-1"]
    parts += ["segmentation-1/evaluation"]
    rounds = [[f"k{k}/{part}" for part in parts] for k in (1, 2)]
    assert list(stages) == [M0, f"{M0}/evaluation", *rounds[0], *rounds[1]]
    assert [stages[name].symbol for name in (M0, F, M10, M11, "k2/segmentation-0")] == [
        "M(0)",
        "F(1)",
        "M(1,0)",
        "M(1,1)",
        "M(2,0)",
    ]
    assert [given.name for given in stages["k2/translator"].inputs] == [M11]


def test_equal_stages_of_two_rounds_are_equal(data):
    """With images translated elsewhere and each training anew, round 2 repeats round 1."""
    images = (data / "source/more").as_posix()
    stages = stages_of(data, "iterations=2", f"translation.images={images}")
    for i in (0, 1):
        assert stages[f"k1/segmentation-{i}"] == stages[f"k2/segmentation-{i}"]
    assert stages["k1/segmentation-0"] != stages["k1/segmentation-1"]


def test_without_perceptual_terms_a_translator_knows_no_network(data):
    """Such translators are the same in all rounds, and whatever the networks learn."""
    terms = ("perceptual", "perceptual_reconstruction")
    without = [f"translation.weights.{term}=0" for term in terms]
    stages = stages_of(data, "iterations=2", "init=initial", *without)
    assert not stages[F].inputs
    assert stages[F] == stages["k2/translator"]
    assert stages[F] == stages_of(data, "segmentation.steps=77", *without)[F]


def test_the_limit_on_growth_changes_what_it_can_limit(data):
    """The first pseudo labels have none before them."""
    before = stages_of(data, "iterations=2")
    after = stages_of(data, "iterations=2", "segmentation.pseudo_labels.max_growth=1.5")
    changed = {name for name, stage in after.items() if stage != before[name]}
    second = "k2/pseudo-labels-1", "k2/segmentation-1", "k2/segmentation-1/evaluation"
    assert changed == set(second)


def test_gradient_checkpointing_is_no_setting(data):
    """It saves memory, and trains the same network."""
    network = "segmentation.network=timm:resnet18", "segmentation.options.pretrained=false"
    before = stages_of(data, *network)
    after = stages_of(data, *network, "segmentation.options.gradient_checkpointing=true")
    assert after == before
    assert after[M0].training.options != before[M0].training.options  # which it is trained with


def test_pseudo_labels_of_a_given_network_depend_on_the_source(data):
    """By its labels it is seen whether the predictions have collapsed; a network that was trained
    depends on them itself."""
    given = f"segmentation.checkpoints={{{M10}: {(data / 'segmenter.pt').as_posix()}}}"
    other = f"data.source.root={(data / 'other').as_posix()}"
    before, after = stages_of(data, given), stages_of(data, given, other)
    assert after[M10] == before[M10] and after[Y] != before[Y]
    trained = stages_of(data)[Y]
    assert "data.source" in before[Y].settings and "data.source" not in trained.settings


def test_perceptual_weights_by_round(data):
    """A list of one is the number; of a longer one each translator knows its own alone."""

    def translators(*overrides: str) -> list[Stage]:
        stages = stages_of(data, "iterations=3", "translation.init=initial", *overrides)
        return [stages[f"k{k}/translator"] for k in (1, 2, 3)]

    for key in ("perceptual", "perceptual_reconstruction"):
        key = f"translation.weights.{key}"
        number, several = translators(f"{key}=3"), translators(f"{key}=[3]")
        assert number == several == translators(f"{key}=[3,3,3]")
        later = translators(f"{key}=[3,5]")
        assert later[0] == number[0] and later[1] != number[1]
        for one, value in zip(later, (3, 5, 5), strict=True):
            assert flatten(one.settings)[f"{key}"] == value
        assert [one.settings for one in later[1:]] == [
            one.settings for one in translators(f"{key}=[7,5,5]")[1:]
        ]


def test_full_trust_is_what_was_before_it_was_measured(data):
    """Its fingerprint has nothing of the rule, and so it is without perceptual terms."""
    none = ["translation.weights.perceptual=0", "translation.weights.perceptual_reconstruction=0"]
    for overrides in (["translation.trust=full"], none):
        assert not [key for key in stages_of(data, *overrides)[F].settings if "trust" in key]
    assert stages_of(data, *none)[F] == stages_of(data, *none, "translation.trust=full")[F]


def test_without_a_translator_images_change_with_what_makes_them(data):
    """By amplitudes, translations depend on the seed, the frequencies and both sets of images; not
    on the network, so that those of all rounds are one."""
    fda = ["translation.method=fda", "iterations=2"]
    stages = stages_of(data, *fda)
    assert not {F, "k2/translator"} & set(stages) and stages[S] == stages["k2/translated"]
    assert stages[S].inputs == ()
    for name, again in (("k1/translated/measures", False), ("k1/segmentation-0", True)):
        same = stages[name] == stages[name.replace("k1", "k2")]
        assert same == again, name
    changes = {
        "seed=5": True,
        "translation.fda.beta=0.1": True,
        f"data.source.root={(data / 'other').as_posix()}": True,
        f"data.target.root={(data / 'other').as_posix()}": True,
        "data.target.size=[56,48]": True,
        "translation.lr=1": False,
        "segmentation.steps=77": False,
        "precision=bf16-mixed": False,
    }
    for change, changed in changes.items():
        assert (stages_of(data, *fda, change)[S] != stages[S]) == changed, change
    assert stages_of(data)[S] != stages[S]


def test_given_translations_count_by_their_contents(data):
    """Not by their sizes or times: one that was corrected may be as long as before."""
    folder = data / "translated"
    folder.mkdir()
    for number in range(3):
        pixels = np.full((48, 64, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.bmp")  # as long, whatever it shows
    overrides = [f"translation.images={folder.as_posix()}"]
    before = stages_of(data, *overrides)
    os.utime(folder / "1.bmp", (1, 1))
    assert stages_of(data, *overrides) == before
    state = (folder / "1.bmp").stat()
    Image.fromarray(np.full((48, 64, 3), 77, np.uint8)).save(folder / "1.bmp")
    os.utime(folder / "1.bmp", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (folder / "1.bmp").stat().st_size == state.st_size
    after = stages_of(data, *overrides)
    assert after[M0] == before[M0] and after[M10] != before[M10]


def test_a_start_opens_no_file_twice(data, tmp_path, monkeypatch):
    """Plan and check ask what is known already, also of images that were translated elsewhere."""
    opened = Counter()

    def counted(look):
        return lambda file: opened.update([(look, file)]) or look(file)

    for name in ("read_header", "require_undamaged"):
        monkeypatch.setattr(index, name, counted(getattr(index, name)))
    folder = data / "source" / "more"
    overrides = [f"translation.images={folder.as_posix()}", f"out={tmp_path / 'run'}"]
    config = load_config(data / "config.yaml", overrides)
    Loop.of(config, Console(speaking=False), dry=True).run(dry=True)
    assert {file for _, file in opened} >= set(folder.iterdir())
    assert set(opened.values()) == {1}


def test_without_validation_nothing_is_evaluated_and_all_else_is_the_same(data):
    before = stages_of(data)
    after = stages_of(data, "data.validation=null")
    assert set(before) - set(after) == EVALUATIONS
    assert all(after[name] == before[name] for name in after)


def test_source_only_needs_no_target(data):
    stages = stages_of(data, "iterations=0", "data.target=null", "data.target_labelled=null")
    assert list(stages) == [M0, f"{M0}/evaluation"]
    assert stages[M0] == stages_of(data)[M0]


def test_target_labels_change_what_learns_from_them_alone(data):
    """M(0), F(1) and its translations are shared by runs of any number of labels; without labels
    fingerprints are what they were before there was such a key."""
    labelled, plain = stages_of(data), stages_of(data, "data.target_labelled=null")
    few = stages_of(data, f"data.target_labelled.list_file={data / 'list.txt'}")
    shared = {M0, F, S, MEASURES, f"{M0}/evaluation"}
    for one, other in ((labelled, plain), (labelled, few), (few, plain)):
        assert {name for name in one if one[name] == other[name]} == shared
    for stage in plain.values():
        assert not any("labelled" in key for key in stage.settings)


def test_an_image_that_measures_is_not_learned_from(data, tmp_path):
    """Known by its content, under another name and in another folder."""
    labelled = tmp_path / "labelled"
    for kind in ("images", "labels"):
        shutil.copytree(data / "target_labelled" / kind, labelled / kind)
        shutil.copy(data / "validation" / kind / "1.png", labelled / kind / "renamed.png")
    with pytest.raises(UserError) as raised:
        stages_of(data, f"data.target_labelled.root={labelled}")
    assert re.fullmatch(
        r".*renamed\.png: an image of data\.target_labelled is the validation image "
        r".*validation.images.1\.png, which may only measure; take it out of one of the two",
        str(raised.value),
    )
    assert M10 in stages_of(data, f"data.target_labelled.root={labelled}", "data.validation=null")


def test_a_given_network_takes_its_stages_place(data):
    file = (data / "segmenter.pt").as_posix()
    stages = stages_of(data, f"segmentation.checkpoints={{{M10}: {file}}}")
    assert stages[M10].kind == "given" and stages[M10].symbol == "M(1,0)"
    assert [given.name for given in stages[Y].inputs] == [M10]


def test_values_of_settings_are_what_the_configuration_says(data):
    config = load_config(data / "config.yaml")
    settings: dict[str, Any] = stages_of(data)[F].settings["translation"]
    for key in ("lr", "pool_size", "weights.cycle", "generator.width"):
        value: Any = settings
        for part in key.split("."):
            value = value[part]
        assert value == value_at(config, f"translation.{key}")
