"""The stages of segmentation: M(k,i), pseudo labels, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from bdl.domains.datasets import Sample
from bdl.domains.problem import Classes, ImageSet
from bdl.domains.target_labels import match_labels
from bdl.runtime.config import (
    AdversarialConfig,
    EvaluationConfig,
    PseudoLabelConfig,
    SegmenterTraining,
)
from bdl.runtime.errors import UserError
from bdl.runtime.files import GivenFile, load_tensors, save_tensors
from bdl.runtime.metrics import Metrics
from bdl.runtime.run import Run
from bdl.runtime.stage import Stage, fingerprint_of
from bdl.runtime.store import read_metrics
from bdl.segmentation.metrics import (
    TARGET_LABELS,
    EvaluationMetrics,
    GivenMetrics,
    PseudoLabelMetrics,
    SegmenterMetrics,
)

if TYPE_CHECKING:
    from torch import Tensor

    from bdl.domains.loading import View
    from bdl.segmentation.networks.base import Segmenter as SegmentationNetwork
    from bdl.segmentation.pseudo_labels import Before
    from bdl.segmentation.validation import ValidationData

RESULT = "segmenter.pt"
BEST = "segmenter-best.pt"  # beside it, the best state on the validation images
_WORST = 3  # validation images that are kept as the worst
_BATCH = 3  # images of a batch that are kept, at most


def pseudo_label_path(folder: Path, name: str) -> Path:
    """Where the pseudo labels of the sample `name` lie in their stage's folder."""
    return folder / "labels" / f"{name}.png"


def given_label_path(folder: Path, name: str) -> Path:
    """Where, beside the pseudo labels, the user's labels of the labelled sample `name` lie."""
    return folder / "labelled" / f"{name}.png"


def prediction_path(folder: Path, index: int) -> Path:
    """Where the prediction of the validation image `index` lies, if it is a followed one."""
    return folder / "predictions" / f"{index:04d}.png"


def worst_count(images: int) -> int:
    """How many of so many validation images are kept as the worst."""
    return min(_WORST, images)


def worst_path(folder: Path, rank: int) -> Path:
    """Where the prediction of the worst validation image lies, of the second worst, and so on."""
    return folder / "worst" / f"{rank}.png"


def confidence_path(folder: Path, rank: int) -> Path:
    """Where the network's confidence in that prediction lies, 0 to 255."""
    return folder / "worst" / f"{rank}-confidence.png"


def batch_count(images: int) -> int:
    """How many of a batch of so many images are kept to be looked at."""
    return min(_BATCH, images)


def batch_path(folder: Path, role: str, number: int, labels: bool = False) -> Path:
    """Where an image of the first batch that a network learned from lies, or its labels."""
    return folder / "batch" / f"{role}-{number}{'-labels' if labels else ''}.png"


class Translations(Protocol):
    """Translated source images, a stage or given ones."""

    def samples(self, run: Run, source: list[Sample]) -> list[Sample]:
        """The samples of the source with their translations in the place of the images."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmenter(Stage):
    """M(k,i): a segmentation network, wherever it comes from; M(0) is source only.

    Args:
        users_network: The name of a network whose code is the user's own, as configured: only code
            that it names runs. None for other networks.
        users_code: What tells that code's versions apart.
    """

    unit: ClassVar[str] = "steps"
    is_network: ClassVar[bool] = True
    chosen_by: ClassVar[str] = "segmentation.checkpoints"

    users_network: str | None = field(default=None, compare=False)
    users_code: str | None = field(
        default=None, metadata={"key": "the code of segmentation.network"}
    )

    @property
    def name(self) -> str:
        return f"k{self.k}/segmentation-{self.i}" if self.k else "source-only"

    @property
    def symbol(self) -> str:
        return f"M({self.k},{self.i})" if self.k else "M(0)"

    @property
    def log(self) -> str:
        if not self.k:
            return "k0-00-source-only"
        return f"k{self.k}-{2 * self.i + 2:02d}-segmentation-{self.i}"

    @property
    def cost(self) -> str:
        if not self.k:
            return "source-only"
        return "segmentation-i" if self.i else "segmentation-0"

    def files(self) -> Sequence[str]:
        return [RESULT]

    def load(self, run: Run) -> SegmentationNetwork:
        """The finished network, on the CPU."""
        from bdl.segmentation.checkpoint import load_segmenter

        network, _ = load_segmenter(run.folder / self.name / RESULT, self.users_network)
        return network

    def score_maps(self, run: Run) -> Callable[[Tensor], Tensor]:
        """The frozen network's scores at its own stride, N x C x h x w, of images in [0, 1],
        N x 3 x H x W; gradients of the images pass."""
        from bdl.segmentation.predict import frozen_scores

        return frozen_scores(run.fabric, self.load(run), run.compile)

    def untrained(self) -> SegmentationNetwork:
        """A network that computes as this one does, before this one is there."""
        raise NotImplementedError

    def untrained_score_maps(self, run: Run) -> Callable[[Tensor], Tensor]:
        """The same as `score_maps`, of `untrained`."""
        from bdl.segmentation.predict import frozen_scores

        return frozen_scores(run.fabric, self.untrained(), run.compile)

    def predicted_classes(self, run: Run) -> Callable[[Tensor, tuple[int, int]], Tensor]:
        """Images in [0, 1], N x 3 x H x W, and a size (height, width) to train ids,
        N x height x width."""
        from bdl.segmentation.predict import predict_classes

        network = self.load(run)
        run.fabric.to_device(network)
        return lambda images, size: predict_classes(run.fabric, network, images, size)


@dataclass(frozen=True, eq=False, kw_only=True)
class PseudoLabels(Stage):
    """Y' = the confident predictions of M(k,i-1) on the target's images, and the labels of those
    that the user has labelled; a set of samples.

    Args:
        precision: As configured.
        labelling: Views of an image, and thresholds.
        classes: What the network tells apart.
        target: Target images.
        labelled: Labelled images like the target's; None where there are none.
        network: M(k,i-1).
        source: Labelled source images, by which it is seen whether the network's predictions have
            collapsed into one class; None: those that the network was trained on.
        previous: The pseudo labels before, which they are compared with.
        limited_by: Those, if they limit how many labels a class has.
    """

    kind: ClassVar[str] = "pseudo-label"
    unit: ClassVar[str] = "images"
    metrics: ClassVar[type[Metrics]] = PseudoLabelMetrics

    precision: str
    labelling: PseudoLabelConfig = field(metadata={"key": "segmentation.pseudo_labels"})
    classes: Classes = field(metadata={"key": "data.label_space"})
    target: ImageSet = field(metadata={"key": "data.target"})
    labelled: ImageSet | None = field(
        default=None, metadata={"key": "data.target_labelled", "optional": True}
    )
    network: Segmenter
    source: ImageSet | None = field(default=None, metadata={"key": "data.source", "optional": True})
    previous: PseudoLabels | None = field(default=None, compare=False)
    limited_by: PseudoLabels | None = field(default=None, metadata={"optional": True})

    @property
    def name(self) -> str:
        return f"k{self.k}/pseudo-labels-{self.i}"

    @property
    def symbol(self) -> str:
        return f"pseudo labels for M({self.k},{self.i})"

    @property
    def cost(self) -> str:
        return "pseudo-labels-i"

    @property
    def work(self) -> int:
        return self.target.count

    def files(self) -> Sequence[str]:
        # Which labelled images the target has is not known before both are there.
        given = self.labelled.names() if self.labelled is not None else []
        return [
            *(f"labels/{name}.png" for name in self.target.names()),
            *(f"labelled/{name}.png" for name in given),
        ]

    def samples(self, run: Run) -> list[Sample]:
        """The target's samples with their pseudo labels, train ids, 255 where there is none; then
        the labelled samples that the target does not have."""
        folder = run.folder / self.name
        added = match_labels(self.target, self.labelled).added
        return [
            *(
                Sample(sample.name, sample.image, pseudo_label_path(folder, sample.name))
                for sample in self.target.samples()
            ),
            *(
                Sample(sample.name, sample.image, given_label_path(folder, sample.name))
                for sample in added
            ),
        ]

    def make(self, run: Run, folder: Path) -> PseudoLabelMetrics:
        from bdl.segmentation.pseudo_labels import make_pseudo_labels, write_given_labels

        known = match_labels(self.target, self.labelled).known
        samples = self.target.samples()
        unlabelled = [one for one, label in zip(samples, known, strict=True) if label is None]
        # Without a size the label maps are as large as at the first scale: that nearest 1.
        scales = self.labelling.scales
        if self.target.size is None:
            scales = tuple(sorted(scales, key=lambda scale: abs(scale - 1)))
        metrics = make_pseudo_labels(
            run,
            folder,
            self.network.load(run),
            self.target.whole(unlabelled, scales),
            self.target.size,
            self.classes.space,
            self.labelling,
            self._before(run),
        )
        if self.labelled is None:
            return metrics
        files = {given_label_path(folder, one.name): one for one in self.labelled.samples()}
        files |= {
            pseudo_label_path(folder, one.name): label
            for one, label in zip(samples, known, strict=True)
            if label is not None
        }
        write_given_labels(run, self.labelled, files, self.classes.space)
        return replace(metrics, labelled=self.labelled.count)

    def _before(self, run: Run) -> Before:
        """What the labels are compared with, as far as it is there."""
        from bdl.domains.class_shares import label_counts
        from bdl.segmentation.pseudo_labels import Before

        labels, folder, metrics, source = None, None, None, self.source
        if isinstance(self.network, TrainedSegmenter):
            source = self.network.source
        if source is not None:
            labels = label_counts(source.whole(), self.classes.count)
        if self.previous is not None:
            folder = run.folder / self.previous.name
            metrics = read_metrics(folder, PseudoLabelMetrics)
        counts = metrics.labels if isinstance(metrics, PseudoLabelMetrics) else []
        if len(counts) != self.classes.count or not any(counts):
            return Before(source_labels=labels)
        return Before(labels, folder, counts)


@dataclass(frozen=True)
class Checks:
    """On what a network is scored while it learns, which changes no result.

    Args:
        every: Steps from one evaluation to the next.
        images: Validation images with labels.
        size: Width and height to score at; None: the labels' own.
    """

    every: int = field(compare=False)
    images: ImageSet
    size: tuple[int, int] | None

    def data(self) -> ValidationData:
        """The same for a training."""
        from bdl.segmentation.validation import ValidationData

        return ValidationData(self.every, self.images.whole(), self.size, fingerprint_of(self))


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedSegmenter(Segmenter):
    """M(k,i), trained on labelled source images and, after the first, with the target.

    Source only never sees the target, not even unlabelled: batch norm learns from what passes.

    Args:
        seed: Seed of all draws.
        precision: As configured.
        training: Network, optimizer, schedule and augmentation.
        steps: Steps of the training.
        weights: Initial weights; None: the network's own initialisation.
        classes: What the network tells apart.
        source: Source images with labels.
        translated: Translations to train on in their place; None: the images as they are.
        originals: Whether the source images as they are take part beside translations.
        target: Target images; None where training does not see them.
        adversarial: Adversarial term; None where there is none.
        pseudo_labels: Pseudo labels of the target; None where there are none.
        labelled: Labelled images like the target's, with a term of their own; None where there are
            none.
        class_mixing: Whether classes of the source are pasted onto target images.
        warm_start_from: A network to go on from; None: initial weights.
        checks: On what it is scored while it learns; None: on nothing.
    """

    kind: ClassVar[str] = "segment"
    metrics: ClassVar[type[Metrics]] = SegmenterMetrics

    seed: int
    precision: str
    training: SegmenterTraining = field(metadata={"key": "segmentation"})
    steps: int = field(metadata={"key": "segmentation.steps"})
    weights: GivenFile | None = field(metadata={"key": "segmentation.weights"})
    classes: Classes = field(metadata={"key": "data.label_space"})
    source: ImageSet = field(metadata={"key": "data.source"})
    translated: Translations | None = field(metadata={"key": "translation.images"})
    originals: bool = field(metadata={"key": "segmentation.originals"})
    target: ImageSet | None = field(metadata={"key": "data.target"})
    adversarial: AdversarialConfig | None = field(metadata={"key": "segmentation.adversarial"})
    pseudo_labels: PseudoLabels | None
    labelled: ImageSet | None = field(
        default=None, metadata={"key": "data.target_labelled", "optional": True}
    )
    class_mixing: bool = field(metadata={"key": "segmentation.class_mixing"})
    warm_start_from: Segmenter | None
    checks: Checks | None = field(default=None, compare=False)

    @property
    def work(self) -> int:
        return self.steps

    @property
    def seen(self) -> Sequence[Stage]:
        rendered = self.checks.images.rendered if self.checks is not None else None
        return [rendered] if rendered is not None else []

    def files(self) -> Sequence[str]:
        files = [Path(RESULT)] if self.checks is None else [Path(RESULT), Path(BEST)]
        for number in range(batch_count(self.training.batch_size)):
            files += [batch_path(Path(), "source", number, labels) for labels in (False, True)]
            if self.target is not None:
                files.append(batch_path(Path(), "target", number))
            if self.pseudo_labels is not None:
                files.append(batch_path(Path(), "target", number, labels=True))
            if self.labelled is not None:
                files += [
                    batch_path(Path(), "target_labelled", number, labels)
                    for labels in (False, True)
                ]
        return [file.as_posix() for file in files]

    def require(self) -> None:
        from bdl.segmentation.checkpoint import go_on_from

        if isinstance(self.warm_start_from, GivenSegmenter):
            file = self.warm_start_from.file.path
            go_on_from(self.untrained(), self.training, load_tensors(file), file)

    def make(self, run: Run, folder: Path) -> SegmenterMetrics:
        from bdl.segmentation.train import SegmentationData, train_segmenter

        source = self.source.samples()
        if self.translated is not None:
            translations = self.translated.samples(run, source)
            source = [*source, *translations] if self.originals else translations
        seen = None
        if self.target is not None:
            if self.pseudo_labels is not None:
                samples = self.pseudo_labels.samples(run)
            else:
                added = match_labels(self.target, self.labelled).added
                samples = [*self.target.samples(), *(replace(one, label=None) for one in added)]
            seen = self.target.training(samples, self._view(self.target), self.seed)
        labelled = None
        if self.labelled is not None:
            labelled = self.labelled.training(
                self.labelled.samples(), self._view(self.labelled), self.seed
            )
        data = SegmentationData(
            source=self.source.training(source, self._view(self.source), self.seed),
            target=seen,
            labelled=labelled,
            adversarial=self.adversarial,
            class_mixing=self.class_mixing,
            validation=self.checks.data() if self.checks is not None else None,
        )
        return train_segmenter(
            run,
            folder,
            self.training,
            self.seed,
            self.steps,
            self.classes.space,
            self._initial_network(run),
            data,
        )

    def untrained(self) -> SegmentationNetwork:
        from bdl.segmentation.checkpoint import untrained_segmenter

        return untrained_segmenter(self.training, self.classes.count)

    def trial(self, run: Run) -> float | None:
        from bdl.segmentation.train import seconds_per_step

        return seconds_per_step(
            run,
            self.training,
            self.untrained(),
            self.source.first_size(),
            self.target is not None,
            self.pseudo_labels is not None,
            self.adversarial,
            self.labelled is not None,
        )

    def _view(self, images: ImageSet) -> View:
        from bdl.domains.loading import View

        augmentation = self.training.augmentation
        return View(
            size=images.size,
            width=images.width,
            crop=augmentation.crop,
            scale=augmentation.scale,
            flip=augmentation.flip,
        )

    def _initial_network(self, run: Run) -> SegmentationNetwork:
        from bdl.segmentation.checkpoint import go_on_from, initial_segmenter

        path = self.weights.path if self.weights is not None else None
        network = initial_segmenter(self.training, path, self.classes.space.names, self.seed)
        if self.warm_start_from is not None:
            file = run.folder / self.warm_start_from.name / RESULT
            go_on_from(network, self.training, load_tensors(file), file)
        return network


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenSegmenter(Segmenter):
    """A network trained elsewhere (`segmentation.checkpoints`) in the place of M(k,i).

    Args:
        file: Its checkpoint.
        classes: What the run's networks tell apart.
    """

    kind: ClassVar[str] = "given"
    unit: ClassVar[str] = "network"
    metrics: ClassVar[type[Metrics]] = GivenMetrics

    file: GivenFile = field(metadata={"key": "segmentation.checkpoints"})
    classes: Classes = field(metadata={"key": "data.label_space"})

    @property
    def work(self) -> int:
        return 1

    def untrained(self) -> SegmentationNetwork:
        from bdl.segmentation.checkpoint import load_segmenter

        network, _ = load_segmenter(self.file.path, self.users_network)
        return network

    def make(self, run: Run, folder: Path) -> GivenMetrics:
        from bdl.segmentation.checkpoint import as_segmenter

        content = load_tensors(self.file.path)
        _, label_space = as_segmenter(content, self.file.path, self.users_network)
        if label_space["names"] != list(self.classes.space.names):
            raise UserError(
                f"segmentation.checkpoints.{self.name}: {self.file.path} is for the classes of "
                f"{label_space['name']}, not of {self.classes.space.name}"
            )
        if run.is_main:
            save_tensors(folder / RESULT, content)
        return GivenMetrics(target_labels=int(content.get(TARGET_LABELS, 0)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation(Stage):
    """mIoU of a network on the validation images, which nothing but this stage reads.

    Args:
        precision: As configured.
        evaluation: Size to score at.
        classes: What the network tells apart.
        subsets: Train ids of the classes that further means are over, by the mean's name.
        validation: Validation images with labels.
        network: The network.
    """

    kind: ClassVar[str] = "evaluate"
    unit: ClassVar[str] = "images"
    metrics: ClassVar[type[Metrics]] = EvaluationMetrics

    precision: str
    evaluation: EvaluationConfig = field(metadata={"key": "segmentation.evaluation"})
    classes: Classes = field(metadata={"key": "data.label_space"})
    subsets: dict[str, tuple[int, ...]]
    validation: ImageSet = field(metadata={"key": "data.validation"})
    network: Segmenter

    @property
    def name(self) -> str:
        return f"{self.network.name}/evaluation"

    @property
    def symbol(self) -> str:
        return self.network.symbol

    @property
    def cost(self) -> str:
        return "evaluation"

    @property
    def work(self) -> int:
        return self.validation.count

    def files(self) -> Sequence[str]:
        files = [prediction_path(Path(), index) for index in self.validation.followed()]
        for rank in range(worst_count(self.validation.count)):
            files += [worst_path(Path(), rank), confidence_path(Path(), rank)]
        return [file.as_posix() for file in files]

    def make(self, run: Run, folder: Path) -> EvaluationMetrics:
        from bdl.segmentation.evaluate import evaluate

        metrics = evaluate(
            run,
            folder,
            self.network.load(run),
            self.validation.whole(),
            self.classes.space,
            self.evaluation.size,
            self.validation.followed(),
        )
        return replace(metrics, sizes=[list(size) for size in self.validation.stored_sizes()])


@dataclass(frozen=True)
class PackagedFeatures:
    """Features of a backbone trained on ImageNet, whose weights an installed package holds: the
    same for all rounds and runs.

    Args:
        backbone: Timm's name of it.
    """

    backbone: str

    def load(self, run: Run) -> tuple[Callable[[Tensor], Tensor], str]:
        """A function from images in [0, 1], N x 3 x H x W, to N x D, and what it gives."""
        from bdl.segmentation.networks.timm_backbone import ImageFeatures

        features = run.fabric.to_device(ImageFeatures(self.backbone))
        return features, f"{self.backbone}, trained on ImageNet"


@dataclass(frozen=True)
class PooledScores:
    """The mean over the image of the scores of a network, the same for all rounds of a run.

    Args:
        network: M(0).
    """

    network: Segmenter

    def load(self, run: Run) -> tuple[Callable[[Tensor], Tensor], str]:
        """A function from images in [0, 1], N x 3 x H x W, to N x C, and what it gives."""
        # Not `score_maps`, whose weights may be of a precision that needs autocast around them.
        network = self.network.load(run).requires_grad_(False)
        run.fabric.to_device(network)
        title = f"scores of {self.network.name}, mean over the image"
        return lambda images: network.scores(images).mean((2, 3)), title
