"""Augmentation of a batch, on the device it is on: colours, and classes of the other domain."""

import numpy as np
import torch
from kornia.enhance import (
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation,
)
from torch import Tensor

from bdl.domains.label_space import IGNORE
from bdl.runtime.config import AugmentationConfig
from bdl.runtime.device import random_for


def jitter_colors(
    images: Tensor,
    config: AugmentationConfig,
    seed: int,
    purpose: str,
    step: int,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image at random.

    `images` are N x 3 x H x W in [0, 1], and so is the result. Factors are drawn uniformly from
    1 - c to 1 + c, the hue shift from -c to c turns. All depends on seed, purpose and step alone.
    With several processes the draws are for the whole batch, of which `images` are every
    `world_size`-th from the `rank`-th on.
    """
    if not any((config.brightness, config.contrast, config.saturation, config.hue)):
        return images
    random = random_for(seed, f"{purpose} colors", step)

    count = len(images) * world_size

    def draw(center: float, reach: float) -> Tensor:
        values = random.uniform(center - reach, center + reach, count)
        return _own(values, images, rank, world_size)

    # All are drawn whatever is used, so that one setting does not change another's draws.
    brightness = draw(1, config.brightness).clamp_min(0)
    contrast = draw(1, config.contrast).clamp_min(0)
    saturation = draw(1, config.saturation).clamp_min(0)
    turn = draw(0, config.hue)
    if config.brightness:
        images = (images * brightness.view(-1, 1, 1, 1)).clamp(0, 1)
    if config.contrast:
        # Of kornia's two, the one that keeps the mean: `adjust_contrast` scales brightness.
        images = adjust_contrast_with_mean_subtraction(images, contrast)
    if config.saturation:
        images = adjust_saturation(images, saturation)
    if config.hue:
        images = adjust_hue(images, turn * (2 * torch.pi))
    return images.contiguous(memory_format=torch.channels_last)


def mix_classes(
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    seed: int,
    step: int,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[Tensor, Tensor]:
    """Target images onto which half of the classes of the source image beside each are pasted.

    Both domains give images, N x 3 x H x W, and train ids, N x H x W, all of one size; so is the
    result. Of an odd number of classes the smaller half is taken, a single one always; pixels of
    the source without a label never are. The draws depend on seed and step alone; several processes
    mix their shares of the batch, as in `jitter_colors`. (Tranheden et al., "DACS", 2021, after
    Olsson et al., "ClassMix".)
    """
    (source_images, source_labels), (target_images, target_labels) = source, target
    count, device = len(source_labels), source_labels.device
    # A column for each value that a label may have: nothing here waits for the device, not even to
    # learn how many classes an image has.
    draws = random_for(seed, "class mixing", step).random((count * world_size, IGNORE + 1))
    order = _own(draws, source_images, rank, world_size)
    ids = source_labels.flatten(1).long()
    present = torch.zeros(count, IGNORE + 1, dtype=torch.bool, device=device)
    present.scatter_(1, ids, torch.ones_like(ids, dtype=torch.bool))
    present[:, IGNORE] = False
    standing = order.masked_fill(~present, 2.0).argsort(1).argsort(1)  # those there come first
    chosen = present & (standing < (present.sum(1, keepdim=True) // 2).clamp_min(1))
    pasted = chosen.gather(1, ids).view_as(source_labels)
    return (
        torch.where(pasted[:, None], source_images, target_images),
        torch.where(pasted, source_labels, target_labels),
    )


def _own(values: np.ndarray, images: Tensor, rank: int, world_size: int) -> Tensor:
    """Of `values`, drawn for each image of the whole batch, those of this process's `images`."""
    own = torch.tensor(values[rank::world_size], dtype=images.dtype)
    return own.to(images.device, non_blocking=True)
