"""Pseudo labels: the target's confident predictions, by exact class-wise thresholds."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from bdl.domains.class_shares import collapsed_into, shares
from bdl.domains.datasets import Sample
from bdl.domains.images import open_label, resized_mask, without_data, write_labels
from bdl.domains.label_space import IGNORE, LabelSpace
from bdl.domains.loading import WholeImages, share, whole_images
from bdl.domains.problem import ImageSet
from bdl.domains.target_labels import upright_ids
from bdl.domains.tensors import to_unit
from bdl.runtime.config import PseudoLabelConfig
from bdl.runtime.console import log
from bdl.runtime.device import sum_over_processes
from bdl.runtime.files import atomic
from bdl.runtime.run import Run
from bdl.runtime.writing import Writer
from bdl.segmentation.maps import Stored
from bdl.segmentation.metrics import PseudoLabelClass, PseudoLabelMetrics
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.predict import mean_over_views, probabilities
from bdl.segmentation.stages import pseudo_label_path

_HALF_BITS = 16  # a float32 pattern is counted in two halves of 16 bits
_HALVES = 1 << _HALF_BITS
_UPPER_HALVES = 0x3F80  # those of the values below 1, which are ordered like their patterns
_CHUNK = 1 << 20  # pixels read back at once
_WATCHED = 1e-3  # share of the labels that a class must have for its changes to be told
_PIXEL = np.dtype([("label", np.uint8), ("pattern", np.uint32)])  # as it is put aside: 5 bytes

Sum = Callable[[np.ndarray], np.ndarray]  # adds up counts over processes


class ClassThresholds:
    """Per class, the confidence at index round(`quantile` n) of its n sorted pixels, at most
    `max_threshold`.

    Exact, in memory that does not grow with the number of images. Non-negative float32 values
    are ordered like their bit patterns. `update` counts the patterns' upper halves and puts label
    and pattern aside in a temporary file; `values` finds the upper halves that hold the wanted
    indices, then reads back the pixels that share them to count their lower halves. Values that
    reach `max_threshold` (at most 1) need only be counted: whichever of them is wanted, it is the
    threshold. The temporary file takes 5 bytes a pixel below it (at the most 8 GB for 3,000
    images of 1024x512), lies in `folder` (default: the system's place for such files) and is gone
    when the process ends in whatever way. There are at most 256 classes.
    """

    def __init__(
        self,
        num_classes: int,
        quantile: float = 0.5,
        max_threshold: float = 0.9,
        folder: Path | None = None,
    ) -> None:
        self.num_classes, self.quantile, self.max_threshold = num_classes, quantile, max_threshold
        self.folder = folder
        self._upper = np.zeros((num_classes, _UPPER_HALVES), np.int64)
        self._capped = np.zeros(num_classes, np.int64)
        self._aside: IO[bytes] | None = None

    def update(self, labels: Tensor | np.ndarray, confidence: Tensor | np.ndarray) -> None:
        """Add pixels: predicted train ids and their confidence in [0, 1], of equal shape.

        Raises ValueError if shapes differ, or for a train id or confidence out of range.
        """
        labels, confidence = np.asarray(labels).ravel(), np.asarray(confidence, np.float32).ravel()
        if labels.shape != confidence.shape:
            raise ValueError(f"{labels.size} labels for {confidence.size} confidences")
        for train_id in (labels.min(initial=0), labels.max(initial=0)):
            if not 0 <= train_id < self.num_classes:
                raise ValueError(f"label {train_id} is not in 0..{self.num_classes - 1}")
        below = confidence < _float32_at_least(self.max_threshold)
        pixels = np.empty(np.count_nonzero(below), _PIXEL)
        pixels["label"], pixels["pattern"] = labels[below], confidence[below].view(np.uint32)
        upper = pixels["pattern"] >> _HALF_BITS
        if upper.max(initial=0) >= _UPPER_HALVES:
            raise ValueError("a confidence is below 0")
        counts = np.bincount(
            pixels["label"].astype(np.intp) * _UPPER_HALVES + upper, minlength=self._upper.size
        )
        self._upper += counts.reshape(self._upper.shape)
        self._capped += np.bincount(labels, minlength=self.num_classes)
        self._capped -= counts.reshape(self._upper.shape).sum(1)
        if self._aside is None:
            self._aside = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        self._aside.seek(0, os.SEEK_END)
        self._aside.write(pixels.data)  # tofile() would not say that the disk is full

    def counts(self, sum_counts: Sum = lambda counts: counts) -> np.ndarray:
        """Pixels by class, as `values`."""
        return sum_counts(self._upper.sum(1) + self._capped)

    def values(
        self, sum_counts: Sum = lambda counts: counts, most: np.ndarray | None = None
    ) -> np.ndarray:
        """The thresholds, float64, one a class; 0 for a class without pixels.

        With several processes `sum_counts` adds up integer arrays over them, and all get the same
        thresholds. Pixels can be added further afterwards.

        Args:
            sum_counts: Adds up over processes.
            most: Pixels by class of which no more are to reach the threshold, but for those equal
                to the least of them; at least 1. In the place of the quantile.
        """
        upper, capped = sum_counts(self._upper), sum_counts(self._capped)
        counts = upper.sum(1) + capped
        # numpy rounds halves to even, as the published code does.
        wanted = np.round(self.quantile * counts).astype(np.int64)
        if most is not None:
            wanted = np.maximum(counts - most, 0)
        wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
        is_capped = wanted >= upper.sum(1)
        cumulated = upper.cumsum(1)
        half = (cumulated <= wanted[:, None]).sum(1)
        lower = sum_counts(self._count_lower(half))

        thresholds = np.zeros(self.num_classes)
        for train_id in np.flatnonzero(counts):
            if is_capped[train_id]:
                thresholds[train_id] = self.max_threshold
                continue
            before = cumulated[train_id, half[train_id]] - upper[train_id, half[train_id]]
            low_bits = (lower[train_id].cumsum() <= wanted[train_id] - before).sum()
            pattern = np.array([(half[train_id] << _HALF_BITS) | low_bits], np.uint32)
            thresholds[train_id] = pattern.view(np.float32)[0]
        return thresholds

    def _count_lower(self, half: np.ndarray) -> np.ndarray:
        """Lower halves of the pixels put aside whose upper half is their class's in `half`."""
        counts = np.zeros(self.num_classes * _HALVES, np.int64)
        if self._aside is not None:
            self._aside.seek(0)
            while (pixels := np.fromfile(self._aside, _PIXEL, _CHUNK)).size:
                matching = pixels[pixels["pattern"] >> _HALF_BITS == half[pixels["label"]]]
                lower = matching["pattern"] & (_HALVES - 1)
                keys = matching["label"].astype(np.intp) * _HALVES + lower
                counts += np.bincount(keys, minlength=counts.size)
        return counts.reshape(self.num_classes, _HALVES)


def _float32_at_least(limit: float | np.ndarray) -> np.ndarray:
    """The least float32 that is not below `limit`: a float32 is below both or neither."""
    rounded = np.asarray(limit).astype(np.float32)
    up = np.nextafter(rounded, np.float32(np.inf))
    return np.where(rounded.astype(np.float64) < limit, up, rounded)


@dataclass(frozen=True)
class Before:
    """What pseudo labels are compared with.

    Args:
        source_labels: Pixels of the source's labels by train id; None where they are not known.
        folder: Of the pseudo labels before; None of the first.
        labels: Pixels of these that have a label, by train id.
    """

    source_labels: np.ndarray | None = None
    folder: Path | None = None
    labels: Sequence[int] = ()

    def collapsed(self, predicted: np.ndarray) -> int | None:
        """The class into which predictions have collapsed, pixels by train id; None if not."""
        if self.source_labels is None:
            return None
        return collapsed_into(predicted, self.source_labels)

    def most(self, max_growth: float, pixels: int) -> np.ndarray:
        """How many labels each class may have, of `pixels` in all. A class that had next to none
        may have the share below which shares are not watched."""
        grown = np.ceil(max_growth * np.asarray(self.labels)).astype(np.int64)
        return np.maximum(grown, max(1, int(_WATCHED * pixels)))

    def moved(self, labels: np.ndarray, names: Sequence[str]) -> str | None:
        """Classes whose share of the labels halved or doubled, in words; None if none did."""
        if not (any(self.labels) and labels.any()):
            return None
        changes = [
            (name, then, now)
            for name, then, now in zip(names, shares(self.labels), shares(labels), strict=True)
            if max(then, now) >= _WATCHED and (now >= 2 * then or now <= then / 2)
        ]
        told = (f"{name} {100 * then:.1f} to {100 * now:.1f} %" for name, then, now in changes)
        return f"shares that halved or doubled: {', '.join(told)}" if changes else None

    def compare(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Pixels of the sample `name` that have a label in both, and those whose class is another.

        `labels` are H x W train ids, 255 where there is none."""
        if self.folder is None:
            return np.zeros(2, np.int64)
        file = pseudo_label_path(self.folder, name)
        if not file.is_file():
            return np.zeros(2, np.int64)
        earlier = np.asarray(open_label(file))
        if earlier.shape != labels.shape:
            return np.zeros(2, np.int64)
        both = (labels != IGNORE) & (earlier != IGNORE)
        return np.array([np.count_nonzero(both), np.count_nonzero(both & (labels != earlier))])


def make_pseudo_labels(
    run: Run,
    folder: Path,
    network: Segmenter,
    images: WholeImages,
    size: tuple[int, int] | None,
    space: LabelSpace,
    config: PseudoLabelConfig,
    before: Before = Before(),
) -> PseudoLabelMetrics:
    """Write a label map of predictions for every image, below `folder`/labels.

    One pass of the network for each scale. Predictions wait on disk until the thresholds are
    known, and those there from an interrupted run are used again. A pixel whose confidence is below
    its class's threshold becomes 255; transparent pixels are 255, too, and count for no threshold.
    With `max_growth` a threshold is as high as it must be for a class to have at most so many times
    the labels that it had before. Where predictions have collapsed into one class, all is 255.

    What waits takes 1.1 bytes a pixel, and 9 more where the confidence is below `max_threshold`, or
    everywhere with `max_growth`:
    for 3,000 images of 1024x512 6 GB if that is a third of the pixels, 16 GB if it is all. It lies
    in `folder` and is gone at the end.

    Args:
        run: How the run works.
        folder: Where to write.
        network: The network, on any device.
        images: At one scale or several; the mean of what the network says of an image is the
            prediction.
        size: Width and height of the prediction; None: those of the first scale.
        space: The classes, for the files' colours.
        config: Thresholds, and whether mirror images are views, too.
        before: What they are compared with.

    Returns:
        Thresholds, per class the pixels predicted and the share kept, and the share of all pixels
        that are transparent.
    """
    fabric, samples = run.fabric, images.samples
    limited = config.max_growth is not None and any(before.labels)
    enough = 1.0 if limited else config.max_threshold  # no confidence above is told from others
    thresholds = ClassThresholds(space.num_classes, config.quantile, enough, folder)
    waiting = _Waiting(folder / "predictions", enough)
    mine = share(len(samples), fabric.global_rank, fabric.world_size)
    _predict(run, network, images, mine, size, config.flip, waiting, thresholds)

    def sum_counts(counts: np.ndarray) -> np.ndarray:
        return sum_over_processes(fabric, torch.from_numpy(counts)).numpy()

    limits = np.minimum(thresholds.values(sum_counts), config.max_threshold)
    everything = thresholds.counts(sum_counts)
    if limited and config.max_growth is not None:
        most = before.most(config.max_growth, int(everything.sum()))
        limits = np.where(
            everything > most, np.maximum(limits, thresholds.values(sum_counts, most)), limits
        )
    only = before.collapsed(everything)
    least = _float32_at_least(limits if only is None else np.full(space.num_classes, 2.0))
    counts = _Counts(space.num_classes)
    with Writer() as writer:
        for index in mine:
            name = samples[index].name
            labels = counts.keep(*waiting.read(index), least)
            counts.compared += before.compare(name, labels)
            writer.submit(write_labels, pseudo_label_path(folder, name), labels, space)
    counts.sum(sum_counts)
    waiting.remove(mine)
    fabric.barrier()
    if fabric.is_global_zero:
        waiting.folder.rmdir()
    warnings = _warnings(counts, space, only, before) if samples else []
    for warning in warnings:
        log.warning("  %s: warning: %s", run.title, warning)
    return counts.metrics(warnings, len(samples), limits)


class _Waiting:
    """Predictions on disk, until the thresholds are known.

    Args:
        folder: Of the files.
        enough: Confidences that reach it are not told apart.
    """

    def __init__(self, folder: Path, enough: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.enough = folder, enough

    def holds(self, index: int) -> bool:
        """Whether the prediction of that image is there."""
        return self._file(index).is_file()

    def write(self, index: int, labels: np.ndarray, confidence: np.ndarray) -> None:
        """Keep the prediction of an image."""
        # All that reaches `enough` is kept whatever the thresholds: such values are not written.
        # Packing by zlib would take as long as the rest of the stage, for a quarter less.
        below = confidence < _float32_at_least(self.enough)
        with atomic(self._file(index)) as partial, open(partial, "wb") as opened:
            np.savez(opened, labels=labels, below=np.packbits(below), confidence=confidence[below])

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels and confidence as they were written; 1 where the latter reached `enough`."""
        with np.load(self._file(index), allow_pickle=False) as content:
            labels = content["labels"]
            below = np.unpackbits(content["below"], count=labels.size).astype(bool)
            confidence = np.ones(labels.shape, np.float32)
            confidence[below.reshape(labels.shape)] = content["confidence"]
            return labels, confidence

    def remove(self, indices: Sequence[int]) -> None:
        """Remove the predictions of these images."""
        for index in indices:
            self._file(index).unlink()

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def _predict(
    run: Run,
    network: Segmenter,
    images: WholeImages,
    indices: Sequence[int],
    size: tuple[int, int] | None,
    flip: bool,
    waiting: _Waiting,
    thresholds: ClassThresholds,
) -> None:
    """Predict those images whose predictions are not there yet, and count the pixels of all."""
    run.fabric.to_device(network)
    network.eval()
    with (
        run.console.track(run.title, len(indices), unit="images") as task,
        Writer() as writer,
        Writer(threads=1) as counter,
    ):
        left = [index for index in indices if not waiting.holds(index)]
        for index in sorted(set(indices) - set(left)):
            labels, confidence = waiting.read(index)
            _count(thresholds, labels, confidence, labels != IGNORE)
            task.advance()
        for batch in whole_images(images, left, run.workers):
            best = _mean_prediction(run.fabric, network, batch, size, flip).max(1)
            confidence = best.values[0].cpu().numpy()
            labels = best.indices[0].to(torch.uint8).cpu().numpy()
            opaque = np.ones(labels.shape, bool)
            if "opaque" in batch:
                opaque = resized_mask(batch["opaque"][0].numpy(), labels.shape[::-1])
            labels = without_data(labels, opaque)
            writer.submit(waiting.write, int(batch["index"]), labels, confidence)
            counter.submit(_count, thresholds, labels, confidence, opaque)
            task.advance()


class _Counts:
    """Pixels of all images, by train id and in all."""

    def __init__(self, num_classes: int) -> None:
        self.predicted = np.zeros(num_classes, np.int64)
        self.kept = np.zeros(num_classes, np.int64)
        self.transparent = np.zeros(2, np.int64)  # pixels, of all
        self.compared = np.zeros(2, np.int64)  # with a label now and before; of another class

    def keep(self, labels: np.ndarray, confidence: np.ndarray, least: np.ndarray) -> np.ndarray:
        """The labels of an image, 255 where the confidence is below `least` of the class."""
        opaque = labels != IGNORE
        keep = np.zeros(labels.shape, bool)
        keep[opaque] = confidence[opaque] >= least[labels[opaque]]
        self.transparent += np.array([np.count_nonzero(~opaque), labels.size])
        self.predicted += np.bincount(labels[opaque], minlength=self.predicted.size)
        self.kept += np.bincount(labels[keep], minlength=self.kept.size)
        return np.where(keep, labels, np.uint8(IGNORE))

    def sum(self, sum_counts: Sum) -> None:
        """Add up over all processes."""
        self.predicted, self.kept = sum_counts(self.predicted), sum_counts(self.kept)
        self.transparent, self.compared = sum_counts(self.transparent), sum_counts(self.compared)

    def metrics(self, warnings: list[str], images: int, limits: np.ndarray) -> PseudoLabelMetrics:
        """What is told of so many images, `limits` being the thresholds."""
        return PseudoLabelMetrics(
            warnings=warnings,
            images=images,
            kept=float(self.kept.sum() / max(1, self.predicted.sum())),
            transparent=float(self.transparent[0] / max(1, self.transparent[1])),
            changed=float(self.compared[1] / self.compared[0]) if self.compared[0] else None,
            classes=[
                PseudoLabelClass(float(limit), int(predicted), int(kept) / max(1, int(predicted)))
                for limit, predicted, kept in zip(limits, self.predicted, self.kept, strict=True)
            ],
        )


def _warnings(counts: _Counts, space: LabelSpace, only: int | None, before: Before) -> list[str]:
    """What is to be known of pseudo labels; `only` is the class that predictions collapsed into."""
    never = [name for name, count in zip(space.names, counts.predicted, strict=True) if count == 0]
    warnings = []
    if only is not None:
        warnings.append(
            f"the network has collapsed: to it nearly all of the target is {space.names[only]}; "
            "no pixel gets a pseudo label"
        )
    elif never:
        warnings.append(f"in no pseudo label, as never predicted: {', '.join(never)}")
    moved = before.moved(counts.kept, space.names)
    return warnings if moved is None else [*warnings, moved]


def _count(
    thresholds: ClassThresholds, labels: np.ndarray, confidence: np.ndarray, opaque: np.ndarray
) -> None:
    thresholds.update(labels[opaque], confidence[opaque])


def write_given_labels(
    run: Run, labelled: ImageSet, files: Mapping[Path, Sample], space: LabelSpace
) -> None:
    """Write label maps of the user's as pseudo labels are: train ids, upright.

    Args:
        run: How the run works.
        labelled: The images that the user has labelled.
        files: Where to write, and of which of them.
        space: The classes, for the files' colours.
    """
    if run.is_main:
        for file, sample in files.items():
            write_labels(file, upright_ids(labelled, sample), space)
    run.fabric.barrier()


def _mean_prediction(
    fabric: Fabric,
    network: Segmenter,
    batch: dict[str, Any],
    size: tuple[int, int] | None,
    flip: bool,
) -> Tensor:
    """The mean of the class probabilities, 1 x C x H x W, over the scales of one image."""
    views = [to_unit(fabric.to_device(v)) for v in (batch["image"], *batch.get("others", []))]
    height, width = (size[1], size[0]) if size else views[0].shape[2:]
    maps = mean_over_views(
        lambda view: Stored(probabilities(fabric, network, view, (height, width))), views, flip
    )
    return maps.rows(0, height)
