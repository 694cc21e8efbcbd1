"""Buildings along a street and beyond its end, and the gaps between them."""

from bdl.domains.streets.faces import NEAR, blob, rectangle
from bdl.domains.streets.roadside import add_tree
from bdl.domains.streets.street import GROUND, STREET_END, Scene, maybe


def add_backdrop(scene: Scene) -> None:
    """Close the view beyond the end of the street with houses and trees."""
    rng, x = scene.rng, -110.0
    while x < 110:
        reach, z = rng.uniform(4, 12), rng.uniform(110, 150)
        scene.begin()
        if rng.random() < 0.5:
            corners = [(x + s, up, z) for s, up in rectangle(reach, 0, rng.uniform(5, 16))]
            scene.add("facade", corners, z, (2.8, 3.0))
        else:
            scene.stand("crown", x, z, blob(rng, 0, 4, 1.4 * reach, rng.uniform(4, 9)))
        x += 1.6 * reach


def add_buildings(scene: Scene, side: int) -> None:
    rng, street = scene.rng, scene.street
    z, gaps = rng.uniform(-6, 1), rng.uniform(0.05, 0.45)
    while z < STREET_END:
        if z > 8 and rng.random() < gaps:
            gap = rng.uniform(6, 14)
            if rng.random() < 0.6:
                _add_side_street(scene, side, z, z + gap)
            else:
                add_tree(scene, street.x(side, street.edge(side) + 6, z), z + gap / 2)
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
    out = street.edge(side) + street.garden[side] + maybe(rng, 0.3, 0.3, 3)
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
