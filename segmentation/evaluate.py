"""Evaluation: IoU per class from one confusion matrix over all images."""

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from domains.images import to_unit, write_labels
from domains.label_space import IGNORE, LabelSpace
from domains.loading import WholeImages, share, whole_images
from runtime.console import Console
from runtime.device import sum_over_processes
from runtime.errors import UserError
from runtime.stages import Metrics
from segmentation.networks.base import Segmenter
from segmentation.predict import predict_classes


class ConfusionMatrix:
    """Counts of pixels by label (rows) and prediction (columns); ignored pixels do not count."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Integer train ids of equal shape; `label` may hold 255.

        Raises ValueError if the shapes differ or an id is none of the classes.
        """
        if prediction.shape != label.shape:
            raise ValueError(
                f"prediction is {_size(prediction)}, label {_size(label)}; they must be equal"
            )
        n = self.num_classes
        for name, ids in (("label", label), ("prediction", prediction)):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= IGNORE:
                raise ValueError(f"{name} holds ids outside 0..{n - 1} and 255")
        # All that ids of a byte can be is counted; what must not be is seen in the counts.
        pairs = (label.int() * (IGNORE + 1)).add_(prediction.int()).flatten()
        table = torch.bincount(pairs, minlength=(IGNORE + 1) ** 2).cpu()
        table = table.view(IGNORE + 1, IGNORE + 1)[:IGNORE]
        for name, outside in (("label", table[n:]), ("prediction", table[:, n:])):
            if outside.any():
                raise ValueError(f"{name} holds ids outside 0..{n - 1} and 255")
        self.counts += table[:n, :n]

    def iou(self) -> list[float]:
        """Intersection over union per class in [0, 1]; NaN for a class in neither."""
        hits = self.counts.diag().double()
        union = self.counts.sum(0) + self.counts.sum(1) - self.counts.diag()
        return (hits / union).tolist()


def mean_iou(values: list[float]) -> float | None:
    """The mean over the classes that are there; None if none is."""
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else None


def summarize(matrix: ConfusionMatrix, space: LabelSpace) -> Metrics:
    """mIoU, the mIoU of the label space's subsets, IoU by class name (None where a class is
    in neither labels nor predictions), and the matrix."""
    iou = matrix.iou()
    summary: Metrics = {"miou": mean_iou(iou)}
    for subset, members in space.subsets.items():
        summary[subset] = mean_iou([iou[train_id] for train_id in members])
    summary["iou"] = {
        name: None if math.isnan(value) else value
        for name, value in zip(space.names, iou, strict=True)
    }
    summary["confusion"] = matrix.counts.tolist()
    return summary


def prediction_path(folder: Path, index: int) -> Path:
    """Where the prediction of the validation image `index` lies, if it is one of the frames."""
    return folder / "predictions" / f"{index:04d}.png"


def evaluate(
    fabric: Fabric,
    console: Console,
    title: str,
    folder: Path,
    network: Segmenter,
    images: WholeImages,
    space: LabelSpace,
    *,
    size: tuple[int, int] | None,
    workers: int,
    frames: Collection[int],
) -> Metrics:
    """Score `network` on labelled images at `size` (width, height), or at the labels' own.

    Labels of another size are resized to `size` by nearest neighbour. The predictions of the
    images at the indices `frames` are written below `folder`/predictions, for the report. Raises
    UserError if no pixel of any image is labelled.
    """
    fabric.to_device(network)
    network.eval()
    matrix = ConfusionMatrix(space.num_classes)
    mine = share(len(images), fabric.global_rank, fabric.world_size)
    with console.track(title, len(mine), unit="images") as task:
        for batch in whole_images(images, mine, workers):
            label = fabric.to_device(batch["label"])
            if size is not None and label.shape[-2:] != (size[1], size[0]):
                label = _nearest(label, (size[1], size[0]))
            prediction = predict_classes(
                fabric,
                network,
                to_unit(fabric.to_device(batch["image"])),
                (label.shape[-2], label.shape[-1]),
            )
            matrix.update(prediction, label)
            index = int(batch["index"])
            if index in frames:
                write_labels(
                    prediction_path(folder, index),
                    prediction[0].cpu().numpy().astype(np.uint8),
                    space,
                )
            task.advance()
    matrix.counts = sum_over_processes(fabric, matrix.counts)
    fabric.barrier()
    if not matrix.counts.any():
        raise UserError(
            "data.validation: no pixel of its labels is one of the label space's classes; "
            "check data.validation.encoding"
        )
    return {"images": len(images), **summarize(matrix, space)}


def _nearest(label: Tensor, size: tuple[int, int]) -> Tensor:
    resized = torch.nn.functional.interpolate(
        label[:, None].float(), size=size, mode="nearest-exact"
    )
    return resized[:, 0].long()


def _size(maps: Tensor) -> str:
    return "x".join(str(side) for side in reversed(maps.shape[-2:]))
