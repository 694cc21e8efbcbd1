"""What a step of a recipe's segmentation training takes, from steps on small images.

    python -m benchmarks.recipe_step RECIPE ... [--sizes 112 224] [--json FILE]

Takes a step of the recipe's network and terms, with pseudo labels, on one square image of each
domain, of two sizes, and extrapolates to the recipe's crop and batch: memory and seconds are taken
for a constant and a part for each pixel, which is too little where each pixel attends to all. From
random weights, in a process of its own for each size. What comes out was never measured as a whole.
"""

import argparse
import statistics
import sys
import time
from typing import Any

import torch

from bdl.runtime.config import load_config
from bdl.runtime.files import write_json
from bdl.runtime.memory import PeakMemory
from benchmarks.common import describe, exit_status, in_new_process, make_parser, synchronize, table
from benchmarks.steps import make_run, recipe_config, segmentation_batch, segmentation_step


def measure(recipe: str, side: int, options: argparse.Namespace, threads: int) -> tuple[float, int]:
    """Seconds of a step (on the CPU those of the process), and its peak memory in bytes."""
    torch.set_num_threads(threads)
    small = [f"segmentation.augmentation.crop=[{side},{side}]", "segmentation.batch_size=1"]
    config = recipe_config(recipe, small, options.device, options.precision)
    run = make_run(config)
    learn, (source, target) = segmentation_step(config, run), segmentation_batch(config, run)
    seconds, peak = [], PeakMemory()
    now = time.perf_counter if options.device == "cuda" else time.process_time
    for _ in range(options.turns + 1):  # the first begins the optimizer, and does not count
        begun = now()
        learn(source, target, 1.0)
        synchronize(options.device)
        seconds.append(now() - begun)
    return statistics.median(seconds[1:]), list(peak.read().values())[-1]


def extrapolated(pixels: tuple[int, int], measured: tuple[float, float], wanted: int) -> float:
    """What is expected of `wanted` pixels, from what was measured with two other numbers of them:
    a constant and a part for each pixel."""
    slope = (measured[1] - measured[0]) / (pixels[1] - pixels[0])
    return measured[0] + slope * (wanted - pixels[0])


def of_recipe(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's "batch" and "crop", "seconds" and "memory" of a step with them, extrapolated,
    and "measured", those of one image of each of the sizes."""
    config = load_config(recipe).segmentation
    assert config.augmentation.crop is not None, f"{recipe} has no crop"
    width, height = config.augmentation.crop
    small, large = options.sizes
    seconds, memory = zip(
        *(
            in_new_process(measure, recipe, side, options, torch.get_num_threads())
            for side in (small, large)
        ),
        strict=True,
    )
    pixels, wanted = (small**2, large**2), width * height * config.batch_size
    return {
        "network": config.network,
        "batch": config.batch_size,
        "crop": [width, height],
        "seconds": extrapolated(pixels, seconds, wanted),
        "memory": extrapolated(pixels, memory, wanted),
        "measured": {
            f"{side}x{side}": {"seconds": s, "memory": m}
            for side, s, m in zip(options.sizes, seconds, memory, strict=True)
        },
    }


def main() -> None:
    parser = make_parser(str(__doc__), turns=1)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--sizes", type=int, nargs=2, default=[112, 224], help="pixels a side")
    options = parser.parse_args()
    recipes = {recipe: of_recipe(recipe, options) for recipe in options.recipes}
    rows = [
        [recipe, f"{made['batch']}", f"{made['seconds']:.3g}", f"{made['memory'] / 1e9:.3g}"]
        for recipe, made in recipes.items()
    ]
    print(table(["recipe", "batch", "s a step, extrapolated", "GB, extrapolated"], rows))
    if options.json is not None:
        write_json(options.json, {**describe("recipe_step", options), "recipes": recipes})


if __name__ == "__main__":
    sys.exit(exit_status(main))
