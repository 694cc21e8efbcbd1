"""A step of segmentation training with all its terms: as published, and ours.

    python -m benchmarks.segmentation_step [--device cuda] [--source 1280 720] [--target 1024 512]

As published: float32, contiguous, each pass for itself. Ours is the step that `train_segmenter`
does, in float32 and in the precision that `precision=auto` chooses. DeepLab-v2 with ResNet-101,
from the same random weights.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bdl.runtime.config import Config, SegmentationConfig
from bdl.runtime.console import Console
from bdl.runtime.device import make_fabric
from bdl.runtime.run import Run
from bdl.segmentation.networks import Segmenter
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.train import SegmentationStep, Target
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

CLASSES, BRANCHES, IGNORE = 19, 2, 255
LAMBDA_ADV, LR, LR_D = 1e-3, 2.5e-4, 1e-4


def networks() -> tuple[DeepLabV2, OutputDiscriminator]:
    """The network and the discriminator, equal for all ways."""
    torch.manual_seed(0)
    return DeepLabV2(CLASSES, BRANCHES), OutputDiscriminator(CLASSES)


def batch(options: argparse.Namespace, name: str) -> tuple[Tensor, Tensor]:
    """An image in [0, 1] and its labels, a tenth of which are ignored."""
    width, height = getattr(options, name)
    random = torch.Generator().manual_seed(len(name))
    image = torch.rand((1, 3, height, width), generator=random)
    label = torch.randint(0, CLASSES, (1, height, width), generator=random)
    label[torch.rand(label.shape, generator=random) < 0.1] = IGNORE
    return image.to(options.device), label.to(options.device)


def as_published(options: argparse.Namespace) -> Work:
    network, discriminator = networks()
    segment = published.DeepLabV2(CLASSES, BRANCHES)
    segment.load_state_dict(network.state_dict())
    segment.to(options.device).train()
    judge = published.OutputDiscriminator(CLASSES)
    judge.load_state_dict(discriminator.state_dict())
    judge.to(options.device)
    head = [p for n, p in segment.named_parameters() if n.startswith("layer5.")]
    body = [
        p for n, p in segment.named_parameters() if not n.startswith("layer5.") and p.requires_grad
    ]
    groups = [{"params": body, "lr": LR}, {"params": head, "lr": 10 * LR}]
    learn = torch.optim.SGD(groups, LR, momentum=0.9, weight_decay=5e-4, foreach=False)
    learn_d = torch.optim.Adam(judge.parameters(), LR_D, (0.9, 0.99), foreach=False)
    (source, labels), (target, pseudo) = batch(options, "source"), batch(options, "target")
    source, target = published.caffe_input(source), published.caffe_input(target)

    def logits_of(images: Tensor) -> Tensor:
        scores = segment(images)
        return F.interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=True)

    def on_domain(scores: Tensor, domain: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, domain))

    def step() -> Numbers:
        learn.zero_grad()
        learn_d.zero_grad()
        for parameter in judge.parameters():
            parameter.requires_grad_(False)
        on_source = logits_of(source)
        terms = {"source": F.cross_entropy(on_source, labels, ignore_index=IGNORE)}
        terms["source"].backward()
        on_target = logits_of(target)
        terms["pseudo_labels"] = F.cross_entropy(on_target, pseudo, ignore_index=IGNORE)
        terms["adversarial"] = on_domain(judge(F.softmax(on_target, 1)), 0.0)
        (terms["pseudo_labels"] + LAMBDA_ADV * terms["adversarial"]).backward()
        for parameter in judge.parameters():
            parameter.requires_grad_(True)
        judged_source = on_domain(judge(F.softmax(on_source.detach(), 1)), 0.0) / 2
        judged_source.backward()
        judged_target = on_domain(judge(F.softmax(on_target.detach(), 1)), 1.0) / 2
        judged_target.backward()
        terms["discriminator"] = judged_source + judged_target
        learn.step()
        learn_d.step()
        return terms

    return step


def ours(
    options: argparse.Namespace,
    precision: str = "auto",
    compiled: bool = False,
    replayed: bool = False,
    build: Callable[[], tuple[Segmenter, OutputDiscriminator]] = networks,
) -> Work:
    fabric = make_fabric(Config(device=options.device, precision=precision))
    run = Run(Path(), fabric, Console(speaking=False), compile=compiled, replay=replayed)
    recipe, (network, discriminator) = SegmentationConfig(), build()
    learn = SegmentationStep(run, recipe.optimizer, network, recipe.adversarial, discriminator)
    source, target = (
        (image.contiguous(memory_format=torch.channels_last), label)
        for image, label in (batch(options, "source"), batch(options, "target"))
    )
    seen = Target(*target)
    return (
        until_replayed(lambda: learn(source, seen, 1.0), learn.replay)
        if replayed
        else lambda: learn(source, seen, 1.0)
    )


COMPILED, REPLAYED = "ours, auto, compiled", "ours, auto, replayed"
BOTH = "ours, auto, compiled and replayed"
WAYS: dict[str, Way] = {
    PUBLISHED: as_published,
    "ours, float32": partial(ours, precision="32-true"),
    "ours, auto": ours,
    REPLAYED: partial(ours, replayed=True),
    BOTH: partial(ours, compiled=True, replayed=True),
    COMPILED: partial(ours, compiled=True),
}


def main() -> None:
    parser = make_parser(__doc__, turns=3)
    size = {"type": int, "nargs": 2, "metavar": ("WIDTH", "HEIGHT")}
    parser.add_argument("--source", default=[320, 180], help="(paper: 1280 720)", **size)
    parser.add_argument("--target", default=[256, 128], help="(paper: 1024 512)", **size)
    parser.add_argument("--replay", action="store_true", help="also with replay=true, on a GPU")
    parser.add_argument("--compile", action="store_true", help="also with compile=true")
    options = parser.parse_args()
    both = options.compile and options.replay
    asked = {COMPILED: options.compile, REPLAYED: options.replay, BOTH: both}
    ways = {name: way for name, way in WAYS.items() if asked.get(name, True)}
    compare("segmentation_step", ways, options)


if __name__ == "__main__":
    sys.exit(exit_status(main))
