"""A training step of a dilated depthwise network on the CPU: dilated operators, and ours.

    python -m benchmarks.depthwise [--backbone tf_efficientnet_lite0] [--stride 8] [--json FILE]

As published: PyTorch's dilated convolutions, contiguous. Ours is `DepthwiseOnCpu` in channels-last
layout: dilated depthwise convolutions become undilated ones on parts of the map. In between, the
layout alone. The same random weights, images and labels; forward and backward pass in float32.
"""

import argparse
import sys
from functools import partial

import torch
from torch import nn

from bdl.domains.streets.materials import CLASSES
from bdl.runtime.device import channels_last
from bdl.segmentation import losses
from bdl.segmentation.networks import build_segmenter
from benchmarks.common import PUBLISHED, Numbers, Way, Work, compare, exit_status, make_parser


def step(options: argparse.Namespace, *, dilated: bool, layout: torch.memory_format) -> Work:
    torch.manual_seed(0)
    network: nn.Module = build_segmenter(
        f"timm:{options.backbone}",
        len(CLASSES),
        pretrained=False,
        output_stride=options.stride,
    ).train()
    if dilated:
        for module in network.modules():
            vars(module).pop("forward", None)  # the class's own remains
    if layout is torch.channels_last:
        network = channels_last(network)
    width, height = options.size
    images = torch.rand(options.batch, 3, height, width).contiguous(memory_format=layout)
    labels = torch.randint(len(CLASSES), (options.batch, height, width))

    def work() -> Numbers:
        network.zero_grad()
        loss = losses.cross_entropy(network(images), labels)
        loss.backward()
        return {"loss": loss.detach()}

    return work


WAYS: dict[str, Way] = {
    PUBLISHED: partial(step, dilated=True, layout=torch.contiguous_format),
    "channels last": partial(step, dilated=True, layout=torch.channels_last),
    "ours": partial(step, dilated=False, layout=torch.channels_last),
}


def main() -> None:
    parser = make_parser(__doc__, turns=5)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="one of timm's")
    parser.add_argument("--stride", type=int, choices=(8, 16), default=8, help="of deep features")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument(
        "--size", type=int, nargs=2, default=[240, 180], metavar=("WIDTH", "HEIGHT")
    )
    compare("depthwise", WAYS, parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
