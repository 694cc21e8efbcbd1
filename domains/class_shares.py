"""How labels and predictions are spread over the classes, and when these no longer go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bdl.domains.datasets import spread
from bdl.domains.label_space import IGNORE

if TYPE_CHECKING:
    from bdl.domains.loading import WholeImages

_LOOKED_AT = 200  # label maps, of which shares are taken
# Up to the first of the ends a network knows nothing of the target, from the second on enough.
_OVERLAP = 0.5, 0.65
_LEFT = 0.1  # of the other classes' share, below which one class is all that is left


def label_counts(images: WholeImages, num_classes: int) -> np.ndarray:
    """Labelled pixels by train id, of up to 200 label maps that are spread evenly."""
    counts = np.zeros(num_classes, np.int64)
    for index in spread(len(images), _LOOKED_AT):
        file = images.samples[index].label
        if file is not None:
            ids = images.reader.label(file).ravel()
            counts += np.bincount(ids[ids != IGNORE], minlength=num_classes)
    return counts


def shares(counts: Sequence[float] | np.ndarray) -> np.ndarray:
    """Counts by class as parts of their sum; zeros where there is nothing."""
    amounts = np.asarray(counts, float)
    return amounts / max(1.0, amounts.sum())


def overlap(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """What two spreads over the classes have in common: 1 less their total variation distance, from
    0 to 1. Both are counts or shares."""
    return float(np.minimum(shares(one), shares(other)).sum())


def ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on, and linear between them."""
    return min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0])))


def knowledge(
    predicted: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray
) -> float:
    """How far the spread of a network's predictions on the target speaks against its knowing the
    target: 0, it does not know it; 1, nothing speaks against it.

    Domains differ in what they show, so that a good network's predictions there are spread
    otherwise than the labels that it learned from; but where it takes ground for things, by far.

    Args:
        predicted: Predicted pixels of the target, or their shares, by train id.
        labels: The same of the source's labels.
    """
    if collapsed_into(predicted, labels) is not None:
        return 0.0
    return ramp(overlap(predicted, labels), _OVERLAP)


def collapsed_into(
    predicted: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray
) -> int | None:
    """The class into which predictions have collapsed; None if they have not.

    They have if all other classes together have less than a tenth of the share that they have in
    the labels: where ground is 99 % of the labels, it may be 99.9 % of the predictions.

    Args:
        predicted: Predicted pixels, or their shares, by train id.
        labels: The same of the labels that the network learned from.
    """
    seen, known = shares(predicted), shares(labels)
    if not seen.any() or not known.any():
        return None
    largest = int(seen.argmax())
    return largest if 1 - seen[largest] < _LEFT * (1 - known[largest]) else None
