"""A procedural world of streets in two appearances: the demo's own source and target domain.

A scene is a list of flat faces in metres (x to the right, y up, z forward; the camera is above the
origin). A pinhole camera paints them from far to near into one map of face numbers; labels, depth
and texture coordinates follow from that map. An appearance only decides how faces are shaded, so
both share geometry and labels exactly: "synthetic" is flat and saturated; "real" has weather,
texture, cast shadows, haze and the flaws of a cheap camera.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

CLASSES: dict[str, int] = {
    "road": 0,
    "sidewalk": 1,
    "building": 2,
    "fence": 4,
    "pole": 5,
    "traffic sign": 7,
    "vegetation": 8,
    "sky": 10,
    "person": 11,
    "car": 13,
    "bicycle": 18,
}
APPEARANCES = ("synthetic", "real")
MIN_SIDE = 32
SUPERSAMPLING = 2
NEAR, FAR = 0.6, 3000.0  # metres: the nearest that is drawn, and the sky
STREET_END = 95.0
GROUND = 2000.0  # painted after the sky and before every object, whatever its depth
GAMMA = 2.2
NOISE_SIDE = 1024  # a power of two, so that wrapping is a bit mask

Point = tuple[float, float, float]
Outline = Sequence[tuple[float, float]]  # (along, up) on an upright face


@dataclass(frozen=True)
class Material:
    """What a face is made of.

    `game` and `photo` list the sRGB colours that things pick from in the synthetic and in the real
    appearance. The rest are contrasts of the real texture: its fine `grain`, its large `mottle`,
    and its `slabs` of the given width and height in metres.
    """

    label: str
    game: str
    photo: str
    grain: float = 0.1
    mottle: float = 0.1
    slabs: float = 0.0
    slab_size: tuple[float, float] = (1.0, 1.0)


# Colours of different classes overlap in the real appearance: walls, paint and clothes above all.
_GAME_WALLS = "e8664a f0b440 4a9ae0 e88ab0 e8e0c8 8ad0c0 b0b0b8 c89878"
_WALLS = "8d8880 a39b8c 7a6253 9a9a98 c4bdb0 6d6a68 8b5f4e b3a58c 575656 a8926c"
_GAME_PAINT = "e01820 1850e8 f8f8f8 ffc800 18b048 20202c b8c0c8 e87820"
_PAINT = "15171a 2b2e33 8f9294 b9bbbb 5c6064 233a6a 7a1f1f 3d4a44 77705f d8d8d4"
_GAME_CLOTHES = "ff4040 ffd820 40e0d0 ff70ff f8f8f8 2838c8 303040 8a4ad0"
_CLOTHES = "1c1d22 2b3858 55565a 6b5a48 40302c 7d7f80 9e8672 34503a 7c2a2a b9b9b6"
MATERIALS: dict[str, Material] = {
    "sky": Material("sky", "5fb2ff", "b9c0c2"),
    "asphalt": Material("road", "50505c 5c5a60 484a52", "464645 565452 62605b 706e68", 0.16, 0.16),
    "marking": Material("road", "f4f4f4", "b8b6ae c8c5ba a8a59c", 0.2, 0.2),
    "pavement": Material(
        "sidewalk",
        "e8c8a0 d8b0b0 c8c0b0",
        "6d6b67 837e76 908878 605d5b",
        0.12,
        0.14,
        0.1,
        (0.9, 0.9),
    ),
    "kerb": Material("sidewalk", "f4e8d8", "7b7974 908c84 656360", 0.12, 0.1, 0.12, (0.2, 1.2)),
    "grass": Material("vegetation", "5fd04a 8ad850", "566038 66703f 4c5236 7a7250", 0.35, 0.25),
    "hedge": Material("vegetation", "2f9e38 3cae3a", "36452a 4b5230 2f3828 5d5a3c", 0.6, 0.25),
    "crown": Material(
        "vegetation", "36b83c 58c832 2f9e50 80c040", "3f5229 566034 34442a 6f6a38 7f6036", 0.65, 0.3
    ),
    "trunk": Material("vegetation", "8a5a2c 6a4828", "4a4238 5a5248 38332d", 0.4, 0.2),
    "facade": Material("building", _GAME_WALLS, _WALLS, 0.1, 0.16, 0.08, (0.5, 0.2)),
    "roof": Material("building", "b03a2a 7a4030 606878", "5a4a44 7a5048 4c4c4e", 0.15, 0.1, 0.2),
    "door": Material("building", "7a3ac0 2a5ac0 3a2a20", "3a322c 4c5048 5a4636 26282c"),
    "shop window": Material("building", "a8e8ff 78a8c8", "2a2d30 3c4042 5a5c5a", 0.05, 0.6),
    "fence": Material("fence", "c8842c f0e0b0 a86420 70757c", "5d5850 6e5c46 474c48 7d776c", 0.15),
    "pole": Material("pole", "9aa0b8 b0b0c0 707888", "6a6c6c 545858 7e7f7c 3d443f"),
    "lamp": Material("pole", "fff0a0", "9a9a92 b0afa6"),
    "sign rim": Material("traffic sign", "ff1818 e8e8f0", "9a3028 a83c34 84302a b0aea8"),
    "sign face": Material("traffic sign", "ffffff ffe000 1848ff", "b8b6ae b8a040 2c4c84 9c9a92"),
    "skin": Material("person", "ffc898 c88a58", "b08870 8a6450 c09880 583c2e"),
    "hair": Material("person", "6a3a14 201810 e8c060", "2c2622 4a3c30 1a1818 77716a"),
    "top": Material("person", _GAME_CLOTHES, _CLOTHES, 0.12, 0.15),
    "trousers": Material("person", "2838c8 303040 8a4ad0 706858", _CLOTHES, 0.12, 0.15),
    "paint": Material("car", _GAME_PAINT, _PAINT, 0.04, 0.12),
    "car glass": Material("car", "8ad8f8 506878", "1c2024 2c3034 3c4244", 0.04, 0.5),
    "tyre": Material("car", "181818", "1c1c1c 262524"),
    "hub": Material("car", "c8c8d0", "8c8d8c 5a5b5c"),
    "rear light": Material("car", "ff0000", "7c1c1a 922420"),
    "headlight": Material("car", "ffffc0", "b8b8b0 9c9e9c"),
    "bike tyre": Material("bicycle", "101018", "1c1c1c 2a2826"),
    "spokes": Material("bicycle", "b8b8d8 8888a0", "6a6a68 5a5856 7c7a76", 0.35, 0.2),
    "bike frame": Material("bicycle", "ff6a00 00c8ff d000d0 303038", "26282a 5a2a28 2c3a54 7a7c7c"),
}
_NUMBER = {name: number for number, name in enumerate(MATERIALS)}
_LABEL = np.array([CLASSES[material.label] for material in MATERIALS.values()], np.uint8)


def render_street(
    seed: int, size: tuple[int, int] = (192, 96), appearance: str = "synthetic"
) -> tuple[np.ndarray, np.ndarray]:
    """Render the street scene number `seed` (0 or more) as `size` = (width, height) pixels.

    Returns the image, uint8 H x W x 3 RGB, and the labels, uint8 H x W of Cityscapes train ids
    (the values of CLASSES). The same arguments give the same bytes; the labels depend on `seed`
    and `size` only. Raises ValueError for an unknown appearance or a side below MIN_SIDE pixels.
    """
    if appearance not in APPEARANCES:
        known = ", ".join(APPEARANCES)
        raise ValueError(f"appearance '{appearance}' is unknown; it is one of: {known}")
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"size {size[0]} x {size[1]} is too small; each side needs {MIN_SIDE} pixels"
        )
    # The layout has a random stream of its own, so that the appearance cannot change it.
    layout = np.random.default_rng([seed, 0])
    camera = Camera.draw(layout, size)
    view = View(_lay_out(layout), camera)
    shade = _shade_synthetic if appearance == "synthetic" else _shade_real
    image = shade(view, np.random.default_rng([seed, 1]))
    return image, _LABEL[view.faces.material][view.face[::SUPERSAMPLING, ::SUPERSAMPLING]]


# ---------------------------------------------------------------------------------------------
# The scene: a street, and the faces of the things beside and on it
# ---------------------------------------------------------------------------------------------


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
        parking = _maybe(rng, 0.6, 2.1, 2.1)
        half_width = rng.uniform(2.9, 4.2) + parking
        return cls(
            # The camera drives in the right lane.
            centre=-(half_width - parking) * rng.uniform(0.35, 0.65),
            slope=rng.normal(0, 0.035),
            bend=rng.normal(0, 0.0013),
            half_width=half_width,
            parking=parking,
            verge={side: _maybe(rng, 0.3, 0.7, 1.6) for side in (-1, 1)},
            pavement={side: rng.uniform(2.2, 4.5) for side in (-1, 1)},
            garden={side: _maybe(rng, 0.65, 0.8, 4.5) for side in (-1, 1)},
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
        self._faces.append((order, _NUMBER[material], self._thing, bay, corners))

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


def _maybe(rng: Generator, chance: float, low: float, high: float) -> float:
    """A number from low to high with that chance, else 0."""
    return rng.uniform(low, high) if rng.random() < chance else 0.0


def _lay_out(rng: Generator) -> Faces:
    """Draw a scene."""
    scene = Scene(rng)
    scene.stand("sky", 0, FAR, _rectangle(6000, 0, 6000))
    crossing = rng.uniform(8, 20) if rng.random() < 0.6 else None
    _add_ground(scene)
    _add_markings(scene, crossing)
    _add_backdrop(scene)
    for side in (-1, 1):
        _add_buildings(scene, side)
        _add_boundary(scene, side)
        _add_furniture(scene, side)
        _add_trees(scene, side)
        _add_bicycles(scene, side)
        _add_people(scene, side)
        _add_cars(scene, side)
    if crossing is not None:
        _add_crossing_people(scene, crossing)
    return scene.faces()


def _add_ground(scene: Scene) -> None:
    street = scene.street
    field = "grass" if scene.rng.random() < 0.6 else "pavement"
    scene.begin()
    scene.add(field, [(-900, 0, NEAR), (900, 0, NEAR), (900, 0, FAR), (-900, 0, FAR)], GROUND)
    scene.begin()
    scene.add("asphalt", street.strip(1, -2 * street.half_width, 0, NEAR, 160), GROUND)
    for side in (-1, 1):
        scene.begin()
        verge, edge = street.verge[side], street.edge(side)
        if verge:
            scene.add("grass", street.strip(side, 0, verge, NEAR, 160), GROUND)
        scene.add("pavement", street.strip(side, verge, edge, NEAR, 160), GROUND)
        scene.add("kerb", street.strip(side, 0, 0.25, NEAR, 160), GROUND)


def _add_markings(scene: Scene, crossing: float | None) -> None:
    street, middle = scene.street, -scene.street.half_width
    scene.begin()
    z = scene.rng.uniform(1, 6)
    while z < 60:
        scene.add("marking", street.strip(1, middle - 0.1, middle + 0.1, z, z + 3), GROUND)
        z += 7
    if street.parking:
        for side in (-1, 1):
            out = -street.parking
            scene.add("marking", street.strip(side, out, out + 0.14, NEAR, 70), GROUND)
    if crossing is not None:
        for stripe in range(int(2 * street.half_width) - 1):
            out = -stripe - 1.0
            stripes = street.strip(1, out, out + 0.5, crossing, crossing + 3)
            scene.add("marking", stripes, GROUND)


def _add_backdrop(scene: Scene) -> None:
    """Close the view beyond the end of the street with houses and trees."""
    rng, x = scene.rng, -110.0
    while x < 110:
        reach, z = rng.uniform(4, 12), rng.uniform(110, 150)
        scene.begin()
        if rng.random() < 0.5:
            corners = [(x + s, up, z) for s, up in _rectangle(reach, 0, rng.uniform(5, 16))]
            scene.add("facade", corners, z, (2.8, 3.0))
        else:
            scene.stand("crown", x, z, _blob(rng, 0, 4, 1.4 * reach, rng.uniform(4, 9)))
        x += 1.6 * reach


def _add_buildings(scene: Scene, side: int) -> None:
    rng, street = scene.rng, scene.street
    z, gaps = rng.uniform(-6, 1), rng.uniform(0.05, 0.45)
    while z < STREET_END:
        if z > 8 and rng.random() < gaps:
            gap = rng.uniform(6, 14)
            if rng.random() < 0.6:
                _add_side_street(scene, side, z, z + gap)
            else:
                _add_tree(scene, street.x(side, street.edge(side) + 6, z), z + gap / 2)
            z += gap
        length = rng.uniform(7, 18)
        if z + length > 4:
            _add_building(scene, side, max(z, NEAR), z + length)
        z += length


def _add_side_street(scene: Scene, side: int, z0: float, z1: float) -> None:
    kerb, far = scene.street.x(side, -0.05, z0), scene.street.x(side, 60, z0)
    scene.begin()
    scene.add("asphalt", [(kerb, 0, z0), (far, 0, z0), (far, 0, z1), (kerb, 0, z1)], GROUND)


def _add_building(scene: Scene, side: int, z0: float, z1: float) -> None:
    """A facade along the street, the end wall that faces the camera, a roof, a door, a shop."""
    rng, street = scene.rng, scene.street
    scene.begin()
    out = street.edge(side) + street.garden[side] + _maybe(rng, 0.3, 0.3, 3)
    floors, floor = rng.integers(1, 6), rng.uniform(2.7, 3.4)
    height, bay = floors * floor + 0.8, (rng.uniform(1.8, 3.4), floor)
    pitched = floors < 4 and rng.random() < 0.7
    ridge = height + (rng.uniform(1.8, 3.2) if pitched else 0)
    x0, x1, depth = street.x(side, out, z0), street.x(side, out, z1), side * 9.0
    end = [(0, 0), (0, height), (depth / 2, ridge), (depth, height), (depth, 0)]
    scene.add("facade", [(x0 + s, up, z0) for s, up in end], z1, bay)
    scene.add("facade", street.wall(side, out, z0, z1, 0, height), z1, bay)
    if pitched:
        top = [(x1 + depth / 2, ridge, z1), (x0 + depth / 2, ridge, z0)]
        scene.add("roof", [(x0, height, z0), (x1, height, z1), *top], z1)
    if rng.random() < 0.35:
        scene.add("shop window", street.wall(side, out - 0.05, z0 + 0.8, z1 - 1, 0.5, 2.5), z1)
    door = rng.uniform(z0 + 0.3, z1 - 1.8)
    scene.add("door", street.wall(side, out - 0.05, door, door + 1.3, 0, 2.2), z1)


def _add_boundary(scene: Scene, side: int) -> None:
    """Fences and hedges between pavement and gardens, and guard rails at the kerb."""
    rng, street = scene.rng, scene.street
    fences = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.3, 0.5])
    out, z, height = street.edge(side) + 0.1, rng.uniform(3, 8), rng.uniform(0.9, 1.7)
    while z < 60:
        end = z + rng.uniform(2.5, 6)
        scene.begin()
        if rng.random() < fences:
            scene.add("fence", street.wall(side, out, z, end, 0, height), end)
        else:
            _add_hedge(scene, side, z, end, height)
        z = end + _maybe(rng, 0.25, 1, 6)
    if rng.random() < 0.4:
        scene.begin()
        z = rng.uniform(7, 18)
        for _ in range(rng.integers(2, 6)):
            scene.add("fence", street.wall(side, 0.4, z, z + 2, 0.05, 1.05), z + 2)
            z += 2


def _add_hedge(scene: Scene, side: int, z0: float, z1: float, height: float) -> None:
    street, out = scene.street, scene.street.edge(side) + 0.1
    depths = np.linspace(z1, z0, 8)
    tops = height * scene.rng.uniform(0.85, 1.15, 8)
    ends = [(street.x(side, out, z), 0.0, z) for z in (z0, z1)]
    top = [(street.x(side, out, z), up, z) for z, up in zip(depths, tops, strict=True)]
    x, _, z = ends[0]
    scene.add("hedge", [(x + side * s, up, z) for s, up in _rectangle(0.8, 0, height)], z1)
    scene.add("hedge", [*ends, *top], z1)


def _add_furniture(scene: Scene, side: int) -> None:
    """Lamp posts and traffic signs."""
    rng, street = scene.rng, scene.street
    z, spacing, height = rng.uniform(7, 16), rng.uniform(14, 26), rng.uniform(5, 8)
    while z < 80:
        x, reach = street.x(side, 0.6, z), -side * 1.6
        scene.begin()
        scene.stand("pole", x, z, _rectangle(0.11, 0, height))
        scene.stand("pole", x, z, _limb((0, height), (reach, height + 0.3), 0.1))
        scene.stand("lamp", x + reach, z, _rectangle(0.35, height + 0.15, height + 0.4))
        z += spacing
    for _ in range(rng.integers(1, 4)):
        x, z = scene.spot(side, rng.uniform(0.4, 0.8), 6, 24)
        height, radius = rng.uniform(2.3, 3.0), rng.uniform(0.38, 0.55)
        corners, start = _SIGN_SHAPES[rng.integers(0, len(_SIGN_SHAPES))]
        scene.begin()
        scene.stand("pole", x, z, _rectangle(0.06, 0, height))
        scene.stand("sign rim", x, z, _disc(radius, height, corners, start))
        face = radius * rng.uniform(0.6, 0.95)
        scene.stand("sign face", x, z, _disc(face, height, corners, start))


_SIGN_SHAPES = ((3, -0.25), (3, 0.25), (4, 0.125), (4, 0.0), (12, 0.0))  # corners, turns to first


def _add_trees(scene: Scene, side: int) -> None:
    rng, street = scene.rng, scene.street
    if rng.random() < 0.65:
        out = max(0.9, street.verge[side] / 2)
        z, spacing = rng.uniform(6, 22), rng.uniform(7, 16)
        while z < 75:
            _add_tree(scene, street.x(side, out, z), z)
            z += spacing * rng.uniform(0.8, 1.6)


def _add_tree(scene: Scene, x: float, z: float) -> None:
    rng = scene.rng
    height, spread = rng.uniform(3.6, 6.5), rng.uniform(1.1, 2.2)
    scene.begin()
    scene.stand("trunk", x, z, _rectangle(rng.uniform(0.1, 0.22), 0, height))
    for _ in range(4):
        along, up = spread * rng.uniform(-0.6, 0.6), spread * rng.uniform(-0.5, 0.6)
        scene.stand("crown", x, z, _blob(rng, along, height + up, spread, spread))


def _add_cars(scene: Scene, side: int) -> None:
    """Parked cars at the kerb, one that drives in the lane, and now and then one that turns."""
    rng, street = scene.rng, scene.street
    z = rng.uniform(5, 14)
    while street.parking and z < 70:
        _add_car(scene, street.x(side, -1.05, z), z, street.turn(side, z) + rng.normal(0, 0.04))
        z += rng.uniform(5, 6) + _maybe(rng, 0.4, 2, 14)
    if rng.random() < 0.65:
        z = rng.uniform(9, 45)
        lane = -(street.half_width + street.parking) / 2
        _add_car(scene, street.x(side, lane, z), z, street.turn(side, z))
    if rng.random() < 0.12:
        z = rng.uniform(14, 35)
        x = street.x(side, -rng.uniform(0, 1) * street.half_width, z)
        _add_car(scene, x, z, side * math.pi / 2 + rng.normal(0, 0.2))


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


def _add_car(scene: Scene, x: float, z: float, turn: float) -> None:
    """A car whose front points `turn` radians right of ahead: a profile, drawn out wide."""
    shape = _CAR_SHAPES[scene.rng.integers(0, len(_CAR_SHAPES))]
    half, sine, cosine = scene.rng.uniform(0.82, 0.95), math.sin(turn), math.cos(turn)
    scene.begin()

    def place(along: float, across: float, up: float) -> Point:
        return x + along * sine + across * cosine, up, z + along * cosine - across * sine

    def add_across(material: str, along: float, across: float, outline: Outline) -> None:
        scene.add(material, [place(along, across + s, up) for s, up in outline], z)

    for along in (-1.35, 1.35):  # the shell, painted over them, leaves their lower part
        for across in (0.15 - half, half - 0.15):
            add_across("tyre", along, across, _rectangle(0.11, 0, 0.6))

    profile = shape.profile()
    shell = [("paint", [place(a, side * half, u) for a, u in profile]) for side in (-1, 1)]
    for material, (a, u), (b, v) in zip(_CAR_SKIN, profile, profile[1:], strict=False):
        strip = [place(a, -half, u), place(a, half, u), place(b, half, v), place(b, -half, v)]
        shell.append((material, strip))
    shell.sort(key=lambda face: -sum(math.hypot(p[0], p[2]) for p in face[1]) / len(face[1]))
    for material, corners in shell:
        scene.add(material, corners, z)

    ahead, aside = x * sine + z * cosine, x * cosine - z * sine  # the car's place on its own axes
    if abs(aside) > half:
        near = -math.copysign(half, aside)
        _add_car_side(scene, shape, lambda along, up: place(along, near, up), z)
    if abs(ahead) > shape.end:
        along, light = (-shape.end, "rear light") if ahead > 0 else (shape.end, "headlight")
        for across in (-0.6, 0.6):
            add_across(light, 1.02 * along, across, _rectangle(0.17, 0.62, 0.82))


def _add_car_side(
    scene: Scene, shape: CarShape, place: Callable[[float, float], Point], order: float
) -> None:
    """Windows and wheels on the side that the camera sees."""
    glass = [(shape.roof_rear, shape.belt + 0.04), (shape.roof_rear + 0.15, shape.roof - 0.1)]
    glass += [(shape.roof_front - 0.1, shape.roof - 0.1)]
    glass += [(shape.bonnet_rear - 0.2, shape.bonnet + 0.06)]
    scene.add("car glass", [place(*corner) for corner in glass], order)
    for along in (-1.3, 1.3):
        for material, radius in (("tyre", 0.36), ("hub", 0.19)):
            wheel = [place(along + s, up) for s, up in _disc(radius, 0.35)]
            scene.add(material, wheel, order)


def _add_people(scene: Scene, side: int) -> None:
    rng, street = scene.rng, scene.street
    for far in (14, 24, 45)[: rng.integers(1, 4)]:
        out = rng.uniform(street.verge[side] + 0.4, street.edge(side) - 0.4)
        x, z = scene.spot(side, out, 7, far)
        _add_person(scene, x, z)
        if rng.random() < 0.35:  # in company
            _add_person(scene, x + 0.7, z + rng.uniform(-0.3, 0.3))


def _add_crossing_people(scene: Scene, crossing: float) -> None:
    for _ in range(scene.rng.integers(1, 4)):
        out = -scene.rng.uniform(0, 2) * scene.street.half_width
        _add_person(scene, *scene.spot(1, out, crossing + 0.3, crossing + 2.7))


def _add_person(scene: Scene, x: float, z: float) -> None:
    rng = scene.rng
    scale = rng.uniform(0.85, 1.1)
    stride, swing, wide = rng.uniform(0.06, 0.34), rng.uniform(0.17, 0.38), rng.uniform(0.2, 0.28)
    limbs = (
        ("trousers", (-0.08, 0.85), (-stride, 0.0), 0.1),
        ("trousers", (0.08, 0.85), (stride, 0.0), 0.1),
        ("top", (-wide, 1.4), (-swing, 0.82), 0.08),
        ("top", (wide, 1.4), (swing, 0.82), 0.08),
        ("top", (0.0, 1.47), (0.0, 0.82), wide),
    )
    scene.begin()
    for material, start, stop, thickness in limbs:
        outline = _limb(start, stop, thickness)
        scene.stand(material, x, z, [(scale * s, scale * up) for s, up in outline])
    _add_head(scene, x, z, 1.61 * scale)


def _add_head(scene: Scene, x: float, z: float, up: float) -> None:
    scene.stand("hair", x, z, _disc(0.15, up + 0.03))
    scene.stand("skin", x, z, _disc(0.12, up - 0.03))


def _add_bicycles(scene: Scene, side: int) -> None:
    """Parked ones on the pavement, and a rider at the edge of the road."""
    rng, street = scene.rng, scene.street
    for _ in range(rng.integers(0, 3)):
        x, z = scene.spot(side, rng.uniform(0.7, street.edge(side)), 6, 22)
        _add_bicycle(scene, x, z, rng.uniform(-0.9, 0.9))
    if rng.random() < 0.4:
        x, z = scene.spot(side, -street.parking - rng.uniform(0.4, 0.9), 7, 18)
        turn = rng.uniform(0.2, 1.2)
        _add_bicycle(scene, x, z, turn)
        _add_rider(scene, x, z, turn)


def _add_bicycle(scene: Scene, x: float, z: float, turn: float) -> None:
    """A bicycle whose plane is turned `turn` radians out of the picture's plane."""
    rear, front, saddle = (-0.54, 0.36), (0.54, 0.36), (-0.2, 0.9)
    crank, head, handlebar = (-0.05, 0.32), (0.4, 0.88), (0.34, 1.08)
    scene.begin()
    for along, up in (rear, front):
        for material, radius in (("bike tyre", 0.36), ("spokes", 0.27)):
            wheel = [(along + s, y) for s, y in _disc(radius, up)]
            scene.stand(material, x, z, wheel, turn)
    triangle = ((rear, saddle), (saddle, crank), (rear, crank), (crank, head), (saddle, head))
    for start, stop in (*triangle, (head, front), (head, handlebar)):
        scene.stand("bike frame", x, z, _limb(start, stop, 0.045), turn)
    scene.stand("bike tyre", x, z, _limb((-0.34, 0.95), (-0.08, 0.95), 0.05), turn)


def _add_rider(scene: Scene, x: float, z: float, turn: float) -> None:
    foot = scene.rng.uniform(0.15, 0.45)
    for material, start, stop, thickness in (
        ("trousers", (-0.18, 0.95), (0.12, 0.75), 0.1),
        ("trousers", (0.12, 0.75), (0.0, foot), 0.08),
        ("top", (-0.18, 0.92), (0.12, 1.5), 0.17),
        ("top", (0.12, 1.42), (0.36, 1.1), 0.06),
    ):
        scene.stand(material, x, z, _limb(start, stop, thickness), turn)
    _add_head(scene, x + 0.2 * math.cos(turn), z, 1.68)


def _rectangle(reach: float, bottom: float, top: float) -> Outline:
    """An outline that extends `reach` to either side."""
    return [(-reach, bottom), (reach, bottom), (reach, top), (-reach, top)]


def _disc(radius: float, up: float, corners: int = 12, start: float = 0.0) -> Outline:
    """A regular polygon around (0, up) whose first corner is `start` turns from the right."""
    angles = [2 * math.pi * (start + corner / corners) for corner in range(corners)]
    return [(radius * math.cos(angle), up + radius * math.sin(angle)) for angle in angles]


def _limb(start: tuple[float, float], stop: tuple[float, float], thickness: float) -> Outline:
    """A straight line that extends `thickness` to either side."""
    (s, u), (t, v) = start, stop
    scale = thickness / math.hypot(t - s, v - u)
    a, b = (u - v) * scale, (t - s) * scale
    return [(s + a, u + b), (s - a, u - b), (t - a, v - b), (t + a, v + b)]


def _blob(rng: Generator, along: float, up: float, reach: float, rise: float) -> Outline:
    """A ragged ellipse around (along, up)."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radii = rng.uniform(0.72, 1.1, 20)
    s, y = along + reach * radii * np.cos(angles), up + rise * radii * np.sin(angles)
    return list(zip(s.tolist(), np.maximum(y, 0).tolist(), strict=True))


# ---------------------------------------------------------------------------------------------
# The camera: which face each pixel sees, and where on it
# ---------------------------------------------------------------------------------------------


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
        return (self.faces.material == _NUMBER[name])[self.face]

    def windows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pixels on windows of facades: rows, columns and a number for each window."""
        rows, columns = np.nonzero(self.is_made_of("facade"))
        bay = self.faces.bay[self.face[rows, columns]]
        across = self.along[rows, columns] / bay[:, 0]
        floor = self.up[rows, columns] / bay[:, 1]
        inside = (np.abs(across % 1 - 0.5) < 0.24) & (np.abs(floor % 1 - 0.55) < 0.24)
        number = self.face[rows, columns] + 7 * np.floor(across) + 31 * np.floor(floor)
        return rows[inside], columns[inside], number[inside].astype(int)


# ---------------------------------------------------------------------------------------------
# The appearances
# ---------------------------------------------------------------------------------------------


def _face_colors(faces: Faces, palettes: list[str], spread: float, rng: Generator) -> np.ndarray:
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


def _shade_synthetic(view: View, rng: Generator) -> np.ndarray:
    """Flat, saturated colours; only the direction that a face points to darkens it."""
    palettes = [material.game for material in MATERIALS.values()]
    colors = _face_colors(view.faces, palettes, 0.08, rng)
    colors *= 1 - 0.18 * np.abs(view.normals[:, :1])
    image = view.per_pixel(colors)
    rows, columns, _ = view.windows()
    image[rows, columns] = (0.35, 0.55, 0.75)
    sky = view.is_made_of("sky")
    image += (sky * (0.15 - 0.5 * view.rise))[..., None]
    image[sky & (_clouds(view, rng) > 0.8)] = 1
    return _to_bytes(_shrink(image))


@dataclass(frozen=True)
class Weather:
    """The light of a real scene. Colours are linear RGB.

    `sun` and `sky` light up the scene, the sun from the direction `to_sun`; `horizon` and `zenith`
    are colours of the sky, of which `clouds` is the contrast; `haze` is the density per metre.
    """

    sun: np.ndarray
    sky: np.ndarray
    to_sun: np.ndarray
    horizon: np.ndarray
    zenith: np.ndarray
    clouds: float
    haze: float

    @classmethod
    def draw(cls, rng: Generator) -> "Weather":
        sunny = rng.random() < 0.6
        strength = rng.uniform(1.3, 2.4) if sunny else rng.uniform(0.1, 0.3)
        around, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.0 if sunny else 1.5)
        flat = math.cos(elevation)
        to_sun = [flat * math.cos(around), math.sin(elevation), flat * math.sin(around)]
        glow = rng.uniform(0.6, 1.1)
        zenith = [0.42, 0.56, 0.75] if sunny else [0.7, 0.73, 0.76]
        return cls(
            sun=strength * np.array([1.0, 0.9, 0.72], np.float32),
            sky=(0.4 if sunny else 0.9) * np.array([0.92, 1.0, 1.06], np.float32),
            to_sun=np.array(to_sun),
            horizon=glow * np.array([0.92, 0.93, 0.9], np.float32),
            zenith=glow * np.array(zenith, np.float32),
            clouds=rng.uniform(0.05, 0.25),
            haze=rng.uniform(0.0015, 0.006),
        )


def _shade_real(view: View, rng: Generator) -> np.ndarray:
    """A dull photograph: texture, sun or clouds, cast shadows, haze, and a cheap camera."""
    weather = Weather.draw(rng)
    palettes = [material.photo for material in MATERIALS.values()]
    albedo = view.per_pixel(_face_colors(view.faces, palettes, 0.16, rng) ** GAMMA)
    albedo *= _texture(view, rng)[..., None]
    rows, columns, number = view.windows()
    mirrored = rng.uniform(0.02, 0.3, 256).astype(np.float32)[number & 255]
    albedo[rows, columns] = mirrored[:, None] * weather.zenith
    scene = albedo * _light(view, weather)
    clear = np.exp(-weather.haze * view.depth)[..., None]
    scene = scene * clear + weather.horizon * (1 - clear)
    sky = view.is_made_of("sky")
    scene[sky] = _sky(view, weather, rng)[sky]
    return _photograph(_shrink(scene), rng)


def _texture(view: View, rng: Generator) -> np.ndarray:
    """A factor around 1 on the albedo of every pixel (H x W)."""
    contrasts = np.array(
        [(m.grain, m.mottle, m.slabs, *m.slab_size) for m in MATERIALS.values()], np.float32
    )
    by_pixel = view.per_pixel(contrasts[view.faces.material])
    grain, mottle, slabs, slab_width, slab_height = np.moveaxis(by_pixel, -1, 0)
    # Things differ in where on the endless noise they lie.
    shift = rng.uniform(0, 900, view.faces.things)[view.faces.thing]
    along = view.along + view.per_pixel(shift)
    texture = 1 + grain * _noise(along, view.up, 40) + mottle * _noise(along, view.up, 1.7)
    texture += slabs * _noise(np.floor(along / slab_width), np.floor(view.up / slab_height), 37)
    gaps = view.is_made_of("fence") & (along % 0.3 < 0.11)
    texture[gaps] *= 0.55
    return np.clip(texture, 0.15, 2.5)


def _noise(x: np.ndarray, y: np.ndarray, cells: float, smoothness: float = 1.0) -> np.ndarray:
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


def _light(view: View, weather: Weather) -> np.ndarray:
    """The light of sun and sky that reaches every pixel (H x W x 3)."""
    shadow, flat = _shadows(view, weather), view.flat[view.face]
    facing = np.clip(0.2 + 0.8 * view.normals @ weather.to_sun, 0, 1)
    sun = view.per_pixel(facing) * (1 - shadow)
    # Less of the sky reaches shadows and the feet of things.
    open_sky = np.where(flat, 1 - 0.35 * shadow, np.clip(0.55 + 0.3 * view.up, 0, 1))
    sky = view.per_pixel(0.6 + 0.4 * view.normals[:, 1]) * open_sky
    return sun[..., None] * weather.sun + sky[..., None] * weather.sky


def _shadows(view: View, weather: Weather) -> np.ndarray:
    """The share of the sun that each pixel lacks (H x W, 0..1); shadows fall on the ground only."""
    faces, camera = view.faces, view.camera
    to_x, to_y, to_z = weather.to_sun
    x, y, z = faces.corners.T
    cast = np.stack([x - y * to_x / to_y, np.zeros_like(y), z - y * to_z / to_y], axis=1)
    high = np.maximum.reduceat(y, faces.starts[:-1]) > 0
    casts = high & (faces.material != _NUMBER["sky"])
    mask = Image.new("L", (camera.width, camera.height))
    draw = ImageDraw.Draw(mask)
    outlines = camera.outlines(cast, faces.starts)
    for number in np.flatnonzero(casts):
        if outlines[number]:
            draw.polygon(outlines[number], fill=255)
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(camera.width / 300)))
    return np.where(~high[view.face], soft / np.float32(255), 0)


def _sky(view: View, weather: Weather, rng: Generator) -> np.ndarray:
    """The sky behind every pixel (H x W x 3)."""
    high = np.clip(view.rise / 0.5, 0, 1)[..., None]
    clouds = np.clip(1 + weather.clouds * _clouds(view, rng), 0.4, 1.6)[..., None]
    return (weather.horizon * (1 - high) + weather.zenith * high) * clouds


def _clouds(view: View, rng: Generator) -> np.ndarray:
    """Noise on a layer high above (H x W)."""
    layer = 1 / np.maximum(view.rise + 0.12, 0.02)  # how far away each row meets it
    return _noise(view.right * layer + rng.uniform(0, 500), layer, 50, smoothness=1.9)


def _photograph(scene: np.ndarray, rng: Generator) -> np.ndarray:
    """Exposure, colour cast, vignette, blur, sensor noise and JPEG: linear to uint8 H x W x 3."""
    height, width = scene.shape[:2]
    gray = scene.mean(axis=2, keepdims=True)
    scene = gray + rng.uniform(0.75, 1.0) * (scene - gray)
    # One make of camera, so its cast and its dark exposure are much the same in all scenes.
    exposure = rng.uniform(0.13, 0.22) / scene.mean()
    scene = scene * exposure * np.array([1.08, 1.02, 0.8]) * rng.normal(1, 0.05, 3)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    scene *= (1 - rng.uniform(0.1, 0.25) * (x * x + y * y))[..., None]
    film = (1 - np.exp(-1.6 * scene)) ** (1 / GAMMA)
    film = _to_bytes(film + rng.uniform(0.1, 0.4) * (film - film.mean()))
    blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6) * width / 192)
    soft = np.asarray(Image.fromarray(film).filter(blur)) / np.float32(255)
    grain = rng.standard_normal(soft.shape, np.float32) * rng.uniform(0.008, 0.022)
    file = io.BytesIO()
    noisy = Image.fromarray(_to_bytes(soft + grain * np.sqrt(0.25 + soft)))
    noisy.save(file, "JPEG", quality=int(rng.integers(60, 91)))
    return np.array(Image.open(file))


def _shrink(image: np.ndarray) -> np.ndarray:
    """The mean of each block of supersampled pixels."""
    height, width, channels = image.shape
    step = SUPERSAMPLING
    blocks = image.reshape(height // step, step, width // step, step, channels)
    return blocks.mean(axis=(1, 3))


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
