"""People, bicycles and those who ride them."""

import math

from bdl.domains.streets.faces import disc, limb
from bdl.domains.streets.street import Scene


def add_people(scene: Scene, side: int) -> None:
    rng, street = scene.rng, scene.street
    for far in (14, 24, 45)[: rng.integers(1, 4)]:
        out = rng.uniform(street.verge[side] + 0.4, street.edge(side) - 0.4)
        x, z = scene.spot(side, out, 7, far)
        _add_person(scene, x, z)
        if rng.random() < 0.35:  # in company
            _add_person(scene, x + 0.7, z + rng.uniform(-0.3, 0.3))


def add_crossing_people(scene: Scene, crossing: float) -> None:
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
        outline = limb(start, stop, thickness)
        scene.stand(material, x, z, [(scale * s, scale * up) for s, up in outline])
    _add_head(scene, x, z, 1.61 * scale)


def _add_head(scene: Scene, x: float, z: float, up: float) -> None:
    scene.stand("hair", x, z, disc(0.15, up + 0.03))
    scene.stand("skin", x, z, disc(0.12, up - 0.03))


def add_bicycles(scene: Scene, side: int) -> None:
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
            wheel = [(along + s, y) for s, y in disc(radius, up)]
            scene.stand(material, x, z, wheel, turn)
    triangle = ((rear, saddle), (saddle, crank), (rear, crank), (crank, head), (saddle, head))
    for start, stop in (*triangle, (head, front), (head, handlebar)):
        scene.stand("bike frame", x, z, limb(start, stop, 0.045), turn)
    scene.stand("bike tyre", x, z, limb((-0.34, 0.95), (-0.08, 0.95), 0.05), turn)


def _add_rider(scene: Scene, x: float, z: float, turn: float) -> None:
    foot = scene.rng.uniform(0.15, 0.45)
    for material, start, stop, thickness in (
        ("trousers", (-0.18, 0.95), (0.12, 0.75), 0.1),
        ("trousers", (0.12, 0.75), (0.0, foot), 0.08),
        ("top", (-0.18, 0.92), (0.12, 1.5), 0.17),
        ("top", (0.12, 1.42), (0.36, 1.1), 0.06),
    ):
        scene.stand(material, x, z, limb(start, stop, thickness), turn)
    _add_head(scene, x + 0.2 * math.cos(turn), z, 1.68)
