"""What the rules of `domains.rules` know of a problem: its numbers of images, and how they look.

Nothing of it comes from labels, or from the validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bdl.domains.datasets import spread
from bdl.domains.images import UPRIGHT, open_image

_LOOKED_AT = 64  # images of a role, spread evenly
_SIDE = 128  # pixels of the longer side at which they are looked at: noise and grain are gone
_LEVELS = 101  # quantiles of a channel of colour
_GREY = 128  # of Cb and Cr
_EQUAL = 1  # grey levels by which neighbours in a flat area differ at the most


@dataclass(frozen=True)
class Look:
    """How a set of images looks.

    Args:
        chroma: Quantiles, from the least to the most, of Cb and of Cr over all pixels: 2 x 101,
            0 to 255.
        flat: The share of pixels, 0 to 1, that are as their neighbours to the right and below.
    """

    chroma: np.ndarray
    flat: float

    @property
    def colorfulness(self) -> float:
        """How far its pixels are from grey, in levels of 0 to 255: the medians of Cb's and of Cr's
        distances from 128, as the two sides of a right angle."""
        return float(np.hypot(*np.median(np.abs(self.chroma - _GREY), axis=1)))


@dataclass(frozen=True)
class Looks:
    """How the images of a problem look, and how many there are.

    Args:
        counts: The number of each role's images, by role.
        color_distance: From the source's colours to the target's: see `color_distance`.
        flat: The flat share of the source and of the target, 0 to 1.
        colorfulness: Of the source and of the target: see `Look.colorfulness`.
    """

    counts: dict[str, int]
    color_distance: float
    flat: tuple[float, float]
    colorfulness: tuple[float, float]

    @classmethod
    def of(cls, counts: dict[str, int], source: Look, target: Look) -> Looks:
        """What is known of a problem whose images look so."""
        return cls(
            counts,
            color_distance(source, target),
            (source.flat, target.flat),
            (source.colorfulness, target.colorfulness),
        )


def look_at_images(files: Sequence[Path], orientation: str = UPRIGHT) -> Look:
    """How the images of a role look, from at most 64 of them.

    Args:
        files: Their files, in an order that is the same on every machine.
        orientation: How they are read, "upright" or "stored".

    Raises:
        UserError: A file cannot be read.
    """
    colors, flats = [], []
    for number in spread(len(files), _LOOKED_AT):
        photo = open_image(files[number], orientation)
        factor = min(1.0, _SIDE / max(photo.size))
        width, height = (max(1, round(factor * side)) for side in photo.size)
        image = photo.image.resize((width, height), Image.Resampling.BOX)
        pixels = np.asarray(image.convert("YCbCr"))
        colors.append(pixels[..., 1:].reshape(-1, 2))
        flats.append(_flat_share(pixels[..., 0]))
    levels = np.linspace(0, 1, _LEVELS)
    return Look(np.quantile(np.concatenate(colors), levels, axis=0).T, float(np.mean(flats)))


def color_distance(source: Look, target: Look) -> float:
    """How far apart the colours of two sets of images are, lightness left out.

    The distances between the distributions of Cb and of Cr (Wasserstein's of order 1: the mean
    difference of their quantiles), as the two sides of a right angle.

    Returns:
        Levels of 0 to 255; 0 for equal colours, and between grey images.
    """
    return float(np.hypot(*np.abs(source.chroma - target.chroma).mean(1)))


def _flat_share(grey: np.ndarray) -> float:
    """Of an image, H x W uint8."""
    levels = grey.astype(np.int16)
    right = np.abs(np.diff(levels, axis=1))[:-1]
    below = np.abs(np.diff(levels, axis=0))[:, :-1]
    steps = np.maximum(right, below)
    return float((steps <= _EQUAL).mean()) if steps.size else 1.0
