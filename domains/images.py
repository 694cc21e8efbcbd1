"""Reading and writing image and label files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from domains.label_space import LabelSpace
from runtime.errors import UserError
from runtime.files import save_png

_LABEL_MODES = ("L", "P", "I;16", "I")  # Pillow's, of files of one channel of ids
_PNG_TAIL = 64  # bytes at a PNG's end that hold its closing chunk


def open_image(file: Path) -> Image.Image:
    """The image as RGB, decoded. Raises UserError that names a file that is no whole image."""
    image = _open(file)
    _require_8_bit(file, image.mode)
    return image if image.mode == "RGB" else image.convert("RGB")


def open_label(file: Path) -> Image.Image:
    """The label file's ids as a one-channel image: 8-bit ("L") or up to 16-bit ("I;16").

    Palette files give their indices. Of colour files only SYNTHIA's are labels: 16-bit PNGs
    whose first channel is the class.
    """
    image = _open(file)
    if image.mode in ("L", "P"):
        # As bytes: conversion to "L" would turn palette indices into brightness.
        ids = np.asarray(image, np.uint8)
        bits = _png_bits(file)
        if image.mode == "L" and bits in (2, 4):
            ids = ids // (255 // (2**bits - 1))  # Pillow has spread them over 0..255
        return Image.fromarray(ids)
    if image.mode in _LABEL_MODES:
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode == "RGB" and _png_bits(file) == 16:
        # Pillow cuts 48-bit pixels to 8 bits a channel; torchvision keeps them.
        channels = decode_image(str(file), mode=ImageReadMode.UNCHANGED)
        return Image.fromarray(channels[0].numpy().astype(np.uint16))
    raise _no_label_map(file, image.mode)


def check_image(file: Path) -> tuple[int, int]:
    """Width and height of an image, without decoding it.

    Raises UserError that names a file that is missing, no image, a PNG that was cut off, or has
    more than 8 bits of grey.
    """
    size, mode = _read_header(file)
    _require_8_bit(file, mode)
    return size


def check_label(file: Path) -> tuple[int, int]:
    """The same for a label file; raises UserError as well if its pixels are no class ids."""
    size, mode = _read_header(file)
    if mode not in _LABEL_MODES and not (mode == "RGB" and _png_bits(file) == 16):
        raise _no_label_map(file, mode)
    return size


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


def label_image(labels: np.ndarray, space: LabelSpace) -> Image.Image:
    """Train ids (H x W uint8) as an image whose palette shows the classes' colours."""
    image = Image.fromarray(labels)
    image.putpalette(space.palette())
    return image


def write_labels(file: Path, labels: np.ndarray, space: LabelSpace) -> None:
    """Train ids (H x W uint8) as a PNG whose palette shows the classes' colours."""
    save_png(file, label_image(labels, space))


def _open(file: Path) -> Image.Image:
    with _named_errors(file):
        image = Image.open(file)
        image.load()
    return image


def _read_header(file: Path) -> tuple[tuple[int, int], str]:
    """Size and mode. A PNG's last bytes are looked at too: they tell a file that was cut off."""
    with _named_errors(file), Image.open(file) as image:
        if image.format == "PNG":
            with open(file, "rb") as opened:
                opened.seek(-min(_PNG_TAIL, os.fstat(opened.fileno()).st_size), os.SEEK_END)
                if b"IEND" not in opened.read():
                    raise ValueError("the file is cut off")
        return image.size, image.mode


@contextmanager
def _named_errors(file: Path) -> Iterator[None]:
    """What goes wrong when an image is read becomes a UserError that names its file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{file}: is not a readable image ({reason}); replace or remove it"
        ) from None


def _require_8_bit(file: Path, mode: str) -> None:
    """Pillow would cut such grey levels off at 255 rather than scale them."""
    if mode.startswith(("I", "F")):
        raise UserError(
            f"{file}: is a grey image of more than 8 bits; store it as 8-bit RGB or grey"
        )


def _no_label_map(file: Path, mode: str) -> UserError:
    return UserError(
        f"{file}: is a {mode} image, not a label map; labels must be one channel of class "
        "ids (8-bit, 16-bit or palette)"
    )


def _png_bits(file: Path) -> int | None:
    """Bits of a PNG's channels (or palette indices); None for another format."""
    with open(file, "rb") as opened:
        header = opened.read(25)
    return header[24] if header[:8] == b"\x89PNG\r\n\x1a\n" else None
