"""A step of training and a frozen pass, of networks that one can choose among.

    python -m benchmarks.network_step [--device cuda] [--size 256 128] [NAME ...]

Two source and two target images of --size (width, height), as some networks normalise over a batch
and cannot train on one, with all terms of the loss; then a pass of the frozen network over two
images and back to them, as the translator's training has it. From random weights: time and memory
do not depend on them. Each network has a process of its own; its peak memory while it trains is
with that of Python and the libraries. Writes a table in Markdown.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bdl.runtime.config import AdversarialConfig, Config, OptimizerConfig
from bdl.runtime.console import Console
from bdl.runtime.device import channels_last, make_fabric
from bdl.runtime.memory import PeakMemory
from bdl.runtime.run import Run
from bdl.segmentation.network_name import without_fetching
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.predict import frozen_scores
from bdl.segmentation.train import SegmentationStep, Target
from benchmarks.common import exit_status, in_new_process

CLASSES = 19
# In the order of docs/networks.md.
NETWORKS = (
    "compact",
    "timm:tf_efficientnet_lite0",
    "timm:mobilenetv3_large_100",
    "timm:resnet50",
    "deeplab_v2",
    "fcn8s_vgg16",
    "timm:convnext_tiny",
    "timm:pvt_v2_b2",
    "timm:swin_tiny_patch4_window7_224",
    "timm:caformer_s18",
    "timm:vit_small_patch14_reg4_dinov2",
    "timm:vit_base_patch14_reg4_dinov2",
    "timm:vit_small_patch16_dinov3",
    "smp:Unet/resnet34",
    "smp:FPN/efficientnet-b0",
    "smp:DeepLabV3Plus/resnet50",
    "smp:UPerNet/tu-convnext_tiny",
    "smp:Segformer/mit_b0",
    "smp:Segformer/mit_b2",
    "smp:Segformer/mit_b5",
)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Parameters, seconds of both passes and the process's peak memory in bytes."""
    torch.set_num_threads(options.threads)
    fabric = make_fabric(Config(device=options.device, precision=options.precision))
    torch.manual_seed(0)
    network = build_segmenter(name, CLASSES, **without_fetching(name, {}))
    parameters = sum(p.numel() for p in network.parameters())
    width, height = options.size
    images = fabric.to_device(torch.rand(2, 3, height, width))
    images = images.contiguous(memory_format=torch.channels_last)
    labels = fabric.to_device(torch.randint(0, CLASSES, (2, height, width)))
    run = Run(Path(), fabric, Console(speaking=False))
    judge = OutputDiscriminator(CLASSES)
    learn = SegmentationStep(run, OptimizerConfig(), network, AdversarialConfig(), judge)
    peak = PeakMemory()
    target = Target(images, labels)
    step = clock(lambda: learn((images, labels), target, 1.0), fabric, options.turns)
    memory = peak.read()
    scores = frozen_scores(fabric, channels_last(network))

    def look() -> None:
        given = images.clone().requires_grad_()
        with fabric.autocast():
            made = scores(given)
        made.float().square().mean().backward()

    frozen = clock(look, fabric, options.turns)
    return {
        "parameters": parameters,
        "step": step,
        "frozen": frozen,
        "memory": list(memory.values())[-1],
    }


def clock(work: Any, fabric: Any, turns: int) -> float:
    """The median seconds of `work`, after one that does not count. On the CPU those of the process:
    other work on the machine is not in them."""
    on_gpu = fabric.device.type == "cuda"
    now = time.perf_counter if on_gpu else time.process_time
    seconds = []
    for _ in range(turns + 1):
        begun = now()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(now() - begun)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print("| network | parameters | step, s | frozen pass, s | memory, GB |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for name in options.names:
        measured = in_new_process(measure, name, options)
        print(
            f"| `{name}` | {measured['parameters'] / 1e6:.1f} M | {measured['step']:.2f} | "
            f"{measured['frozen']:.2f} | {measured['memory'] / 1e9:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(exit_status(main))
