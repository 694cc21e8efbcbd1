"""What a translator changes: what it breaks for the frozen network, how near it comes to the
target, how like the source its images stay.

All of it is measured on a part of the source images, spread evenly, whole as they are exported.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from bdl.domains.datasets import spread
from bdl.domains.label_space import IGNORE
from bdl.domains.loading import WholeImages, joined_images, share, whole_images
from bdl.domains.tensors import to_bytes, to_unit
from bdl.runtime.device import seed_torch, sum_over_processes
from bdl.runtime.run import Run
from bdl.translation.metrics import Confused, Distances, Drift, KernelDistance, MeasureMetrics
from bdl.translation.networks import Generator, memory_format
from bdl.translation.translate import generate

Classes = Callable[[Tensor, tuple[int, int]], Tensor]  # images in [0, 1], (height, width) to ids
Features = Callable[[Tensor], Tensor]  # images in [0, 1] to N x D

_WORST = 5  # pairs of classes that are named
_RARE = 1e-3  # classes with a smaller share of the pixels are not: a few pixels are no pattern
_SUBSETS = 50  # of features, over which KID is averaged


@dataclass
class FrozenModels:
    """What images are looked at with.

    Args:
        classes: Images in [0, 1], N x 3 x H x W, and a size (height, width) to train ids,
            N x height x width, by a frozen network.
        num_classes: How many classes that network tells apart.
        features: Images to N x D, by which sets of them are compared.
        features_title: What the features are.
    """

    classes: Classes
    num_classes: int
    features: Features
    features_title: str


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

    def summarize(self) -> Drift:
        """Shares and matrices of what was counted."""
        on_source, on_translation = self.counts.sum(2), self.counts.sum(1)
        of_right = self.counts.diagonal(dim1=0, dim2=1).T
        total, right = int(self.counts.sum()), int(of_right.sum())
        kept, right_now = int(of_right.trace()), int(on_translation.trace())
        return Drift(
            right_on_source=_ratio(right, total),
            right_on_translation=_ratio(right_now, total),
            lost=_ratio(right - kept, right),
            recovered=_ratio(right_now - kept, total - right),
            worst=_worst_pairs(of_right),
            on_source=on_source.tolist(),
            on_translation=on_translation.tolist(),
            of_right=of_right.tolist(),
        )


@torch.inference_mode()
def measure_translations(
    run: Run,
    source: WholeImages,
    translated: WholeImages,
    target: WholeImages,
    models: FrozenModels,
    back: Generator | None,
    count: int,
    seed: int,
) -> MeasureMetrics:
    """Measure translations by their sources and by the target.

    Args:
        run: How the run works.
        source: Source images with labels.
        translated: The same samples in the same order, translated; images of another size are
            resized to their source image's.
        target: Target images.
        models: What the images are looked at with.
        back: The generator of the other direction; None if unknown.
        count: Images of the source, and as many of the target, that are measured.
        seed: Seed of KID's subsets.
    """
    fabric = run.fabric
    chosen, chosen_target = spread(len(source), count), spread(len(target), count)
    mine = share(len(chosen), fabric.global_rank, fabric.world_size)
    mine_target = share(len(chosen_target), fabric.global_rank, fabric.world_size)
    if back is not None:
        fabric.to_device(back).to(memory_format=memory_format(fabric.device))
    drift = SemanticDrift(models.num_classes)
    features: dict[str, list[Tensor]] = {"source": [], "translated": [], "target": []}
    likeness = []
    with run.console.track(run.title, len(mine) + len(mine_target), unit="images") as task:
        indices = [chosen[index] for index in mine]
        sets = {"source": source, "translated": translated}
        for pair in joined_images(sets, indices, run.workers):
            before, after = (to_unit(fabric.to_device(pair[name]["image"])) for name in sets)
            if after.shape != before.shape:  # images translated elsewhere
                after = F.interpolate(after, before.shape[-2:], mode="bilinear", antialias=True)
            label = fabric.to_device(pair["source"]["label"])
            size = (label.shape[-2], label.shape[-1])
            drift.update(label, models.classes(before, size), models.classes(after, size))
            features["source"].append(models.features(before)[0])
            features["translated"].append(models.features(after)[0])
            values = [similarity(before[0], after[0])]
            if back is not None:
                values.append(float((generate(fabric, back, after) - before).abs().mean()))
            likeness.append(torch.tensor(values))
            task.advance()
        indices = [chosen_target[index] for index in mine_target]
        on_target = torch.zeros(models.num_classes, dtype=torch.int64)
        for item in whole_images(target, indices, run.workers):
            image = to_unit(fabric.to_device(item["image"]))
            features["target"].append(models.features(image)[0])
            seen = models.classes(image, (image.shape[-2], image.shape[-1]))
            on_target += torch.bincount(seen.flatten().cpu(), minlength=models.num_classes)
            task.advance()
    drift.counts = sum_over_processes(fabric, drift.counts)
    on_target = sum_over_processes(fabric, on_target)
    together = {name: gather_rows(fabric, rows) for name, rows in features.items()}
    means = gather_rows(fabric, likeness).double().mean(0).tolist()
    return MeasureMetrics(
        images=len(chosen),
        target_images=len(chosen_target),
        drift=drift.summarize(),
        kid=Distances(
            features=models.features_title,
            translated=kernel_distance(together["translated"], together["target"], seed),
            source=kernel_distance(together["source"], together["target"], seed),
        ),
        ssim=means[0],
        reconstruction_l1=means[1] if back is not None else None,
        on_target=on_target.tolist(),
    )


def similarity(image: Tensor, other: Tensor) -> float:
    """SSIM of two images, 3 x H x W in [0, 1] with sides of 7 or more, over windows of 7x7."""
    return float(structural_similarity(to_bytes(image), to_bytes(other), channel_axis=2))


def kernel_distance(features: Tensor, others: Tensor, seed: int) -> KernelDistance | None:
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
    return KernelDistance(float(mean), float(std))


def gather_rows(fabric: Fabric, mine: Sequence[Tensor]) -> Tensor:
    """The rows of all processes, on the CPU, in the order in which `share` dealt them out."""
    counts = torch.zeros(fabric.world_size, dtype=torch.int64)
    counts[fabric.global_rank] = len(mine)
    total = int(sum_over_processes(fabric, counts).sum())
    # The main process has the first row if there is any; others may have none to tell the width.
    shape = fabric.broadcast(list(mine[0].shape) if mine else [])
    rows = torch.zeros(total, *shape)
    for index, row in zip(share(total, fabric.global_rank, fabric.world_size), mine, strict=True):
        rows[index] = row
    return sum_over_processes(fabric, rows)


def _worst_pairs(of_right: Tensor) -> list[Confused]:
    pixels, total = of_right.sum(1).tolist(), int(of_right.sum())
    pairs = [
        Confused(label, predicted, count / pixels[label])
        for label, row in enumerate(of_right.tolist())
        for predicted, count in enumerate(row)
        if predicted != label and count and pixels[label] >= _RARE * total
    ]
    return sorted(pairs, key=lambda pair: -pair.share)[:_WORST]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
