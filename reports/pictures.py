"""Pictures of a page: photos, labels, errors and confidence, embedded at a bounded size.

A photo of a street takes 45 to 70 KB of the page at 480x360 pixels, 20 to 30 KB at 320x240; its
label map takes 3 to 10 KB.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from markupsafe import Markup
from PIL import Image

from bdl.domains.label_space import IGNORE

WIDEST = 640  # pixels of an embedded picture: enough to zoom, and a report stays a few MB
NARROW = 320  # pixels of one of which a page has many
_HIGHEST = 4  # times the width: far more than photos have, and less than WebP can hold
_STRIPES = 48  # that a row of ignored pixels shows
_GREYS = (86, 86, 92), (150, 150, 156)  # of the stripes
RIGHT, WRONG = (226, 229, 232), (213, 66, 20)  # colours of an error map


@dataclass
class Panel:
    """One picture and what it shows: a photo (RGB), or labels in their colours (palette).

    Args:
        caption: What it shows.
        image: The picture.
        widest: Pixels of its width on the page, at most.
    """

    caption: str
    image: Image.Image
    widest: int = WIDEST

    @cached_property
    def url(self) -> Markup:
        """What the page embeds, made once for all its writings."""
        return data_url(self.image, self.widest)


@dataclass
class Strip:
    """Pictures of one frame, in the order of the loop; all strips of a role have the same."""

    role: str
    frame: str
    panels: list[Panel]


def error_map(prediction: Image.Image, label: Image.Image) -> Image.Image:
    """Where a prediction is right and where it is wrong, ignored pixels as in a label map.

    Args:
        prediction: Train ids, with a palette.
        label: The same, of any size; it is resized to the prediction's.
    """
    expected = np.asarray(label.resize(prediction.size, Image.Resampling.NEAREST))
    given = np.asarray(prediction)
    # Where an image is transparent the prediction is not counted either.
    ignored = (expected == IGNORE) | (given == IGNORE)
    shown = Image.fromarray(np.where(ignored, IGNORE, given != expected).astype(np.uint8))
    shown.putpalette([*RIGHT, *WRONG])
    return shown


def embedded(image: Image.Image, widest: int = WIDEST) -> Image.Image:
    """The picture at the size at which it is embedded: labels keep to whole pixels."""
    shrink = min(1.0, widest / image.width, _HIGHEST * widest / image.height)
    if shrink < 1:
        resample = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.LANCZOS
        width, height = (max(1, round(side * shrink)) for side in image.size)
        image = image.resize((width, height), resample)
    return hatched(image)


def hatched(image: Image.Image) -> Image.Image:
    """Labels with stripes of two greys where they are ignored, which is no class's look; photos as
    they are."""
    if image.mode != "P":
        return image
    ids = np.array(image)
    ignored = ids == IGNORE
    # With 255 classes there is no id left for the second grey.
    second = IGNORE - 1 if not (ids == IGNORE - 1).any() else IGNORE
    down, across = np.arange(image.height)[:, None], np.arange(image.width)
    stripe = (down + across) // max(1, image.width // _STRIPES) % 2 == 0
    ids[ignored & stripe] = second
    shown = Image.fromarray(ids)
    palette = list(image.getpalette() or [])
    palette += [0] * (768 - len(palette))
    classes = {tuple(palette[3 * i : 3 * i + 3]) for i in range(second)}
    for index, (red, green, blue) in zip((second, IGNORE), _GREYS, strict=True):
        while (red, green, blue) in classes:  # a shade darker, which no class has
            red -= 1
        palette[3 * index : 3 * index + 3] = red, green, blue
    shown.putpalette(palette)
    return shown


def beside(panels: Sequence[Panel]) -> Image.Image:
    """The panels' pictures in one, from left to right, all as high as the first."""
    height = embedded(panels[0].image).height
    parts = []
    for image in (hatched(panel.image) for panel in panels):
        resample = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.LANCZOS
        width = min(_HIGHEST * WIDEST, max(1, round(image.width * height / image.height)))
        parts.append(image.resize((width, height), resample).convert("RGB"))
    joined = Image.new("RGB", (sum(part.width for part in parts), height))
    left = 0
    for part in parts:
        joined.paste(part, (left, 0))
        left += part.width
    return joined


def data_url(image: Image.Image, widest: int = WIDEST) -> Markup:
    """The picture inside a URL: labels as PNG with their palette, photos as WebP."""
    buffer = io.BytesIO()
    if image.mode == "P":
        embedded(image, widest).save(buffer, format="PNG", optimize=True)
    else:
        embedded(image, widest).save(buffer, format="WEBP", quality=88)
    kind = "png" if image.mode == "P" else "webp"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")
