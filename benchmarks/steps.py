"""Training steps of a recipe, and batches for them, without its data and its initial weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdl.domains.label_space import load_label_space
from bdl.runtime.config import Config, SegmenterTraining, load_config, part_of
from bdl.runtime.console import Console
from bdl.runtime.device import channels_last, make_fabric
from bdl.runtime.errors import UserError
from bdl.runtime.run import Run
from bdl.segmentation.checkpoint import untrained_segmenter
from bdl.segmentation.networks import Segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.predict import frozen_scores
from bdl.segmentation.train import SegmentationStep, Target
from bdl.translation.pool import FakePool
from bdl.translation.train import Discriminators, TranslationStep, Translator

ROLES = ("source", "target", "validation")
_SEED = 0


def recipe_config(recipe: str, settings: list[str], device: str, precision: str) -> Config:
    """The recipe's configuration; its data and its weights need not be there."""
    away = [*(f"data.{role}.root=." for role in ROLES), "segmentation.weights=null"]
    return load_config(recipe, [*away, f"device={device}", f"precision={precision}", *settings])


def make_run(config: Config, replay: bool = False) -> Run:
    """A run that writes and says nothing."""
    return Run(
        Path(),
        make_fabric(config),
        Console(speaking=False),
        replay=replay,
        gradient_checkpointing=config.translation.gradient_checkpointing,
    )


def make_network(config: Config) -> Segmenter:
    """The recipe's network from random weights, the same each time."""
    torch.manual_seed(_SEED)
    return untrained_segmenter(part_of(SegmenterTraining, config.segmentation), classes_of(config))


def classes_of(config: Config) -> int:
    """How many classes the recipe tells apart."""
    return load_label_space(config.data.label_space).num_classes


def segmentation_step(config: Config, run: Run) -> SegmentationStep:
    """A step of M(k,i), from networks that are the same each time."""
    training, network = config.segmentation, make_network(config)
    adversarial = training.adversarial
    judge = OutputDiscriminator(classes_of(config), adversarial.width)
    return SegmentationStep(
        run, training.optimizer, network, adversarial, judge if adversarial.weight else None
    )


def translation_step(config: Config, run: Run) -> TranslationStep:
    """A step of F(1), from networks that are the same each time."""
    training = config.translation.of_round(1)
    scores = frozen_scores(run.fabric, channels_last(make_network(config)))
    translator = Translator(**asdict(training.generator))
    discriminators = Discriminators(training.discriminator_width)
    pools = [FakePool(training.pool_size, seed) for seed in (0, 1)]
    return TranslationStep(run, training, translator, discriminators, scores, pools)


def images(run: Run, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Noise, `count` x 3 x height x width in [0, 1], on the device; `size`: width and height."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.rand((count, 3, size[1], size[0]), generator=random)
    return run.fabric.to_device(noise.contiguous(memory_format=torch.channels_last))


def labelled(
    run: Run, count: int, size: tuple[int, int], classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The same, and `count` x height x width classes, on the device."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count, size[1], size[0]), generator=random)
    return images(run, count, size, seed), run.fabric.to_device(labels)


def segmentation_batch(config: Config, run: Run) -> tuple[Any, Target]:
    """A batch of both domains in the recipe's sizes, the target's with pseudo labels."""
    training, classes = config.segmentation, classes_of(config)
    batches = []
    for seed, domain in enumerate((config.data.source, config.data.target)):
        size = training.augmentation.crop or domain.size
        if size is None:
            raise UserError("the recipe states no size of its images; set data.ROLE.size")
        batches.append(labelled(run, training.batch_size, size, classes, seed))
    return batches[0], Target(*batches[1])


def translation_batch(config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """A batch of both domains in the recipe's crop."""
    training = config.translation
    source, target = (images(run, training.batch_size, training.crop, seed) for seed in (0, 1))
    return source, target
