"""The stages of translation: F(k), S', and what they are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from bdl.domains.class_shares import collapsed_into
from bdl.domains.datasets import Sample, pair_with
from bdl.domains.problem import Classes, ImageSet
from bdl.runtime.config import FourierConfig, TranslatorTraining
from bdl.runtime.console import log
from bdl.runtime.files import GivenFile, load_tensors, read_json, save_tensors, write_json
from bdl.runtime.metrics import Metrics
from bdl.runtime.run import Run
from bdl.runtime.stage import Stage
from bdl.runtime.values import plain, restored
from bdl.translation.metrics import MeasureMetrics, TranslatedMetrics, TranslatorMetrics, Trust
from bdl.translation.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from bdl.domains.loading import View
    from bdl.translation.train import Translator as TranslatorNetworks

RESULT = "translator.pt"
TRUST = "trust.json"  # beside the states of a training: what it began with


def trusting(training: TranslatorTraining, factor: float) -> TranslatorTraining:
    """The training with its perceptual weights times `factor`."""
    weights = training.weights
    scaled = replace(
        weights,
        perceptual=factor * weights.perceptual,
        perceptual_reconstruction=factor * weights.perceptual_reconstruction,
    )
    return replace(training, weights=scaled)


def image_path(folder: Path, name: str) -> Path:
    """Where the translation of the sample `name` lies in its stage's folder."""
    return folder / "images" / f"{name}.png"


def reconstruction_path(folder: Path, index: int) -> Path:
    """Where the reconstruction of the source image `index` lies, if it is a followed one."""
    return folder / "reconstructed" / f"{index:04d}.png"


def _no_scores(images: Tensor) -> Tensor:
    """In the place of a frozen network's, where no term of the loss asks for them."""
    raise AssertionError("a term of the loss asks for scores, and there is no frozen network")


class FrozenNetwork(Protocol):
    """The stage of a segmentation network, as translation sees it."""

    @property
    def name(self) -> str: ...

    @property
    def symbol(self) -> str: ...

    def score_maps(self, run: Run) -> Callable[[Tensor], Tensor]:
        """Images in [0, 1], N x 3 x H x W, to score maps N x C x h x w; gradients pass."""

    def untrained_score_maps(self, run: Run) -> Callable[[Tensor], Tensor]:
        """The same from weights that mean nothing, before the network is there."""

    def predicted_classes(self, run: Run) -> Callable[[Tensor, tuple[int, int]], Tensor]:
        """Images and a size (height, width) to train ids, N x height x width."""


class ImageFeatures(Protocol):
    """What sets of images are compared by."""

    def load(self, run: Run) -> tuple[Callable[[Tensor], Tensor], str]:
        """A function from images in [0, 1], N x 3 x H x W, to N x D, and what it gives."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Translator(Stage):
    """F(k): both generators, wherever they come from."""

    unit: ClassVar[str] = "steps"
    is_network: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"k{self.k}/translator"

    @property
    def symbol(self) -> str:
        return f"F({self.k})"

    @property
    def log(self) -> str:
        return f"k{self.k}-00-translator"

    @property
    def cost(self) -> str:
        return "translator"

    def files(self) -> Sequence[str]:
        return [RESULT]

    def load(self, run: Run) -> TranslatorNetworks:
        """The finished generators, on the CPU."""
        from bdl.translation.translate import load_translator

        return load_translator(run.folder / self.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedTranslator(Translator):
    """F(k), trained with a perceptual loss from the latest segmentation network.

    Args:
        seed: Seed of all draws.
        precision: As configured.
        training: Networks, loss and schedule.
        source: Source images.
        target: Target images.
        frozen: The network that the perceptual loss comes from; None without such a loss.
        warm_start_from: A translator to go on from; None: initial weights.
        trust: "full", or "measured": the perceptual weights are multiplied by how far the frozen
            network knows the target, for which the source has labels.
        classes: What the frozen network tells apart; for "measured".
    """

    kind: ClassVar[str] = "translate"
    metrics: ClassVar[type[Metrics]] = TranslatorMetrics

    seed: int
    precision: str
    training: TranslatorTraining = field(metadata={"key": "translation"})
    source: ImageSet = field(metadata={"key": "data.source"})
    target: ImageSet = field(metadata={"key": "data.target"})
    frozen: FrozenNetwork | None
    warm_start_from: Translator | None
    trust: str = field(default="full", metadata={"key": "translation.trust", "optional": True})
    classes: Classes | None = field(default=None, compare=False)

    @property
    def work(self) -> int:
        return Schedule.of(self.training, self.source.count).steps

    def require(self) -> None:
        from bdl.translation.train import go_on_from

        if isinstance(self.warm_start_from, GivenTranslator):
            file = self.warm_start_from.file.path
            go_on_from(load_tensors(file), file, self.training)

    def make(self, run: Run, folder: Path) -> TranslatorMetrics:
        from bdl.translation.train import train_translator

        start = self.warm_start_from
        score_maps = self.frozen.score_maps(run) if self.frozen is not None else _no_scores
        source = self.source.without_labels()
        trust = self._measured_trust(run, folder, score_maps)
        metrics = train_translator(
            run,
            folder,
            trusting(self.training, trust.factor if trust else 1.0),
            self.seed,
            source.training(source.samples(), self._view, self.seed),
            self.target.training(self.target.samples(), self._view, self.seed),
            score_maps,
            run.folder / start.name if start else None,
        )
        if run.is_main:
            (folder / TRUST).unlink(missing_ok=True)
        warnings = self._doubts(trust) + metrics.warnings
        return TranslatorMetrics(**{**vars(metrics), "warnings": warnings}, trust=trust)

    def _measured_trust(
        self, run: Run, folder: Path, score_maps: Callable[[Tensor], Tensor]
    ) -> Trust | None:
        """How far the frozen network knows the target; a training that goes on keeps to what it
        began with."""
        from bdl.domains.class_shares import label_counts
        from bdl.runtime.compiling import uncompiled
        from bdl.translation.trust import measure_trust

        if self.trust == "full":
            return None
        assert self.frozen is not None and self.classes is not None
        file = folder / TRUST
        if file.is_file():
            trust = restored(Trust, read_json(file))
        else:
            labels = label_counts(self.source.whole(), self.classes.count)
            with uncompiled(run.compile):
                trust = measure_trust(run, score_maps, self.target.whole(), labels)
            if run.is_main:
                write_json(file, plain(trust))
        doubts = self._doubts(trust)
        for doubt in doubts:
            log.warning("  %s: warning: %s", run.title, doubt)
        if not doubts:
            log.info("  %s: trust in %s: %s", run.title, self.frozen.symbol, trust.text())
        return trust

    def _doubts(self, trust: Trust | None) -> list[str]:
        """What is to be known of a network that does not know the target well."""
        if trust is None or trust.factor == 1:
            return []
        assert self.frozen is not None and self.classes is not None
        how = "hardly" if trust.factor < 0.5 else "only partly"
        why = f"{self.frozen.symbol} {how} knows the target ({trust.text()})"
        only = collapsed_into(trust.on_target, trust.labels)
        if only is not None:
            name = self.classes.space.names[only]
            why = f"{self.frozen.symbol} has collapsed: to it nearly all of the target is {name}"
        weight = f"{100 * trust.factor:.0f} % of their weight"
        return [f"{why}; the perceptual terms, which hold what it sees, have {weight}"]

    def trial(self, run: Run) -> float | None:
        from bdl.translation.train import seconds_per_step

        frozen = self.frozen
        score_maps = frozen.untrained_score_maps(run) if frozen is not None else _no_scores
        return seconds_per_step(run, self.training, score_maps)

    @property
    def _view(self) -> View:
        from bdl.domains.loading import View

        training = self.training
        return View(width=training.load_width, crop=training.crop, flip=training.flip)


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenTranslator(Translator):
    """A translator trained elsewhere (`translation.checkpoints`) in the place of F(k).

    Args:
        file: Its checkpoint.
    """

    kind: ClassVar[str] = "given"
    unit: ClassVar[str] = "network"

    file: GivenFile = field(metadata={"key": "translation.checkpoints"})

    @property
    def work(self) -> int:
        return 1

    def make(self, run: Run, folder: Path) -> Metrics:
        from bdl.translation.translate import as_translator

        content = load_tensors(self.file.path)
        as_translator(content, self.file.path)
        if run.is_main:
            save_tensors(folder / RESULT, content)
        return Metrics()


@dataclass(frozen=True, eq=False, kw_only=True)
class Translated(Stage):
    """S': every source image, translated whole, by whatever method; a set of samples.

    Args:
        source: Source images.
    """

    kind: ClassVar[str] = "export"
    chosen_by: ClassVar[str] = "translation.method"
    unit: ClassVar[str] = "images"
    metrics: ClassVar[type[Metrics]] = TranslatedMetrics

    source: ImageSet = field(metadata={"key": "data.source"})

    @property
    def name(self) -> str:
        return f"k{self.k}/translated"

    @property
    def symbol(self) -> str:
        return f"F({self.k})"

    @property
    def cost(self) -> str:
        return "translated"

    @property
    def work(self) -> int:
        return self.source.count

    def files(self) -> Sequence[str]:
        return [f"images/{name}.png" for name in self.source.names()]

    def samples(self, run: Run, source: list[Sample]) -> list[Sample]:
        """The samples of the source with their translations in the place of the images."""
        folder = run.folder / self.name
        return pair_with(source, lambda name: image_path(folder, name))


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslatedByNetwork(Translated):
    """S' = F(k)(S), the translator's images.

    Args:
        precision: As configured.
        translator: F(k).
    """

    precision: str
    translator: Translator

    def files(self) -> Sequence[str]:
        back = [f"reconstructed/{index:04d}.png" for index in self.source.followed()]
        return [*super().files(), *back]

    def make(self, run: Run, folder: Path) -> TranslatedMetrics:
        from bdl.translation.translate import export_translations

        networks = self.translator.load(run)
        return export_translations(
            run, folder, networks, self.source.whole(), self.source.followed()
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslatedByFourier(Translated):
    """S' by the amplitudes of the target's low frequencies: nothing is trained for it.

    Args:
        seed: Of which target image each source image is paired with.
        fourier: How low the frequencies are.
        target: Target images.
    """

    seed: int
    fourier: FourierConfig = field(metadata={"key": "translation.fda"})
    target: ImageSet = field(metadata={"key": "data.target"})

    def make(self, run: Run, folder: Path) -> TranslatedMetrics:
        from bdl.translation.fourier import export_with_amplitudes

        beta, target = self.fourier.beta, self.target.whole()
        return export_with_amplitudes(run, folder, self.source.whole(), target, beta, self.seed)


@dataclass(frozen=True)
class GivenTranslations:
    """Source images translated already (`translation.images`); a set of samples.

    Args:
        files: Digest of the files.
        images: The file of each sample's name.
    """

    files: str
    images: dict[str, Path] = field(compare=False, repr=False)

    def samples(self, run: Run, source: list[Sample]) -> list[Sample]:
        """The samples of the source with the given images in the place of theirs."""
        return pair_with(source, self.images.__getitem__)


Translations = Translated | GivenTranslations


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslationMeasures(Stage):
    """What a translation loses for the frozen network, and how near it comes to the target.

    Args:
        seed: Seed of KID's subsets.
        precision: As configured.
        count: Source images that are measured, and as many of the target.
        classes: What the frozen network tells apart.
        source: Source images with labels.
        target: Target images.
        translated: The translations.
        translator: Whose other generator takes them back; None where that is unknown.
        frozen: The network that the perceptual loss came from.
        features: What sets of images are compared by.
    """

    kind: ClassVar[str] = "measure"
    unit: ClassVar[str] = "images"
    metrics: ClassVar[type[Metrics]] = MeasureMetrics

    seed: int
    precision: str
    count: int = field(metadata={"key": "translation.measure_images"})
    classes: Classes = field(metadata={"key": "data.label_space"})
    source: ImageSet = field(metadata={"key": "data.source"})
    target: ImageSet = field(metadata={"key": "data.target"})
    translated: Translations = field(metadata={"key": "translation.images"})
    translator: Translator | None
    frozen: FrozenNetwork
    features: ImageFeatures

    @property
    def name(self) -> str:
        if isinstance(self.translated, Translated):
            return f"{self.translated.name}/measures"
        return "translated/measures"

    @property
    def symbol(self) -> str:
        if isinstance(self.translated, Translated):
            return self.translated.symbol
        return "given translations"

    @property
    def cost(self) -> str:
        return "translated/measures"

    @property
    def work(self) -> int:
        return sum(min(self.count, images.count) for images in (self.source, self.target))

    def files(self) -> Sequence[str]:
        return []

    def make(self, run: Run, folder: Path) -> MeasureMetrics:
        from bdl.translation.measure import FrozenModels, measure_translations

        source = self.source.samples()
        translations = self.translated.samples(run, self.source.without_labels().samples())
        back = self.translator.load(run).b_to_a if self.translator is not None else None
        features, title = self.features.load(run)
        classes = self.frozen.predicted_classes(run)
        models = FrozenModels(classes, self.classes.count, features, title)
        return measure_translations(
            run,
            self.source.whole(source),
            self.source.without_labels().whole(translations),
            self.target.whole(),
            models,
            back,
            self.count,
            self.seed,
        )
