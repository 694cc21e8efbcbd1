"""Pseudo labels: the target's confident predictions, by exact class-wise thresholds."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from domains.images import to_unit, write_labels
from domains.label_space import IGNORE, LabelSpace
from domains.loading import WholeImages, share, whole_images
from runtime.config import PseudoLabelConfig
from runtime.console import Console, log
from runtime.device import sum_over_processes
from runtime.files import atomic
from runtime.stages import Metrics
from runtime.writing import Writer
from segmentation.networks.base import Segmenter
from segmentation.predict import probabilities

_HALF_BITS = 16  # a float32 pattern is counted in two halves of 16 bits
_HALVES = 1 << _HALF_BITS
_CHUNK = 1 << 20  # values read back at once

Sum = Callable[[np.ndarray], np.ndarray]  # adds up counts over processes


class ClassThresholds:
    """Per class, the confidence at index round(`portion` n) of its n sorted pixels, at most `cap`.

    Exact, in memory that does not grow with the number of images. Non-negative float32 values
    are ordered like their bit patterns. `update` counts the patterns' upper halves and puts the
    values themselves aside in temporary files; `values` finds the upper half that holds the wanted
    index, then reads back the values that share it to count their lower halves. Values that reach
    the cap need only be counted: whichever of them is wanted, the threshold is the cap.
    The temporary files lie in `folder` (default: the system's place for them) and are gone when
    the process ends in whatever way.
    """

    def __init__(
        self,
        num_classes: int,
        portion: float = 0.5,
        cap: float = 0.9,
        folder: Path | None = None,
    ) -> None:
        self.num_classes, self.portion, self.cap = num_classes, portion, cap
        self.folder = folder
        self._upper = np.zeros((num_classes, _HALVES), np.int64)
        self._capped = np.zeros(num_classes, np.int64)
        self._aside: list[IO[bytes] | None] = [None] * num_classes

    def update(self, labels: Tensor | np.ndarray, confidence: Tensor | np.ndarray) -> None:
        """Add pixels: predicted train ids and their confidence in [0, 1], of equal shape."""
        labels, confidence = np.asarray(labels).ravel(), np.asarray(confidence, np.float32).ravel()
        if labels.shape != confidence.shape:
            raise ValueError(f"{labels.size} labels for {confidence.size} confidences")
        for train_id in (labels.min(initial=0), labels.max(initial=0)):
            if not 0 <= train_id < self.num_classes:
                raise ValueError(f"label {train_id} is not in 0..{self.num_classes - 1}")
        for train_id in np.flatnonzero(np.bincount(labels)):
            values = confidence[labels == train_id]
            below = values[values.astype(np.float64) < self.cap]
            self._capped[train_id] += values.size - below.size
            upper = below.view(np.uint32) >> _HALF_BITS
            self._upper[train_id] += np.bincount(upper, minlength=_HALVES)
            aside = self._aside[train_id]
            if aside is None:
                aside = self._aside[train_id] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
            aside.write(below.tobytes())  # tofile() would not say that the disk is full

    def values(self, sum_counts: Sum = lambda counts: counts) -> np.ndarray:
        """The thresholds, float64, one a class; 0 for a class without pixels.

        With several processes `sum_counts` adds up integer arrays over them, and all get the same
        thresholds. Pixels can be added further afterwards.
        """
        upper, capped = sum_counts(self._upper), sum_counts(self._capped)
        counts = upper.sum(1) + capped
        # numpy rounds halves to even, as the published code does.
        wanted = np.round(self.portion * counts).astype(np.int64)
        wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
        is_capped = wanted >= upper.sum(1)
        cumulated = upper.cumsum(1)
        half = (cumulated <= wanted[:, None]).sum(1)
        lower = np.stack(
            [self._count_lower(train_id, half[train_id]) for train_id in range(self.num_classes)]
        )
        lower = sum_counts(lower)

        thresholds = np.zeros(self.num_classes)
        for train_id in np.flatnonzero(counts):
            if is_capped[train_id]:
                thresholds[train_id] = self.cap
                continue
            before = cumulated[train_id, half[train_id]] - upper[train_id, half[train_id]]
            place = (lower[train_id].cumsum() <= wanted[train_id] - before).sum()
            pattern = np.array([(half[train_id] << _HALF_BITS) | place], np.uint32)
            thresholds[train_id] = pattern.view(np.float32)[0]
        return thresholds

    def _count_lower(self, train_id: int, half: int) -> np.ndarray:
        """Lower halves of the values put aside whose upper half is `half`."""
        counts = np.zeros(_HALVES, np.int64)
        aside = self._aside[train_id]
        if aside is None:
            return counts
        aside.seek(0)
        while (patterns := np.fromfile(aside, np.uint32, _CHUNK)).size:
            matching = patterns[patterns >> _HALF_BITS == half]
            counts += np.bincount(matching & (_HALVES - 1), minlength=_HALVES)
        return counts


def pseudo_label_path(folder: Path, name: str) -> Path:
    """Where the pseudo labels of the sample `name` lie."""
    return folder / "labels" / f"{name}.png"


def make_pseudo_labels(
    fabric: Fabric,
    console: Console,
    title: str,
    folder: Path,
    network: Segmenter,
    images: WholeImages,
    space: LabelSpace,
    config: PseudoLabelConfig,
    workers: int,
) -> Metrics:
    """Write a label map for every image of the target's training set, below `folder`/labels.

    One pass of the network over each image; predictions wait on disk until the thresholds are
    known, and those there from an interrupted run are used again. A pixel whose confidence is
    below its class's threshold becomes 255. Returns thresholds, and per class the pixels
    predicted and the portion kept.
    """
    fabric.to_device(network)
    network.eval()
    folder.mkdir(parents=True, exist_ok=True)
    waiting = folder / "predictions"
    thresholds = ClassThresholds(space.num_classes, config.portion, config.cap, folder)
    mine = share(len(images), fabric.global_rank, fabric.world_size)
    with console.track(title, len(mine), unit="images") as task, Writer() as writer:
        left = [index for index in mine if not _prediction_file(waiting, index).is_file()]
        for index in sorted(set(mine) - set(left)):
            thresholds.update(*_read_prediction(_prediction_file(waiting, index)))
            task.advance()
        for batch in whole_images(images, left, workers):
            maps = probabilities(fabric, network, to_unit(fabric.to_device(batch["image"])))
            best = maps.max(1)
            confidence = best.values[0].cpu().numpy()
            labels = best.indices[0].to(torch.uint8).cpu().numpy()
            file = _prediction_file(waiting, int(batch["index"]))
            writer.submit(_write_prediction, file, labels, confidence, config.cap)
            thresholds.update(labels, confidence)
            task.advance()

    def sum_counts(counts: np.ndarray) -> np.ndarray:
        return sum_over_processes(fabric, torch.from_numpy(counts)).numpy()

    limits = thresholds.values(sum_counts)
    predicted = np.zeros(space.num_classes, np.int64)
    kept = np.zeros(space.num_classes, np.int64)
    with Writer() as writer:
        for index in mine:
            labels, confidence = _read_prediction(_prediction_file(waiting, index))
            keep = confidence.astype(np.float64) >= limits[labels]
            predicted += np.bincount(labels.ravel(), minlength=space.num_classes)
            kept += np.bincount(labels[keep], minlength=space.num_classes)
            file = pseudo_label_path(folder, images.samples[index].name)
            writer.submit(write_labels, file, np.where(keep, labels, np.uint8(IGNORE)), space)
    predicted, kept = sum_counts(predicted), sum_counts(kept)
    for index in mine:
        _prediction_file(waiting, index).unlink()
    fabric.barrier()
    if fabric.is_global_zero:
        waiting.rmdir()
    never = [name for name, count in zip(space.names, predicted, strict=True) if count == 0]
    warnings = []
    if never:
        warnings.append(f"in no pseudo label, as never predicted: {', '.join(never)}")
        log.warning("  %s: warning: %s", title, warnings[0])
    return {
        "warnings": warnings,
        "images": len(images),
        "kept": float(kept.sum() / max(1, predicted.sum())),
        "classes": {
            name: {
                "threshold": float(limits[train_id]),
                "predicted": int(predicted[train_id]),
                "kept": float(kept[train_id] / max(1, predicted[train_id])),
            }
            for train_id, name in enumerate(space.names)
        },
    }


def _prediction_file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npz"


def _write_prediction(file: Path, labels: np.ndarray, confidence: np.ndarray, cap: float) -> None:
    # All that reaches the cap is kept whatever the thresholds: as 1 it takes no room packed.
    confidence = np.where(confidence.astype(np.float64) < cap, confidence, np.float32(1))
    with atomic(file) as partial, open(partial, "wb") as opened:
        np.savez_compressed(opened, labels=labels, confidence=confidence)


def _read_prediction(file: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(file, allow_pickle=False) as content:
        return content["labels"], content["confidence"]
