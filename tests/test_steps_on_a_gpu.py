"""On a GPU: nothing in a step of training waits for the device, so that it always has work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bdl.domains.augment import jitter_colors, mix_classes
from bdl.runtime.checkpoint import Curves
from bdl.runtime.config import (
    AdversarialConfig,
    AugmentationConfig,
    Config,
    OptimizerConfig,
    TranslatorTraining,
)
from bdl.runtime.console import Console
from bdl.runtime.device import channels_last, make_fabric
from bdl.runtime.replay import WARM_UP
from bdl.runtime.run import Run
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.predict import frozen_scores
from bdl.segmentation.train import SegmentationStep, Target
from bdl.translation.pool import FakePool
from bdl.translation.train import Discriminators, TranslationStep, Translator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
CLASSES, HEIGHT, WIDTH = 5, 48, 64


def images() -> Tensor:
    return torch.rand(2, 3, HEIGHT, WIDTH, device="cuda")


def labels() -> Tensor:
    return torch.randint(0, CLASSES, (2, HEIGHT, WIDTH), device="cuda")


def segmenter():
    return build_segmenter("timm:tf_efficientnet_lite0", CLASSES, pretrained=False)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def twice(step) -> None:
    """The first time allocates and begins libraries, which may wait."""
    step()
    with waiting_is_an_error():
        step()


def test_a_step_of_segmentation_does_not_wait():
    run = Run(Path(), make_fabric(Config(device="cuda")), Console(speaking=False))
    learn = SegmentationStep(
        run, OptimizerConfig(), segmenter(), AdversarialConfig(), OutputDiscriminator(CLASSES, 8)
    )
    curves, config = Curves(), AugmentationConfig(brightness=0.3, saturation=0.3, hue=0.1)
    source, target = (images(), labels()), (images(), labels())

    def step() -> None:
        jittered = jitter_colors(source[0], config, 0, "source", 0)
        mixed = Target(*mix_classes((jittered, source[1]), target, 0, 0), labelled=target)
        curves.add(learn((jittered, source[1]), mixed, 1.0))

    twice(step)
    assert np.isfinite(curves.close_row(2)["source"])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_recorded_step_of_segmentation_learns_as_a_computed_one(precision):
    weights = []
    for replayed in (False, True):
        fabric = make_fabric(Config(device="cuda", precision=precision))
        torch.manual_seed(0)
        learn = SegmentationStep(
            Run(Path(), fabric, Console(speaking=False), replay=replayed),
            OptimizerConfig(),
            segmenter(),
            AdversarialConfig(),
            OutputDiscriminator(CLASSES, 8),
        )
        torch.manual_seed(1)
        losses = [
            learn((images(), labels()), Target(images(), labels()), 1 / (1 + n))
            for n in range(WARM_UP + 6)
        ]
        weights.append(torch.cat([p.detach().flatten() for p in learn.segment.parameters()]))
        assert all(np.isfinite(loss["source"].item()) for loss in losses)
    assert learn.replay.replayed == 6 and not learn.replay.warning
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-2, atol=1e-3)


def test_a_step_of_translation_does_not_wait():
    fabric = make_fabric(Config(device="cuda"))
    learn = TranslationStep(
        Run(Path(), fabric, Console(speaking=False)),
        TranslatorTraining(),
        Translator(4, 1),
        Discriminators(4),
        frozen_scores(fabric, channels_last(segmenter())),
        [FakePool(1, 0), FakePool(1, 1)],
    )
    curves, a, b = Curves(), images(), images()
    twice(lambda: curves.add(learn(a, b, 1.0)))
    assert np.isfinite(curves.close_row(2)["cycle_a"])
