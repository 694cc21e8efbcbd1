"""What the stages of segmentation measure; classes are counted by train id, not by name."""

from dataclasses import dataclass, field

from bdl.runtime.metrics import Metrics, TrainingMetrics

TARGET_LABELS = "target_labels"  # as the number below is called in results.json and segmenter.pt


def in_words(target_labels: int) -> str:
    """What is said beside results of networks that learned from so many labelled target images;
    empty for none."""
    if not target_labels:
        return ""
    return f"with {target_labels} target label{'' if target_labels == 1 else 's'}"


@dataclass
class Best:
    """The best state of a training: the steps that were done, and its mIoU in [0, 1]."""

    step: int
    miou: float


@dataclass
class SegmenterMetrics(TrainingMetrics):
    """A training's curves, and the best state that it kept.

    Args:
        best: That of the highest mIoU on the validation images, the first of equals; None where
            none was kept.
        target_labels: Number of labelled target images that it learned from.
    """

    best: Best | None = None
    target_labels: int = 0


@dataclass
class GivenMetrics(Metrics):
    """A network trained elsewhere.

    Args:
        target_labels: Number of labelled target images that it learned from, as far as its file
            tells.
    """

    target_labels: int = 0


@dataclass
class ImageScore:
    """A validation image: its index, and the share of its labelled pixels that are right."""

    index: int
    right: float


@dataclass
class EvaluationMetrics(Metrics):
    """Scores of a network on labelled images.

    Args:
        images: Number of images.
        miou: Mean IoU in [0, 1] over the classes that are in labels or predictions.
        subsets: The same over each of the label space's subsets; None where none is there.
        iou: IoU by train id; None for a class in neither labels nor predictions.
        confusion: Pixels by label (rows) and prediction (columns).
        worst: The images with the smallest share of right pixels, the worst first.
        sizes: Width and height of the images as stored, each once.
    """

    images: int = 0
    miou: float | None = None
    subsets: dict[str, float | None] = field(default_factory=dict)
    iou: list[float | None] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    worst: list[ImageScore] = field(default_factory=list)
    sizes: list[list[int]] = field(default_factory=list)


@dataclass
class PseudoLabelClass:
    """Of one class: its confidence threshold in [0, 1], the pixels predicted as it, and the share
    of these that were kept."""

    threshold: float
    predicted: int
    kept: float


@dataclass
class PseudoLabelMetrics(Metrics):
    """Pseudo labels of the target's training images.

    Images that the user has labelled count for `labelled` alone.

    Args:
        images: Number of images that were predicted.
        labelled: Number of images whose labels are the user's.
        kept: Share of the pixels that have a label, in [0, 1]; transparent ones do not count.
        transparent: Share of all pixels that are transparent, in [0, 1].
        classes: One entry a class, by train id.
        changed: Of the pixels that have a label here and in the pseudo labels before, the share
            whose class is another; None for the first.
    """

    images: int = 0
    labelled: int = 0
    kept: float = 0.0
    transparent: float = 0.0
    changed: float | None = None
    classes: list[PseudoLabelClass] = field(default_factory=list)

    @property
    def labels(self) -> list[int]:
        """Pixels that have a label, by train id."""
        return [round(one.predicted * one.kept) for one in self.classes]
