"""One light decoder for maps of any backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LightDecoder(nn.Module):
    """Brings maps to one width and size, joins them, and scores each place.

    Args:
        channels: Of each map, the finest first.
        num_classes: Channels of the scores.
        width: Channels of each map once it is projected, and of their join.
        doubled: Whether the join is brought to twice the finest map's size before it is scored,
            which maps of large patches need.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, width: int, doubled: bool = False
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.fuse = _normed(nn.Conv2d(len(channels) * width, width, 1, bias=False), width)
        self.enlarge = (
            _normed(nn.ConvTranspose2d(width, width, 2, stride=2, bias=False), width)
            if doubled
            else nn.Identity()
        )
        self.refine = _normed(nn.Conv2d(width, width, 3, padding=1, bias=False), width)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Scores N x num_classes x h x w of maps N x C x h' x w'; the first has the size."""
        size = maps[0].shape[-2:]
        joined = []
        for project, features in zip(self.project, maps, strict=True):
            features = project(features)
            if features.shape[-2:] != size:
                features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
            joined.append(features)
        fused = self.fuse(torch.cat(joined, dim=1))
        return self.classifier(self.dropout(self.refine(self.enlarge(fused))))


def _normed(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
