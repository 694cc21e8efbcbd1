"""ImageNet weights of torchvision as initial weights of the published networks.

The published networks start from Caffe's weights. Torchvision's were trained with another input
(RGB, each channel less its mean, over its standard deviation) and, for ResNet, another stride
placement. The input is converted here: scale and shift go into the first convolution, which then
takes BGR on 0..255 less Caffe's mean and gives the same output, up to the image's border, where
zeros of padding stand for another colour. The stride placement cannot be: these networks have it
in the first 1x1 convolution of a block, torchvision in the 3x3 after it, so that layer2 and all
above it see features that they were not trained on. As a start of training the weights serve all
the same; results come nearer to the published ones with the published initial weights.
"""

from collections.abc import Callable, Mapping
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import ResNet101_Weights, VGG16_Weights, WeightsEnum

from bdl.runtime.errors import first_line
from bdl.runtime.weights import WeightsError, as_tensors
from bdl.segmentation.networks.base import CAFFE_MEAN
from bdl.segmentation.networks.fcn8s_vgg16 import STAGES, convolution_name

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
_POOLED = (512, 7, 7)  # the maps that VGG-16's first linear layer takes


def deeplab_v2_from_resnet101(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's ResNet-101 as DeepLab-v2's backbone; the head is left out and starts anew."""
    weights = {key: value for key, value in as_tensors(state).items() if not key.startswith("fc.")}
    weights["conv1.weight"], shift = _fold_input(weights["conv1.weight"])
    # There is no bias to take the shift; the batch norm after it subtracts this much less.
    weights["bn1.running_mean"] = weights["bn1.running_mean"] - shift
    return weights


def fcn8s_from_vgg16(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's VGG-16 as FCN-8s's, its first two linear layers as the convolutions fc6 and
    fc7 that compute the same at every place; the scores are left out and start anew."""
    given = as_tensors(state)
    # Torchvision numbers all layers: convolution, ReLU, ... and a pooling after every stage.
    weights, layer = {}, 0
    for stage, widths in enumerate(STAGES, start=1):
        for number in range(1, len(widths) + 1):
            for kind in ("weight", "bias"):
                name = f"{convolution_name(stage, number)}.{kind}"
                weights[name] = given[f"features.{layer}.{kind}"]
            layer += 2
        layer += 1
    weights["conv1_1.weight"], shift = _fold_input(weights["conv1_1.weight"])
    weights["conv1_1.bias"] = weights["conv1_1.bias"] + shift
    for name, layer, maps in (("fc6", 0, _POOLED), ("fc7", 3, (4096, 1, 1))):
        linear = given[f"classifier.{layer}.weight"]
        weights[f"{name}.weight"] = linear.view(len(linear), *maps)
        weights[f"{name}.bias"] = given[f"classifier.{layer}.bias"]
    return weights


_SOURCES: dict[str, tuple[WeightsEnum, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]] = {
    # V1: trained as simply as the published networks' initial weights were.
    "deeplab_v2": (ResNet101_Weights.IMAGENET1K_V1, deeplab_v2_from_resnet101),
    "fcn8s_vgg16": (VGG16_Weights.IMAGENET1K_V1, fcn8s_from_vgg16),
}


def fetch_pretrained(network: str) -> dict[str, Tensor]:
    """The initial weights of `network` (deeplab_v2 or fcn8s_vgg16), without its head.

    Fetched from torchvision's hub, or from torch's cache of it. Raises WeightsError for another
    network, and if the hub cannot be reached.
    """
    if network not in _SOURCES:
        raise WeightsError(f"torchvision has no weights for '{network}'; for {', '.join(_SOURCES)}")
    weights, convert = _SOURCES[network]
    try:
        return convert(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or first_line(error)
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise WeightsError(
            f"{weights.url}: cannot be fetched ({reason}); fetch it on a machine that reaches it "
            f"and put it into {folder}, or import the published initial weights"
        ) from None


def _fold_input(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A first convolution for RGB, (x - mean) / std, as one for BGR, 255 x less Caffe's mean.

    Returns the weight and what the old convolution gives more than the new one, by channel.
    """
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    caffe = torch.tensor(CAFFE_MEAN).flip(0)  # RGB
    folded = weight / (255 * std).view(1, 3, 1, 1)
    shift = (weight.sum((2, 3)) * ((caffe / 255 - mean) / std)).sum(1)
    return folded.flip(1).contiguous(), shift
