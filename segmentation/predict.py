"""Predictions of a trained network: probabilities, as the published evaluation makes them."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bdl.runtime.compiling import compile_blocks
from bdl.segmentation.maps import Maps, Mean, Mirrored, Stored, Upsampled
from bdl.segmentation.networks.base import Segmenter, upsample


def own_probabilities(fabric: Fabric, network: Segmenter, images: Tensor) -> Tensor:
    """Class probabilities of `images` (N x 3 x H x W in [0, 1]) at the network's own stride,
    N x C x h x w in float32."""
    # Not in inference mode: what a network in training keeps from here on must be of use there.
    with torch.no_grad(), fabric.autocast():
        scores = network.scores(images)
    return scores.float().softmax(1)


@torch.inference_mode()
def probabilities(
    fabric: Fabric, network: Segmenter, images: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """Class probabilities of `images` (N x 3 x H x W in [0, 1]): N x C x height x width.

    The softmax is taken at the network's own stride, then the probabilities are upsampled to
    `size` (default: the images'), as published; logits are upsampled in training only. The result
    is float32 and sums to 1 over classes.
    """
    height, width = size or (images.shape[-2], images.shape[-1])
    return upsample(own_probabilities(fabric, network, images), (height, width))


def mean_over_views(look: Callable[[Tensor], Maps], views: Iterable[Tensor], flip: bool) -> Maps:
    """The mean of `look`, which makes maps of one size, over the `views` of an image (1 x 3 x h x w
    each) and, with `flip`, over their mirror images."""
    parts: list[tuple[int, int, Maps]] = []
    for view in views:
        parts.append((0, 0, look(view)))
        if flip:
            parts.append((0, 0, Mirrored(look(view.flip(-1)))))
    return Mean(parts, parts[0][2].size)


def predict_classes(
    fabric: Fabric, network: Segmenter, images: Tensor, size: tuple[int, int]
) -> Tensor:
    """The most probable class of each pixel, N x height x width int64: the maximum of
    `probabilities`, which are not made whole for it."""
    return upsampled_argmax(own_probabilities(fabric, network, images), size)


@torch.inference_mode()
def upsampled_argmax(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`upsample(maps, size).argmax(1)` of maps N x C x h x w: N x H x W, equal but for ties that
    rounding makes or breaks.

    Between two neighbouring columns of `maps` each row of the result is linear. Where one class is
    the largest at both, it is so all the way; only the other stretches are interpolated.
    """
    height, width = size
    columns = maps.shape[-1]
    lines = upsample(maps, (height, columns)).permute(0, 2, 3, 1).contiguous()  # N x H x w x C
    best = lines.max(-1).indices
    position = torch.arange(width, device=maps.device) * ((columns - 1) / max(1, width - 1))
    left = position.long().clamp_max(max(0, columns - 2))
    result = best[..., left]

    number, row, column = (best[..., :-1] != best[..., 1:]).nonzero(as_tuple=True)
    first = torch.searchsorted(left, torch.arange(columns, device=maps.device))
    longest = int(first.diff().max()) if columns > 1 else 0
    pixels = first[column, None] + torch.arange(longest, device=maps.device)
    inside = pixels < first[column + 1, None]
    pixels = pixels.clamp_max(width - 1)
    weight = (position - left)[pixels][..., None]
    start, end = lines[number, row, column, None], lines[number, row, column + 1, None]
    between = torch.lerp(start, end, weight.to(lines.dtype)).max(-1).indices
    pieces = torch.arange(len(number), device=maps.device)[:, None].expand_as(pixels)[inside]
    result[number[pieces], row[pieces], pixels[inside]] = between[inside]
    return result


def frozen_scores(
    fabric: Fabric, network: Segmenter, compiled: bool = False
) -> Callable[[Tensor], Tensor]:
    """`network.scores` of a network that learns no more, made fast for many calls.

    `network` is changed, and goes to the device: batch norm that follows a convolution becomes
    part of it, and weights are in the precision that convolutions compute in, if the network is
    `foldable`. Gradients of images pass, to be called within the autocast of `fabric`. `compiled`:
    its blocks are.
    """
    fabric.to_device(network).eval().requires_grad_(False)
    if compiled:
        compile_blocks(network)
    if not network.foldable:
        return network.scores
    fold_batch_norm(network)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    with fabric.autocast():
        kind = fabric.device.type
        if torch.is_autocast_enabled(kind) and all(m.groups == 1 for m in convolutions):
            # Autocast would convert frozen weights at every call.
            for convolution in convolutions:
                convolution.to(torch.get_autocast_dtype(kind))
    return network.scores


def fold_batch_norm(network: nn.Module) -> None:
    """Make each batch norm that is registered right after a convolution part of it, in place.

    The networks here register modules in the order in which they run. The outputs in evaluation
    mode stay, up to rounding.
    """
    for module in network.modules():
        children = list(module.named_children())
        for (name, convolution), (norm_name, norm) in pairwise(children):
            # Not subclasses: timm's batch norm may hold an activation.
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, nn.Identity())


@torch.inference_mode()
def windowed(fabric: Fabric, network: Segmenter, images: Tensor, window: tuple[int, int]) -> Maps:
    """Probabilities at the images' size from a window (height, width) that slides over `images`.

    Neighbouring windows overlap by a third of their sides or more; where they do, the mean counts.
    """
    height, width = images.shape[-2:]
    parts: list[tuple[int, int, Maps]] = []
    for top in window_starts(height, window[0]):
        for left in window_starts(width, window[1]):
            part = images[..., top : top + window[0], left : left + window[1]]
            shape = (part.shape[-2], part.shape[-1])
            maps = Stored(own_probabilities(fabric, network, part))
            parts.append((top, left, Upsampled(maps, shape)))
    return Mean(parts, (height, width))


def window_starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover `length`; the last one ends with it."""
    if window >= length:
        return [0]
    stride = max(1, 2 * window // 3)
    return [*range(0, length - window, stride), length - window]
