"""Colour augmentation of a batch, on the device it is on."""

import torch
from kornia.enhance import adjust_contrast, adjust_hue, adjust_saturation
from torch import Tensor

from runtime.config import AugmentationConfig
from runtime.device import random_for


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
    1 - c to 1 + c, the hue shift from -c to c turns; they depend on seed, purpose and step alone.
    With several processes they are drawn for the whole batch, of which `images` are every
    `world_size`-th from the `rank`-th on.
    """
    if not (config.brightness or config.contrast or config.saturation or config.hue):
        return images
    random = random_for(seed, f"{purpose} colors", step)

    def draw(center: float, reach: float) -> Tensor:
        values = random.uniform(center - reach, center + reach, len(images) * world_size)
        return torch.tensor(values[rank::world_size], dtype=images.dtype, device=images.device)

    # All are drawn whatever is used, so that one setting does not change another's draws.
    brightness = draw(1, config.brightness).clamp_min(0)
    contrast = draw(1, config.contrast).clamp_min(0)
    saturation = draw(1, config.saturation).clamp_min(0)
    turn = draw(0, config.hue)
    if config.brightness:
        images = (images * brightness.view(-1, 1, 1, 1)).clamp(0, 1)
    if config.contrast:
        images = adjust_contrast(images, contrast)
    if config.saturation:
        images = adjust_saturation(images, saturation)
    if config.hue:
        images = adjust_hue(images, turn * (2 * torch.pi))
    return images.contiguous(memory_format=torch.channels_last)
