"""Depthwise convolutions on the CPU: exact where PyTorch's are not, fast where they are slow."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseOnCpu:
    """Takes the place of a depthwise convolution's `forward`; on other devices it calls that.

    In float32, whatever the precision: PyTorch's bf16 gradient of depthwise weights (seen with
    2.14) takes in memory that was never written, now and then NaN. In float32 they are no slower.

    Without dilation: dilated ones have no fast kernel on the CPU. The pixels of every d-th row and
    column are an image of their own to a convolution of dilation d, and for these d x d images it
    has dilation 1: the same products. Networks that are exported keep the dilated operator,
    which their readers know.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        self.convolution, self.forward = convolution, convolution.forward
        step = convolution.dilation[0]
        self.splits = (
            type(convolution) is nn.Conv2d  # timm's kinds pad by the image's size
            and convolution.groups == convolution.in_channels  # not ResNeXt's, which are grouped
            and step > 1
            and convolution.dilation == (step, step)
            and convolution.stride == (1, 1)
            and convolution.padding_mode == "zeros"
            and all(isinstance(side, int) and side % step == 0 for side in convolution.padding)
        )

    def __call__(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu":
            return self.forward(maps)
        with torch.autocast("cpu", enabled=False):
            if self.splits and not torch.compiler.is_exporting():
                return split_convolution(maps.float(), self.convolution)
            return self.forward(maps.float())


def split_convolution(maps: Tensor, convolution: nn.Conv2d) -> Tensor:
    """What a dilated depthwise `convolution` of stride 1 makes of `maps`, N x C x H x W.

    Its dilation is the same in both directions, its zero padding a multiple of it.
    """
    step = convolution.dilation[0]
    count, _, height, width = maps.shape
    below, right = -height % step, -width % step
    # Channels stay together in memory throughout: each copy moves whole pixels.
    pixels = F.pad(maps, (0, right, 0, below)).permute(0, 2, 3, 1)
    pixels = pixels.unflatten(1, (-1, step)).unflatten(3, (-1, step)).permute(0, 2, 4, 1, 3, 5)
    parts = pixels.flatten(0, 2).permute(0, 3, 1, 2)
    padding = [int(side) // step for side in convolution.padding]
    weight, bias = convolution.weight, convolution.bias
    parts = F.conv2d(parts, weight, bias, padding=padding, groups=convolution.groups)
    pixels = parts.permute(0, 2, 3, 1).unflatten(0, (count, step, step))
    pixels = pixels.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)
    joined = pixels.permute(0, 3, 1, 2)
    rows, columns = joined.shape[2] - below, joined.shape[3] - right
    return joined[..., :rows, :columns].contiguous(memory_format=torch.channels_last)
