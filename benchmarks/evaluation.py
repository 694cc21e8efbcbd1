"""From score maps to the confusion matrix: the published code, and ours.

    python -m benchmarks.evaluation [--device cuda] [--size 2048 1024] [--images 4] [--json FILE]

As published: softmax at stride 8, all probabilities upsampled to the labels' size, transferred, the
class found by numpy, then `fast_hist` of each image. The network itself is left out. The scores
are those of a rendered street's classes, so that regions and borders are as in a segmentation.
"""

import argparse
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bdl.domains.streets.scene import render_street
from bdl.segmentation.evaluate import ConfusionMatrix
from bdl.segmentation.predict import upsampled_argmax
from benchmarks.common import PUBLISHED, Numbers, Way, Work, compare, exit_status, make_parser

CLASSES = 19
STRIDE = 16  # of the score maps to the labels: 8, of an input of half the labels' size


def scores_and_labels(options: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """For each image the score maps, 1 x 19 x h x w, and the labels, 1 x H x W int64."""
    width, height = options.size
    random = torch.Generator().manual_seed(0)
    pairs = []
    for number in range(options.images):
        labels = torch.from_numpy(
            render_street(number, (width, height), "synthetic")[1].astype(int)
        )
        classes = F.one_hot(labels.clamp_max(CLASSES - 1), CLASSES).permute(2, 0, 1)[None].float()
        maps = F.interpolate(
            classes, (height // STRIDE + 1, width // STRIDE + 1), mode="bilinear", antialias=True
        )
        scores = 6 * maps + torch.randn(maps.shape, generator=random)
        pairs.append((scores.to(options.device), labels[None].to(options.device)))
    return pairs


def numbers_of(counts: np.ndarray) -> Numbers:
    """By what the ways are compared."""
    return {"pixels": float(counts.sum()), "hits": float(np.diag(counts).sum())}


def as_published(options: argparse.Namespace) -> Work:
    images = scores_and_labels(options)
    width, height = options.size

    def fast_hist(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        known = (label >= 0) & (label < CLASSES)
        cells = CLASSES * label[known].astype(int) + prediction[known]
        return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

    def work() -> Numbers:
        counts = np.zeros((CLASSES, CLASSES))
        for scores, label in images:
            maps = F.interpolate(
                F.softmax(scores, 1), (height, width), mode="bilinear", align_corners=True
            )
            output = maps.cpu().numpy()[0].transpose(1, 2, 0)
            prediction = np.asarray(np.argmax(output, axis=2), dtype=np.uint8)
            counts += fast_hist(label[0].cpu().numpy().flatten(), prediction.flatten())
        return numbers_of(counts)

    return work


def ours(options: argparse.Namespace) -> Work:
    images = scores_and_labels(options)
    width, height = options.size

    def work() -> Numbers:
        matrix = ConfusionMatrix(CLASSES)
        for scores, label in images:
            matrix.update(upsampled_argmax(scores.softmax(1), (height, width)), label)
        return numbers_of(matrix.counts.numpy())

    return work


WAYS: dict[str, Way] = {PUBLISHED: as_published, "ours": ours}


def main() -> None:
    parser = make_parser(__doc__, turns=7)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument(
        "--size", type=int, nargs=2, default=[2048, 1024], metavar=("WIDTH", "HEIGHT")
    )
    compare("evaluation", WAYS, parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
