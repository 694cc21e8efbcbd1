"""A step of the translator's training: as published, and ours.

    python -m benchmarks.translation_step [--device cuda] [--crop 452] [--batch 1] [--checkpointing]

As published: float32, contiguous, one forward pass for each term, and each backward pass and
optimizer for itself. Ours is the step that `train_translator` does, in float32 and in the precision
that `precision=auto` chooses. The networks are the published ones, from the same random weights.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdl.runtime.config import Config, GeneratorConfig, TranslatorTraining
from bdl.runtime.console import Console
from bdl.runtime.device import channels_last, make_fabric
from bdl.runtime.run import Run
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.predict import frozen_scores
from bdl.translation.pool import FakePool
from bdl.translation.train import Discriminators, TranslationStep, Translator
from benchmarks import published
from benchmarks.common import (
    PUBLISHED,
    Numbers,
    Way,
    Work,
    compare,
    exit_status,
    make_parser,
    until_replayed,
)

CLASSES, BRANCHES = 19, 2


def networks(options: argparse.Namespace) -> tuple[Translator, Discriminators, DeepLabV2]:
    """Both generators, both discriminators and the frozen network, equal for all ways."""
    torch.manual_seed(0)
    return (
        Translator(options.width, options.blocks),
        Discriminators(options.width),
        DeepLabV2(CLASSES, BRANCHES),
    )


def images(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """A batch of each domain, in [0, 1]."""
    random = torch.Generator().manual_seed(1)
    shape = (2, options.batch, 3, options.crop, options.crop)
    a, b = torch.rand(shape, generator=random).to(options.device)
    return a, b


def as_published(options: argparse.Namespace) -> Work:
    translator, discriminators, network = networks(options)

    def copy(plain: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        plain.load_state_dict(state)
        return plain.to(options.device)

    a_to_b, b_to_a = (
        copy(published.Generator(options.width, options.blocks), generator.state_dict())
        for generator in (translator.a_to_b, translator.b_to_a)
    )
    judge_a, judge_b = (
        copy(published.PatchDiscriminator(options.width), discriminator.state_dict())
        for discriminator in (discriminators.a, discriminators.b)
    )
    segment = copy(published.DeepLabV2(CLASSES, BRANCHES), network.state_dict()).eval()
    segment.requires_grad_(False)
    of_generators = [*a_to_b.parameters(), *b_to_a.parameters()]
    of_discriminators = [*judge_a.parameters(), *judge_b.parameters()]
    learn_g = torch.optim.Adam(of_generators, 2e-4, (0.5, 0.999), foreach=False)
    learn_d = torch.optim.Adam(of_discriminators, 2e-4, (0.5, 0.999), foreach=False)
    pools = [FakePool(50, seed) for seed in (0, 1)]
    unit_a, unit_b = images(options)
    a, b = unit_a * 2 - 1, unit_b * 2 - 1

    def scores(image: Tensor) -> Tensor:
        return F.instance_norm(segment(published.caffe_input((image + 1) / 2)))

    def step() -> Numbers:
        fake_b = a_to_b(a)
        again_a = b_to_a(fake_b)
        fake_a = b_to_a(b)
        again_b = a_to_b(fake_a)
        for parameter in of_discriminators:
            parameter.requires_grad_(False)
        learn_g.zero_grad()
        terms = {
            "identity_b": F.l1_loss(a_to_b(b), b),
            "identity_a": F.l1_loss(b_to_a(a), a),
            "adversarial_a": (judge_b(fake_b) - 1).square().mean(),
            "adversarial_b": (judge_a(fake_a) - 1).square().mean(),
            "cycle_a": F.l1_loss(again_a, a),
            "cycle_b": F.l1_loss(again_b, b),
        }
        on_a, on_b = scores(a), scores(b)
        terms["perceptual_a"] = F.mse_loss(scores(fake_b), on_a)
        terms["perceptual_b"] = F.mse_loss(scores(fake_a), on_b)
        terms["perceptual_reconstruction_a"] = F.mse_loss(scores(again_a), on_a)
        terms["perceptual_reconstruction_b"] = F.mse_loss(scores(again_b), on_b)
        weights = {"identity": 5, "adversarial": 1, "cycle": 10, "perceptual": 0.1}
        weights["perceptual_reconstruction"] = 10
        torch.stack([weights[name[:-2]] * term for name, term in terms.items()]).sum().backward()
        learn_g.step()
        for parameter in of_discriminators:
            parameter.requires_grad_(True)
        learn_d.zero_grad()
        for name, judge, real, fake, pool in (
            ("discriminator_a", judge_a, a, fake_a, pools[0]),
            ("discriminator_b", judge_b, b, fake_b, pools[1]),
        ):
            on_fake = judge(pool.exchange(fake.detach())).square().mean()
            terms[name] = ((judge(real) - 1).square().mean() + on_fake) / 2
            terms[name].backward()
        learn_d.step()
        return terms

    return step


def ours(
    options: argparse.Namespace,
    precision: str = "auto",
    compiled: bool = False,
    replayed: bool = False,
    checkpointing: bool = False,
) -> Work:
    fabric = make_fabric(Config(device=options.device, precision=precision))
    run = Run(
        Path(),
        fabric,
        Console(speaking=False),
        compile=compiled,
        replay=replayed,
        gradient_checkpointing=checkpointing,
    )
    translator, discriminators, network = networks(options)
    recipe = TranslatorTraining(
        generator=GeneratorConfig(options.width, options.blocks),
        discriminator_width=options.width,
    )
    pools = [FakePool(recipe.pool_size, seed) for seed in (0, 1)]
    score_maps = frozen_scores(fabric, channels_last(network), compiled)
    learn = TranslationStep(run, recipe, translator, discriminators, score_maps, pools)
    a, b = (image.contiguous(memory_format=torch.channels_last) for image in images(options))
    return (
        until_replayed(lambda: learn(a, b, 1.0), learn.replay)
        if replayed
        else lambda: learn(a, b, 1.0)
    )


COMPILED, REPLAYED = "ours, auto, compiled", "ours, auto, replayed"
BOTH = "ours, auto, compiled and replayed"
CHECKPOINTING = "ours, auto, checkpointing"
WAYS: dict[str, Way] = {
    PUBLISHED: as_published,
    "ours, float32": partial(ours, precision="32-true"),
    CHECKPOINTING: partial(ours, checkpointing=True),
    "ours, auto": ours,
    REPLAYED: partial(ours, replayed=True),
    BOTH: partial(ours, compiled=True, replayed=True),
    COMPILED: partial(ours, compiled=True),
}


def main() -> None:
    parser = make_parser(__doc__, turns=3)
    parser.add_argument("--crop", type=int, default=128, help="pixels a side (paper: 452)")
    parser.add_argument("--batch", type=int, default=1, help="images of each domain")
    parser.add_argument("--width", type=int, default=64, help="channels of the first convolutions")
    parser.add_argument("--blocks", type=int, default=9, help="residual blocks of a generator")
    parser.add_argument("--checkpointing", action="store_true", help="also what it costs")
    parser.add_argument("--replay", action="store_true", help="also with replay=true, on a GPU")
    parser.add_argument("--compile", action="store_true", help="also with compile=true")
    options = parser.parse_args()
    asked = {
        CHECKPOINTING: options.checkpointing,
        COMPILED: options.compile,
        REPLAYED: options.replay,
        BOTH: options.compile and options.replay,
    }
    ways = {name: way for name, way in WAYS.items() if asked.get(name, True)}
    compare("translation_step", ways, options)


if __name__ == "__main__":
    sys.exit(exit_status(main))
