"""What both appearances are shaded with: colours of things, noise, and pixels of a picture."""

from functools import cache

import numpy as np
from numpy.random import Generator

from bdl.domains.streets.camera import SUPERSAMPLING, View
from bdl.domains.streets.faces import Faces

NOISE_SIDE = 1024  # a power of two, so that wrapping is a bit mask


def face_colors(faces: Faces, palettes: list[str], spread: float, rng: Generator) -> np.ndarray:
    """An sRGB colour per face (F x 3, 0..1); a thing and a material together have one colour.

    `palettes` are the colours of each material, `spread` is how much brightness varies.
    """
    choice = rng.random(faces.things)
    brightness = rng.normal(1, spread, (faces.things, 1))
    tint = rng.normal(0, spread / 4, (faces.things, 3))
    colors = np.empty((len(faces.material), 3))
    for number, palette in enumerate(palettes):
        known = np.array([list(bytes.fromhex(code)) for code in palette.split()]) / 255
        made = np.flatnonzero(faces.material == number)
        colors[made] = known[(choice[faces.thing[made]] * len(known)).astype(int)]
    return np.clip(colors * (brightness + tint)[faces.thing], 0, 1)


def clouds(view: View, rng: Generator) -> np.ndarray:
    """Noise on a layer high above (H x W)."""
    layer = 1 / np.maximum(view.rise + 0.12, 0.02)  # how far away each row meets it
    return noise(view.right * layer + rng.uniform(0, 500), layer, 50, smoothness=1.9)


def noise(x: np.ndarray, y: np.ndarray, cells: float, smoothness: float = 1.0) -> np.ndarray:
    """Endless noise at the coordinates, `cells` cells to each unit of them."""
    mask = NOISE_SIDE - 1
    columns, rows = ((axis * cells).astype(np.int32) & mask for axis in (x, y))
    return _noise_tile(smoothness)[rows, columns]


@cache
def _noise_tile(smoothness: float) -> np.ndarray:
    """Noise of all scales that wraps around: NOISE_SIDE x NOISE_SIDE, float32, deviation 1."""
    white = np.random.default_rng(0).normal(size=(NOISE_SIDE, NOISE_SIDE))
    frequency = np.fft.fftfreq(NOISE_SIDE)
    radius = np.hypot(frequency[:, None], frequency[None, : NOISE_SIDE // 2 + 1])
    radius[0, 0] = np.inf  # the mean becomes 0
    tile = np.fft.irfft2(np.fft.rfft2(white) / radius**smoothness, s=white.shape)
    return (tile / tile.std()).astype(np.float32)


def shrink(image: np.ndarray) -> np.ndarray:
    """The mean of each block of supersampled pixels."""
    height, width, channels = image.shape
    step = SUPERSAMPLING
    blocks = image.reshape(height // step, step, width // step, step, channels)
    return blocks.mean(axis=(1, 3))


def to_bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
