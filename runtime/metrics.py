"""What stages measure, as values; stored as JSON beside what they made."""

from dataclasses import dataclass, field


@dataclass
class Metrics:
    """What any stage says of its work.

    Args:
        warnings: What is wrong though the stage was made, a line each.
    """

    warnings: list[str] = field(default_factory=list)


@dataclass
class TrainingMetrics(Metrics):
    """A training's curves.

    Args:
        steps: Steps that were made.
        replayed: How many of them the process that finished replayed instead of computing them.
        curves: Rows by rising "step": the mean of every loss term since the row before, and the
            learning rate "lr".
        validation: Rows by rising "step": what was measured on validation images then.
    """

    steps: int = 0
    replayed: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
