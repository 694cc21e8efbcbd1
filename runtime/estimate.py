"""How long the rest of a run takes: from a trial of each kind of step, then from what is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from bdl.runtime.stage import Stage

if TYPE_CHECKING:
    from torch import device

_LONG = 5.0  # seconds after which a step is not tried once more
_ENOUGH = 0.5  # seconds, and no more than that many steps of less: the fastest tells
_STEPS = 5
# What an image costs while no stage of its kind is done, in steps of a training: roughly, as these
# stages take a small part of a run.
_IN_STEPS = {
    "evaluate": ("segment", 1.0),
    "pseudo-label": ("segment", 1.0),
    "export": ("translate", 0.3),
    "measure": ("translate", 0.3),
    "given": ("segment", 0.0),
}


class TimeLeft:
    """Seconds per unit of work of each kind of stage: a trial's, until one of the kind is done."""

    def __init__(self) -> None:
        self._by_cost: dict[str, float] = {}
        self._by_kind: dict[str, float] = {}

    def learn(self, stage: Stage, seconds: float) -> None:
        """A stage took that long; the latest of a kind counts."""
        each = seconds / max(1, stage.work)
        self._by_cost[stage.cost] = self._by_kind[stage.kind] = each

    def try_out(self, stages: Iterable[Stage], trial: Callable[[Stage], float | None]) -> None:
        """Learn from a trial of each kind of stage of which nothing is known.

        Args:
            stages: Those that are to be made.
            trial: Gives the seconds of a unit of a stage's work; None if it has no trial.
        """
        for stage in stages:
            if stage.cost not in self._by_cost:
                seconds = trial(stage)
                if seconds is not None:
                    self._by_cost[stage.cost] = seconds
                    self._by_kind.setdefault(stage.kind, seconds)

    def of(self, stages: Iterable[Stage]) -> float | None:
        """Seconds that `stages` will take; None while a kind among them is unknown."""
        total = 0.0
        for stage in stages:
            seconds = self._seconds(stage)
            if seconds is None:
                return None
            total += seconds * stage.work
        return total

    def _seconds(self, stage: Stage) -> float | None:
        for known in (self._by_cost.get(stage.cost), self._by_kind.get(stage.kind)):
            if known is not None:
                return known
        like, steps = _IN_STEPS.get(stage.kind, ("", 0.0))
        return steps * self._by_kind[like] if like in self._by_kind else None


def seconds_of(step: Callable[[], object], device: device) -> float:
    """How long a step of a training takes, from a few of them.

    Args:
        step: Does it.
        device: Where it computes.
    """

    def once() -> float:
        began = time.monotonic()
        step()
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
        return time.monotonic() - began

    first = once()  # buffers are made and algorithms chosen
    if first > _LONG:
        return first
    others = [once(), once()]
    while sum(others) < _ENOUGH and len(others) < _STEPS:
        others.append(once())
    return min(others)
