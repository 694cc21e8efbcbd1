"""What the stages of translation measure; classes are counted by train id, not by name."""

from dataclasses import dataclass

from bdl.runtime.metrics import Metrics


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
    """

    images: int = 0
    target_images: int = 0
    drift: Drift | None = None
    kid: Distances | None = None
    ssim: float = 0.0
    reconstruction_l1: float | None = None
