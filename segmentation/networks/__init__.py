"""Segmentation networks, one file each. All take RGB images in [0, 1]; see base.Segmenter."""

import inspect
from typing import Any

from runtime.errors import UserError
from segmentation.networks.base import Segmenter
from segmentation.networks.compact import Compact
from segmentation.networks.deeplab_v2 import DeepLabV2
from segmentation.networks.fcn8s_vgg16 import FCN8sVGG16
from segmentation.networks.timm_backbone import TimmBackbone

_NETWORKS: dict[str, type[Segmenter]] = {
    "compact": Compact,
    "deeplab_v2": DeepLabV2,
    "fcn8s_vgg16": FCN8sVGG16,
}
_TIMM = "timm:"


def build_segmenter(name: str, num_classes: int, **options: Any) -> Segmenter:
    """The network `name` with `num_classes` outputs and its own options, freshly initialised.

    Names: compact, deeplab_v2, fcn8s_vgg16, timm:BACKBONE. Raises UserError for an unknown name,
    backbone or option, or a value of the wrong kind.
    """
    kind = TimmBackbone if name.startswith(_TIMM) else _NETWORKS.get(name)
    if kind is None:
        known = ", ".join([*_NETWORKS, f"{_TIMM}BACKBONE"])
        raise UserError(f"segmentation.network: '{name}' is not one of {known}")
    _require_kinds(kind, options)
    own = {"backbone": name.removeprefix(_TIMM)} if kind is TimmBackbone else {}
    try:
        return kind(num_classes, **own, **options)
    except TypeError as error:
        raise UserError(f"segmentation.options: {name}: {error}") from None


def _require_kinds(network: type[Segmenter], options: dict[str, Any]) -> None:
    """Raise UserError for a value that would fail deep inside `network`, or count as true there."""
    parameters = inspect.signature(network).parameters
    for key, value in options.items():
        kind = parameters[key].annotation if key in parameters else None
        if kind is bool and not isinstance(value, bool):
            wanted = "true or false"
        elif kind is int and (type(value) is not int or value < 1):
            wanted = "a whole number of 1 or more"
        else:
            continue
        raise UserError(f"segmentation.options.{key}: is {value!r}, must be {wanted}")
