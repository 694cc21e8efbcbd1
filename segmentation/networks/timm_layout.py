"""What a backbone of timm gives, and what it must be told: seen without weights or memory."""

import difflib
import functools
import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from bdl.runtime.errors import UserError, first_line

# How a backbone is told to take images of any size: transformers with position embeddings, those
# with windows, and all others, which need not be told. The first that it knows is taken.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
_FEWEST_PIXELS = 4  # a stride below this is too fine for a decoder to work at
_LAYERS = 4  # of a plain transformer, whose maps are all of one stride
# Sides that windows of attention may want: this many times the largest stride.
_WINDOWS = (1, 2, 7, 8, 12, 14, 16)
# What backbones raise for options and sizes that they do not take.
_ERRORS = (TypeError, RuntimeError, ValueError, AssertionError, LookupError, AttributeError)


@dataclass(frozen=True)
class Layout:
    """The maps of a backbone at its own strides.

    Args:
        options: For timm.create_model, beside features_only and out_indices.
        indices: Of the maps that are used.
        channels: Of each of them.
        strides: Of each of them, in pixels.
        multiple: What the sides of images must be a multiple of.
        size: Height and width of the images, for a backbone that takes no other.
        drops_paths: Whether it can leave out whole blocks in training.
        channels_last: Whether its maps are N x H x W x C.
    """

    options: tuple[tuple[str, Any], ...]
    indices: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int
    size: tuple[int, int] | None
    drops_paths: bool
    channels_last: bool


@functools.cache
def can_be_dilated(backbone: str) -> bool:
    """Whether a backbone gives fine maps, and dilated deep ones.

    Those whose first maps have stride 4 already (ConvNeXt) could be dilated, but would then lack
    the fine ones: they stay at their own strides.
    """
    try:
        maps = _on_meta(backbone, output_stride=8, out_indices=(1, -1))
    except _ERRORS:
        return False
    return maps.feature_info.reduction()[0] < 8


@functools.cache
def layout_of(
    backbone: str, options: tuple[tuple[str, Any], ...] = (), layers: tuple[int, ...] = ()
) -> Layout:
    """The layout of a backbone of timm.

    Args:
        backbone: Its name.
        options: The user's own, for timm.create_model.
        layers: Indices of maps to use; default: all of stride 4 or more, four of a transformer's
            that are all of one stride.

    Raises:
        UserError: If timm has no such backbone, or it gives no maps.
    """
    if not timm.is_model(backbone):
        raise UserError(
            f"segmentation.network: timm cannot make '{backbone}', which it does not know"
            f"{_similar(backbone)}"
        )
    reasons = []
    for told in _ANY_SIZE:
        for path in ({"drop_path_rate": 0.0}, {}):
            try:
                maps: Any = _on_meta(backbone, **{**told, **path, **dict(options)})
            except _ERRORS as error:
                reasons.append(first_line(error))
                continue
            return _seen(backbone, maps, {**told, **dict(options)}, bool(path), layers)
    raise UserError(
        f"segmentation.network: timm's '{backbone}' gives no maps ({reasons[-1]}); "
        "choose another backbone"
    )


def _seen(
    backbone: str, maps: Any, options: dict[str, Any], drops_paths: bool, layers: tuple[int, ...]
) -> Layout:
    strides = list(maps.feature_info.reduction())
    by_stride = zip(maps.feature_info.out_indices, strides, strict=True)
    indices = tuple(index for index, stride in by_stride if stride >= _FEWEST_PIXELS)
    if len(set(strides)) == 1:
        count = len(maps.feature_info.info)
        wanted = min(_LAYERS, count)
        indices = tuple(count * number // wanted - 1 for number in range(1, wanted + 1))
    indices = layers or indices
    path = {"drop_path_rate": 0.0} if drops_paths else {}
    try:
        maps = _on_meta(backbone, out_indices=indices, **options, **path)
    except _ERRORS as error:
        raise UserError(
            f"segmentation.options.layers: timm's '{backbone}' has no maps {list(indices)} "
            f"({first_line(error)})"
        ) from None
    channels, strides = maps.feature_info.channels(), maps.feature_info.reduction()
    multiple, size = _sides(backbone, maps, strides, options.get("img_size"))
    return Layout(
        options=tuple(options.items()),
        indices=indices,
        channels=tuple(channels),
        strides=tuple(strides),
        multiple=multiple,
        size=size,
        drops_paths=drops_paths,
        channels_last=str(getattr(maps, "output_fmt", None)).endswith("NHWC"),
    )


def _sides(
    backbone: str, maps: nn.Module, strides: list[int], given: tuple[int, int] | None
) -> tuple[int, tuple[int, int] | None]:
    """What sides must be a multiple of, and the only size, `given` or its own, if there is one."""
    largest = math.lcm(*strides)
    reason = ""
    for times in _WINDOWS:
        multiple = times * largest
        reason = _refusal(maps, [(2 * multiple, multiple), (multiple, 3 * multiple)], strides)
        if not reason:
            return multiple, None
    config = timm.get_pretrained_cfg(backbone)
    if given is None and config is not None:
        given = config.input_size[-2], config.input_size[-1]
    if given is not None and not _refusal(maps, [given], strides):
        return largest, given
    raise UserError(
        f"segmentation.network: timm's '{backbone}' gives no maps that cover an image "
        f"({reason}); choose another backbone"
    )


def _refusal(maps: nn.Module, sizes: list[tuple[int, int]], strides: list[int]) -> str:
    """Why `maps` does not take images of all `sizes`; empty if it does."""
    form = str(getattr(maps, "output_fmt", None))
    for height, width in sizes:
        try:
            with torch.no_grad():
                seen = maps(torch.zeros(1, 3, height, width, device=_device_of(maps)))
        except _ERRORS as error:
            return first_line(error)
        for made, stride in zip(seen, strides, strict=True):
            shape = tuple(made.shape[1:3] if form.endswith("NHWC") else made.shape[2:])
            if made.ndim != 4 or shape != (height // stride, width // stride):
                return f"{height}x{width} gives {'x'.join(map(str, made.shape))}"
    return ""


def _on_meta(backbone: str, **options: Any) -> Any:
    """The backbone as maps, without memory for its weights, and without a random draw."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return timm.create_model(backbone, features_only=True, pretrained=False, **options).eval()


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _similar(backbone: str) -> str:
    near = difflib.get_close_matches(backbone, timm.list_models(), n=1)
    return f"; did you mean '{near[0]}'?" if near else "; timm.list_models() lists what it knows"
