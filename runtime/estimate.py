"""How long the rest of a run takes, from how long its stages took so far."""

from collections.abc import Iterable

from bdl.runtime.stage import Stage


class TimeLeft:
    """Seconds per unit of work of each kind of stage, learned from the stages that are done."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def learn(self, stage: Stage, seconds: float) -> None:
        """A stage took that long; the latest of a kind counts."""
        self._seconds[stage.kind] = seconds / max(1, stage.work)

    def of(self, stages: Iterable[Stage]) -> float | None:
        """Seconds that `stages` will take; None while a kind among them is unknown."""
        total = 0.0
        for stage in stages:
            if stage.kind not in self._seconds:
                return None
            total += self._seconds[stage.kind] * stage.work
        return total
