"""A plan for a problem and a machine: crop, batch, steps, sampling and precision, by rules.

What is measured comes in as numbers. Every rule is a pure function, and every value says by which
rule it came about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from bdl.domains.rules import FEW, keeps_statistics

MEMORY_USED = 0.85  # of what a device has: the rest is for what varies from step to step
_MOST_BATCH = 8  # more images of a step bring less than more steps do
_RARE = 0.05  # share of the labelled pixels below which a class is rare
_LEAST_STEPS, _LEAST_EPOCH = 100, 10  # steps of a training, and of a translator's epoch
_MOST_PASSES = 400  # over the source, in a training


@dataclass(frozen=True)
class Planned:
    """A setting of a plan.

    Args:
        key: Its dotted key.
        value: Its value.
        rule: How it came about, in a few words.
        reason: Why that rule.
    """

    key: str
    value: Any
    rule: str
    reason: str

    @property
    def setting(self) -> str:
        """As the command line takes it."""
        value = self.value
        if isinstance(value, tuple):
            value = f"[{','.join(map(str, value))}]"
        if value is None or isinstance(value, bool):
            value = {None: "null", True: "true", False: "false"}[value]
        return f"{self.key}={value}"


@dataclass(frozen=True)
class Line:
    """What grows with the pixels of a step.

    Args:
        base: Its value without any.
        slope: Its growth a pixel, 0 or more.
    """

    base: float
    slope: float

    @classmethod
    def through(cls, first: tuple[float, float], second: tuple[float, float]) -> "Line":
        """The line through two measured points, (pixels, value) each. Where the value does not
        grow, as measurements vary, it is that of the more pixels."""
        (few, low), (many, high) = sorted((first, second))
        slope = (high - low) / (many - few) if many > few else 0.0
        if slope <= 0:
            return cls(high, 0.0)
        return cls(max(0.0, high - slope * many), min(slope, high / many))

    def at(self, pixels: float) -> float:
        """Its value."""
        return self.base + self.slope * pixels

    def most(self, value: float) -> float:
        """The pixels at which it reaches `value`; infinite where it does not grow."""
        return max(0.0, value - self.base) / self.slope if self.slope else float("inf")


@dataclass(frozen=True)
class Machine:
    """What computes.

    Args:
        memory: Its memory in bytes; None where the system does not tell.
        grows: Whether memory is what limits it, as on a GPU, and not time.
        bf16: Whether it computes in bf16.
        processes: How many share a step, each the same number of its images.
    """

    memory: int | None
    grows: bool
    bf16: bool
    processes: int


@dataclass(frozen=True)
class Work:
    """What a run does with the planned crops and batches.

    Args:
        images: Seconds of what trains nothing: translating, labelling, measuring.
        trainings: Seconds of all trainings at the configured steps.
        source: Number of source images.
    """

    images: float
    trainings: float
    source: int


def plan_crop(
    key: str,
    crop: tuple[int, int],
    largest: tuple[int, int],
    batch: int,
    memory: Line,
    machine: Machine,
) -> Planned:
    """The largest crop of a shape that memory allows.

    Args:
        key: Its key.
        crop: Width and height in pixels, as configured.
        largest: What fits into every image at the smallest zoom.
        batch: Images of a step.
        memory: Bytes by the pixels of a step.
        machine: What computes.
    """
    reason = f"at most {MEMORY_USED:.0%} of the memory"
    allowed = _allowed(memory, machine) / batch
    factor = sqrt(allowed / (crop[0] * crop[1]))
    if factor < 1:
        return Planned(key, _cut(crop, factor), "smaller: memory", reason)
    if not machine.grows:
        reason = "without a GPU time is short, not memory"
        return Planned(key, crop, "as configured", reason)
    factor = min(factor, *(most / side for most, side in zip(largest, crop, strict=True)))
    if factor < 1.1:
        return Planned(key, crop, "as configured", f"larger crops do not fit: images, or {reason}")
    return Planned(key, _cut(crop, factor), "the largest that fits", "context helps; " + reason)


def plan_batch(
    key: str, batch: int, crop: tuple[int, int], memory: Line, machine: Machine
) -> Planned:
    """As many images of a step as memory allows beside that crop, a multiple of the processes that
    share them; arguments as in `plan_crop`."""
    most = _allowed(memory, machine) / (crop[0] * crop[1])
    reason = "after the crop, which goes first"
    if most < batch:
        images, rule = int(most), "smaller: memory"
    elif machine.grows:
        images = max(batch, int(min(most, _MOST_BATCH)))
        rule = f"as many as fit, to {_MOST_BATCH}"
    else:
        images, rule, reason = batch, "as configured", "without a GPU more steps bring more"
    each = max(1, images // machine.processes)
    return Planned(key, each * machine.processes, rule, reason)


def plan_statistics(batch: int, flat: bool) -> Planned:
    """Whether batch norm keeps the statistics of pretrained weights; arguments as those of
    `keeps_statistics`."""
    rule, reason = f"a batch of {FEW} or more", "those of few images are poor, these are not"
    if flat:
        rule, reason = "a flat source", "the weights' are those of photos"
    elif batch < FEW:
        rule, reason = f"a batch below {FEW}", "the statistics of few images are poor"
    key = "segmentation.options.frozen_statistics"
    return Planned(key, keeps_statistics(batch, flat), rule, reason)


def plan_length(
    work: Work, lengths: Mapping[str, int], hours: float | None
) -> tuple[list[Planned], float]:
    """Steps that take a number of hours, all trainings in the shares in which they are configured.

    Args:
        work: What the run does.
        lengths: Configured steps of a training or of a translator's epoch, by key.
        hours: How long the run may take; None: as long as its steps do.

    Returns:
        The plan, and the hours that it takes.
    """
    factor = 1.0
    if hours is not None and work.trainings > 0:
        factor = max(0.0, hours * 3600 - work.images) / work.trainings
    planned = []
    for key, steps in lengths.items():
        chosen, rule, reason = steps, "as configured", "no hours were asked for"
        if hours is not None:
            least = _LEAST_EPOCH if key.endswith("epoch") else _LEAST_STEPS
            most = max(least, _MOST_PASSES * work.source)
            chosen, rule = int(factor * steps), f"what {hours:g} hours allow"
            reason = "all trainings in the shares in which they are configured"
            if not least <= chosen <= most:
                chosen = min(max(chosen, least), most)
                rule = f"at least {least} steps, at most {_MOST_PASSES} passes over the source"
                reason = "fewer teach nothing, more bring nothing"
        planned.append(Planned(key, chosen, rule, reason))
    longest = max((item.value / lengths[item.key] for item in planned), default=1.0)
    return planned, (work.images + longest * work.trainings) / 3600


def plan_schedule(steps: int | None) -> Planned:
    """Where the learning rate ends, or drops: it follows trainings of other lengths."""
    rule = "as configured" if steps is None else "follows the trainings"
    return Planned("segmentation.schedule.steps", None, rule, "the rate ends when they do")


def plan_sampling(shares: Mapping[str, float], images: Mapping[str, int], mixes: bool) -> Planned:
    """Whether classes of the source are pasted onto target images.

    Args:
        shares: Of each class, the share of the labelled pixels, 0 to 1.
        images: Of each class, the number of label files that hold it.
        mixes: Whether it is configured.
    """
    key = "segmentation.class_mixing"
    rare = [
        f"{name} {100 * share:.1f} % in {images[name]} images"
        for name, share in shares.items()
        if 0 < share < _RARE
    ]
    if not rare:
        return Planned(key, mixes, "as configured", "no class is rare")
    rule = f"a class below {_RARE:.0%} of the pixels"
    return Planned(key, True, rule, f"what is pasted has it often: {', '.join(rare)}")


def plan_precision(precision: str, machine: Machine) -> Planned:
    """bf16 where the hardware computes in it."""
    told = "bf16 here" if machine.bf16 else "float32 here"
    if precision in ("auto", "32-true"):
        return Planned("precision", "auto", "by hardware", told)
    return Planned("precision", precision, "as configured", "chosen by hand")


def overrides(planned: Sequence[Planned], configured: Mapping[str, Any]) -> list[str]:
    """What of a plan is not configured already, as settings of the command line."""
    return [item.setting for item in planned if item.value != configured.get(item.key)]


def _allowed(memory: Line, machine: Machine) -> float:
    """Pixels of a step."""
    if machine.memory is None:
        return float("inf")
    return memory.most(MEMORY_USED * machine.memory)


def _cut(crop: tuple[int, int], factor: float) -> tuple[int, int]:
    """The crop times `factor`, down to multiples of 8, at least 32 pixels a side or as it was."""
    width, height = (max(min(side, 32), int(factor * side) // 8 * 8) for side in crop)
    return width, height
