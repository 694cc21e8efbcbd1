"""A procedural world of streets in two appearances: the demo's own source and target domain.

A scene is a list of flat faces (faces.py), laid out along a street (layout.py) and seen by a camera
(camera.py). An appearance (synthetic.py, real.py) only decides how faces are shaded, so both share
geometry and labels exactly.
"""

import numpy as np

from bdl.domains.streets.camera import SUPERSAMPLING, Camera, View
from bdl.domains.streets.layout import lay_out
from bdl.domains.streets.materials import LABELS
from bdl.domains.streets.real import shade_real
from bdl.domains.streets.synthetic import shade_synthetic

APPEARANCES = {"synthetic": shade_synthetic, "real": shade_real}
MIN_SIDE = 32


def render_street(
    seed: int, size: tuple[int, int] = (192, 96), appearance: str = "synthetic"
) -> tuple[np.ndarray, np.ndarray]:
    """Render a street scene; the same arguments give the same bytes.

    Args:
        seed: Number of the scene, 0 or more.
        size: Width and height in pixels, MIN_SIDE or more each.
        appearance: One of APPEARANCES.

    Returns:
        The image (uint8, H x W x 3, RGB) and its labels (uint8, H x W, Cityscapes train ids: the
        values of materials.CLASSES), which depend on `seed` and `size` only.

    Raises:
        ValueError: The appearance is unknown, or a side too small.
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
    view = View(lay_out(layout), camera)
    image = APPEARANCES[appearance](view, np.random.default_rng([seed, 1]))
    return image, LABELS[view.faces.material][view.face[::SUPERSAMPLING, ::SUPERSAMPLING]]
