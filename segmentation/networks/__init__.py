"""Segmentation networks, one file each. All take RGB images in [0, 1]; see base.Segmenter."""

import inspect
from typing import Any

from bdl.runtime.errors import UserError
from bdl.segmentation.network_name import OWN, PYTHON, SMP, TIMM, require_known
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.networks.compact import Compact
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.networks.fcn8s_vgg16 import FCN8sVGG16
from bdl.segmentation.networks.smp import SmpNetwork
from bdl.segmentation.networks.timm_backbone import TimmBackbone
from bdl.segmentation.networks.timm_layout import can_be_dilated
from bdl.segmentation.networks.timm_pyramid import TimmPyramid
from bdl.segmentation.networks.user_module import build_user_network

_NETWORKS: dict[str, type[Segmenter]] = dict(
    zip(OWN, (Compact, DeepLabV2, FCN8sVGG16), strict=True)
)


def build_segmenter(name: str, num_classes: int, **options: Any) -> Segmenter:
    """A network, freshly initialised.

    Args:
        name: compact, deeplab_v2, fcn8s_vgg16, timm:BACKBONE, smp:ARCH/ENCODER or
            python:MODULE:FUNCTION, whose code then runs.
        num_classes: Channels of its scores.
        **options: Its own.

    Raises:
        UserError: For an unknown name, backbone or option, a value of the wrong kind, or a
            user's network that is none.
    """
    if name.startswith(PYTHON):
        return build_user_network(name, num_classes, **options)
    kind: type[Segmenter]
    own: dict[str, Any] = {}
    if name.startswith(TIMM):
        backbone = name.removeprefix(TIMM)
        kind = TimmBackbone if can_be_dilated(backbone) else TimmPyramid
        own = {"backbone": backbone}
    elif name.startswith(SMP):
        kind, own = SmpNetwork, {"pair": name.removeprefix(SMP)}
    else:
        require_known(name)
        kind = _NETWORKS[name]
    _require_kinds(kind, options)
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
