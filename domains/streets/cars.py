"""Cars."""

import math
from collections.abc import Callable
from typing import NamedTuple

from bdl.domains.streets.faces import Outline, Point, disc, rectangle
from bdl.domains.streets.street import Scene, maybe


class CarShape(NamedTuple):
    """Measures of a car's side view, in metres from its middle on the ground."""

    end: float
    belt: float
    roof_rear: float
    roof_front: float
    roof: float
    bonnet_rear: float
    bonnet: float

    def profile(self) -> Outline:
        """From the rear bumper over the roof to the front bumper."""
        rear = [(-self.end, 0.25), (-self.end - 0.05, self.belt), (self.roof_rear, self.roof)]
        front = [(self.roof_front, self.roof + 0.02), (self.bonnet_rear, self.bonnet)]
        return rear + front + [(self.end - 0.05, self.bonnet - 0.18), (self.end, 0.25)]


_CAR_SHAPES = (
    CarShape(2.0, 0.95, -1.7, 0.2, 1.47, 0.95, 1.0),
    CarShape(2.2, 0.98, -1.1, 0.2, 1.40, 1.1, 0.95),
    CarShape(2.2, 1.10, -2.0, 0.3, 1.72, 1.0, 1.15),
    CarShape(2.4, 1.20, -2.4, 1.2, 2.10, 1.9, 1.25),
)
# What lies between the points of a profile.
_CAR_SKIN = ("paint", "car glass", "paint", "car glass", "paint", "paint")


def add_cars(scene: Scene, side: int) -> None:
    """Parked cars at the kerb, one that drives in the lane, and now and then one that turns."""
    rng, street = scene.rng, scene.street
    z = rng.uniform(5, 14)
    while street.parking and z < 70:
        _add_car(scene, street.x(side, -1.05, z), z, street.turn(side, z) + rng.normal(0, 0.04))
        z += rng.uniform(5, 6) + maybe(rng, 0.4, 2, 14)
    if rng.random() < 0.65:
        z = rng.uniform(9, 45)
        lane = -(street.half_width + street.parking) / 2
        _add_car(scene, street.x(side, lane, z), z, street.turn(side, z))
    if rng.random() < 0.12:
        z = rng.uniform(14, 35)
        x = street.x(side, -rng.uniform(0, 1) * street.half_width, z)
        _add_car(scene, x, z, side * math.pi / 2 + rng.normal(0, 0.2))


def _add_car(scene: Scene, x: float, z: float, turn: float) -> None:
    """A car whose front points `turn` radians right of ahead: a profile, drawn out wide."""
    shape = _CAR_SHAPES[scene.rng.integers(0, len(_CAR_SHAPES))]
    half, sine, cosine = scene.rng.uniform(0.82, 0.95), math.sin(turn), math.cos(turn)
    scene.begin()

    def to_point(along: float, across: float, up: float) -> Point:
        return x + along * sine + across * cosine, up, z + along * cosine - across * sine

    def add_across(material: str, along: float, across: float, outline: Outline) -> None:
        scene.add(material, [to_point(along, across + s, up) for s, up in outline], z)

    for along in (-1.35, 1.35):  # the shell, painted over them, leaves their lower part
        for across in (0.15 - half, half - 0.15):
            add_across("tyre", along, across, rectangle(0.11, 0, 0.6))

    profile = shape.profile()
    shell = [("paint", [to_point(a, side * half, u) for a, u in profile]) for side in (-1, 1)]
    for material, (a, u), (b, v) in zip(_CAR_SKIN, profile, profile[1:], strict=False):
        strip = [
            to_point(a, -half, u),
            to_point(a, half, u),
            to_point(b, half, v),
            to_point(b, -half, v),
        ]
        shell.append((material, strip))
    shell.sort(key=lambda face: -sum(math.hypot(p[0], p[2]) for p in face[1]) / len(face[1]))
    for material, corners in shell:
        scene.add(material, corners, z)

    ahead, aside = x * sine + z * cosine, x * cosine - z * sine  # the car's place on its own axes
    if abs(aside) > half:
        near = -math.copysign(half, aside)
        _add_car_side(scene, shape, lambda along, up: to_point(along, near, up), z)
    if abs(ahead) > shape.end:
        along, light = (-shape.end, "rear light") if ahead > 0 else (shape.end, "headlight")
        for across in (-0.6, 0.6):
            add_across(light, 1.02 * along, across, rectangle(0.17, 0.62, 0.82))


def _add_car_side(
    scene: Scene, shape: CarShape, to_point: Callable[[float, float], Point], order: float
) -> None:
    """Windows and wheels on the side that the camera sees."""
    glass = [(shape.roof_rear, shape.belt + 0.04), (shape.roof_rear + 0.15, shape.roof - 0.1)]
    glass += [(shape.roof_front - 0.1, shape.roof - 0.1)]
    glass += [(shape.bonnet_rear - 0.2, shape.bonnet + 0.06)]
    scene.add("car glass", [to_point(*corner) for corner in glass], order)
    for along in (-1.3, 1.3):
        for material, radius in (("tyre", 0.36), ("hub", 0.19)):
            wheel = [to_point(along + s, up) for s, up in disc(radius, 0.35)]
            scene.add(material, wheel, order)
