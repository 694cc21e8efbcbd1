"""The translator's networks: ResNet generator and patch discriminator of CycleGAN.

Modules are numbered as in the public CycleGAN code (`model.N`), so that its checkpoints fit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PUBLISHED_WIDTH, PUBLISHED_BLOCKS = 64, 9
_STRIDE = 4  # of the generator's deepest maps
_BEFORE_BLOCKS, _AFTER_BLOCKS = 10, 8  # layers of a generator around its residual blocks
_SKIP_SCALE = 0.5  # standard deviation of a usual photo in [-1, 1]


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without affine, computed as group norm with a group for each channel.

    torch's own (2.14, on the CPU) gives a wrong gradient for a batch of one image where the
    gradient that arrives is in channels-last layout, as that of convolutions is.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return F.group_norm(maps, self.num_features, eps=self.eps)
        # Written out, the compiler makes one pass of it and what follows, in any layout.
        maps = maps.float()
        variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
        return (maps - mean) * torch.rsqrt(variance + self.eps)


class Generator(nn.Module):
    """Image to image: N x 3 x H x W in [0, 1] to the same, any H and W from 8 on.

    7x7 convolution, two of stride 2, residual blocks, two transposed convolutions, 7x7 convolution,
    tanh. Instance norm uses the image's own statistics in training and in evaluation. CycleGAN,
    section 4 and appendix 7.2.

    Args:
        width: Channels after the first convolution; the residual blocks have 4 times as many.
            Published: 64.
        blocks: Residual blocks. Published: 9.
        skip: Whether the instance-normalised image, with a learned scale and shift for each colour,
            is added before the tanh: a small network that trains for little time need not learn to
            draw what stays. Not published.

    Attributes:
        checkpointing: If set, the maps inside the residual blocks are not kept for the backward
            pass but computed again. Off at first.
    """

    def __init__(
        self,
        width: int = PUBLISHED_WIDTH,
        blocks: int = PUBLISHED_BLOCKS,
        skip: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7)]
        layers += _norm_relu(width)
        for channels in (width, 2 * width):
            layers.append(nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1))
            layers += _norm_relu(2 * channels)
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers.append(
                nn.ConvTranspose2d(
                    channels, channels // 2, 3, stride=2, padding=1, output_padding=1
                )
            )
            layers += _norm_relu(channels // 2)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7)]
        self.model = nn.Sequential(*layers)
        self.skip = nn.GroupNorm(3, 3) if skip else None  # each colour by itself
        self.checkpointing = False
        self._compiled = False
        initialize(self)
        if self.skip is not None:
            nn.init.constant_(self.skip.weight, _SKIP_SCALE)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # Sizes that the two strides do not divide are padded by reflection and cut back.
        padding = (0, -width % _STRIDE, 0, -height % _STRIDE)
        if any(padding):
            images = F.pad(images, padding, mode="reflect")
        layout = memory_format(images.device, self._compiled)
        signed = to_signed(images.contiguous(memory_format=layout))
        maps = self._encode(signed)
        for block in self._blocks:
            if self.checkpointing:
                maps = checkpoint(block, maps, use_reentrant=False)
            else:
                maps = block(maps)
        return self._decode(maps, signed)[..., :height, :width]

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile each residual block and what lies before and after them: equal blocks, of other
        generators too, share their compiled code."""
        self._compiled = True
        for block in self._blocks:
            block.compile(*args, **options)
        self._encode = torch.compile(self._encode, *args, **options)  # type: ignore[method-assign]
        self._decode = torch.compile(self._decode, *args, **options)  # type: ignore[method-assign]

    @property
    def _blocks(self) -> list[nn.Module]:
        return list(self.model)[_BEFORE_BLOCKS:-_AFTER_BLOCKS]

    def _encode(self, signed: Tensor) -> Tensor:
        """Images in [-1, 1] to the maps that the residual blocks begin with."""
        maps = signed
        for layer in list(self.model)[:_BEFORE_BLOCKS]:
            maps = layer(maps)
        return maps

    def _decode(self, maps: Tensor, signed: Tensor) -> Tensor:
        """The residual blocks' maps, and the images in [-1, 1], to images in [0, 1]."""
        for layer in list(self.model)[-_AFTER_BLOCKS:]:
            maps = layer(maps)
        if self.skip is not None:
            maps = maps + self.skip(signed)
        return (maps.tanh() + 1) / 2


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with reflection padding, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            *_norm_relu(channels),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            InstanceNorm(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv_block(maps)


class PatchDiscriminator(nn.Module):
    """Scores of 70x70 patches: N x 3 x H x W in [0, 1] to N x 1 x h x w, no activation.

    Real should score 1, fake 0. h and w are H / 8 - 2 and W / 8 - 2, rounded down; H and W are at
    least 24. CycleGAN, section 4 and appendix 7.2.

    Args:
        width: Channels after the first convolution. Published: 64.
    """

    def __init__(self, width: int = PUBLISHED_WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for channels, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, stride=stride, padding=1),
                InstanceNorm(2 * channels),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(8 * width, 1, 4, padding=1))
        self.model = nn.Sequential(*layers)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        layout = memory_format(images.device, torch.compiler.is_compiling())
        return self.model(to_signed(images.contiguous(memory_format=layout)))


def memory_format(device: torch.device, compiled: bool = False) -> torch.memory_format:
    """The layout in which these networks are fastest: on the CPU, instance norm that is not
    compiled copies maps that are not contiguous."""
    copies = device.type == "cpu" and not compiled
    return torch.contiguous_format if copies else torch.channels_last


def to_signed(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], the range in which these networks and the L1 losses work."""
    return images * 2 - 1


def initialize(network: nn.Module) -> None:
    """All convolution weights N(0, 0.02), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [InstanceNorm(channels), nn.ReLU(inplace=True)]
