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
