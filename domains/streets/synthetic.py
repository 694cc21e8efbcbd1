"""The synthetic appearance: flat, saturated colours, as in a game."""

import numpy as np
from numpy.random import Generator

from bdl.domains.streets.camera import View
from bdl.domains.streets.materials import MATERIALS
from bdl.domains.streets.shading import clouds, face_colors, shrink, to_bytes


def shade_synthetic(view: View, rng: Generator) -> np.ndarray:
    """Flat, saturated colours; only the direction that a face points to darkens it."""
    palettes = [material.game for material in MATERIALS.values()]
    colors = face_colors(view.faces, palettes, 0.08, rng)
    colors *= 1 - 0.18 * np.abs(view.normals[:, :1])
    image = view.per_pixel(colors)
    rows, columns, _ = view.windows()
    image[rows, columns] = (0.35, 0.55, 0.75)
    sky = view.is_made_of("sky")
    image += (sky * (0.15 - 0.5 * view.rise))[..., None]
    image[sky & (clouds(view, rng) > 0.8)] = 1
    return to_bytes(shrink(image))
