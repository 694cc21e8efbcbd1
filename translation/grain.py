"""Random texture for images that have none."""

import torch
import torch.nn.functional as F
from torch import Tensor

_CELLS = (1, 2, 4, 8, 16)  # pixels from one random number to the next


def add_grain(images: Tensor, strength: float) -> Tensor:
    """Images, N x 3 x H x W in [0, 1], with grey noise of the standard deviation `strength` added.

    The noise is equal parts of noise at five scales, as photos have detail at all of them; the
    result may leave [0, 1]. It is drawn from torch's own random state, with 0 nothing is.
    """
    if not strength:
        return images
    height, width = images.shape[-2:]
    noise = torch.zeros(len(images), 1, height, width, device=images.device)
    for cell in _CELLS:
        coarse = torch.randn(
            len(images), 1, -(-height // cell), -(-width // cell), device=images.device
        )
        noise += F.interpolate(coarse, (height, width), mode="bilinear")
    return images + strength * noise / noise.std((2, 3), keepdim=True)
