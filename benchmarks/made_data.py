"""Made street scenes as files in the layouts and sizes of GTA5, SYNTHIA and Cityscapes.

The data sets themselves may not be passed on; what reading, scaling and learning cost depends on
sizes and formats alone.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from bdl.domains.label_space import IGNORE, load_label_space
from bdl.domains.streets.scene import render_street
from bdl.runtime.config import DomainConfig
from bdl.runtime.errors import UserError

# Width and height of the files of a layout, and the images of a layout's split
SIZES = {"gta5": (1914, 1052), "synthia": (1280, 760), "cityscapes": (2048, 1024)}
COUNTS = {
    ("gta5", "train"): 24_966,
    ("synthia", "train"): 9_400,
    ("cityscapes", "train"): 2_975,
    ("cityscapes", "val"): 500,
}
_DRAWN = 3  # a scene is drawn at this part of the width and enlarged: drawing takes long
_GRAIN = 1.0  # standard deviation of the noise, in grey levels, by which a PNG is as large
_LEAST = 32  # pixels of a side of a scene that is drawn
_SPACE = "cityscapes19"


def draw_scene(
    number: int, size: tuple[int, int], appearance: str
) -> tuple[np.ndarray, np.ndarray]:
    """A street scene, enlarged and grainy as a photo is.

    Args:
        number: Of the scene, 0 or more.
        size: Width and height.
        appearance: "synthetic" or "real".

    Returns:
        The image, H x W x 3 uint8, and Cityscapes train ids, H x W uint8.
    """
    small = (max(_LEAST, size[0] // _DRAWN), max(_LEAST, size[1] // _DRAWN))
    drawn, labels = render_street(number, small, appearance)
    large = Image.fromarray(drawn).resize(size, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).normal(0, _GRAIN, (size[1], size[0], 3))
    pixels = (np.asarray(large) + grain).round().clip(0, 255).astype(np.uint8)
    return pixels, np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


@cache
def stored_ids(encoding: str) -> np.ndarray:
    """The id in files of each train id, 256 of them; 0, unlabelled, where there is none."""
    table = np.zeros(256, np.uint8)
    for stored, train_id in load_label_space(_SPACE).encodings[encoding].items():
        if train_id != IGNORE:
            table[train_id] = stored
    return table


def write_image(file: Path, pixels: np.ndarray) -> None:
    """A PNG of H x W x 3, or H x W, uint8."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, compress_level=1)


def palette_label(file: Path, ids: np.ndarray) -> None:
    """A label file whose pixels are palette indices, as GTA5's are; `ids` are H x W uint8."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids.astype(np.uint8))
    # Colours in an order that shares nothing with the indices.
    picture.putpalette([(255 - 7 * index) % 256 for index in range(768)])
    picture.save(file)


def synthia_label(file: Path, ids: np.ndarray) -> None:
    """A 16-bit RGB PNG as SYNTHIA's: class in the first channel, instance in the second."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = ids.shape
    pixels = np.zeros((height, width, 3), ">u2")
    pixels[..., 0] = ids
    pixels[..., 1] = 300 + np.arange(width)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each begins with its filter, none

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _gta5(root: Path, split: str, number: int, pixels: np.ndarray, ids: np.ndarray) -> None:
    write_image(root / f"images/{number + 1:05d}.png", pixels)
    palette_label(root / f"labels/{number + 1:05d}.png", stored_ids("label_id")[ids])


def _synthia(root: Path, split: str, number: int, pixels: np.ndarray, ids: np.ndarray) -> None:
    write_image(root / f"RGB/{number:07d}.png", pixels)
    synthia_label(root / f"GT/LABELS/{number:07d}.png", stored_ids("synthia")[ids])


def _cityscapes(root: Path, split: str, number: int, pixels: np.ndarray, ids: np.ndarray) -> None:
    city = ("aachen", "bochum", "bremen")[number % 3]
    name = f"{split}/{city}/{city}_{number:06d}_000019"
    write_image(root / f"leftImg8bit/{name}_leftImg8bit.png", pixels)
    write_image(root / f"gtFine/{name}_gtFine_labelIds.png", stored_ids("label_id")[ids])


_WRITERS: dict[str, Callable[[Path, str, int, np.ndarray, np.ndarray], None]] = {
    "gta5": _gta5,
    "synthia": _synthia,
    "cityscapes": _cityscapes,
}


def count_of(domain: DomainConfig) -> int:
    """How many images the data set of that layout and split has in truth.

    Raises:
        UserError: It is none of the data sets known here.
    """
    if (domain.layout, domain.split) not in COUNTS:
        known = ", ".join(f"{layout} ({split})" for layout, split in COUNTS)
        raise UserError(
            f"layout: '{domain.layout}' ({domain.split}) is none of the data sets that can be "
            f"made: {known}"
        )
    return COUNTS[domain.layout, domain.split]


def make_data(domain: DomainConfig, root: Path, count: int, first: int = 0) -> None:
    """Write the first `count` images of a data set, with labels.

    Args:
        domain: Its layout and split.
        root: Of the data set.
        count: Images.
        first: Number of the first scene, by which data sets differ.

    Raises:
        UserError: It is none of the data sets known here.
    """
    count_of(domain)
    appearance = "real" if domain.layout == "cityscapes" else "synthetic"
    for number in range(count):
        pixels, ids = draw_scene(first + number, SIZES[domain.layout], appearance)
        _WRITERS[domain.layout](root, domain.split, number, pixels, ids)
