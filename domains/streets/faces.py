"""Flat faces in metres: x to the right, y up, z forward; the camera is above the origin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

NEAR, FAR = 0.6, 3000.0  # metres: the nearest that is drawn, and the sky

Point = tuple[float, float, float]
Outline = Sequence[tuple[float, float]]  # (along, up) on an upright face


@dataclass(frozen=True)
class Faces:
    """F faces from far to near, as arrays.

    `corners` (M x 3) holds the corners of all faces one after the other, `starts` (F + 1) where
    each face begins. `material` and `thing` (F) number what a face is made of and what thing it
    is part of; `bay` (F x 2) is the width and height of a facade's window bays.
    """

    corners: np.ndarray
    starts: np.ndarray
    material: np.ndarray
    thing: np.ndarray
    bay: np.ndarray

    @property
    def things(self) -> int:
        return int(self.thing.max()) + 1

    def normals(self) -> np.ndarray:
        """Normals of any length (F x 3), by Newell's sum, which suits every planar outline."""
        following = np.arange(1, len(self.corners) + 1)
        following[self.starts[1:] - 1] = self.starts[:-1]
        crosses = np.cross(self.corners, self.corners[following])
        return np.add.reduceat(crosses, self.starts[:-1], axis=0)


def rectangle(reach: float, bottom: float, top: float) -> Outline:
    """An outline that extends `reach` to either side."""
    return [(-reach, bottom), (reach, bottom), (reach, top), (-reach, top)]


def disc(radius: float, up: float, corners: int = 12, start: float = 0.0) -> Outline:
    """A regular polygon around (0, up) whose first corner is `start` turns from the right."""
    angles = [2 * math.pi * (start + corner / corners) for corner in range(corners)]
    return [(radius * math.cos(angle), up + radius * math.sin(angle)) for angle in angles]


def limb(start: tuple[float, float], stop: tuple[float, float], thickness: float) -> Outline:
    """A straight line that extends `thickness` to either side."""
    (s, u), (t, v) = start, stop
    scale = thickness / math.hypot(t - s, v - u)
    a, b = (u - v) * scale, (t - s) * scale
    return [(s + a, u + b), (s - a, u - b), (t - a, v - b), (t + a, v + b)]


def blob(rng: Generator, along: float, up: float, reach: float, rise: float) -> Outline:
    """A ragged ellipse around (along, up)."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radii = rng.uniform(0.72, 1.1, 20)
    s, y = along + reach * radii * np.cos(angles), up + rise * radii * np.sin(angles)
    return list(zip(s.tolist(), np.maximum(y, 0).tolist(), strict=True))
