"""Random texture for images that have none."""

import torch
import torch.nn.functional as F
from torch import Tensor

_CELLS = (1, 2, 4, 8, 16)  # pixels from one random number to the next


def draw_grain(images: Tensor, strength: float) -> Tensor | None:
    """Grey noise of the standard deviation `strength` for images, N x 3 x H x W: N x 1 x H x W.

    It is equal parts of noise at five scales, as photos have detail at all of them. It is drawn
    from torch's own random state; with 0 nothing is, and it is None.
    """
    if not strength:
        return None
    height, width = images.shape[-2:]
    noise = torch.zeros(len(images), 1, height, width, device=images.device)
    for cell in _CELLS:
        coarse = torch.randn(
            len(images), 1, -(-height // cell), -(-width // cell), device=images.device
        )
        noise += F.interpolate(coarse, (height, width), mode="bilinear")
    return strength * noise / noise.std((2, 3), keepdim=True)


def add_grain(images: Tensor, strength: float) -> Tensor:
    """Images, N x 3 x H x W in [0, 1], with the noise of `draw_grain`: it may leave [0, 1]."""
    grain = draw_grain(images, strength)
    return images if grain is None else images + grain
