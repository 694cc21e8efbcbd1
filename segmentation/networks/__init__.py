"""Segmentation networks, one file each. All take RGB images in [0, 1]; see base.Segmenter."""

import importlib
import inspect
from typing import Any

from bdl.runtime.errors import UserError
from bdl.segmentation.network_name import (
    COUNT,
    OWN,
    PYTHON,
    SMP,
    SWITCH,
    TIMM,
    require_known,
    require_values,
)
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.networks.smp import SmpNetwork
from bdl.segmentation.networks.timm_backbone import TimmBackbone
from bdl.segmentation.networks.timm_layout import can_be_dilated
from bdl.segmentation.networks.timm_pyramid import TimmPyramid
from bdl.segmentation.networks.user_module import build_user_network

_KINDS = {bool: SWITCH, int: COUNT}  # what an option's annotation asks for


def build_segmenter(name: str, num_classes: int, **options: Any) -> Segmenter:
    """A network, freshly initialised.

    Args:
        name: compact, deeplab_v2, fcn8s_vgg16, timm:BACKBONE, smp:ARCH/ENCODER or
            python:MODULE:FUNCTION, whose code then runs.
        num_classes: Channels of its scores, 1 or more.
        **options: The network's own, such as `width` or `pretrained`.

    Returns:
        A network from RGB images in [0, 1], N x 3 x H x W, to logits, N x num_classes x H x W.

    Raises:
        UserError: For an unknown name, backbone or option, a value of the wrong kind, or a
            user's network that is none.
    """
    if name.startswith(PYTHON):
        return build_user_network(name, num_classes, **options)
    require_options(name, options)
    kind, own = _kind_of(name)
    try:
        return kind(num_classes, **own, **options)
    except TypeError as error:
        raise UserError(f"segmentation.options: {name}: {error}") from None


def require_options(name: str, options: dict[str, Any]) -> None:
    """Find out what `build_segmenter` would refuse, but for weights that are not at hand: nothing
    is built or fetched, and no code of the user's runs.

    Args:
        name: The network's.
        options: Its own.

    Raises:
        UserError: For an unknown name, backbone or option, or a value of the wrong kind.
    """
    require_known(name, options)
    if name in OWN or name.startswith(PYTHON):
        return
    kind, own = _kind_of(name)
    signature = inspect.signature(kind)
    annotated = {key: parameter.annotation for key, parameter in signature.parameters.items()}
    require_values({k: _KINDS[a] for k, a in annotated.items() if a in _KINDS}, options)
    try:
        signature.bind(0, **own, **options)
    except TypeError as error:
        raise UserError(f"segmentation.options: {name}: {error}") from None
    kind.require_options(**own, **options)


def _kind_of(name: str) -> tuple[type[Any], dict[str, Any]]:
    """The class of a network, and what it gets beside the user's options."""
    if name.startswith(TIMM):
        backbone = name.removeprefix(TIMM)
        return TimmBackbone if can_be_dilated(backbone) else TimmPyramid, {"backbone": backbone}
    if name.startswith(SMP):
        return SmpNetwork, {"pair": name.removeprefix(SMP)}
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, OWN[name].kind), {}
