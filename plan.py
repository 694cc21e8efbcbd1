"""From a configuration to the stages that `pipeline.algorithm` asks for.

What a configuration changes in Algorithm 1 is decided here: networks trained elsewhere, source
images translated elsewhere, labelled images of the target, where a training starts from, what is
measured and evaluated.
"""

from dataclasses import replace
from pathlib import Path

from bdl.domains.inspection import usable_samples
from bdl.domains.problem import ImageSet, Problem
from bdl.runtime.config import Config, SegmenterTraining, part_of
from bdl.runtime.errors import UserError
from bdl.runtime.files import GivenFile
from bdl.runtime.stage import Stage
from bdl.segmentation.network_name import is_users_own, module_digest
from bdl.segmentation.packaged_weights import packaged_backbone
from bdl.segmentation.stages import (
    Checks,
    Evaluation,
    GivenSegmenter,
    PackagedFeatures,
    PooledScores,
    PseudoLabels,
    Segmenter,
    TrainedSegmenter,
)
from bdl.translation.stages import (
    GivenTranslations,
    GivenTranslator,
    TrainedTranslator,
    Translated,
    TranslatedByFourier,
    TranslatedByNetwork,
    TranslationMeasures,
    Translations,
    Translator,
)


class Plan:
    """The stages of a configured run, in the order in which they are asked for.

    Args:
        config: The configuration.
        data: The data sets.
    """

    def __init__(self, config: Config, data: Problem) -> None:
        self.config, self.data = config, data
        self._stages: list[Stage] = []
        self._source_only: Segmenter | None = None
        self._pseudo_labels: PseudoLabels | None = None
        network = config.segmentation.network
        self._users_network = network if is_users_own(network) else None
        self._users_code = module_digest(network) if is_users_own(network) else None
        self._given = self._given_translations()
        for rendered in filter(None, map(data.rendered, data.roles)):
            self._stages.append(rendered)

    @property
    def stages(self) -> list[Stage]:
        """All stages. Raises UserError for a given network that takes no stage's place."""
        for key, given, kind in (
            ("segmentation", self.config.segmentation.checkpoints, Segmenter),
            ("translation", self.config.translation.checkpoints, Translator),
        ):
            names = [stage.name for stage in self._stages if isinstance(stage, kind)]
            for name in given:
                if name not in names:
                    raise UserError(
                        f"{key}.checkpoints: '{name}' is no stage that trains one in this run; "
                        f"there are {', '.join(sorted(names)) or 'none'}"
                    )
        return list(self._stages)

    def segmenter(
        self,
        k: int,
        i: int,
        source: ImageSet | Translations,
        target: ImageSet | PseudoLabels | None = None,
        start: Segmenter | None = None,
    ) -> Segmenter:
        """M(k,i), and its evaluation.

        Args:
            k: Round; 0 for source only.
            i: Self-training step.
            source: Labelled source images, or their translations.
            target: Target images, or their pseudo labels; None: training never sees the target.
            start: The network before it.
        """
        config = self.config.segmentation
        segmenter: Segmenter = self._trained_segmenter(k, i, source, target, start)
        if segmenter.name in config.checkpoints:
            file = _given_file(config.checkpoints, segmenter.name, "segmentation.checkpoints")
            segmenter = GivenSegmenter(
                k=k,
                i=i,
                users_network=self._users_network,
                users_code=self._users_code,
                file=file,
                classes=self.data.classes,
            )
        self._stages.append(segmenter)
        if self._source_only is None:
            self._source_only = segmenter
        if self.data.validation is not None:
            self._stages.append(
                Evaluation(
                    k=k,
                    i=i,
                    precision=self.config.precision,
                    evaluation=config.evaluation,
                    classes=self.data.classes,
                    subsets=self.data.space.subsets,
                    validation=self.data.validation,
                    network=segmenter,
                )
            )
        return segmenter

    def _trained_segmenter(
        self,
        k: int,
        i: int,
        source: ImageSet | Translations,
        target: ImageSet | PseudoLabels | None,
        start: Segmenter | None,
    ) -> TrainedSegmenter:
        config = self.config.segmentation
        labels = target if isinstance(target, PseudoLabels) else None
        seen = target.target if isinstance(target, PseudoLabels) else target
        adversarial = config.adversarial if config.adversarial.weight > 0 else None
        if labels is None and adversarial is None:
            seen = None  # without a term of its own the target stays out
        adapted = start is not None and start.k > 0
        goes_on = {"initial": False, "adapted": adapted, "previous": True}[self.config.init]
        translated = None if isinstance(source, ImageSet) else source
        weights = None
        if config.weights is not None:
            weights = GivenFile.read(Path(config.weights).expanduser(), "segmentation.weights")
        return TrainedSegmenter(
            k=k,
            i=i,
            users_network=self._users_network,
            users_code=self._users_code,
            seed=self.config.seed,
            precision=self.config.precision,
            training=part_of(SegmenterTraining, config),
            steps=(config.pseudo_label_steps if labels else None) or config.steps,
            weights=weights,
            classes=self.data.classes,
            source=self.data.source,
            translated=translated,
            originals=config.originals and translated is not None,
            target=seen,
            adversarial=adversarial if seen is not None else None,
            pseudo_labels=labels,
            labelled=self.data.target_labelled if k else None,
            class_mixing=config.class_mixing and labels is not None,
            warm_start_from=start if goes_on else None,
            checks=self._checks(),
        )

    def _checks(self) -> Checks | None:
        """On what networks are scored while they learn."""
        config, images = self.config.segmentation, self.data.validation
        if config.validate_every is None or images is None:
            return None
        return Checks(config.validate_every, images, config.evaluation.size)

    def translator(
        self, k: int, frozen: Segmenter, previous: Translator | None
    ) -> Translator | None:
        """F(k); None where no network translates: by Fourier transforms, or where images translated
        elsewhere take its place.

        Args:
            k: Round.
            frozen: The network that its perceptual loss comes from.
            previous: The translator of the round before.
        """
        config = self.config.translation
        if self._given is not None or config.method == "fda":
            return None
        name = Translator(k=k).name
        translator: Translator
        if name in config.checkpoints:
            file = _given_file(config.checkpoints, name, "translation.checkpoints")
            translator = GivenTranslator(k=k, file=file)
        else:
            goes_on = (config.init or self.config.init) != "initial"
            training, source = config.of_round(k), self.data.source
            measured = config.trust == "measured" and training.weights.is_perceptual
            translator = TrainedTranslator(
                k=k,
                seed=self.config.seed,
                precision=self.config.precision,
                training=training,
                source=source if measured else source.without_labels(),
                target=self.data.target,
                frozen=frozen if training.weights.is_perceptual else None,
                warm_start_from=previous if goes_on else None,
                trust="measured" if measured else "full",
                classes=self.data.classes,
            )
        self._stages.append(translator)
        return translator

    def translated(self, k: int, translator: Translator | None, frozen: Segmenter) -> Translations:
        """S' = F(k)(S), or what stands in its place, and its measures.

        Args:
            k: Round.
            translator: F(k); None where no network translates.
            frozen: The network that its perceptual loss came from.
        """
        if self._given is not None:
            if k == 1:  # they are the same in all rounds
                self._measure(k, self._given, None, frozen)
            return self._given
        source = self.data.source.without_labels()
        translated: Translated
        if translator is None:
            translated = TranslatedByFourier(
                k=k,
                seed=self.config.seed,
                fourier=self.config.translation.fda,
                source=source,
                target=self.data.target,
            )
        else:
            translated = TranslatedByNetwork(
                k=k, precision=self.config.precision, source=source, translator=translator
            )
        self._stages.append(translated)
        self._measure(k, translated, translator, frozen)
        return translated

    def _measure(
        self, k: int, translated: Translations, translator: Translator | None, frozen: Segmenter
    ) -> None:
        count = self.config.translation.measure_images
        if not count:
            return
        backbone = packaged_backbone(self.config.segmentation.network.removeprefix("timm:"))
        assert self._source_only is not None
        self._stages.append(
            TranslationMeasures(
                k=k,
                seed=self.config.seed,
                precision=self.config.precision,
                count=count,
                classes=self.data.classes,
                source=self.data.source,
                target=self.data.target,
                translated=translated,
                translator=translator,
                frozen=frozen,
                features=PackagedFeatures(backbone)
                if backbone
                else PooledScores(self._source_only),
            )
        )

    def pseudo_labels(self, k: int, i: int, network: Segmenter) -> PseudoLabels:
        """Y' for M(k,i): the confident predictions of `network`, M(k,i-1), on the target."""
        config, before = self.config.segmentation.pseudo_labels, self._pseudo_labels
        limited_by = before if config.max_growth is not None else None
        labels = PseudoLabels(
            k=k,
            i=i,
            precision=self.config.precision,
            labelling=config if limited_by is not None else replace(config, max_growth=None),
            classes=self.data.classes,
            target=self.data.target,
            labelled=self.data.target_labelled,
            network=network,
            source=None if isinstance(network, TrainedSegmenter) else self.data.source,
            previous=before,
            limited_by=limited_by,
        )
        self._pseudo_labels = labels
        self._stages.append(labels)
        return labels

    def _given_translations(self) -> GivenTranslations | None:
        """The images of `translation.images`, if the run uses any."""
        folder = self.config.translation.images
        if folder is None or not self.config.iterations:
            return None
        key = "translation.images"
        files, inspection = self.data.translations(Path(folder).expanduser())
        images = usable_samples(inspection, "stop", key)
        return GivenTranslations(self.data.index.digest_of_images(images, key), files)


def _given_file(checkpoints: dict[str, str], name: str, key: str) -> GivenFile:
    return GivenFile.read(Path(checkpoints[name]).expanduser(), f"{key}.{name}")
