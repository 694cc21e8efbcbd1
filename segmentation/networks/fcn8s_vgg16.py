"""FCN-8s with a VGG-16, equal number for number to the published BDL network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdl.segmentation.networks.base import ParameterGroup, Segmenter, caffe_normalization

# Channels of the convolutions before each pooling: conv1_1 and conv1_2, conv2_1 and so on.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# The first convolution's padding, so that fc6 (7x7, stride 32) fits on any image; the crops cut
# from the finer maps what this adds to them, each at its own stride.
_PADDING = 100
_CROP_POOL4, _CROP_POOL3, _CROP_IMAGE = 5, 9, 31
# The scales with which Long et al. train all three scores at once ("at-once" FCN-8s).
_SCALE_POOL4, _SCALE_POOL3 = 0.01, 0.0001
_FC_CHANNELS = 4096


class FCN8sVGG16(Segmenter):
    """Scores at the image's own size: N x 3 x H x W to N x num_classes x H x W, any H and W.

    The coarse scores (stride 32) are upsampled and joined with those of pool4 and pool3 by fixed
    bilinear transposed convolutions, which are part of the network: there is no coarser map to
    take the scores from.

    The published network is never used without loaded weights. Here the convolutions then start
    as torchvision's VGG does (He's normal, biases 0) and the three score layers from 0 (Long et
    al., "Fully Convolutional Networks", section 4.3).
    """

    head_prefixes = ("score_", "upscore")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalize = caffe_normalization()
        channels = 3
        for stage, widths in enumerate(STAGES, start=1):
            for number, width in enumerate(widths, start=1):
                padding = _PADDING if (stage, number) == (1, 1) else 1
                name = convolution_name(stage, number)
                self.add_module(name, nn.Conv2d(channels, width, 3, padding=padding))
                channels = width
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.fc6 = nn.Conv2d(channels, _FC_CHANNELS, 7)
        self.fc7 = nn.Conv2d(_FC_CHANNELS, _FC_CHANNELS, 1)
        self.dropout = nn.Dropout2d()
        self.score_fr = nn.Conv2d(_FC_CHANNELS, num_classes, 1)
        self.score_pool3 = nn.Conv2d(STAGES[2][-1], num_classes, 1)
        self.score_pool4 = nn.Conv2d(STAGES[3][-1], num_classes, 1)
        self.upscore2 = _bilinear(num_classes, stride=2)
        self.upscore8 = _bilinear(num_classes, stride=8)
        self.upscore_pool4 = _bilinear(num_classes, stride=2)
        self._initialize()

    def scores(self, images: Tensor) -> Tensor:
        maps = self.normalize(images)
        pooled = {}
        for stage, widths in enumerate(STAGES, start=1):
            for number in range(1, len(widths) + 1):
                maps = F.relu(self.get_submodule(convolution_name(stage, number))(maps))
            maps = self.pool(maps)
            pooled[stage] = maps
        maps = self.dropout(F.relu(self.fc6(maps)))
        maps = self.dropout(F.relu(self.fc7(maps)))

        coarse = self.upscore2(self.score_fr(maps))
        fine = self.score_pool4(pooled[4] * _SCALE_POOL4)
        coarse = self.upscore_pool4(coarse + _crop(fine, _CROP_POOL4, coarse))
        fine = self.score_pool3(pooled[3] * _SCALE_POOL3)
        coarse = self.upscore8(coarse + _crop(fine, _CROP_POOL3, coarse))
        return _crop(coarse, _CROP_IMAGE, images).contiguous()

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        """All trainable parameters, each once: weights at the rate, biases at twice the rate.

        `rates` makes no difference: the published optimizer did what the paper says.
        """
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        weights = [parameter for name, parameter in trained if not name.endswith(".bias")]
        biases = [parameter for name, parameter in trained if name.endswith(".bias")]
        return [ParameterGroup(weights), ParameterGroup(biases, multiplier=2.0)]

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for scoring in (self.score_fr, self.score_pool3, self.score_pool4):
            nn.init.zeros_(scoring.weight)


def convolution_name(stage: int, number: int) -> str:
    """The name of a convolution, as in VGG's own numbering."""
    return f"conv{stage}_{number}"


def _crop(maps: Tensor, offset: int, like: Tensor) -> Tensor:
    """The part of `maps` from (offset, offset) on that has the height and width of `like`."""
    height, width = like.shape[-2:]
    return maps[..., offset : offset + height, offset : offset + width]


def _bilinear(channels: int, stride: int) -> nn.ConvTranspose2d:
    """Bilinear upsampling by `stride` of each channel by itself, as a fixed convolution.

    It is part of the published checkpoints, hence a parameter, but one that is not trained.
    """
    size = 2 * stride
    convolution = nn.ConvTranspose2d(channels, channels, size, stride=stride, bias=False)
    distance = (torch.arange(size) - (size - 1) / 2).abs()
    line = 1 - distance / stride
    identity = torch.eye(channels).view(channels, channels, 1, 1)
    with torch.no_grad():
        convolution.weight.copy_(identity * line.outer(line))
    return convolution.requires_grad_(False)
