"""What every network of the list does in every step of the loop."""

import copy
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from bdl.domains.label_space import load_label_space
from bdl.runtime.config import OptimizerConfig, SegmentationConfig
from bdl.runtime.device import channels_last
from bdl.segmentation.checkpoint import load_segmenter, save_segmenter
from bdl.segmentation.export_network import export_network
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import upsample
from bdl.segmentation.predict import frozen_scores, predict_classes, probabilities
from bdl.segmentation.predictor import Predictor
from bdl.segmentation.train import make_optimizer
from tests.helpers.network_list import (
    CLASSES,
    LISTED,
    Listed,
    every,
    images,
    labels,
    segmentation_step,
    translation_step,
)

pytest.importorskip("segmentation_models_pytorch")
SPACE = load_label_space("camvid11")


@pytest.mark.parametrize("listed", every())
def test_scores_cover_any_image_and_every_parameter_learns(listed: Listed) -> None:
    network = listed.build().train()
    for height, width in ((64, 96), (33, 47)):
        given = images(height, width).requires_grad_()
        scores = network.scores(given)
        rows, columns = (math.ceil(side / listed.stride) for side in (height, width))
        assert scores.shape == (2, CLASSES, rows, columns)
    logits = network(given)
    assert logits.shape == (2, CLASSES, 33, 47)
    logits.square().mean().backward()
    assert given.grad is not None and given.grad.abs().sum() > 0
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    groups = network.parameter_groups()
    grouped = Counter(id(p) for group in groups for p in group.parameters)
    assert grouped == Counter(id(p) for p in trained.values())
    assert all(p.ndim > 1 for group in groups if group.decays for p in group.parameters)
    head = {id(p) for group in groups if group.head for p in group.parameters}
    assert head == {id(p) for n, p in trained.items() if n.startswith(network.head_prefixes)}


@pytest.mark.parametrize("listed", every())
def test_an_image_is_judged_by_itself_and_always_alike(listed: Listed) -> None:
    """In evaluation nothing is left out at random, and no image depends on its neighbours."""
    network = listed.build().eval()
    with torch.no_grad():
        first, both = network(images(40, 56)[:1]), network(images(40, 56))
        assert torch.equal(network(images(40, 56)[:1]), first)
    torch.testing.assert_close(both[:1], first, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("listed", every())
def test_a_step_of_segmentation(fabric: Fabric, listed: Listed) -> None:
    network = listed.build()
    before = copy.deepcopy(network.state_dict())
    losses = segmentation_step(fabric, network)
    assert {"source", "pseudo_labels", "adversarial", "discriminator"} <= losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    moved = {key for key, value in network.state_dict().items() if not value.equal(before[key])}
    prefixes = {"head" if k.startswith(network.head_prefixes) else "backbone" for k in moved}
    assert prefixes == {"head", "backbone"}
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize("listed", every())
def test_a_step_of_translation_through_the_frozen_network(listed: Listed) -> None:
    """In float32 with and without checkpointing alike; in bf16 near to it."""
    found = []
    for precision, checkpointing in (("32-true", False), ("32-true", True), ("bf16-mixed", False)):
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        network = channels_last(listed.build())
        losses = translation_step(fabric, frozen_scores(fabric, network), checkpointing)
        found.append(torch.stack([losses["perceptual_a"], losses["perceptual_reconstruction_b"]]))
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], found[0], rtol=0.1, atol=0.05)
    assert (found[0] > 0).all()


@pytest.mark.parametrize("listed", every())
def test_saved_predicted_and_read_again(fabric: Fabric, tmp_path: Path, listed: Listed) -> None:
    """A file gives the same labels, whatever the size they are wanted at."""
    network = build_segmenter(listed.name, SPACE.num_classes, **options(listed)).eval()
    config = SegmentationConfig(network=listed.name, options=options(listed))
    save_segmenter(tmp_path / "segmenter.pt", network, config, SPACE)
    loaded, description = load_segmenter(tmp_path / "segmenter.pt")
    assert description == SPACE.describe()
    given, size = images(40, 56, 1), (50, 70)
    with torch.no_grad():
        expected = upsample(network.scores(given).softmax(1), size)
    found = probabilities(fabric, loaded, given, size)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    agreement = predict_classes(fabric, loaded, given, size) == expected.argmax(1)
    assert agreement.float().mean() > 0.99


def options(listed: Listed) -> dict:
    key = "pretrained" if listed.name.startswith("timm:") else "encoder_weights"
    return {key: False if key == "pretrained" else None, **listed.options}


@pytest.mark.parametrize("listed", every())
def test_training_goes_on_bitwise(listed: Listed) -> None:
    """Three steps are one step, a restart from what was saved, and two steps."""

    def start() -> tuple:
        network = channels_last(listed.build()).train()
        return network, make_optimizer(network, OptimizerConfig(name="adamw", lr=1e-3))

    def go_on(network: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(images(32, 48)), labels(32, 48))
            loss.backward()
            optimizer.step()

    network, optimizer = start()
    torch.manual_seed(1)
    go_on(network, optimizer, 1)
    saved = copy.deepcopy((network.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    go_on(network, optimizer, 2)
    again, optimizer = start()
    again.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    go_on(again, optimizer, 2)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


EXPORTED = [entry for entry in LISTED if entry.name in ("smp:Segformer/mit_b0", "timm:test_vit")]


@pytest.mark.parametrize("listed", every(EXPORTED))
def test_exported(tmp_path: Path, listed: Listed) -> None:
    """The exporter compares labels with the network's own before it writes."""
    out = tmp_path / "net.pt2"
    assert export_network(saved(listed, tmp_path), out, (48, 40)) == ()
    given = images(40, 48, 1)
    made = torch.export.load(out).module()(given)
    assert made.shape == (1, SPACE.num_classes, 40, 48)


@pytest.mark.long
@pytest.mark.parametrize("listed", [pytest.param(entry, id=entry.name) for entry in LISTED])
def test_exported_to_onnx(tmp_path: Path, listed: Listed) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "net.onnx"
    assert export_network(saved(listed, tmp_path), out, (48, 40)) == () and out.is_file()


@pytest.mark.long
@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize("listed", [pytest.param(entry, id=entry.name) for entry in EXPORTED])
def test_exported_with_free_size(tmp_path: Path, listed: Listed, ending: str) -> None:
    """As much as the network leaves free; what is written is right for what it says it takes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / f"net.{ending}"
    free = export_network(saved(listed, tmp_path), out, (48, 40), free=True)
    assert free in (("batch", "height", "width"), ("batch",), ()) and out.is_file()


def saved(listed: Listed, folder: Path) -> Predictor:
    torch.manual_seed(0)
    network = build_segmenter(listed.name, SPACE.num_classes, **options(listed))
    config = SegmentationConfig(network=listed.name, options=options(listed))
    save_segmenter(folder / "segmenter.pt", network, config, SPACE)
    return Predictor(folder / "segmenter.pt", device="cpu")
