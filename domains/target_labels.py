"""Which of the target's images the user has labelled, told by what is in the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bdl.domains.datasets import Sample
from bdl.domains.images import STORED, train_ids, turned_with

if TYPE_CHECKING:
    from bdl.domains.problem import ImageSet


@dataclass(frozen=True)
class TargetLabels:
    """Labelled images of the target, beside the target's own images.

    Args:
        known: For each of the target's samples the labelled sample of the same image; None where
            nobody has labelled it.
        added: The labelled samples of images that the target does not have.
    """

    known: list[Sample | None]
    added: list[Sample]


def match_labels(target: ImageSet, labelled: ImageSet | None) -> TargetLabels:
    """Match labelled images to the target's: two are the same if their files are, whatever they
    are called. Where an image is labelled twice, the first by name counts for the target's.

    Args:
        target: The target's images, which are there.
        labelled: Labelled images, which are there; None: none.
    """
    if labelled is None:
        return TargetLabels([None] * len(target.samples()), [])
    contents, samples = labelled.hashes(), labelled.samples()
    by_content = dict(reversed(list(zip(contents, samples, strict=True))))
    of_target = target.hashes()
    there = set(of_target)
    return TargetLabels(
        [by_content.get(content) for content in of_target],
        [sample for content, sample in zip(contents, samples, strict=True) if content not in there],
    )


def upright_ids(labelled: ImageSet, sample: Sample) -> np.ndarray:
    """A label map as the target's images are read, which is upright: train ids, H x W uint8."""
    assert labelled.labels is not None and sample.label is not None
    ids = train_ids(sample.label, labelled.labels.table)
    return turned_with(ids, sample.image) if labelled.orientation == STORED else ids
