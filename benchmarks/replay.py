"""Replayed steps beside computed ones: the time of each, and whether they learn the same.

    python -m benchmarks.replay --device cuda --step translation [--recipe NAME] [key=value ...]

A step of the recipe in its sizes, computed and replayed (`replay=true`), in the precision of
`precision=auto`. "busy" is the share of a step's time in which the GPU computed. Then `--steps`
steps are made three times from the same networks and images, at rates that fall, twice computed and
once replayed; in the middle a new step goes on from the saved state. `apart` says by how much
losses (at the most) and weights, buffers and optimizers' state (Euclidean distances) differ from
those computed first: for the other computed steps, which is the spread of computing, and for the
replayed ones. `moved` is by how much they changed in all. On a CPU nothing is replayed, and all are
the same.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bdl.runtime.config import Config
from bdl.runtime.replay import Replay, distance
from bdl.runtime.training import TrainingStep
from benchmarks import steps
from benchmarks.common import (
    Numbers,
    describe,
    device_seconds,
    exit_status,
    in_turns,
    make_parser,
    table,
    tell,
    until_replayed,
)

COMPUTED, REPLAYED = "computed", "replayed"


def build(config: Config, step: str, replayed: bool) -> TrainingStep:
    """The step, from networks that are the same each time."""
    make = steps.translation_step if step == "translation" else steps.segmentation_step
    return make(config, steps.make_run(config, replayed))


def batch(config: Config, step: str) -> tuple[Any, Any]:
    """A batch of both domains, on the device."""
    make = steps.translation_batch if step == "translation" else steps.segmentation_batch
    return make(config, steps.make_run(config))


@dataclass
class Learned:
    """What a number of steps made: the losses of each, and by kind what was learned."""

    losses: list[dict[str, float]]
    state: dict[str, list[Tensor]]


def learn(
    config: Config, options: argparse.Namespace, replayed: bool
) -> tuple[Learned, Learned, int]:
    """Make the steps, with a new beginning in the middle.

    Returns:
        What they made, what there was before, and how many were replayed.
    """
    source, target = batch(config, options.step)
    step, counted, losses = build(config, options.step, replayed), 0, []
    before = Learned([], state_of(step))
    for number in range(options.steps):
        if number == options.steps // 2:
            counted += step.replay.replayed
            step = resumed(build(config, options.step, replayed), step)
        terms = step(source, target, 1 - number / options.steps)
        losses.append(terms)
    counted += step.replay.replayed
    read = [{name: loss.item() for name, loss in terms.items()} for terms in losses]
    return Learned(read, state_of(step)), before, counted


def resumed(step: TrainingStep, before: TrainingStep) -> TrainingStep:
    """A new step that goes on from the state of another, as from a saved one."""
    for name, learned in {**step.shared, **step.own}.items():
        state = {**before.shared, **before.own}[name].state_dict()
        learned.load_state_dict(copy.deepcopy(state))
    return step


def state_of(step: TrainingStep) -> dict[str, list[Tensor]]:
    """Weights, buffers and the optimizers' state, copies in main memory."""
    kinds: dict[str, list[Tensor]] = {"weights": [], "buffers": [], "optimizers": []}
    for learned in step.shared.values():
        if isinstance(learned, nn.Module):
            kinds["weights"] += learned.parameters()
            kinds["buffers"] += learned.buffers()
        else:
            kinds["optimizers"] += Replay([learned], torch.device("cpu"), None).tensors()
    return {
        kind: [tensor.detach().to("cpu", copy=True) for tensor in tensors]
        for kind, tensors in kinds.items()
    }


def apart(one: Learned, other: Learned) -> dict[str, float]:
    """By how much losses differ at the most, and the distances of what was learned."""
    losses = max(
        abs(a[name] - b[name]) for a, b in zip(one.losses, other.losses, strict=True) for name in a
    )
    return {
        "losses": losses,
        **{kind: distance(values, other.state[kind]) for kind, values in one.state.items()},
    }


def timed(config: Config, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds a step, and the share of them in which a GPU computes, of both ways."""
    source, target = batch(config, options.step)

    def work(replayed: bool) -> Callable[[], Numbers]:
        step = build(config, options.step, replayed)
        once = lambda: step(source, target, 1.0)  # noqa: E731
        return until_replayed(once, step.replay) if replayed else once

    works = {COMPUTED: work(False), REPLAYED: work(True)}
    measured = in_turns(works, options.turns, options.device)
    ways = {}
    for way, timing in measured.items():
        busy = device_seconds(works[way]) / timing.median
        ways[way] = {"seconds": timing.median, "first_seconds": timing.first, "busy": busy}
        ways[way]["ratio"] = measured[COMPUTED].median / timing.median
    return ways


def main() -> None:
    parser = make_parser(str(__doc__), turns=10)
    parser.add_argument("--recipe", default="gta5_cityscapes_deeplab", help="(default %(default)s)")
    parser.add_argument("--step", choices=("translation", "segmentation"), required=True)
    parser.add_argument("--steps", type=int, default=24, help="that learn (default 24)")
    parser.add_argument("--search", action="store_true", help="cuDNN searches for its algorithms")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of the recipe")
    options = parser.parse_intermixed_args()
    torch.backends.cudnn.benchmark = options.search
    config = steps.recipe_config(options.recipe, options.settings, options.device, "auto")
    ways = timed(config, options)
    first, before, _ = learn(config, options, False)
    second, _, _ = learn(config, options, False)
    replayed, _, counted = learn(config, options, True)
    before.losses = first.losses
    before.state["optimizers"] = [torch.zeros_like(t) for t in first.state["optimizers"]]
    result = describe("replay", options)
    result |= {
        "ways": ways,
        "apart": {COMPUTED: apart(first, second), REPLAYED: apart(first, replayed)},
        "moved": apart(first, before),
        "replayed_steps": counted,
        "ratio": ways[REPLAYED]["ratio"],
    }
    rows = [
        [way, f"{it['seconds']:.4g}", f"{it['first_seconds']:.4g}", f"{it['busy']:.2f}"]
        for way, it in ways.items()
    ]
    print(table(["way", "s (median)", "s the first time", "GPU busy"], rows), flush=True)
    numbers = {**result["apart"], "moved": result["moved"]}
    rows = [
        [name, *(f"{value:.3g}" for value in values.values())] for name, values in numbers.items()
    ]
    print(table(["apart", *numbers["moved"]], rows), flush=True)
    print(f"{counted} of {options.steps} steps were replayed")
    tell(result, options.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
