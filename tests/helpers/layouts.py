"""Tiny images in the true layouts of the known data sets."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.made_data import palette_label, synthia_label


def image(file: Path, size: tuple[int, int] = (16, 8), value: int = 90) -> None:
    """An RGB image, its `size` (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value // 2, value // 3)).save(file)


def label(file: Path, ids: np.ndarray) -> None:
    """A label file of one 8-bit channel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(file)


def ids(*values: int, size: tuple[int, int] = (16, 8)) -> np.ndarray:
    """A map of `size` (width, height) filled with the values in turn."""
    width, height = size
    return np.resize(np.array(values), (height, width))


def gta5(root: Path, count: int = 3) -> Path:
    for number in range(1, count + 1):
        image(root / f"images/{number:05d}.png")
        palette_label(root / f"labels/{number:05d}.png", ids(7, 8, 0, 33, 34))
    return root


def synthia(root: Path, count: int = 3) -> Path:
    for number in range(count):
        image(root / f"RGB/{number:07d}.png")
        synthia_label(root / f"GT/LABELS/{number:07d}.png", ids(3, 4, 0, 11, 22))
        label(root / f"synthia_mapped_to_cityscapes/{number:07d}.png", ids(3, 4, 0, 11, 22))
    return root


CITYSCAPES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000313"],
    "val": ["frankfurt_000000_000294", "munster_000000_000019"],
}


def cityscapes(root: Path, size: tuple[int, int] = (32, 16)) -> Path:
    for split, frames in CITYSCAPES.items():
        for frame in frames:
            city = frame.split("_")[0]
            image(root / f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png", size)
            fine = root / f"gtFine/{split}/{city}"
            label(fine / f"{frame}_gtFine_labelIds.png", ids(7, 8, 0, 33, size=size))
            label(fine / f"{frame}_gtFine_instanceIds.png", ids(7, size=size))
            image(fine / f"{frame}_gtFine_color.png", size)
            (fine / f"{frame}_gtFine_polygons.json").write_text("{}")
    return root
