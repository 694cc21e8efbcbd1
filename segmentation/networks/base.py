"""What every segmentation network of this project has in common."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Mean of ImageNet in BGR on 0..255, as the Caffe models that these weights descend from had it.
CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate.

    Args:
        parameters: The parameters.
        multiplier: Factor of the configured rate.
        head: Whether they are the classifier's, whose rate the configuration scales once more
            (`segmentation.optimizer.head_multiplier`).
        decays: Whether weight decay applies to them.
    """

    parameters: list[nn.Parameter]
    multiplier: float = 1.0
    head: bool = False
    decays: bool = True


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize N x C x h x w maps to `size` (height, width): bilinear, align_corners=True,
    the interpolation of the published code for logits and for probabilities alike; maps of that
    size as they are."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


class Normalization(nn.Module):
    """Takes RGB in [0, 1] to what the pretrained weights expect: (x - mean) / std.

    `mean` and `std` are in units of [0, 1]; `bgr` reverses the channel order first, and
    then mean and std are in BGR order too. They are constants of most architectures, neither
    learned nor exchanged; where weights come with their own, `stored` puts them in the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        bgr: bool = False,
        stored: bool = False,
    ) -> None:
        super().__init__()
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=stored)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=stored)

    def forward(self, images: Tensor) -> Tensor:
        if self.bgr:
            images = images.flip(1)
        return (images - self.mean) / self.std


def caffe_normalization() -> Normalization:
    """RGB in [0, 1] to BGR in 0..255 less the mean, the input of the published networks."""
    blue, green, red = CAFFE_MEAN
    return Normalization((blue / 255, green / 255, red / 255), (1 / 255,) * 3, bgr=True)


class Segmenter(nn.Module):
    """A segmentation network: RGB images in [0, 1] (N x 3 x H x W) to class logits.

    A subclass gives `scores` and `parameter_groups`.

    Attributes:
        num_classes: Channels of its scores.
        head_prefixes: Beginnings of the keys of its state dict that belong to the part that is made
            for the classes at hand: initial weights may lack it, it then starts anew.
        class_prefixes: Beginnings of the keys that weights for another number of classes lack.
            Empty: those of `head_prefixes`.
        weight_roots: Beginnings of the keys of a part that weights of other code may be of, such as
            the backbone.
        foldable: Whether modules are registered in the order in which they run, so that batch norm
            can become part of the convolution registered before it.
        part_with_frozen_statistics: Name of the module whose batch norm uses the running statistics
            that it has, also in training; None: there is none.
        users_name: python:MODULE:FUNCTION, where the code is the user's, for messages about what it
            raises; else None.
    """

    num_classes: int
    head_prefixes: tuple[str, ...]
    class_prefixes: tuple[str, ...] = ()
    weight_roots: tuple[str, ...] = ()
    foldable = True
    part_with_frozen_statistics: str | None = None
    users_name: str | None = None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.part_with_frozen_statistics is not None:
            for module in self.get_submodule(self.part_with_frozen_statistics).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def scores(self, images: Tensor) -> Tensor:
        """Logits at the network's own stride.

        Args:
            images: RGB in [0, 1], N x 3 x H x W.

        Returns:
            N x num_classes x h x w.
        """
        raise NotImplementedError

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        """All trainable parameters, each once, grouped by learning rate.

        Args:
            rates: "printed", the paper's, or "effective", what the published optimizer really did;
                a network for which they do not differ ignores it.

        Returns:
            The groups, each with the factor by which it scales the configured rate.
        """
        raise NotImplementedError

    def layers(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by layer.

        Returns:
            A list for each layer, from the image on; empty if the network has no such order.
        """
        return []

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the size of the images.

        Args:
            images: RGB in [0, 1], N x 3 x H x W.

        Returns:
            N x num_classes x H x W.
        """
        return upsample(self.scores(images), (images.shape[-2], images.shape[-1]))
