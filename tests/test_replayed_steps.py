"""The steps of both trainings keep to a recorded step's rules.

By a recorder on the CPU, as CUDA graphs are (tests/helpers/recorder.py): a step that changed
anything but in place, read a rate as a number, handed out memory that the next step overwrites, or
drew at random by itself, would not learn what a computed step learns.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from bdl.runtime.config import (
    AdversarialConfig,
    GeneratorConfig,
    OptimizerConfig,
    TranslatorTraining,
)
from bdl.runtime.console import Console
from bdl.runtime.device import seed_torch
from bdl.runtime.replay import WARM_UP, Replay
from bdl.runtime.run import Run
from bdl.runtime.training import TrainingStep
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.predict import frozen_scores
from bdl.segmentation.train import SegmentationStep, Target
from bdl.translation.pool import FakePool
from bdl.translation.train import Discriminators, TranslationStep, Translator
from tests.helpers.recorder import Recorder

CLASSES, STEPS = 4, WARM_UP + 5
Build = Callable[[Run], TrainingStep]


def compact(fabric: Fabric) -> nn.Module:
    torch.manual_seed(1)
    return build_segmenter("compact", CLASSES, width=4, dilations=[1, 2])


def segmentation(optimizer: str, adversarial: float) -> Build:
    def build(run: Run) -> TrainingStep:
        network = compact(run.fabric)
        discriminator = OutputDiscriminator(CLASSES, 4) if adversarial else None
        return SegmentationStep(
            run,
            OptimizerConfig(name=optimizer, lr=0.01),
            network,
            AdversarialConfig(weight=adversarial, lr=0.01),
            discriminator,
        )

    return build


def translation(pool: int, checkpointing: bool = False) -> Build:
    def build(run: Run) -> TrainingStep:
        torch.manual_seed(2)
        run = Run(run.folder, run.fabric, run.console, gradient_checkpointing=checkpointing)
        return TranslationStep(
            run,
            TranslatorTraining(generator=GeneratorConfig(4, 1, True, 0.1), discriminator_width=4),
            Translator(4, 1, skip=True, grain=0.1),
            Discriminators(4),
            frozen_scores(run.fabric, compact(run.fabric)),
            [FakePool(pool, 0), FakePool(pool, 1)],
        )

    return build


def batch(step: int, kind: str) -> tuple:
    random = torch.Generator().manual_seed(step)
    source, target = torch.rand(2, 2, 3, 32, 32, generator=random)
    if kind == "translation":
        return source, target
    labels, pseudo = torch.randint(0, CLASSES, (2, 2, 32, 32), generator=random)
    pseudo[:, : 4 * (step % 4)] = 255
    if kind == "source":
        return (source, labels), None
    if kind == "target":
        return (source, labels), Target(target)
    return (source, labels), Target(target, pseudo, (target.flip(-1), labels.flip(-1)))


def learned(step: TrainingStep) -> list[Tensor]:
    """Weights, buffers and the optimizers' state."""
    return list(Replay(step.shared.values(), torch.device("cpu"), None).tensors())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (segmentation("sgd", 0.01), "all"),
        (segmentation("adamw", 0.01), "target"),
        (segmentation("adam", 0), "source"),
        (translation(pool=2), "translation"),
        (translation(pool=0, checkpointing=True), "translation"),
    ],
    ids=["sgd, all terms", "adamw, adversarial", "adam, source", "pool", "checkpointing"],
)
def test_replayed_steps_learn_as_computed_ones(precision: str, build: Build, kind: str) -> None:
    fabric = Fabric(accelerator="cpu", precision=precision)
    run = Run(Path(), fabric, Console(speaking=False))
    recorder, losses, steps = Recorder(), [], []
    for way in (None, recorder):
        step = build(run)
        step.replay = Replay(step.shared.values(), fabric.device, way)
        seed_torch(0, step.noise)
        made = [step(*batch(n, kind), 1 / (1 + n)) for n in range(STEPS)]
        # All read after the last step, as curves are.
        losses.append([{name: loss.item() for name, loss in terms.items()} for terms in made])
        steps.append(step)
    assert steps[1].replay.replayed == STEPS - WARM_UP and not steps[1].replay.warning
    assert recorder.draws == []
    for computed, replayed in zip(*losses, strict=True):
        assert replayed == pytest.approx(computed, rel=2e-3, abs=1e-5)
    for one, other in zip(*map(learned, steps), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
