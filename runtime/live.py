"""What a training shows while it lasts, at next to no cost to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_SECONDS_BETWEEN = 30.0  # from one look to the next, at least
_SECONDS_BEFORE = 10.0  # from the beginning to the first look: nobody has seen anything yet
_SHARE = 0.01  # of the time that has passed, which looks may take at most


@dataclass(frozen=True)
class Sample:
    """What a network in training makes of an image that stays the same.

    Args:
        name: Of the image.
        before: The image, H x W x 3 uint8.
        after: What is made of it, the same.
    """

    name: str
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Args:
        done: Steps that are done.
        steps: Steps in all.
        curves: Rows of the curves so far, as in its metrics.
        validation: Rows of what validation images gave so far, likewise.
        warnings: What is wrong with the curves, a line each.
        seconds_left: Of this stage; None while unknown.
        seconds_after: Of the stages after it; None while unknown.
        samples: New ones; empty where none were made since the last look.
    """

    done: int
    steps: int
    curves: Sequence[dict[str, float]]
    validation: Sequence[dict[str, float]] = ()
    warnings: Sequence[str] = ()
    seconds_left: float | None = None
    seconds_after: float | None = None
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class LivePage:
    """Shows how a training goes on.

    Args:
        show: Shows it.
        seconds: How long that took before, or something that takes as long.
    """

    show: Callable[[Progress], None]
    seconds: float


class Pace:
    """When to do what nobody waits for: at most every half minute, the first time after ten
    seconds, and never for more than a hundredth of the time that has passed.

    Args:
        seconds: How long it is expected to take the first time.
        clock: Gives the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected, self._clock, self._spent = seconds, clock, 0.0
        self._begun = self._ended = clock()

    def is_due(self, more: float = 0.0) -> bool:
        """Whether it may be done now, if it takes `more` seconds than it ever took."""
        now = self._clock()
        pause = _SECONDS_BETWEEN if self._spent else _SECONDS_BEFORE
        cost = self._spent + self._expected + more
        return now - self._ended >= pause and cost <= _SHARE * (now - self._begun)

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Inside, it is done; the time counts."""
        before = self._clock()
        yield
        self._ended = self._clock()
        took = self._ended - before
        self._expected, self._spent = max(self._expected, took), self._spent + took
