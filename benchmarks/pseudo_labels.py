"""Pseudo labels with exact class-wise thresholds: the published script, and ours.

    python -m benchmarks.pseudo_labels [--device cuda] [--images 24] [--size 1024 512] [--json FILE]

As published: predictions and confidences of all images in two float64 arrays, sorted by class. Ours
is `make_pseudo_labels`. Both read image files, let the same small network (stride 8) predict,
and write label files; memory is without the network, which is next to nothing.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bdl.domains.datasets import Sample
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.runtime.config import Config, PseudoLabelConfig
from bdl.runtime.console import Console
from bdl.runtime.device import make_fabric
from bdl.runtime.run import Run
from bdl.segmentation.networks.base import ParameterGroup, Segmenter
from bdl.segmentation.pseudo_labels import make_pseudo_labels
from benchmarks.common import PUBLISHED, Numbers, Way, Work, compare, exit_status, make_parser

CLASSES, IGNORE, CAP = 19, 255, 0.9


class Linear(Segmenter):
    """Scores that are a linear function of an image's 8x8 blocks."""

    head_prefixes = ()

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = CLASSES
        self.blocks = nn.Conv2d(3, CLASSES, 8, stride=8)
        nn.init.normal_(self.blocks.weight, std=0.8)

    def scores(self, images: Tensor) -> Tensor:
        # In one layout for both ways: it decides in which order a convolution sums.
        return self.blocks(images.contiguous())

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        return [ParameterGroup(list(self.parameters()))]


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Linear, list[Sample]]:
    """The network, and smooth random images as files in `folder`."""
    torch.manual_seed(0)
    network = Linear()
    random = np.random.default_rng(0)
    samples = []
    for number in range(options.images):
        file = folder / f"{number}.png"
        coarse = Image.fromarray(random.integers(0, 256, (16, 32, 3), np.uint8))
        coarse.resize(options.size, Image.Resampling.BICUBIC).save(file, compress_level=1)
        samples.append(Sample(str(number), file, None))
    return network, samples


def as_published(options: argparse.Namespace) -> Work:
    temporary = tempfile.TemporaryDirectory()
    folder = Path(temporary.name)
    network, samples = prepare(options, folder)
    network.to(options.device)
    width, height = options.size

    @torch.no_grad()
    def work() -> Numbers:
        shape = (len(samples), height, width)
        labels, confidence = np.zeros(shape), np.zeros(shape)
        for number, sample in enumerate(samples):
            image = np.asarray(Image.open(sample.image).convert("RGB"), np.float32) / 255
            images = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(options.device)
            maps = F.interpolate(
                F.softmax(network.scores(images), 1),
                (height, width),
                mode="bilinear",
                align_corners=True,
            )
            output = maps.cpu().numpy()[0].transpose(1, 2, 0)
            labels[number] = np.argmax(output, axis=2)
            confidence[number] = np.max(output, axis=2)
        thresholds = np.zeros(CLASSES)
        for train_id in range(CLASSES):
            values = confidence[labels == train_id]
            if len(values):
                values = np.sort(values)
                thresholds[train_id] = values[int(np.round(len(values) * 0.5))]
        thresholds[thresholds > CAP] = CAP
        kept = 0
        for number, sample in enumerate(samples):
            label = np.asarray(labels[number], np.uint8)
            for train_id in range(CLASSES):
                low = confidence[number] < thresholds[train_id]
                label[low & (label == train_id)] = IGNORE
            kept += int((label != IGNORE).sum())
            out = Path(temporary.name) / "published" / sample.image.name
            out.parent.mkdir(exist_ok=True)
            Image.fromarray(label).save(out)
        return {
            "kept": kept / labels.size,
            **{f"threshold {i}": t for i, t in enumerate(thresholds)},
        }

    return work


def ours(options: argparse.Namespace) -> Work:
    temporary = tempfile.TemporaryDirectory()
    network, samples = prepare(options, Path(temporary.name))
    fabric = make_fabric(Config(device=options.device))
    space = load_label_space("cityscapes19")
    images = WholeImages(samples, tuple(options.size))
    run = Run(Path(temporary.name), fabric, Console(speaking=False), workers=options.workers)

    def work() -> Numbers:
        made = make_pseudo_labels(
            run,
            Path(temporary.name) / "ours",
            network,
            images,
            tuple(options.size),
            space,
            PseudoLabelConfig(),
        )
        thresholds = {f"threshold {i}": one.threshold for i, one in enumerate(made.classes)}
        return {"kept": made.kept, **thresholds}

    return work


WAYS: dict[str, Way] = {PUBLISHED: as_published, "ours": ours}


def main() -> None:
    parser = make_parser(__doc__, turns=3)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument(
        "--size", type=int, nargs=2, default=[1024, 512], metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that load for ours")
    compare("pseudo_labels", WAYS, parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
