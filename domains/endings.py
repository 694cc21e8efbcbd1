"""Endings of the files that are read as images: one list for every command."""

import os

# Of the formats that bdl.domains.images reads; endings are compared without case.
IMAGE_ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
)
# Of the formats that keep every pixel, as label maps must.
LABEL_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".pgm", ".pbm")


def is_image(name: str) -> bool:
    """Whether a file's name, or its path, has the ending of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def without_ending(path: str) -> str:
    """The path without an image's ending; other dots belong to the name."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in IMAGE_ENDINGS else path


def named_endings() -> str:
    """The list as messages show it."""
    return ", ".join(IMAGE_ENDINGS)
