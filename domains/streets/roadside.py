"""Fences, hedges, lamp posts, traffic signs and trees."""

import numpy as np

from bdl.domains.streets.faces import blob, disc, limb, rectangle
from bdl.domains.streets.street import Scene, maybe

_SIGN_SHAPES = ((3, -0.25), (3, 0.25), (4, 0.125), (4, 0.0), (12, 0.0))  # corners, turns to first


def add_boundary(scene: Scene, side: int) -> None:
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
        z = end + maybe(rng, 0.25, 1, 6)
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
    scene.add("hedge", [(x + side * s, up, z) for s, up in rectangle(0.8, 0, height)], z1)
    scene.add("hedge", [*ends, *top], z1)


def add_furniture(scene: Scene, side: int) -> None:
    """Lamp posts and traffic signs."""
    rng, street = scene.rng, scene.street
    z, spacing, height = rng.uniform(7, 16), rng.uniform(14, 26), rng.uniform(5, 8)
    while z < 80:
        x, reach = street.x(side, 0.6, z), -side * 1.6
        scene.begin()
        scene.stand("pole", x, z, rectangle(0.11, 0, height))
        scene.stand("pole", x, z, limb((0, height), (reach, height + 0.3), 0.1))
        scene.stand("lamp", x + reach, z, rectangle(0.35, height + 0.15, height + 0.4))
        z += spacing
    for _ in range(rng.integers(1, 4)):
        x, z = scene.spot(side, rng.uniform(0.4, 0.8), 6, 24)
        height, radius = rng.uniform(2.3, 3.0), rng.uniform(0.38, 0.55)
        corners, start = _SIGN_SHAPES[rng.integers(0, len(_SIGN_SHAPES))]
        scene.begin()
        scene.stand("pole", x, z, rectangle(0.06, 0, height))
        scene.stand("sign rim", x, z, disc(radius, height, corners, start))
        face = radius * rng.uniform(0.6, 0.95)
        scene.stand("sign face", x, z, disc(face, height, corners, start))


def add_trees(scene: Scene, side: int) -> None:
    rng, street = scene.rng, scene.street
    if rng.random() < 0.65:
        out = max(0.9, street.verge[side] / 2)
        z, spacing = rng.uniform(6, 22), rng.uniform(7, 16)
        while z < 75:
            add_tree(scene, street.x(side, out, z), z)
            z += spacing * rng.uniform(0.8, 1.6)


def add_tree(scene: Scene, x: float, z: float) -> None:
    rng = scene.rng
    height, spread = rng.uniform(3.6, 6.5), rng.uniform(1.1, 2.2)
    scene.begin()
    scene.stand("trunk", x, z, rectangle(rng.uniform(0.1, 0.22), 0, height))
    for _ in range(4):
        along, up = spread * rng.uniform(-0.6, 0.6), spread * rng.uniform(-0.5, 0.6)
        scene.stand("crown", x, z, blob(rng, along, height + up, spread, spread))
