"""Predictions of a trained network: probabilities, as the published evaluation makes them."""

import torch
from lightning.fabric import Fabric
from torch import Tensor

from segmentation.networks.base import Segmenter, upsample


@torch.inference_mode()
def probabilities(
    fabric: Fabric, network: Segmenter, images: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """Class probabilities of `images` (N x 3 x H x W in [0, 1]): N x C x height x width.

    The softmax is taken at the network's own stride, then the probabilities are upsampled to
    `size` (default: the images'), as published; logits are upsampled in training only. The result
    is float32 and sums to 1 over classes.
    """
    with fabric.autocast():
        scores = network.scores(images)
    height, width = size or (images.shape[-2], images.shape[-1])
    return upsample(scores.float().softmax(1), (height, width))


@torch.inference_mode()
def windowed_probabilities(
    fabric: Fabric, network: Segmenter, images: Tensor, window: tuple[int, int]
) -> Tensor:
    """The same from a window (height, width) that slides over `images`, at the images' size.

    Neighbouring windows overlap by a third of their sides or more; where they do, the mean counts.
    """
    height, width = images.shape[-2:]
    total = images.new_zeros(len(images), network.num_classes, height, width)
    covered = images.new_zeros(height, width)
    for top in window_starts(height, window[0]):
        for left in window_starts(width, window[1]):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            part = images[..., rows, columns]
            total[..., rows, columns] += probabilities(fabric, network, part)
            covered[rows, columns] += 1
    return total / covered


def window_starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover `length`; the last one ends with it."""
    if window >= length:
        return [0]
    stride = max(1, 2 * window // 3)
    return [*range(0, length - window, stride), length - window]
