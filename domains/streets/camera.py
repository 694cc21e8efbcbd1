"""A pinhole camera: which face each pixel sees, and where on it.

It paints the faces from far to near into one map of face numbers; depth and texture coordinates
follow from that map.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from bdl.domains.streets.faces import FAR, NEAR, Faces
from bdl.domains.streets.materials import NUMBER

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Camera:
    """A pinhole `eye` metres above the road; other lengths in supersampled pixels."""

    width: int
    height: int
    focal: float
    middle: float
    horizon: float
    eye: float

    @classmethod
    def draw(cls, rng: Generator, size: tuple[int, int]) -> "Camera":
        width, height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        return cls(
            width=width,
            height=height,
            focal=width * rng.uniform(0.74, 0.9),
            middle=width * rng.normal(0.5, 0.03),
            horizon=height * rng.uniform(0.4, 0.5),
            eye=rng.uniform(1.25, 1.6),
        )

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """How far each column looks to the right (1 x W) and each row up (H x 1) per depth."""
        right = (np.arange(self.width, dtype=np.float32) + 0.5 - self.middle) / self.focal
        rise = (self.horizon - np.arange(self.height, dtype=np.float32) - 0.5) / self.focal
        return right[None, :], rise[:, None]

    def outlines(self, corners: np.ndarray, starts: np.ndarray) -> list[list[float]]:
        """Faces as flat lists x0, y0, x1, y1, ... in pixels; [] for one behind the camera."""
        pixels = self._project(corners).ravel().tolist()
        behind = np.logical_or.reduceat(corners[:, 2] < NEAR, starts[:-1])
        outlines = []
        for first, last, clip in zip(starts, starts[1:], behind, strict=False):
            if clip:
                kept = _clip_near(corners[first:last].tolist())
                outlines.append(self._project(np.array(kept)).ravel().tolist() if kept else [])
            else:
                outlines.append(pixels[2 * first : 2 * last])
        return outlines

    def _project(self, corners: np.ndarray) -> np.ndarray:
        scale = self.focal / np.maximum(corners[:, 2], NEAR)
        x = self.middle + corners[:, 0] * scale
        return np.stack([x, self.horizon - (corners[:, 1] - self.eye) * scale], axis=1)


def _clip_near(corners: list[list[float]]) -> list[list[float]]:
    """The part of an outline that is not nearer than NEAR."""
    kept = []
    for here, there in zip(corners, corners[1:] + corners[:1], strict=True):
        if here[2] >= NEAR:
            kept.append(here)
        if (here[2] < NEAR) != (there[2] < NEAR):
            share = (NEAR - here[2]) / (there[2] - here[2])
            kept.append([a + share * (b - a) for a, b in zip(here, there, strict=True)])
    return kept


class View:
    """What the camera sees: maps H x W of the supersampled picture.

    `face` numbers the visible face, `depth` is its depth in metres, and (`along`, `up`) the place
    on it in metres, where up means forward on the ground. `right` and `rise` are the rays.
    `normals` (F x 3, length 1, towards the camera) and `flat` (F, lies on the ground) are by face.
    """

    def __init__(self, faces: Faces, camera: Camera) -> None:
        self.faces, self.camera = faces, camera
        self.right, self.rise = camera.rays()
        self.face = self._paint()

        normals = faces.normals()
        first = faces.corners[faces.starts[:-1]] - (0, camera.eye, 0)
        distance = (normals * first).sum(axis=1)
        distance[np.abs(distance) < 1e-9] = 1e-9  # seen edge-on: no pixel shows such a face
        toward = -np.sign(distance) * np.maximum(np.linalg.norm(normals, axis=1), 1e-9)
        self.normals = normals / toward[:, None]
        self.flat = np.abs(self.normals[:, 1]) > 0.95

        # 1 / depth is linear in the ray, and its slopes are the normal over the distance.
        a, b, c = (self.per_pixel(slope) for slope in (normals / distance[:, None]).T)
        nearness = a * self.right + b * self.rise + c
        self.depth = 1 / np.clip(nearness, 1 / FAR, 1 / NEAR)
        aside = np.maximum(np.hypot(self.normals[:, 0], self.normals[:, 2]), 1e-9)
        along_x = self.per_pixel(np.where(self.flat, 1, self.normals[:, 2] / aside))
        along_z = self.per_pixel(np.where(self.flat, 0, -self.normals[:, 0] / aside))
        self.along = self.depth * (along_x * self.right + along_z)
        self.up = np.where(self.flat[self.face], self.depth, camera.eye + self.depth * self.rise)

    def _paint(self) -> np.ndarray:
        picture = Image.new("I", (self.camera.width, self.camera.height))
        draw = ImageDraw.Draw(picture)
        outlines = self.camera.outlines(self.faces.corners, self.faces.starts)
        for number, outline in enumerate(outlines):
            if outline:
                draw.polygon(outline, fill=number)
        return np.asarray(picture)

    def per_pixel(self, values: np.ndarray) -> np.ndarray:
        """A number per face (F) or a row per face (F x C), as float32 at every pixel."""
        return np.take(values.astype(np.float32), self.face, axis=0)

    def is_made_of(self, name: str) -> np.ndarray:
        """Where the visible face is of that material (H x W, bool)."""
        return (self.faces.material == NUMBER[name])[self.face]

    def windows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pixels on windows of facades: rows, columns and a number for each window."""
        rows, columns = np.nonzero(self.is_made_of("facade"))
        bay = self.faces.bay[self.face[rows, columns]]
        across = self.along[rows, columns] / bay[:, 0]
        floor = self.up[rows, columns] / bay[:, 1]
        inside = (np.abs(across % 1 - 0.5) < 0.24) & (np.abs(floor % 1 - 0.55) < 0.24)
        number = self.face[rows, columns] + 7 * np.floor(across) + 31 * np.floor(floor)
        return rows[inside], columns[inside], number[inside].astype(int)
