"""Networks trained elsewhere in a stage's place: evaluated, labelling, judging translations."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bdl import pipeline
from bdl.domains.images import open_image
from bdl.domains.label_space import load_label_space
from bdl.domains.tensors import to_bytes, to_tensor, to_unit
from bdl.runtime.config import SegmentationConfig
from bdl.runtime.files import load_tensors
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.networks import build_segmenter
from bdl.translation.networks import Generator
from tests.helpers import layouts

SIZE = (48, 32)
OPTIONS = {"width": 4, "dilations": [1]}


@pytest.fixture
def given(tmp_path):
    """A file as import-weights makes it."""
    torch.manual_seed(0)
    config = SegmentationConfig(network="compact", options=OPTIONS)
    network = build_segmenter("compact", 19, **OPTIONS)
    save_segmenter(tmp_path / "given.pt", network, config, load_label_space("cityscapes19"))
    return tmp_path / "given.pt"


@pytest.fixture
def settings(tmp_path) -> list[str]:
    random = np.random.default_rng(0)
    for role in ("source", "target", "validation"):
        for name in "ab":
            file = tmp_path / role / f"images/{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
            ids = layouts.ids(0, 1, 13, 255, size=SIZE)
            layouts.label(tmp_path / role / f"labels/{name}.png", ids)
    return [
        f"out={tmp_path / 'run'}",
        "device=cpu",
        "precision=32-true",
        "data.label_space=cityscapes19",
        *(f"data.{role}.layout=folder" for role in ("source", "target", "validation")),
        *(f"data.{role}.root={tmp_path / role}" for role in ("source", "target", "validation")),
        *(f"data.{role}.size=[{SIZE[0]},{SIZE[1]}]" for role in ("source", "target", "validation")),
        "translation.trust=full",
        "translation.crop=[32,32]",
        "translation.batch_size=1",
        "translation.steps_per_epoch=1",
        "translation.constant_epochs=1",
        "translation.decay_epochs=0",
        "translation.generator={width: 4, blocks: 1}",
        "translation.discriminator_width=4",
        "segmentation.options={width: 4, dilations: [1]}",
        "segmentation.steps=1",
        "segmentation.batch_size=1",
        "segmentation.adversarial.width=4",
        "iterations=1",
        "self_training_steps=1",
    ]


def run(command: str, *arguments: str) -> int:
    return pipeline.main([*command.split(), "--config", "demo", *arguments])


def test_it_is_evaluated_without_any_training(tmp_path, settings, given):
    checkpoint = f"segmentation.checkpoints.source-only={given}"
    assert run("evaluate --k 0", *settings, checkpoint) == 0
    rows = json.loads((tmp_path / "run/results.json").read_text())
    assert [row["stage"] for row in rows] == ["source-only"] and 0 <= rows[0]["miou"] <= 1
    ours = load_tensors(tmp_path / "run/source-only/segmenter.pt")["state"]
    assert all(value.equal(load_tensors(given)["state"][key]) for key, value in ours.items())


@pytest.mark.slow
def test_it_labels_the_target_and_the_next_network_learns_from_that(tmp_path, settings, given):
    checkpoint = f"segmentation.checkpoints.k1/segmentation-0={given}"
    assert run("pseudo-label --k 1 --i 1", *settings, checkpoint) == 0
    assert len(list((tmp_path / "run/k1/pseudo-labels-1/labels").glob("*.png"))) == 2
    images = f"translation.images={tmp_path / 'source/images'}"
    assert run("segment --k 1 --i 1", *settings, checkpoint, images) == 0
    assert (tmp_path / "run/k1/segmentation-1/segmenter.pt").is_file()
    assert not (tmp_path / "run/source-only").exists()


def test_it_judges_what_a_translator_keeps(tmp_path, settings, given):
    checkpoint = f"segmentation.checkpoints.source-only={given}"
    assert run("translate --k 1", *settings, checkpoint) == 0
    metrics = json.loads((tmp_path / "run/k1/translator/metrics.json").read_text())
    assert "perceptual_a" in metrics["curves"][-1]


def test_another_file_makes_what_depends_on_it_anew(tmp_path, settings, given, capsys):
    checkpoint = f"segmentation.checkpoints.source-only={given}"
    assert run("evaluate --k 0", *settings, checkpoint) == 0
    capsys.readouterr()
    assert run("evaluate --k 0", *settings, checkpoint) == 0
    assert "0 of 2 stages to run" in capsys.readouterr().out
    content = load_tensors(given)
    content["state"]["classifier.bias"] += 1
    torch.save(content, given)
    assert run("evaluate --k 0 --replace", *settings, checkpoint) == 0
    assert "2 of 2 stages to run" in capsys.readouterr().out


def test_what_cannot_be_used_is_refused(tmp_path, settings, given, capsys):
    def refused(override: str) -> str:
        assert run("evaluate --k 0", *settings, override) == 2
        return capsys.readouterr().err

    assert "'k3/segmentation-0' is no stage that trains one in this run" in refused(
        f"segmentation.checkpoints.k3/segmentation-0={given}"
    )
    assert "cannot be read" in refused("segmentation.checkpoints.source-only=nowhere.pt")
    content = load_tensors(given)
    content["label_space"]["names"][3] = "hedge"
    torch.save(content, given)
    checkpoint = f"segmentation.checkpoints.source-only={given}"
    assert "is for the classes of cityscapes19, not of" in refused(checkpoint)


GIVEN = "segmentation.checkpoints.source-only={given}"


@pytest.mark.parametrize(
    ("other", "options", "said"),
    [
        ("compact", "{width: 5, dilations: [1]}", "segmentation.options.width=4"),
        ("compact", "{width: 4, dilations: [2]}", "segmentation.options.dilations=[1]"),
        ("timm:resnet18", "{pretrained: false}", "segmentation.network=compact"),
    ],
)
def test_what_goes_on_from_another_network_is_refused_before_anything_is_made(
    tmp_path, settings, given, capsys, other, options, said
):
    """Weights that fit may still compute something else; what does not go on from it may use it."""
    settings = [text for text in settings if not text.startswith("segmentation.options")]
    own = f"segmentation.network={other}", f"segmentation.options={options}"
    network = GIVEN.format(given=given), *own
    assert run("run", *settings, *network, "init=previous") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {given}: ") and said in error
    assert run("check", *settings, *network, "init=previous") == 2
    assert error.removeprefix("error: ").strip() in capsys.readouterr().out
    assert not (tmp_path / "run/source-only").exists()
    assert run("run --dry-run", *settings, *network, "init=initial") == 0
    assert run("evaluate --k 0", *settings, *network, "init=previous") == 0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("translation.generator.width=5", "translation.generator.width=4"),
        ("translation.generator.skip=true", "translation.generator.skip=False"),
        ("translation.discriminator_width=5", "translation.discriminator_width=5"),
    ],
)
def test_what_goes_on_from_another_translator_is_refused_before_anything_is_made(
    tmp_path, settings, given, capsys, other, said
):
    weightless = [f"translation.weights.{term}=0" for term in ("perceptual", "cycle")]
    network = GIVEN.format(given=given)
    assert run("translate --k 1", *settings, network, *weightless) == 0
    (tmp_path / "run").rename(tmp_path / "before")
    capsys.readouterr()
    translator = (
        f"translation.checkpoints.k1/translator={tmp_path}/before/k1/translator/translator.pt"
    )
    changed = [*settings, network, translator, other, "iterations=2"]
    assert run("run", *changed, "translation.init=previous") == 2
    error = capsys.readouterr().err
    assert said in error
    assert run("check", *changed, "translation.init=previous") == 2
    assert error.removeprefix("error: ").strip() in capsys.readouterr().out
    assert not (tmp_path / "run/k1").exists()
    assert run("run --dry-run", *changed, "translation.init=initial") == 0


def test_published_generators_translate_in_the_place_of_a_translator(tmp_path, settings):
    torch.manual_seed(1)
    generators = [Generator().state_dict(), Generator().state_dict()]
    for name, state in zip("AB", generators, strict=True):
        torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / f"net_G_{name}.pth")
    files = [str(tmp_path / name) for name in ("net_G_A.pth", "translator.pt", "net_G_B.pth")]
    command = ["import-weights", *files[:2], "--network", "generator", "--back", files[2]]
    assert pipeline.main(command) == 0
    checkpoint = f"translation.checkpoints.k1/translator={files[1]}"
    assert run("export --k 1", *settings, checkpoint) == 0
    translated = np.asarray(Image.open(tmp_path / "run/k1/translated/images/a.png"))
    generator = Generator()
    generator.load_state_dict(generators[0])
    image = to_unit(to_tensor(open_image(tmp_path / "source/images/a.png").image)[None])
    with torch.no_grad():
        expected = to_bytes(generator(image)[0]).astype(int)
    assert np.abs(translated - expected).max() <= 1
    assert not (tmp_path / "run/source-only").exists()


def test_files_that_are_no_translators_are_refused(tmp_path, settings, given, capsys):
    checkpoint = f"translation.checkpoints.k1/translator={given}"
    assert run("export --k 1", *settings, checkpoint) == 2
    assert "given.pt: is not a translator of this project" in capsys.readouterr().err
    assert run("export --k 1", *settings, f"translation.checkpoints.source-only={given}") == 2
    assert "there are k1/translator" in capsys.readouterr().err
    command = ["import-weights", "a", "b", "--network", "deeplab_v2", "--back", "c"]
    assert pipeline.main(command) == 2
    assert "--back: goes with --network generator" in capsys.readouterr().err
