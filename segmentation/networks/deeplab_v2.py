"""DeepLab-v2 with a ResNet-101, equal number for number to the published BDL network."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet101
from torchvision.models.resnet import Bottleneck

from bdl.segmentation.networks.base import ParameterGroup, Segmenter, caffe_normalization

_HEAD_DILATIONS = (6, 12, 18, 24)
HEAD_STD = 0.01  # of the head's initial weights


class DeepLabV2(Segmenter):
    """Scores at stride 8: N x 3 x H x W to N x num_classes x h x w, 512 x 1024 to 65 x 129.

    Without loaded weights the backbone starts as torchvision's does (the published network is
    never used without), the head from N(0, 0.01) as published, its biases from 0.

    Batch norm's scale and shift are frozen at what was loaded; its running statistics follow the
    images in training mode.

    `branches` is how many of the head's four branches are summed. Four is the method as written;
    the published code summed only the first two until July 2020, and its released checkpoints
    and its translator's perceptual network are of that kind. The parameters of all four are there
    in either case; `build_segmenter` refuses any other number.
    """

    head_prefixes = ("layer5.",)

    def __init__(self, num_classes: int, branches: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalize = caffe_normalization()
        backbone = resnet101(weights=None)
        self.conv1 = backbone.conv1
        self.bn1 = backbone.bn1
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.layer1 = backbone.layer1
        self.layer2 = backbone.layer2
        self.layer3 = backbone.layer3
        self.layer4 = backbone.layer4
        _set_stride_and_dilation(self.layer2, stride=2, dilation=1)
        _set_stride_and_dilation(self.layer3, stride=1, dilation=2)
        _set_stride_and_dilation(self.layer4, stride=1, dilation=4)
        self.layer5 = _Head(2048, num_classes, branches)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)

    def scores(self, images: Tensor) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(self.normalize(images))))
        maps = self.layer1(self.maxpool(maps))
        maps = self.layer4(self.layer3(self.layer2(maps)))
        return self.layer5(maps)

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        """All trainable parameters, each once, grouped by learning rate.

        "printed": backbone 1, head marked as head. "effective": the published optimizer lists
        conv1 once, the other convolutions three times and those of the shortcuts four times (its
        loop over modules meets the parameters of every module that holds them), and takes a step
        for each: the multipliers are these counts. The head is listed once. How a repeated entry
        speeds up momentum and adds to weight decay is not imitated. Raises ValueError for other
        `rates`.
        """
        if rates not in ("printed", "effective"):
            raise ValueError(f"rates is '{rates}', must be 'printed' or 'effective'")
        by_multiplier: dict[float, list[nn.Parameter]] = {}
        head = []
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith(self.head_prefixes):
                head.append(parameter)
                continue
            multiplier = 1.0
            if rates == "effective" and not name.startswith("conv1."):
                multiplier = 4.0 if ".downsample." in name else 3.0
            by_multiplier.setdefault(multiplier, []).append(parameter)
        body = [
            ParameterGroup(parameters, multiplier)
            for multiplier, parameters in by_multiplier.items()
        ]
        return [*body, ParameterGroup(head, head=True)]


class _Head(nn.Module):
    """Parallel 3x3 convolutions of growing dilation, of which the first `branches` are summed."""

    def __init__(self, channels: int, num_classes: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=dilation, dilation=dilation)
            for dilation in _HEAD_DILATIONS
        )
        for number, branch in enumerate(self.conv2d_list):
            assert isinstance(branch, nn.Conv2d) and branch.bias is not None
            nn.init.normal_(branch.weight, 0.0, HEAD_STD)
            nn.init.zeros_(branch.bias)
            # Distributed training waits for the gradient of every parameter that wants one; a
            # branch that is not summed would get none.
            branch.requires_grad_(number < branches)

    def forward(self, maps: Tensor) -> Tensor:
        total = self.conv2d_list[0](maps)
        for branch in self.conv2d_list[1 : self.branches]:
            total = total + branch(maps)
        return total


def _set_stride_and_dilation(layer: nn.Sequential, stride: int, dilation: int) -> None:
    """Put a torchvision layer's stride into its first 1x1 convolution, where Caffe's ResNet has
    it (torchvision: in the 3x3 after it), and dilate the 3x3 of every block."""
    for number, block in enumerate(layer):
        assert isinstance(block, Bottleneck)
        block.conv2.stride = (1, 1)
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
        if number == 0:
            assert block.downsample is not None
            shortcut = block.downsample.get_submodule("0")
            assert isinstance(shortcut, nn.Conv2d)
            block.conv1.stride = shortcut.stride = (stride, stride)
