"""What a run's stages left behind, for whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bdl.domains.label_space import LabelSpace
from bdl.reports import old_runs
from bdl.runtime.errors import UserError
from bdl.runtime.files import read_json
from bdl.runtime.metrics import Metrics, TrainingMetrics
from bdl.runtime.ownership import METRICS, RESULTS
from bdl.runtime.stage import Stage
from bdl.runtime.store import VERSION, Manifest, Store, read_manifest, read_metrics
from bdl.segmentation.metrics import (
    TARGET_LABELS,
    EvaluationMetrics,
    GivenMetrics,
    PseudoLabelMetrics,
    SegmenterMetrics,
    in_words,
)
from bdl.segmentation.stages import RESULT, Evaluation, PseudoLabels, Segmenter, TrainedSegmenter
from bdl.translation.metrics import MeasureMetrics
from bdl.translation.stages import TrainedTranslator, TranslationMeasures

REPORT = "report.html"  # in the run's folder

# The kinds of stages whose numbers are shown, and what these are.
_SHOWN: dict[str, type[Metrics]] = {
    kind.kind: kind.metrics
    for kind in (TrainedTranslator, TranslationMeasures, TrainedSegmenter, PseudoLabels, Evaluation)
}


@dataclass(frozen=True)
class Record:
    """A stage and what is there of it.

    Args:
        stage: Its name.
        kind: Kind of stage.
        k: Round.
        i: Self-training step.
        symbol: The paper's symbol.
        folder: Its folder.
        manifest: Its record; None where it is not finished.
        metrics: What it measured; None where it is not finished.
        note: Why the result is not one of the configuration as it is; None if it is.
    """

    stage: str
    kind: str
    k: int
    i: int
    symbol: str
    folder: Path
    manifest: Manifest | None = None
    metrics: Metrics | None = None
    note: str | None = None

    @property
    def segmenter(self) -> Path | None:
        """The file of the segmentation network that it made; None of other stages."""
        made = self.manifest.files if self.manifest is not None else []
        return self.folder / RESULT if RESULT in made else None

    @property
    def same_as(self) -> str | None:
        """The stage of the same run that its files were taken from; None if it was made."""
        return self.manifest.same_as if self.manifest is not None else None

    @property
    def seconds(self) -> float:
        """The time that the run spent on it: none where the files are another stage's."""
        return self.manifest.seconds if self.manifest is not None and not self.same_as else 0.0


@dataclass(frozen=True)
class Row:
    """A segmentation network that is there, as results.json has it.

    Args:
        stage: Its stage.
        k: Round.
        i: Self-training step.
        miou: Mean IoU in [0, 1]; None where it was not measured.
        subsets: Means over subsets of the classes.
        iou: IoU by class name; None for a class in neither labels nor predictions.
        seconds: Time of its training.
        note: Why it is not of the configuration as it is; None if it is.
        target_labels: Number of labelled target images that it, or a network before it, learned
            from.
    """

    stage: str
    k: int
    i: int
    miou: float | None
    subsets: dict[str, float | None]
    iou: dict[str, float | None]
    seconds: float
    note: str | None = None
    target_labels: int = 0

    @property
    def symbol(self) -> str:
        """The paper's symbol for the network."""
        return Segmenter(k=self.k, i=self.i).symbol

    @property
    def labels(self) -> str:
        """How many labelled target images are behind it, in words; empty for none."""
        return in_words(self.target_labels)

    def as_json(self) -> dict[str, Any]:
        """The row of results.json."""
        content = {
            "stage": self.stage,
            "k": self.k,
            "i": self.i,
            "miou": self.miou,
            **self.subsets,
            "iou": self.iou,
            "seconds": self.seconds,
        }
        if self.target_labels:
            content[TARGET_LABELS] = self.target_labels
        return content if self.note is None else {**content, "note": self.note}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Row:
        """The row that `as_json` wrote; what else is in it are means over subsets.

        Raises:
            KeyError, TypeError: It is no such row.
        """
        rest = dict(content)
        own = {key: rest.pop(key) for key in ("stage", "k", "i", "miou", "iou", "seconds")}
        labels = rest.pop(TARGET_LABELS, 0)
        return cls(**own, note=rest.pop("note", None), target_labels=labels, subsets=rest)


def records_of(store: Store, stages: Sequence[Stage]) -> list[Record]:
    """A record for each stage of a run, with what is there, of whatever settings it was made."""
    manifests = {stage.name: read_manifest(store.folder_of(stage)) for stage in stages}
    stale = store.stale(manifest for manifest in manifests.values() if manifest is not None)
    records = []
    for stage in stages:
        manifest, folder = manifests[stage.name], store.folder_of(stage)
        note = metrics = None
        if manifest is not None:
            note = stale.get(stage.name)
            if note is None and manifest.fingerprint != stage.fingerprint:
                note = "made with other settings"
            metrics = read_metrics(folder, stage.metrics)
        records.append(
            Record(
                stage=stage.name,
                kind=stage.kind,
                k=stage.k,
                i=stage.i,
                symbol=stage.symbol,
                folder=folder,
                manifest=manifest,
                metrics=metrics,
                note=note,
            )
        )
    return records


def manifest_in(folder: Path) -> Manifest | None:
    """The record of a finished stage in its folder, of a run of whatever version, as this one
    writes it; None if the folder holds none."""
    manifest = read_manifest(folder)
    if manifest is not None and manifest.version < VERSION:
        return old_runs.renewed(manifest)
    return manifest


def read_record(folder: Path) -> Record | None:
    """A finished stage in its folder, of a run of whatever version.

    Returns:
        The record, without a note; None if the folder holds no finished stage.
    """
    manifest = manifest_in(folder)
    if manifest is None or not (folder / METRICS).is_file():
        return None
    shown = _SHOWN.get(manifest.kind, Metrics)
    metrics: Metrics | None
    if manifest.version < VERSION:
        metrics = old_runs.read_old_metrics(folder / METRICS, manifest, shown)
    else:
        metrics = read_metrics(folder, shown)
    return Record(
        stage=manifest.stage,
        kind=manifest.kind,
        k=manifest.k,
        i=manifest.i,
        symbol=manifest.symbol,
        folder=folder,
        manifest=manifest,
        metrics=metrics,
    )


def records_in(folder: Path) -> list[Record]:
    """The records of all finished stages in a run's folder, each after its inputs.

    Without a configuration to compare with, a note says only what was made from what is no longer
    there.

    Args:
        folder: The run's folder, of whatever version.
    """
    records: dict[str, Record] = {}
    for file in sorted(folder.rglob(METRICS)):
        name = file.parent.relative_to(folder).as_posix()
        record = read_record(file.parent)
        if record is not None and record.stage == name:  # else it is being moved there, or a copy
            records[name] = record
    ordered = list(_after_inputs(records))
    stale = Store(folder).stale(r.manifest for r in ordered if r.manifest is not None)
    return [replace(record, note=stale.get(record.stage)) for record in ordered]


def _after_inputs(records: dict[str, Record]) -> Iterator[Record]:
    """By round and self-training step, but each after its inputs."""
    done: set[str] = set()

    def visit(name: str) -> Iterator[Record]:
        record = records.get(name)
        if record is None or name in done:
            return
        done.add(name)
        assert record.manifest is not None
        for given in record.manifest.inputs:
            yield from visit(given)
        yield record

    for record in sorted(records.values(), key=lambda record: (record.k, record.i, record.stage)):
        yield from visit(record.stage)


def trained(records: Sequence[Record], kind: str) -> list[tuple[Record, TrainingMetrics]]:
    """The finished trainings of that kind that have curves, with these."""
    return [
        (record, record.metrics)
        for record in records
        if record.kind == kind
        and isinstance(record.metrics, TrainingMetrics)
        and record.metrics.curves
    ]


def fitting(records: Sequence[Record], classes: int) -> list[Record]:
    """The records without the numbers of those that count other classes: what is left of another
    label space cannot be shown with the names of this one."""
    return [
        record
        if _classes_of(record.metrics) in (classes, None)
        else replace(record, metrics=Metrics(record.metrics.warnings if record.metrics else []))
        for record in records
    ]


def _classes_of(metrics: Metrics | None) -> int | None:
    """The number of classes that are counted; None where none are."""
    if isinstance(metrics, EvaluationMetrics):
        return len(metrics.iou)
    if isinstance(metrics, PseudoLabelMetrics):
        return len(metrics.classes)
    if isinstance(metrics, MeasureMetrics) and metrics.drift is not None:
        return len(metrics.drift.on_source)
    return None


def rows_of(records: Sequence[Record], space: LabelSpace) -> list[Row]:
    """A row for each segmentation network that is there. In a run that evaluates it has to be
    evaluated; in one without validation images its row has no scores."""
    evaluations = {(r.k, r.i): r for r in records if r.kind == Evaluation.kind}
    rows = []
    target_labels = 0
    for record in records:
        if isinstance(record.metrics, SegmenterMetrics | GivenMetrics):
            target_labels = max(target_labels, record.metrics.target_labels)
        if record.manifest is None or record.segmenter is None:
            continue
        evaluation = evaluations.get((record.k, record.i))
        scores = EvaluationMetrics()
        if evaluation is not None:
            if not isinstance(evaluation.metrics, EvaluationMetrics):
                continue
            scores = evaluation.metrics
        iou = dict(zip(space.names, scores.iou, strict=True)) if scores.iou else {}
        rows.append(
            Row(
                stage=record.stage,
                k=record.k,
                i=record.i,
                miou=scores.miou,
                subsets=scores.subsets,
                iou=iou,
                seconds=record.manifest.seconds,
                note=record.note or _about_score(evaluation),
                target_labels=target_labels,
            )
        )
    return rows


def _about_score(evaluation: Record | None) -> str | None:
    """Why a network's score is not that of the network as it is; None if it is."""
    if evaluation is None or evaluation.note is None:
        return None
    return f"its score was {evaluation.note}"


def read_rows(folder: Path) -> list[Row]:
    """The rows of results.json in a run's folder.

    Raises:
        UserError: The file is missing or damaged.
    """
    file = folder / RESULTS
    content = read_json(file)
    try:
        return [Row.from_json(row) for row in content]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{file}: is not the results of a run; run again what made {folder}"
        ) from None
