"""Learning rates that rise from next to nothing in the first steps of a training."""


def warm_up(step: int, warmup_steps: int) -> float:
    """Factor of the learning rate, beside that of the schedule.

    Args:
        step: Counted from 0.
        warmup_steps: In which the rate rises linearly; 0: it is full from the first step on.

    Returns:
        (step + 1) / warmup_steps, at most 1.
    """
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
