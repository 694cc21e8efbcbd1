"""The course of a street, and the faces that are collected beside and on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bdl.domains.streets.faces import Faces, Outline, Point
from bdl.domains.streets.materials import NUMBER

STREET_END = 95.0
GROUND = 2000.0  # painted after the sky and before every object, whatever its depth


@dataclass(frozen=True)
class Street:
    """The course of the road and what lies beside it, in metres; side -1 is left, 1 is right."""

    centre: float
    slope: float
    bend: float
    half_width: float
    parking: float
    verge: dict[int, float]
    pavement: dict[int, float]
    garden: dict[int, float]

    @classmethod
    def draw(cls, rng: Generator) -> "Street":
        parking = maybe(rng, 0.6, 2.1, 2.1)
        half_width = rng.uniform(2.9, 4.2) + parking
        return cls(
            # The camera drives in the right lane.
            centre=-(half_width - parking) * rng.uniform(0.35, 0.65),
            slope=rng.normal(0, 0.035),
            bend=rng.normal(0, 0.0013),
            half_width=half_width,
            parking=parking,
            verge={side: maybe(rng, 0.3, 0.7, 1.6) for side in (-1, 1)},
            pavement={side: rng.uniform(2.2, 4.5) for side in (-1, 1)},
            garden={side: maybe(rng, 0.65, 0.8, 4.5) for side in (-1, 1)},
        )

    def x(self, side: int, out: float, z: float) -> float:
        """Where the line `out` metres outside the kerb of that side runs at depth z."""
        return self.centre + (self.slope + self.bend * z) * z + side * (self.half_width + out)

    def turn(self, side: int, z: float) -> float:
        """The direction of driving on that side at depth z, radians right of straight ahead."""
        return math.atan(self.slope + 2 * self.bend * z) + (math.pi if side < 0 else 0)

    def edge(self, side: int) -> float:
        """How far outside the kerb the pavement ends."""
        return self.verge[side] + self.pavement[side]

    def strip(self, side: int, inner: float, outer: float, z0: float, z1: float) -> list[Point]:
        """A piece of ground between two lines along the road."""
        steps = max(2, min(14, int((z1 - z0) / 2)))
        depths = [z0 * (z1 / z0) ** (step / (steps - 1)) for step in range(steps)]
        there = [(self.x(side, inner, z), 0.0, z) for z in depths]
        return there + [(self.x(side, outer, z), 0.0, z) for z in reversed(depths)]

    def wall(
        self, side: int, out: float, z0: float, z1: float, bottom: float, top: float
    ) -> list[Point]:
        """An upright rectangle along the road."""
        x0, x1 = self.x(side, out, z0), self.x(side, out, z1)
        return [(x0, bottom, z0), (x1, bottom, z1), (x1, top, z1), (x0, top, z0)]


class Scene:
    """Collects the faces of a scene. Those added after `begin` belong to one thing."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.street = Street.draw(rng)
        self._thing = 0
        self._faces: list[tuple[float, int, int, tuple[float, float], Sequence[Point]]] = []

    def begin(self) -> None:
        """Start the next thing: its faces share the colour of each material."""
        self._thing += 1

    def add(
        self,
        material: str,
        corners: Sequence[Point],
        order: float,
        bay: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Add a face; the greater its `order` (mostly its depth), the earlier it is painted."""
        self._faces.append((order, NUMBER[material], self._thing, bay, corners))

    def stand(self, material: str, x: float, z: float, outline: Outline, turn: float = 0) -> None:
        """Add an upright face at (x, z) that faces the camera, or is turned by some radians."""
        cosine, sine = math.cos(turn), math.sin(turn)
        self.add(material, [(x + s * cosine, up, z + s * sine) for s, up in outline], z)

    def spot(self, side: int, out: float, near: float, far: float) -> tuple[float, float]:
        """A random place (x, z) along a line beside the road, deep enough to be in the picture."""
        z = self.rng.uniform(near, far)
        z = max(z, abs(self.street.x(side, out, z)) / 0.5)
        return self.street.x(side, out, z), z

    def faces(self) -> Faces:
        """All faces in the order of painting."""
        ordered = sorted(self._faces, key=lambda face: -face[0])
        _, materials, things, bays, outlines = zip(*ordered, strict=True)
        return Faces(
            corners=np.array([corner for outline in outlines for corner in outline], float),
            starts=np.concatenate([[0], np.cumsum([len(outline) for outline in outlines])]),
            material=np.array(materials),
            thing=np.array(things),
            bay=np.array(bays),
        )


def maybe(rng: Generator, chance: float, low: float, high: float) -> float:
    """A number from low to high with that chance, else 0."""
    return rng.uniform(low, high) if rng.random() < chance else 0.0
