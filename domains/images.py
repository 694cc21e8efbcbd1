"""Reading and writing image and label files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from domains.label_space import LabelSpace
from runtime.errors import UserError
from runtime.files import save_png


def open_image(file: Path) -> Image.Image:
    """The image as RGB, decoded. Raises UserError that names a file that is no whole image."""
    image = _open(file)
    return image if image.mode == "RGB" else image.convert("RGB")


def open_label(file: Path) -> Image.Image:
    """The label file's ids as a one-channel image: 8-bit ("L") or up to 16-bit ("I;16").

    Palette files give their indices. Of colour files only SYNTHIA's are labels: 16-bit PNGs
    whose first channel is the class.
    """
    image = _open(file)
    if image.mode in ("L", "P"):
        # As bytes: conversion to "L" would turn palette indices into brightness.
        return Image.fromarray(np.asarray(image, np.uint8))
    if image.mode in ("I;16", "I"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode == "RGB" and _is_16_bit_png(file):
        # Pillow cuts 48-bit pixels to 8 bits a channel; torchvision keeps them.
        channels = decode_image(str(file), mode=ImageReadMode.UNCHANGED)
        return Image.fromarray(channels[0].numpy().astype(np.uint16))
    raise UserError(
        f"{file}: is a {image.mode} image, not a label map; labels must be one channel of class "
        "ids (8-bit, 16-bit or palette)"
    )


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image to 3 x H x W uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to what networks take: float in [0, 1], in the layout that is fast."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_bytes(image: Tensor) -> np.ndarray:
    """One image, 3 x H x W in [0, 1], to H x W x 3 uint8, rounded."""
    return (
        image.detach().float().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    )


def write_labels(file: Path, labels: np.ndarray, space: LabelSpace) -> None:
    """Train ids (H x W uint8) as a PNG whose palette shows the classes' colours."""
    image = Image.fromarray(labels)
    image.putpalette(space.palette())
    save_png(file, image)


def _open(file: Path) -> Image.Image:
    try:
        image = Image.open(file)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{file}: is not a readable image ({error}); replace or remove it"
        ) from None
    return image


def _is_16_bit_png(file: Path) -> bool:
    with open(file, "rb") as opened:
        header = opened.read(25)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and header[24] == 16
