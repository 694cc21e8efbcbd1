"""A small residual network for small images: trains from scratch in seconds on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdl.segmentation.networks.base import Normalization, ParameterGroup, Segmenter


class Compact(Segmenter):
    """Scores at stride 4: a stem of stride 4, residual blocks of growing dilation at stride 8,
    joined with the stem's detail. `width` is the stem's number of channels."""

    head_prefixes = ("classifier.",)

    def __init__(
        self, num_classes: int, width: int = 32, dilations: tuple[int, ...] = (1, 2, 4, 8)
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalize = Normalization(mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))
        self.stem = nn.Sequential(
            *_conv(3, width, stride=2), *_conv(width, width), *_conv(width, width, stride=2)
        )
        deep = 2 * width
        self.down = nn.Sequential(*_conv(width, deep, stride=2))
        self.blocks = nn.ModuleList(_Block(deep, dilation) for dilation in dilations)
        self.fuse = nn.Sequential(*_conv(width + deep, deep))
        self.classifier = nn.Conv2d(deep, num_classes, 1)

    def scores(self, images: Tensor) -> Tensor:
        detail = self.stem(self.normalize(images))
        deep = self.down(detail)
        for block in self.blocks:
            deep = block(deep)
        deep = F.interpolate(deep, size=detail.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(self.fuse(torch.cat([detail, deep], dim=1)))

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        head = list(self.classifier.parameters())
        inside = {id(parameter) for parameter in head}
        body = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        return [ParameterGroup(body), ParameterGroup(head, head=True)]


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels, channels, dilation=dilation),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.body(maps))


def _conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
