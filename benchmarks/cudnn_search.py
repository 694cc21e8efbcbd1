"""What cuDNN's search for its fastest algorithms brings to the training steps, and what it costs.

    python -m benchmarks.cudnn_search --device cuda [--turns 10] [--steps STEP ...] [--json FILE]

Our steps (`segmentation_step`, `translation_step`) in the precision of `precision=auto`, at small
sizes and at the paper's, without `torch.backends.cudnn.benchmark` and with it, as `make_fabric`
sets it. Each in a process of its own: what cuDNN has once chosen for a size, with or without
searching, it keeps. `first_seconds` with the search, less those without, is what it takes, once for
each process and size; `device_seconds` of a step are those in which the GPU computed, which decide
where it need not wait. On a CPU both ways are the same.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from bdl.segmentation.networks import Segmenter, build_segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from benchmarks import segmentation_step, translation_step
from benchmarks.common import (
    Measured,
    Work,
    describe,
    in_new_process,
    in_turns,
    make_parser,
    profiled_on_gpu,
    table,
    tell,
)

LITE0 = "timm:tf_efficientnet_lite0"
WAYS = {"without search": False, "with search": True}
_STEPS = 3  # that are profiled


def small_networks() -> tuple[Segmenter, OutputDiscriminator]:
    torch.manual_seed(0)
    classes = segmentation_step.CLASSES
    network = build_segmenter(LITE0, classes, pretrained=False, output_stride=16)
    return network, OutputDiscriminator(classes, 32)


def _segmentation(
    device: str, source: list[int], target: list[int], build: Callable = segmentation_step.networks
) -> Work:
    options = argparse.Namespace(device=device, source=source, target=target)
    return segmentation_step.ours(options, build=build)


def _translation(device: str, crop: int, width: int, blocks: int) -> Work:
    options = argparse.Namespace(device=device, crop=crop, batch=1, width=width, blocks=blocks)
    return translation_step.ours(options)


STEPS: dict[str, Callable[[str], Work]] = {
    "EfficientNet-Lite0, 240x180": partial(
        _segmentation, source=[240, 180], target=[240, 180], build=small_networks
    ),
    "translation, width 16, crop 144": partial(_translation, crop=144, width=16, blocks=3),
    "ResNet-101, 1280x720 and 1024x512": partial(
        _segmentation, source=[1280, 720], target=[1024, 512]
    ),
    "translation, width 64, crop 452": partial(_translation, crop=452, width=64, blocks=9),
}


def measure(step: str, search: bool, device: str, turns: int) -> tuple[Measured, float]:
    """What a step took, and for how many seconds of one the device computed."""
    work = STEPS[step](device)
    torch.backends.cudnn.benchmark = search
    measured = in_turns({step: work}, turns, device)[step]
    return measured, device_seconds(work) if device == "cuda" else 0.0


def device_seconds(work: Work) -> float:
    """For how long the GPU computes when the work is done once."""
    microseconds = sum(
        event.self_device_time_total
        for event in profiled_on_gpu(work, _STEPS)
        if event.device_type.name == "CUDA"
    )
    return microseconds / _STEPS / 1e6


def main() -> None:
    parser = make_parser(__doc__, turns=10)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    options = parser.parse_args()
    ways = {}
    for step in options.steps:
        found = {
            way: in_new_process(measure, step, search, options.device, options.turns)
            for way, search in WAYS.items()
        }
        slow = found["without search"][0].median
        for way, (measured, computed) in found.items():
            ways[f"{step}, {way}"] = {
                "seconds": measured.median,
                "turns": measured.seconds,
                "first_seconds": measured.first,
                "device_seconds": computed,
                "ratio": slow / measured.median,
            }
    result = describe("cudnn_search", options)
    result["ways"] = ways
    result["ratio"] = list(ways.values())[-1]["ratio"]
    head = ["way", "s (median)", "s the first time", "s on the GPU", "ratio"]
    rows = [
        [
            way,
            f"{it['seconds']:.4g}",
            f"{it['first_seconds']:.4g}",
            f"{it['device_seconds']:.4g}",
            f"{it['ratio']:.2f}",
        ]
        for way, it in ways.items()
    ]
    print(table(head, rows), flush=True)
    tell(result, options.json)


if __name__ == "__main__":
    main()
