"""What the stages of translation measure; classes are counted by train id, not by name."""

from dataclasses import dataclass, field

from bdl.domains.class_shares import knowledge
from bdl.runtime.metrics import Metrics, TrainingMetrics


@dataclass
class Trust:
    """How far a translator's frozen network knows the target, judged without the target's labels.

    Args:
        factor: By which the perceptual weights were multiplied, in [0, 1].
        overlap: What the predictions on the target and the source's labels have in common in their
            spread over the classes, in [0, 1].
        agreement: Cohen's kappa of the predictions for an image and for its other views: 1, always
            the same; 0, as by chance.
        confidence: Mean of the largest probability on the target, in [0, 1].
        on_target: Pixels by the predicted train id, on the target.
        labels: Pixels by train id, in the source's labels.
    """

    factor: float
    overlap: float
    agreement: float
    confidence: float
    on_target: list[int]
    labels: list[int]

    def text(self) -> str:
        """All of it in a line."""
        return (
            f"{100 * self.factor:.0f} %; classes overlap by {100 * self.overlap:.0f} %, "
            f"views agree by {self.agreement:.2f} (kappa), mean confidence {self.confidence:.2f}"
        )


@dataclass
class TranslatorMetrics(TrainingMetrics):
    """A training's curves.

    Args:
        trust: How far the frozen network knows the target; None where that was not asked.
    """

    trust: Trust | None = None


@dataclass
class TranslatedMetrics(Metrics):
    """Translated images and their number."""

    images: int = 0


@dataclass
class Confused:
    """A share of the pixels of class `label` that the frozen network had right on the source and
    takes for class `predicted` on the translation."""

    label: int
    predicted: int
    share: float


@dataclass
class Drift:
    """What the frozen network sees in translations, against what it saw in their sources.

    Args:
        right_on_source: Share of labelled pixels that it had right on the source; None of none.
        right_on_translation: The same on the translation.
        lost: Of the pixels right on the source, the share that is wrong on the translation.
        recovered: Of the pixels wrong on the source, the share that is right on the translation.
        worst: The largest parts of what was lost, among classes that are not rare.
        on_source: Pixels by label (rows) and prediction on the source (columns).
        on_translation: The same on the translation.
        of_right: The same on the translation, of the pixels right on the source alone.
    """

    right_on_source: float | None
    right_on_translation: float | None
    lost: float | None
    recovered: float | None
    worst: list[Confused]
    on_source: list[list[int]]
    on_translation: list[list[int]]
    of_right: list[list[int]]


@dataclass
class KernelDistance:
    """KID: mean and standard deviation over random subsets."""

    mean: float
    std: float


@dataclass
class Distances:
    """KID to the target of translations and, as the reference, of the source; None of fewer than
    two images. `features` says what is compared."""

    features: str
    translated: KernelDistance | None
    source: KernelDistance | None


@dataclass
class MeasureMetrics(Metrics):
    """What a translation kept and how near it came to the target.

    Args:
        images: Source images that were measured.
        target_images: Target images that they were compared with.
        drift: What the frozen network sees.
        kid: Distances to the target.
        ssim: Structural similarity to the source, mean in [-1, 1].
        reconstruction_l1: Mean absolute difference in [0, 1] between the source and what the
            other generator makes of its translation; None without one.
        on_target: Pixels of the target images by the train id that the frozen network predicts.
    """

    images: int = 0
    target_images: int = 0
    drift: Drift | None = None
    kid: Distances | None = None
    ssim: float = 0.0
    reconstruction_l1: float | None = None
    on_target: list[int] = field(default_factory=list)

    @property
    def knows_target(self) -> bool:
        """Whether the frozen network knows the target, as far as its predictions there tell. If
        not, what it no longer sees in a translation is no fault of the translation."""
        labels = [sum(row) for row in self.drift.on_source] if self.drift is not None else []
        return not (labels and any(self.on_target)) or knowledge(self.on_target, labels) > 0
