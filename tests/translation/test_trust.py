"""Trust in a frozen network: by numbers, and on cells of either polarity."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from bdl.domains.class_shares import collapsed_into, knowledge, label_counts, overlap
from bdl.domains.datasets import Sample
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.domains.problem import Classes, ImageSet, Labels
from bdl.runtime.config import TranslatorTraining
from bdl.runtime.files import write_json
from bdl.runtime.values import plain
from bdl.translation.stages import TrainedTranslator, trusting
from bdl.translation.trust import judge, measure_trust

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(lambda c: sum(c) > 0)


def test_overlap_is_what_two_spreads_have_in_common():
    assert overlap([1, 1, 2], [10, 10, 20]) == pytest.approx(1)
    assert overlap([90, 10, 0], [0, 10, 90]) == pytest.approx(0.1)
    assert overlap([84, 13, 3], [35, 64.6, 0.4]) == pytest.approx(0.35 + 0.13 + 0.004)


@given(counts=COUNTS)
def test_what_looks_like_the_labels_is_trusted(counts):
    assert knowledge(counts, counts) == 1


@given(counts=COUNTS, other=COUNTS)
def test_knowledge_is_between_0_and_1(counts, other):
    if len(counts) == len(other):
        assert 0 <= knowledge(counts, other) <= 1


@pytest.mark.parametrize(
    ("predicted", "labels", "into"),
    [
        ([998, 1, 1], [40, 30, 30], 0),
        ([0, 100, 0], [90, 5, 5], 1),
        ([96.9, 1, 2.1], [93, 1, 6], None),  # few things in the labels, fewer seen
        ([99.8, 0.2], [99, 1], None),
        ([99.95, 0.05], [99, 1], 0),
        ([40, 60], [85, 15], None),  # inverted, and no collapse
        ([100, 0], [100, 0], None),
        ([0, 0], [1, 1], None),
    ],
)
def test_collapse_is_measured_by_what_the_labels_hold(predicted, labels, into):
    assert collapsed_into(predicted, labels) == into
    if into is not None:
        assert knowledge(predicted, labels) == 0


def test_agreement_is_cohens_kappa():
    """Of two views that agree on 60 and 15 of 100 pixels; by chance it would be 58.5."""
    views = np.array([[60, 10], [15, 15]])
    expected = (0.75 - (0.7 * 0.75 + 0.3 * 0.25)) / (1 - (0.7 * 0.75 + 0.3 * 0.25))
    made = judge(np.array([70, 30]), np.array([70, 30]), views, 0.9)
    assert made.agreement == pytest.approx(expected)
    assert made.factor == 1
    by_chance = np.outer([70, 30], [70, 30])
    assert judge(np.array([70, 30]), np.array([70, 30]), by_chance, 0.9).factor == 0
    assert judge(np.array([70, 30]), np.array([70, 30]), views, 0.5).factor == 0


# Cells: bright on dark ground, or dark on bright ground


def _cells(folder, count: int, inverted: bool) -> list[Sample]:
    """Drawn images of 48x48 and their labels: 0 ground, 1 cell."""
    random = np.random.default_rng(inverted)
    samples = []
    folder.mkdir()
    for number in range(count):
        label = Image.new("L", (48, 48))
        for x, y, r in random.uniform((0, 0, 3), (48, 48, 6), (6, 3)):
            ImageDraw.Draw(label).ellipse([x - r, y - r, x + r, y + r], fill=1)
        ids = np.asarray(label)
        light = np.where(ids == (0 if inverted else 1), 0.8, 0.2)
        grey = light + random.normal(0, 0.03, ids.shape)
        pixels = (grey.clip(0, 1)[..., None] * (255, 240, 250)).astype(np.uint8)
        files = folder / f"{number}.png", folder / f"{number}-label.png"
        Image.fromarray(pixels).save(files[0])
        label.save(files[1])
        samples.append(Sample(str(number), *files))
    return samples


def _sees_bright_things(images: Tensor) -> Tensor:
    """Scores of a network that learned from bright cells on dark ground."""
    brightness = images.mean(1, keepdim=True) - 0.5
    return 12 * torch.cat([-brightness, brightness], 1)


def _sees_ground(images: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(images[:, :1]), torch.zeros_like(images[:, :1])], 1) * 9


@pytest.fixture
def domains(tmp_path) -> dict[bool, list[Sample]]:
    return {inverted: _cells(tmp_path / str(inverted), 6, inverted) for inverted in (False, True)}


@pytest.mark.parametrize(
    ("network", "inverted", "factor"),
    [
        (_sees_bright_things, False, 1),
        (_sees_bright_things, True, 0),
        (_sees_ground, False, 0),
        (_sees_ground, True, 0),
        (lambda images: 0.02 * _sees_bright_things(images), False, 0),  # that hardly tells apart
    ],
)
def test_a_network_is_trusted_where_it_knows_the_target(run, domains, network, inverted, factor):
    labels = label_counts(WholeImages(domains[False], None, np.arange(256)), 2)
    ids = [np.asarray(Image.open(sample.label)) for sample in domains[False]]
    assert labels.tolist() == np.bincount(np.ravel(ids), minlength=2).tolist()
    state = torch.random.get_rng_state()
    trust = measure_trust(run, network, WholeImages(domains[inverted], None), labels)
    assert trust.factor == factor
    assert trust.labels == labels.tolist() and sum(trust.on_target) == 6 * 48 * 48
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn


def test_full_trust_changes_no_weight():
    training = TranslatorTraining()
    assert trusting(training, 1.0) == training
    half = trusting(training, 0.5).weights
    assert (half.perceptual, half.perceptual_reconstruction) == (0.05, 5)
    assert replace(half, perceptual=0.1, perceptual_reconstruction=10) == training.weights
    assert not trusting(training, 0.0).weights.is_perceptual


class _Frozen:
    """The stage of a network that is a function."""

    name, symbol = "source-only", "M(0)"

    def __init__(self, network: Any) -> None:
        self.network = network

    def score_maps(self, run: Any) -> Any:
        return self.network


def _translator(domains, network, inverted: bool) -> TrainedTranslator:
    def images(samples, labelled: bool, role: str) -> ImageSet:
        labels = Labels("", None, np.arange(256)) if labelled else None
        count = len(samples)
        return ImageSet(None, "", None, labels, "upright", count, role, lambda: samples, list)

    space = replace(load_label_space("camvid11"), names=("ground", "cell"))
    source = images(domains[False], True, "source")
    training = TranslatorTraining(
        load_width=None, crop=(32, 32), batch_size=1, steps_per_epoch=2, constant_epochs=1
    )
    training.decay_epochs, training.generator.width, training.generator.blocks = 0, 4, 0
    return TrainedTranslator(
        k=1,
        seed=0,
        precision="32-true",
        training=training,
        source=source,
        target=images(domains[inverted], False, "target"),
        frozen=_Frozen(network),
        warm_start_from=None,
        trust="measured",
        classes=Classes(2, space),
    )


@pytest.mark.parametrize(
    ("network", "inverted", "said"),
    [
        (_sees_bright_things, False, None),
        (_sees_bright_things, True, "M(0) hardly knows the target (0 %; classes overlap by"),
        (_sees_ground, True, "M(0) has collapsed: to it nearly all of the target is ground"),
    ],
)
def test_a_translator_says_what_it_was_trained_with(run, domains, caplog, network, inverted, said):
    """In its log, its metrics and its file; without trust there is no perceptual term."""
    caplog.set_level(logging.INFO, "bdl")
    stage = _translator(domains, network, inverted)
    metrics = stage.make(run, run.folder)
    assert metrics.trust is not None and metrics.trust.factor == (said is None)
    assert ("perceptual_a" in metrics.curves[-1]) == (said is None)
    weights = torch.load(run.folder / "translator.pt", weights_only=True)["weights"]
    assert weights["perceptual"] == 0.1 * metrics.trust.factor
    (line,) = [line for line in caplog.messages if "M(0)" in line]  # not twice, in other words
    if said is None:
        assert metrics.warnings == [] and "trust in M(0): 100 %" in line
        full = replace(stage, trust="full")
        assert full.make(run, run.folder / "full").trust is None
        files = [folder / "translator.pt" for folder in (run.folder, run.folder / "full")]
        one, other = (torch.load(file, weights_only=True)["state"] for file in files)
        assert all(torch.equal(one[name], other[name]) for name in one)
    else:
        assert said in metrics.warnings[0]
        assert "warning" in line and said in line
    assert not (run.folder / "trust.json").exists()


def test_a_training_that_goes_on_keeps_its_trust(run, domains):
    stage = _translator(domains, _sees_bright_things, False)
    labels = np.array([80, 20])
    before = judge(labels, labels, np.array([[80, 0], [0, 20]]), 0.9)
    write_json(run.folder / "trust.json", plain(replace(before, factor=0.25)))
    metrics = stage.make(run, run.folder)
    assert metrics.trust == replace(before, factor=0.25)
    weights = torch.load(run.folder / "translator.pt", weights_only=True)["weights"]
    assert weights["perceptual_reconstruction"] == 2.5
