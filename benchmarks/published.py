"""The method's networks as published, written plainly from the paper's description: contiguous
float32, one module after the other. Their state dicts have the published keys, as ours have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)  # BGR, of 0..255


class Generator(nn.Module):
    """CycleGAN's ResNet generator, images in [-1, 1]; sides that 4 divides."""

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7)]
        layers += [nn.InstanceNorm2d(width), nn.ReLU(True)]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)]
            layers += [nn.InstanceNorm2d(2 * channels), nn.ReLU(True)]
        layers += [_GeneratorBlock(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1)]
            layers += [nn.InstanceNorm2d(channels // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class _GeneratorBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
            layers += [nn.InstanceNorm2d(channels), nn.ReLU(True)]
        self.conv_block = nn.Sequential(*layers[:-1])

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv_block(maps)


class PatchDiscriminator(nn.Module):
    """CycleGAN's 70x70 patch discriminator, images in [-1, 1]."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for channels, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
            layers += [nn.Conv2d(channels, 2 * channels, 4, stride, 1)]
            layers += [nn.InstanceNorm2d(2 * channels), nn.LeakyReLU(0.2, True)]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class DeepLabV2(nn.Module):
    """Scores at stride 8 of images in BGR, 0..255 less the mean (`caffe_input`)."""

    def __init__(self, num_classes: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.layer1 = _resnet_layer(64, 64, 3, stride=1, dilation=1)
        self.layer2 = _resnet_layer(256, 128, 4, stride=2, dilation=1)
        self.layer3 = _resnet_layer(512, 256, 23, stride=1, dilation=2)
        self.layer4 = _resnet_layer(1024, 512, 3, stride=1, dilation=4)
        self.layer5 = nn.Module()
        self.layer5.conv2d_list = nn.ModuleList(
            nn.Conv2d(2048, num_classes, 3, padding=dilation, dilation=dilation)
            for dilation in (6, 12, 18, 24)
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        heads = list(self.layer5.conv2d_list)[: self.branches]
        total = heads[0](maps)
        for head in heads[1:]:
            total = total + head(maps)
        return total


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, dilation: int, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, maps: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(maps)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (maps if self.downsample is None else self.downsample(maps)))


def _resnet_layer(
    inputs: int, width: int, blocks: int, stride: int, dilation: int
) -> nn.Sequential:
    first = _Bottleneck(inputs, width, stride, dilation, first=True)
    others = [_Bottleneck(4 * width, width, 1, dilation, first=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


class OutputDiscriminator(nn.Module):
    """Softmax maps to logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_classes, 64, 4, 2, 1)
        self.conv2 = nn.Conv2d(64, 128, 4, 2, 1)
        self.conv3 = nn.Conv2d(128, 256, 4, 2, 1)
        self.conv4 = nn.Conv2d(256, 512, 4, 2, 1)
        self.classifier = nn.Conv2d(512, 1, 4, 2, 1)

    def forward(self, maps: Tensor) -> Tensor:
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps = F.leaky_relu(layer(maps), 0.2)
        return self.classifier(maps)


def caffe_input(images: Tensor) -> Tensor:
    """RGB in [0, 1] to BGR, 0..255 less the mean."""
    return images.flip(1) * 255 - torch.tensor(CAFFE_MEAN, device=images.device).view(1, 3, 1, 1)
