"""Any convolutional backbone of timm, dilated, with a small decoder."""

from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from bdl.runtime.errors import UserError, first_line
from bdl.runtime.files import load_tensors
from bdl.segmentation.networks.base import Normalization, ParameterGroup, Segmenter
from bdl.segmentation.networks.layers import (
    layers_of,
    recompute_blocks,
    replace_depthwise,
)
from bdl.segmentation.packaged_weights import PACKAGED, packaged_weights


class TimmBackbone(Segmenter):
    """Scores at stride 4: the backbone's deep features through a context module, joined with its
    stride-4 features.

    `backbone` is a timm model that gives feature maps and can be dilated; with `pretrained` its
    ImageNet weights come from an installed weights package, else from timm's hub. `width` is
    the decoder's number of channels; `output_stride`, 8 or 16, that of the deep features: 16 is
    coarser, and several times as fast on a CPU.

    With `frozen_statistics` batch norm in the backbone keeps the running statistics of its weights
    and normalises by them in training, too; its scale and shift learn. The published networks train
    with each batch's own, which for a few images of one domain are not what evaluation, whose
    statistics are running means, then normalises by.

    With `gradient_checkpointing` the backbone's blocks are computed again for the backward pass
    instead of kept: less memory, more time, the same gradients.
    """

    head_prefixes = ("context.", "detail.", "fuse.", "classifier.")
    weight_roots = ("backbone.",)

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        pretrained: bool = True,
        width: int = 96,
        output_stride: int = 8,
        frozen_statistics: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.require_options(backbone, output_stride)
        self.num_classes = num_classes
        self.part_with_frozen_statistics = "backbone" if frozen_statistics else None
        packaged = packaged_weights(backbone) if pretrained else None
        try:
            features: Any = timm.create_model(
                backbone,
                features_only=True,
                output_stride=output_stride,
                out_indices=(1, -1),
                pretrained=pretrained and packaged is None,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(weights_failure(backbone, error)) from None
        if packaged is not None:
            load_packaged(features, backbone, packaged)
        self.normalize = normalization_of(backbone)
        self.backbone = features
        replace_depthwise(features)
        if gradient_checkpointing:
            recompute_blocks(features)
        shallow, deep = features.feature_info.channels()
        self.context = _Context(deep, width)
        self.detail = _conv(shallow, width // 2, kernel=1)
        self.fuse = _conv(width + width // 2, width, kernel=3)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @staticmethod
    def require_options(backbone: str, output_stride: int = 8, **_: Any) -> None:
        """Raise UserError for options that do not go with the backbone; nothing is built."""
        if output_stride not in (8, 16):
            raise UserError(
                f"segmentation.options.output_stride: is {output_stride}, must be 8 or 16"
            )

    def scores(self, images: Tensor) -> Tensor:
        shallow, deep = self.backbone(self.normalize(images))
        deep = F.interpolate(
            self.context(deep), size=shallow.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.classifier(self.fuse(torch.cat([self.detail(shallow), deep], dim=1)))

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        decoder = [self.context, self.detail, self.fuse, self.classifier]
        return [
            ParameterGroup(list(self.backbone.parameters())),
            ParameterGroup([p for part in decoder for p in part.parameters()], head=True),
        ]

    def layers(self) -> list[list[nn.Parameter]]:
        return layers_of(self.backbone, (64, 64))


class ImageFeatures(nn.Module):
    """What a backbone trained on ImageNet sees in whole images, to compare sets of them: RGB in
    [0, 1], N x 3 x H x W, to N x D, its last features' mean over the image.

    `backbone` is one of timm's whose weights an installed package holds, see `packaged_backbone`.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        packaged = packaged_weights(backbone)
        assert packaged is not None
        self.backbone: Any = timm.create_model(backbone, pretrained=False, num_classes=0)
        load_packaged(self.backbone, backbone, packaged)
        self.normalize = normalization_of(backbone)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.normalize(images))


class _Context(nn.Module):
    """Three dilations side by side and the image's mean, summed."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.reduce = _conv(inputs, width, kernel=1)
        self.branches = nn.ModuleList(_conv(width, width, 3, dilation) for dilation in (1, 4, 8))
        self.image = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True))

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.reduce(maps)
        context = self.image(maps.mean(dim=(2, 3), keepdim=True))
        for branch in self.branches:
            context = context + branch(maps)
        return context


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def normalization_of(backbone: str) -> Normalization:
    """From RGB in [0, 1] to what the backbone's ImageNet weights expect."""
    if backbone in PACKAGED:
        _, center, spread = PACKAGED[backbone]
        return Normalization((center,) * 3, (spread,) * 3)
    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return Normalization(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return Normalization(config.mean, config.std)


def load_packaged(features: nn.Module, backbone: str, file: Path) -> None:
    """Load a package's weights, whose tensors have the order and shapes of timm's model."""
    stored = list(load_tensors(file).values())
    names = timm.create_model(backbone, pretrained=False).state_dict()
    shapes = [value.shape for value in names.values()]
    if [value.shape for value in stored] != shapes:
        raise UserError(f"{file}: its tensors are not those of timm's {backbone}")
    by_name = dict(zip(names, stored, strict=True))
    features.load_state_dict({name: by_name[name] for name in features.state_dict()})


def weights_failure(backbone: str, error: Exception) -> str:
    """What to tell when timm cannot make a backbone with its weights."""
    text = f"segmentation.network: timm cannot make '{backbone}' with its weights"
    without = "or set segmentation.options.pretrained=false to start without"
    reason = first_line(error)
    if backbone in PACKAGED:
        package = PACKAGED[backbone][0].replace("_", "-")
        return f"{text} ({reason}); install the package {package}, {without}"
    config = timm.get_pretrained_cfg(backbone)
    if not isinstance(error, OSError) or config is None or not config.hf_hub_id:
        return f"{text} ({reason}); set segmentation.options.pretrained=false to start without"
    file = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    return (
        f"{text}: the hub cannot be reached; get {file} where it can, and set "
        f"segmentation.weights=FILE, {without}"
    )
