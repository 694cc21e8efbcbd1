"""The learning rate of a segmentation network's training."""

from bdl.runtime.config import ScheduleConfig
from bdl.segmentation.warm_up import warm_up


def rate_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Factor of the learning rates in a step.

    poly: (1 - step / S)^power; step: `gamma` for every S steps. Both rise from next to nothing in
    the first `warmup_steps`.

    Args:
        schedule: Its `steps` are S; without them S are the training's.
        step: Counted from 0.
        steps: Steps of the training.

    Returns:
        A factor in [0, 1] with poly, at most a power of `gamma` with step.
    """
    length, risen = schedule.steps or steps, warm_up(step, schedule.warmup_steps)
    if schedule.name == "poly":
        return risen * max(0.0, 1 - step / length) ** schedule.power
    return risen * schedule.gamma ** (step // length)
