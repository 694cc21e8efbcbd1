"""The discriminator that tells by a segmentation which domain the image came from."""

import torch.nn.functional as F
from torch import Tensor, nn

_LEAK = 0.2


class OutputDiscriminator(nn.Module):
    """Softmax maps, N x num_classes x H x W in [0, 1], to logits, N x 1 x h x w.

    Five 4x4 convolutions of stride 2 with leaky ReLU between them; h and w are H / 32 and
    W / 32 rounded down, so H and W must be at least 32. Which domain a high logit stands for is the
    losses' matter. Tsai et al. 2018, "Network architecture and training".

    Args:
        num_classes: Channels of the softmax maps.
        width: Channels of the first convolution; the next have 2, 4 and 8 times as many.
            Published: 64.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = _halving(num_classes, width)
        self.conv2 = _halving(width, 2 * width)
        self.conv3 = _halving(2 * width, 4 * width)
        self.conv4 = _halving(4 * width, 8 * width)
        self.classifier = _halving(8 * width, 1)

    def forward(self, probabilities: Tensor) -> Tensor:
        maps = probabilities
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps = F.leaky_relu(convolution(maps), _LEAK)
        return self.classifier(maps)


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
