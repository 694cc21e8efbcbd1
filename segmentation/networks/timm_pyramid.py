"""Any backbone of timm at its own strides, transformers among them, with one light decoder."""

from typing import Any

import timm
from torch import Tensor, nn

from bdl.runtime.errors import UserError
from bdl.segmentation.networks.base import ParameterGroup, Segmenter
from bdl.segmentation.networks.layers import (
    layers_of,
    parameter_groups_of,
    recompute_blocks,
    replace_depthwise,
)
from bdl.segmentation.networks.light_decoder import LightDecoder
from bdl.segmentation.networks.sizes import crop_scores, pad_to_multiple
from bdl.segmentation.networks.timm_backbone import normalization_of, weights_failure
from bdl.segmentation.networks.timm_layout import Layout, layout_of

_OF_ANY = ("pretrained", "width", "frozen_statistics", "gradient_checkpointing")
_COARSE = 12  # from this stride on the decoder doubles the maps' size


class TimmPyramid(Segmenter):
    """Scores at stride 4 from the maps of a hierarchical backbone, whose own strides are mostly 4,
    8, 16 and 32; at half the patch from four layers of a plain transformer.

    Images of any size are padded on the right and below to what the backbone takes. A backbone
    that takes one size alone pads smaller ones to it.

    Args:
        num_classes: Channels of the scores.
        backbone: A timm model, with or without the tag of its weights.
        pretrained: Whether it starts from the weights on timm's hub.
        width: Channels of the decoder.
        drop_path: Largest probability with which a block is left out for an image in training, at
            the last block; the first is always there. Backbones that cannot ignore the default.
        layers: Blocks of a plain transformer whose outputs are used; default: four in equal steps.
        frozen_statistics: Whether batch norm in the backbone keeps its running statistics, and
            normalises by them in training, too.
        gradient_checkpointing: Whether the backbone's blocks are computed again for the backward
            pass instead of kept: less memory, more time, the same gradients.
        backbone_options: Options of timm's own, as `img_size`, height and width, for backbones that
            are made for one size.

    Raises:
        UserError: If timm has no such backbone, it gives no maps, or its weights are not at hand.
    """

    head_prefixes = ("decoder.",)
    class_prefixes = ("decoder.classifier.",)
    weight_roots = ("backbone.model.", "backbone.")
    foldable = False

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        pretrained: bool = True,
        width: int = 128,
        drop_path: float | None = None,
        layers: tuple[int, ...] | None = None,
        frozen_statistics: bool = False,
        gradient_checkpointing: bool = False,
        **backbone_options: Any,
    ) -> None:
        super().__init__()
        layout = _layout(backbone, drop_path, layers, backbone_options)
        options = dict(layout.options)
        if layout.drops_paths:
            options["drop_path_rate"] = 0.1 if drop_path is None else drop_path
        try:
            features: Any = timm.create_model(
                backbone,
                features_only=True,
                out_indices=layout.indices,
                pretrained=pretrained,
                **options,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(weights_failure(backbone, error)) from None
        self.num_classes, self.name = num_classes, backbone
        self.multiple, self.size = layout.multiple, layout.size
        self.channels_last = layout.channels_last
        self.part_with_frozen_statistics = "backbone" if frozen_statistics else None
        self.normalize = normalization_of(backbone)
        self.backbone = features
        replace_depthwise(features)
        if gradient_checkpointing:
            recompute_blocks(features)
        finest = layout.strides[0]
        doubled = finest >= _COARSE and finest % 2 == 0
        self.stride = finest // 2 if doubled else finest
        self.decoder = LightDecoder(layout.channels, num_classes, width, doubled)

    @staticmethod
    def require_options(
        backbone: str,
        drop_path: float | None = None,
        layers: tuple[int, ...] | None = None,
        **options: Any,
    ) -> None:
        """Raise UserError for options that do not go with the backbone; nothing is built."""
        own = {key: value for key, value in options.items() if key not in _OF_ANY}
        _layout(backbone, drop_path, layers, own)

    def scores(self, images: Tensor) -> Tensor:
        maps = self.backbone(self._fitted(self.normalize(images)))
        if self.channels_last:
            maps = [nhwc.permute(0, 3, 1, 2) for nhwc in maps]
        return crop_scores(self.decoder(maps), images, self.stride)

    def _fitted(self, images: Tensor) -> Tensor:
        """Padded to what the backbone takes."""
        if self.size is None:
            return pad_to_multiple(images, self.multiple)
        (height, width), (rows, columns) = images.shape[-2:], self.size
        if height > rows or width > columns:
            raise UserError(
                f"segmentation.network: '{self.name}' takes images of up to {columns}x{rows}, "
                f"these are {width}x{height}; set "
                f"segmentation.options.img_size=[{height},{width}] (height, width)"
            )
        return nn.functional.pad(images, (0, columns - width, 0, rows - height))

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        return parameter_groups_of(self.backbone, [self.decoder])

    def layers(self) -> list[list[nn.Parameter]]:
        return layers_of(self.backbone, self.size or (self.multiple, self.multiple))


def _layout(backbone: str, drop_path: Any, layers: Any, options: dict[str, Any]) -> Layout:
    """The backbone's layout with the user's options, among them timm's own."""
    if "img_size" in options:
        options = {**options, "img_size": _pair(options["img_size"])}
    own = tuple((key, _constant(key, options[key])) for key in sorted(options))
    layout = layout_of(backbone, own, _whole_numbers(layers))
    if drop_path is not None and not _is_share(drop_path):
        raise UserError(f"segmentation.options.drop_path: is {drop_path!r}, must be in [0, 1)")
    if drop_path and not layout.drops_paths:
        raise UserError(
            f"segmentation.options.drop_path: timm's '{backbone}' cannot leave out blocks"
        )
    return layout


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2 and all(_is_count(v) for v in value):
        return value[0], value[1]
    raise UserError(f"segmentation.options.img_size: is {value!r}, must be [HEIGHT, WIDTH]")


def _constant(key: str, value: Any) -> Any:
    """A value that nobody changes, by which a layout is remembered."""
    if isinstance(value, list | tuple):
        return tuple(_constant(key, item) for item in value)
    if isinstance(value, dict):
        raise UserError(f"segmentation.options.{key}: is a mapping, must be a value or a list")
    return value


def _whole_numbers(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
        return tuple(value)
    raise UserError(f"segmentation.options.layers: is {value!r}, must be a list of whole numbers")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value < 1
