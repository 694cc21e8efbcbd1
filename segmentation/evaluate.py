"""Evaluation: IoU per class from one confusion matrix over all images."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bdl.domains.images import resized_mask, without_data, write_labels
from bdl.domains.label_space import IGNORE, LabelSpace
from bdl.domains.loading import WholeImages, share, whole_images
from bdl.domains.tensors import to_unit
from bdl.runtime.device import sum_over_processes
from bdl.runtime.errors import UserError
from bdl.runtime.files import save_png
from bdl.runtime.processes import largest
from bdl.runtime.run import Run
from bdl.runtime.stopping import Stopped, stop_request
from bdl.segmentation.metrics import EvaluationMetrics, ImageScore
from bdl.segmentation.networks.base import Segmenter, upsample
from bdl.segmentation.predict import own_probabilities, predict_classes, upsampled_argmax
from bdl.segmentation.stages import confidence_path, prediction_path, worst_count, worst_path

_WIDEST = 640  # pixels of a confidence map, which is only looked at

# Called for each image: its index, its prediction, 1 x H x W, where it is opaque, 1 x H' x W' bool
# (None if everywhere), and its pixels by label and prediction.
Seen = Callable[[int, Tensor, Tensor | None, Tensor], None]


class ConfusionMatrix:
    """Counts of pixels by label (rows) and prediction (columns); ignored pixels do not count."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Integer train ids of equal shape; `label` may hold 255. Returns the counts of these.

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
        return table[:n, :n]

    def iou(self) -> list[float]:
        """Intersection over union per class in [0, 1]; NaN for a class in neither."""
        hits = self.counts.diag().double()
        union = self.counts.sum(0) + self.counts.sum(1) - self.counts.diag()
        return (hits / union).tolist()


def mean_iou(values: list[float]) -> float | None:
    """The mean over the classes that are there; None if none is."""
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else None


def summarize(matrix: ConfusionMatrix, space: LabelSpace) -> EvaluationMetrics:
    """The scores of a confusion matrix."""
    iou = matrix.iou()
    return EvaluationMetrics(
        miou=mean_iou(iou),
        subsets={
            subset: mean_iou([iou[train_id] for train_id in members])
            for subset, members in space.subsets.items()
        },
        iou=[None if math.isnan(value) else value for value in iou],
        confusion=matrix.counts.tolist(),
    )


def evaluate(
    run: Run,
    folder: Path,
    network: Segmenter,
    images: WholeImages,
    space: LabelSpace,
    size: tuple[int, int] | None,
    frames: Collection[int],
) -> EvaluationMetrics:
    """Score a network on labelled images.

    Args:
        run: How the run works.
        folder: Where predictions are written for the report: of `frames` below predictions/, of
            the worst images, with their confidence, below worst/.
        network: The network, on any device.
        images: Images with labels; a prediction is made at its label's size. Where an image is
            transparent, label and written prediction are 255.
        space: The classes.
        size: Width and height to score at, to which labels are resized by nearest neighbour;
            None: the labels' own.
        frames: Indices of the images whose predictions are written.

    Raises:
        UserError: No pixel of any image is labelled.
    """
    run.fabric.to_device(network)
    network.eval()
    right_and_labelled = torch.zeros(len(images), 2, dtype=torch.int64)

    def write(index: int, prediction: Tensor, opaque: Tensor | None, counts: Tensor) -> None:
        right_and_labelled[index, 0], right_and_labelled[index, 1] = counts.trace(), counts.sum()
        if index in frames:
            write_labels(prediction_path(folder, index), _as_ids(prediction, opaque), space)
        task.advance()

    count = len(share(len(images), run.fabric.global_rank, run.fabric.world_size))
    with run.console.track(run.title, count, unit="images") as task:
        matrix = count_pixels(run, network, images, space, size, write)
    scores = worst_first(sum_over_processes(run.fabric, right_and_labelled).tolist())
    worst = scores[: worst_count(len(images))]
    if run.is_main:
        _write_worst(run, folder, network, images, space, size, [score.index for score in worst])
    run.fabric.barrier()
    shown = [score for score in worst if not math.isnan(score.right)]
    return replace(summarize(matrix, space), images=len(images), worst=shown)


def worst_first(counts: Sequence[tuple[int, int]]) -> list[ImageScore]:
    """Images by the share of their labelled pixels that are right; those without any, of which the
    share is NaN, come last.

    Args:
        counts: For each image its right and its labelled pixels.
    """
    scores = [
        ImageScore(index, right / labelled if labelled else math.nan)
        for index, (right, labelled) in enumerate(counts)
    ]
    return sorted(scores, key=lambda score: (math.isnan(score.right), score.right, score.index))


def _write_worst(
    run: Run,
    folder: Path,
    network: Segmenter,
    images: WholeImages,
    space: LabelSpace,
    size: tuple[int, int] | None,
    indices: Sequence[int],
) -> None:
    """Predictions and confidence of some images, by their rank among `indices`."""
    for rank, batch in enumerate(whole_images(images, indices, 0)):
        width, height = size or (batch["label"].shape[2], batch["label"].shape[1])
        image = to_unit(run.fabric.to_device(batch["image"]))
        maps = own_probabilities(run.fabric, network, image)
        prediction = upsampled_argmax(maps, (height, width))
        ids = _as_ids(prediction, batch.get("opaque"))
        write_labels(worst_path(folder, rank), ids, space)
        shrink = min(1.0, _WIDEST / width)
        small = max(1, round(height * shrink)), max(1, round(width * shrink))
        confidence = upsample(maps, small).amax(1)[0]
        levels = (255 * confidence).round().byte().cpu().numpy()
        save_png(confidence_path(folder, rank), Image.fromarray(levels))


def _as_ids(prediction: Tensor, opaque: Tensor | None) -> np.ndarray:
    """A prediction, 1 x H x W, as H x W uint8, 255 where the image is transparent."""
    ids = prediction[0].cpu().numpy().astype(np.uint8)
    if opaque is not None:
        ids = without_data(ids, resized_mask(opaque[0].numpy(), ids.shape[::-1]))
    return ids


def count_pixels(
    run: Run,
    network: Segmenter,
    images: WholeImages,
    space: LabelSpace,
    size: tuple[int, int] | None,
    seen: Seen = lambda *image: None,
) -> ConfusionMatrix:
    """The confusion matrix of a network over labelled images, all processes together.

    Args:
        run: How the run works.
        network: The network, in evaluation mode, on the run's device.
        images: As in `evaluate`.
        space: The classes.
        size: As in `evaluate`.
        seen: Called for each image of this process.

    Raises:
        UserError: No pixel of any image is labelled.
        Stopped: A signal came to any of the processes, which all stop after an image.
    """
    fabric = run.fabric
    matrix = ConfusionMatrix(space.num_classes)
    mine = share(len(images), fabric.global_rank, fabric.world_size)
    for batch in whole_images(images, mine, run.workers):
        label = fabric.to_device(batch["label"])
        if size is not None and label.shape[-2:] != (size[1], size[0]):
            label = _nearest(label, (size[1], size[0]))
        prediction = predict_classes(
            fabric,
            network,
            to_unit(fabric.to_device(batch["image"])),
            (label.shape[-2], label.shape[-1]),
        )
        counts = matrix.update(prediction, label)
        seen(int(batch["index"]), prediction, batch.get("opaque"), counts)
        if stop_request.signum:
            break
    if signum := largest(fabric, stop_request.signum):  # all processes stop, or none
        raise Stopped(signum)
    matrix.counts = sum_over_processes(fabric, matrix.counts)
    fabric.barrier()
    if not matrix.counts.any():
        raise UserError(
            "data.validation: no pixel of its labels is one of the label space's classes; "
            "check data.validation.encoding"
        )
    return matrix


def _nearest(label: Tensor, size: tuple[int, int]) -> Tensor:
    resized = torch.nn.functional.interpolate(
        label[:, None].float(), size=size, mode="nearest-exact"
    )
    return resized[:, 0].long()


def _size(maps: Tensor) -> str:
    return "x".join(str(side) for side in reversed(maps.shape[-2:]))
