"""`check --fit`: a plan for the data and this machine, from a look at one and a trial of the other.

It prints settings that can be copied, and changes no file. A setting that is given on the command
line stays as it is given.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

from bdl.commands.trial import Cost, costs_of, describe_costs
from bdl.domains.fitting import (
    Line,
    Machine,
    Planned,
    Work,
    overrides,
    plan_batch,
    plan_crop,
    plan_length,
    plan_precision,
    plan_sampling,
    plan_schedule,
    plan_statistics,
)
from bdl.domains.looks import Looks, look_at_images
from bdl.domains.problem import Problem
from bdl.domains.rules import is_far, is_flat
from bdl.domains.views import View
from bdl.runtime.config import Config
from bdl.runtime.config_keys import set_value, value_at
from bdl.runtime.console import log
from bdl.runtime.device import make_fabric, resolve_precision
from bdl.runtime.memory import total_memory
from bdl.runtime.stage import Stage

_OPTIONS = "segmentation.options."
_CROPS = {"translation": "translation.crop", "segmentation": "segmentation.augmentation.crop"}
# Kinds of stages that say what a step of a section's trainings costs; the dearest first.
_KINDS = {
    "translation": ["translator"],
    "segmentation": ["segmentation-i", "segmentation-0", "source-only"],
}
_LEAST_TRIED = 32  # pixels of a side of the smaller crop that is tried


@dataclass(frozen=True)
class Classes:
    """What the source's labels hold.

    Args:
        shares: Of each class, the share of the labelled pixels, 0 to 1.
        images: Of each class, the number of label files that hold it.
    """

    shares: Mapping[str, float]
    images: Mapping[str, int]


@dataclass(frozen=True)
class Trials:
    """What steps cost, measured at two sizes of crops.

    Args:
        config, small: The run, and the same with smaller crops.
        costs, smaller: What both cost, by kind of stage.
    """

    config: Config
    small: Config
    costs: Mapping[str, Cost]
    smaller: Mapping[str, Cost]

    def memory(self, kind: str) -> Line:
        """Bytes by the pixels of a step of a kind."""
        return self._line(kind, lambda cost: float(cost.memory or 0))

    def seconds(self, kind: str) -> Line:
        """Seconds likewise."""
        return self._line(kind, lambda cost: cost.seconds)

    def _line(self, kind: str, value: Any) -> Line:
        section = "translation" if kind == "translator" else "segmentation"
        return Line.through(
            (pixels_of_a_step(self.small, section), value(self.smaller[kind])),
            (pixels_of_a_step(self.config, section), value(self.costs[kind])),
        )


def fit(
    config: Config,
    problem: Problem,
    to_run: Sequence[Stage],
    hours: float | None,
    settings: Sequence[str],
) -> list[Planned]:
    """Look, measure, decide and print.

    Args:
        config: The run.
        problem: Its data sets.
        to_run: The stages that are to run.
        hours: How long they may take; None: as their steps do.
        settings: Those of the command line, KEY=VALUE.

    Returns:
        What was decided.

    Raises:
        UserError: A trial does not fit into memory.
    """
    classes = look_at_classes(problem)
    for line in describe_data(problem, classes):
        log.info("%s", line)
    looks = look_at_roles(problem)
    if looks is not None:
        word = "far apart" if is_far(looks) else "near"
        distance = looks.color_distance
        log.info("colours: %.1f levels of 255 from source to target, %s", distance, word)
    wanted = {stage.cost for stage in to_run}
    small = with_smaller_crops(config)
    costs, device = costs_of(config, wanted)
    steps = {stage.cost for stage in to_run if stage.unit == "steps"}
    trials = Trials(config, small, costs, costs_of(small, steps)[0])
    machine = _machine(config)
    log.info("%s", describe_costs(costs, to_run, machine.processes, device))
    given = {setting.partition("=")[0] for setting in settings}
    planned: list[Planned] = []

    def take(items: Sequence[Planned]) -> None:
        planned.extend(item for item in items if item.key not in given)

    for section, kinds in _KINDS.items():
        kind = next((name for name in kinds if name in costs), None)
        if kind is None or value_at(config, _CROPS[section]) is None:
            continue
        memory, batch = trials.memory(kind), value_at(config, f"{section}.batch_size")
        crop, key = value_at(config, _CROPS[section]), _CROPS[section]
        take([plan_crop(key, crop, largest_crop(config, problem, section), batch, memory, machine)])
        crop = value_at(applied(config, planned), key)
        take([plan_batch(f"{section}.batch_size", batch, crop, memory, machine)])
    segmentation = applied(config, planned).segmentation
    if looks is not None and segmentation.network.startswith(("timm:", "smp:")):
        take([plan_statistics(segmentation.batch_size, is_flat(looks))])
    if config.iterations * config.self_training_steps:
        take([plan_sampling(classes.shares, classes.images, segmentation.class_mixing)])
    take([plan_precision(config.precision, machine)])
    fitted = applied(config, planned)
    lengths = {
        key: length
        for key in (
            "segmentation.steps",
            "segmentation.pseudo_label_steps",
            "translation.steps_per_epoch",
        )
        if key not in given and (length := value_at(config, key)) is not None
    }
    lengths_planned, needed = plan_length(
        _work(fitted, problem, to_run, trials, machine.processes), lengths, hours
    )
    planned += lengths_planned
    if hours is not None and config.segmentation.schedule.name == "poly":
        take([plan_schedule(config.segmentation.schedule.steps)])
    _tell(config, planned, sorted(given))
    log.info("it takes about %.2f hours on this machine", needed)
    if hours is not None and needed > hours:
        log.warning("warning: that is more than %g hours, and fewer steps teach nothing", hours)
    return planned


def pixels_of_a_step(config: Config, section: str) -> int:
    """Those of one domain; 1 where images are not cut, and so of sizes of their own."""
    crop = value_at(config, _CROPS[section])
    return prod(crop) * value_at(config, f"{section}.batch_size") if crop else 1


def with_smaller_crops(config: Config) -> Config:
    """The same with crops of half the sides, so far as the networks take them."""
    small = deepcopy(config)
    for key in _CROPS.values():
        if (crop := value_at(config, key)) is not None:
            half = tuple(max(min(side, _LEAST_TRIED), side // 8 * 4) for side in crop)
            set_value(small, key, half)
    return small


def applied(config: Config, planned: Sequence[Planned]) -> Config:
    """The configuration with a plan's values."""
    fitted = deepcopy(config)
    for item in planned:
        if item.key.startswith(_OPTIONS):
            fitted.segmentation.options[item.key.removeprefix(_OPTIONS)] = item.value
        else:
            set_value(fitted, item.key, item.value)
    return fitted


def look_at_classes(problem: Problem) -> Classes:
    """What all of the source's labels hold; nothing of labels that are not yet rendered."""
    if problem.is_rendered("source"):
        return Classes({}, {})
    table, names = problem.table("source"), problem.space.names
    files = [sample.label for sample in problem.samples("source") if sample.label is not None]
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for look in problem.index.ids(files, "data.source", problem.is_by_color("source")):
        held: Counter[int] = Counter()
        for stored, count in look.counts.items():
            held[int(table[stored])] += count
        pixels.update(held)
        images.update(held.keys())
    total = max(1, sum(pixels[number] for number in range(len(names))))
    return Classes(
        {name: pixels[number] / total for number, name in enumerate(names)},
        {name: images[number] for number, name in enumerate(names)},
    )


def describe_data(problem: Problem, classes: Classes) -> list[str]:
    """Lines about sizes and classes, so far as files are there."""
    lines = []
    for role in ("source", "target"):
        if role not in problem.roles or problem.is_rendered(role):
            continue
        inspected = problem.inspect(role)
        width, height = (statistics.median_low(side) for side in zip(*inspected.sizes, strict=True))
        lines.append(f"{role}: {len(inspected.samples)} images, median {width}x{height}")
    if classes.shares:
        told = [
            f"{name} {100 * share:.1f} % in {classes.images[name]} images"
            for name, share in classes.shares.items()
        ]
        lines.append(f"the source's labels: {', '.join(told)}")
    return lines


def look_at_roles(problem: Problem) -> Looks | None:
    """How source and target look; None without a target, or while images are not yet rendered."""
    looks = []
    for role in ("source", "target"):
        if role not in problem.roles or problem.is_rendered(role):
            return None
        inspected = problem.inspect(role)
        files = [sample.image for sample in inspected.samples]
        looks.append(look_at_images(files, inspected.orientation))
    counts = {role: len(problem.samples(role)) for role in ("source", "target")}
    return Looks.of(counts, *looks)


def largest_crop(config: Config, problem: Problem, section: str) -> tuple[int, int]:
    """Width and height of the largest crop that fits into every image of source and target."""
    zoom, square = config.segmentation.augmentation.scale[0], section == "translation"
    sides: list[tuple[int, int]] = []
    for role in problem.roles:
        if role == "validation":
            continue
        view = problem.view(role)
        stored = [problem.size(role) or (192, 96)]
        if not problem.is_rendered(role):
            stored = list(problem.inspect(role).sizes)
        if square:
            view, zoom = View(width=config.translation.load_width), 1.0
        sides += map(view.full_size, stored)
    width, height = (int(zoom * min(side[axis] for side in sides)) for axis in (0, 1))
    return (min(width, height),) * 2 if square else (width, height)


def _machine(config: Config) -> Machine:
    automatic = deepcopy(config)
    automatic.precision = "auto"
    device = make_fabric(config).device
    bf16 = resolve_precision(automatic) == "bf16-mixed"
    processes = config.devices * config.nodes
    return Machine(total_memory(device), device.type == "cuda", bf16, processes)


def _work(
    fitted: Config, problem: Problem, to_run: Sequence[Stage], trials: Trials, processes: int
) -> Work:
    """What the stages take at the planned crops and batches."""
    images = trainings = 0.0
    for stage in to_run:
        if stage.cost not in trials.costs:
            continue  # a network that is given
        if stage.unit == "steps":
            section = "translation" if stage.cost == "translator" else "segmentation"
            pixels = pixels_of_a_step(fitted, section)
            trainings += trials.seconds(stage.cost).at(pixels) * stage.work
        else:
            images += trials.costs[stage.cost].seconds * stage.work / processes
    return Work(images, trainings, problem.source.count)


def _tell(config: Config, planned: Sequence[Planned], given: Sequence[str]) -> None:
    log.info("the plan:")
    for item in planned:
        log.info("  %s: %s; %s", item.setting, item.rule, item.reason)
    for key in given:
        log.info("  %s: as given", key)
    configured = {
        item.key: config.segmentation.options.get(item.key.removeprefix(_OPTIONS))
        if item.key.startswith(_OPTIONS)
        else value_at(config, item.key)
        for item in planned
    }
    if settings := overrides(planned, configured):
        log.info("to use it, add to the command: %s", " ".join(settings))
    else:
        log.info("it is what the configuration has")
