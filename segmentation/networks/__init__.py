"""Segmentation networks, one file each. All take RGB images in [0, 1]; see base.Segmenter."""

from collections.abc import Callable
from typing import Any

from runtime.errors import UserError
from segmentation.networks.base import Segmenter
from segmentation.networks.compact import Compact
from segmentation.networks.deeplab_v2 import DeepLabV2
from segmentation.networks.fcn8s_vgg16 import FCN8sVGG16
from segmentation.networks.timm_backbone import TimmBackbone

_NETWORKS: dict[str, Callable[..., Segmenter]] = {
    "compact": Compact,
    "deeplab_v2": DeepLabV2,
    "fcn8s_vgg16": FCN8sVGG16,
}
_TIMM = "timm:"


def build_segmenter(name: str, num_classes: int, **options: Any) -> Segmenter:
    """The network `name` with `num_classes` outputs and its own options, freshly initialised.

    Names: compact, deeplab_v2, fcn8s_vgg16, timm:BACKBONE. Raises UserError for an unknown name,
    backbone or option.
    """
    try:
        if name.startswith(_TIMM):
            return TimmBackbone(num_classes, backbone=name.removeprefix(_TIMM), **options)
        if name in _NETWORKS:
            return _NETWORKS[name](num_classes, **options)
    except TypeError as error:
        raise UserError(f"segmentation.options: {name}: {error}") from None
    known = ", ".join([*_NETWORKS, f"{_TIMM}BACKBONE"])
    raise UserError(f"segmentation.network: '{name}' is not one of {known}")
