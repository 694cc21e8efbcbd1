"""Between images and label maps as arrays, and what networks and losses take."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """RGB image, or its H x W x 3 pixels, to 3 x H x W uint8."""
    return torch.from_numpy(np.array(np.asarray(image).transpose(2, 0, 1), order="C"))


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to what networks take: float in [0, 1], in the layout that is fast."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_bytes(image: Tensor) -> np.ndarray:
    """One image, 3 x H x W in [0, 1], to H x W x 3 uint8, rounded."""
    pixels = image.detach().float().mul(255).round_().clamp_(0, 255).byte().permute(1, 2, 0)
    return pixels.contiguous().cpu().numpy()


def to_ids(labels: np.ndarray) -> Tensor:
    """A label map, H x W integer, as what losses take: int64."""
    return torch.from_numpy(labels.astype(np.int64))
