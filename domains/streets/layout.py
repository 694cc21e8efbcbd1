"""Where things stand in a street scene."""

from numpy.random import Generator

from bdl.domains.streets.buildings import add_backdrop, add_buildings
from bdl.domains.streets.cars import add_cars
from bdl.domains.streets.faces import FAR, NEAR, Faces, rectangle
from bdl.domains.streets.people import add_bicycles, add_crossing_people, add_people
from bdl.domains.streets.roadside import add_boundary, add_furniture, add_trees
from bdl.domains.streets.street import GROUND, Scene


def lay_out(rng: Generator) -> Faces:
    """Draw a scene."""
    scene = Scene(rng)
    scene.stand("sky", 0, FAR, rectangle(6000, 0, 6000))
    crossing = rng.uniform(8, 20) if rng.random() < 0.6 else None
    _add_ground(scene)
    _add_markings(scene, crossing)
    add_backdrop(scene)
    for side in (-1, 1):
        add_buildings(scene, side)
        add_boundary(scene, side)
        add_furniture(scene, side)
        add_trees(scene, side)
        add_bicycles(scene, side)
        add_people(scene, side)
        add_cars(scene, side)
    if crossing is not None:
        add_crossing_people(scene, crossing)
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
