"""What a translator changes: what it breaks for the frozen network, how near it comes to the
target, how like the source its images stay.

All of it is measured on a part of the source images, spread evenly, whole as they are exported.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from domains.datasets import spread
from domains.images import to_bytes, to_unit
from domains.label_space import IGNORE
from domains.loading import WholeImages, share, whole_images
from runtime.console import Console
from runtime.device import seed_torch, sum_over_processes
from runtime.stages import Metrics
from translation.export import generate
from translation.networks import Generator, memory_format

Classes = Callable[[Tensor, tuple[int, int]], Tensor]  # images in [0, 1], (height, width) to ids
Features = Callable[[Tensor], Tensor]  # images in [0, 1] to N x D

_WORST = 5  # pairs of classes that are named
_RARE = 1e-3  # classes with a smaller share of the pixels are not: a few pixels are no pattern
_SUBSETS = 50  # of features, over which KID is averaged


@dataclass
class Eyes:
    """What images are looked at with: a frozen network's `classes` (N x height x width train ids),
    the `names` of these, and `features` that compare sets of images, of which `features_of` says
    what they are."""

    classes: Classes
    names: Sequence[str]
    features: Features
    features_of: str


class SemanticDrift:
    """Labelled pixels counted by label, by what the frozen network says of the source image, and
    by what it says of the translation, so that its own errors are told from the translator's."""

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros((num_classes,) * 3, dtype=torch.int64)

    def update(self, label: Tensor, on_source: Tensor, on_translation: Tensor) -> None:
        """Integer train ids of equal shape; `label` may hold 255."""
        num_classes = len(self.counts)
        labelled = label != IGNORE
        label, before, after = (ids[labelled].long() for ids in (label, on_source, on_translation))
        cells = (label * num_classes + before) * num_classes + after
        self.counts += torch.bincount(cells, minlength=num_classes**3).view_as(self.counts).cpu()

    def summarize(self, names: Sequence[str]) -> dict[str, Any]:
        """Shares in [0, 1] (None of nothing) and matrices of counts (rows: label).

        "right_on_source" and "right_on_translation" are of all labelled pixels; "broken" is the
        share of the pixels right on the source that are wrong on the translation, "mended" that of
        the pixels wrong on the source that are right on the translation. "on_source" and
        "on_translation" count predictions (columns) for each label; "of_right" those on the
        translation of the pixels right on the source. "worst" lists pairs of the latter: which
        share of a class's pixels became which other class, for classes that are not rare.
        """
        on_source, on_translation = self.counts.sum(2), self.counts.sum(1)
        of_right = self.counts.diagonal(dim1=0, dim2=1).T
        total, right = int(self.counts.sum()), int(of_right.sum())
        kept, right_now = int(of_right.trace()), int(on_translation.trace())
        return {
            "right_on_source": _ratio(right, total),
            "right_on_translation": _ratio(right_now, total),
            "broken": _ratio(right - kept, right),
            "mended": _ratio(right_now - kept, total - right),
            "worst": _worst_pairs(of_right, names),
            "on_source": on_source.tolist(),
            "on_translation": on_translation.tolist(),
            "of_right": of_right.tolist(),
        }


@torch.inference_mode()
def measure_translations(
    fabric: Fabric,
    console: Console,
    title: str,
    source: WholeImages,
    translated: WholeImages,
    target: WholeImages,
    eyes: Eyes,
    back: Generator | None,
    *,
    count: int,
    seed: int,
    workers: int,
) -> Metrics:
    """Measure `count` of the source images, which are labelled, and their translations.

    `translated` has the same samples in the same order; images of another size are resized to their
    source image's. As many images of the `target` are looked at. `back` is the generator of the
    other direction, None if unknown.

    Returns "drift" (see `SemanticDrift`), "kid" to the target of the translations and, as the
    reference, of the source ("mean", "std" over random subsets, None of fewer than two images),
    "ssim" to the source, mean in [-1, 1], and "reconstruction_l1", the mean absolute difference in
    [0, 1] of the source and what `back` makes of its stored translation (None without it).
    """
    chosen, chosen_target = spread(len(source), count), spread(len(target), count)
    mine = share(len(chosen), fabric.global_rank, fabric.world_size)
    mine_target = share(len(chosen_target), fabric.global_rank, fabric.world_size)
    if back is not None:
        fabric.to_device(back).to(memory_format=memory_format(fabric.device))
    drift = SemanticDrift(len(eyes.names))
    features: dict[str, list[Tensor]] = {"source": [], "translated": [], "target": []}
    likeness = []
    with console.track(title, len(mine) + len(mine_target), unit="images") as task:
        indices = [chosen[place] for place in mine]
        pairs = zip(
            whole_images(source, indices, workers),
            whole_images(translated, indices, workers),
            strict=True,
        )
        for of_source, of_translation in pairs:
            before, after = (
                to_unit(fabric.to_device(item["image"])) for item in (of_source, of_translation)
            )
            if after.shape != before.shape:  # images translated elsewhere
                after = F.interpolate(after, before.shape[-2:], mode="bilinear", antialias=True)
            label = fabric.to_device(of_source["label"])
            size = (label.shape[-2], label.shape[-1])
            drift.update(label, eyes.classes(before, size), eyes.classes(after, size))
            features["source"].append(eyes.features(before)[0])
            features["translated"].append(eyes.features(after)[0])
            values = [similarity(before[0], after[0])]
            if back is not None:
                values.append(float((generate(fabric, back, after) - before).abs().mean()))
            likeness.append(torch.tensor(values))
            task.advance()
        for item in whole_images(target, [chosen_target[place] for place in mine_target], workers):
            features["target"].append(eyes.features(to_unit(fabric.to_device(item["image"])))[0])
            task.advance()
    drift.counts = sum_over_processes(fabric, drift.counts)
    together = {name: gather_rows(fabric, rows) for name, rows in features.items()}
    means = gather_rows(fabric, likeness).double().mean(0).tolist()
    return {
        "images": len(chosen),
        "target_images": len(chosen_target),
        "drift": drift.summarize(eyes.names),
        "kid": {
            "features": eyes.features_of,
            "translated": kernel_distance(together["translated"], together["target"], seed),
            "source": kernel_distance(together["source"], together["target"], seed),
        },
        "ssim": means[0],
        "reconstruction_l1": means[1] if back is not None else None,
    }


def similarity(image: Tensor, other: Tensor) -> float:
    """SSIM of two images, 3 x H x W in [0, 1] with sides of 7 or more, over windows of 7x7."""
    return float(structural_similarity(to_bytes(image), to_bytes(other), channel_axis=2))


def kernel_distance(features: Tensor, others: Tensor, seed: int) -> dict[str, float] | None:
    """KID (Binkowski et al. 2018) of two sets of features, N x D and M x D.

    Mean and standard deviation over random subsets of half the smaller set: unbiased, so about 0,
    and at times below it, for sets of one kind. The same `seed` draws the same subsets. None if
    either set has fewer than two members.
    """
    smaller = min(len(features), len(others))
    if smaller < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that all features are kept
        # Each process has all features, gathered in order: nothing is left to synchronise.
        metric = KernelInceptionDistance(
            nn.Identity(),
            subsets=_SUBSETS,
            subset_size=max(2, smaller // 2),
            sync_on_compute=False,
        )
    metric.set_dtype(torch.float64)  # the estimate is a small difference of large sums
    metric.update(others.double(), real=True)
    metric.update(features.double(), real=False)
    seed_torch(seed, "kid")
    mean, std = metric.compute()
    return {"mean": float(mean), "std": float(std)}


def gather_rows(fabric: Fabric, mine: Sequence[Tensor]) -> Tensor:
    """The rows of all processes, on the CPU, in the order in which `share` dealt them out."""
    counts = torch.zeros(fabric.world_size, dtype=torch.int64)
    counts[fabric.global_rank] = len(mine)
    total = int(sum_over_processes(fabric, counts).sum())
    # The main process has the first row if there is any; others may have none to tell the width.
    shape = fabric.broadcast(list(mine[0].shape) if mine else [])
    rows = torch.zeros(total, *shape)
    for place, row in zip(share(total, fabric.global_rank, fabric.world_size), mine, strict=True):
        rows[place] = row
    return sum_over_processes(fabric, rows)


def _worst_pairs(of_right: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    pixels, total = of_right.sum(1).tolist(), int(of_right.sum())
    pairs = [
        {"label": names[label], "predicted": names[predicted], "share": count / pixels[label]}
        for label, row in enumerate(of_right.tolist())
        for predicted, count in enumerate(row)
        if predicted != label and count and pixels[label] >= _RARE * total
    ]
    return sorted(pairs, key=lambda pair: -pair["share"])[:_WORST]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
