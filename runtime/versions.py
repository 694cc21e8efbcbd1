"""Versions of what results may depend on, told without importing it."""

import platform

_LIBRARIES = ("torch", "torchvision", "lightning", "kornia", "timm", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results may depend on, by name."""
    from importlib import metadata  # dear: help does without it

    installed = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed
