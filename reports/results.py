"""What a run's folder holds, for results.json, the report, TensorBoard and the terminal."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bdl.domains.datasets import Sample
from bdl.domains.images import UPRIGHT, label_image, open_image, open_label, train_ids
from bdl.domains.problem import ROLES, ImageSet, Problem
from bdl.reports.pictures import NARROW, WIDEST, Panel, Strip, beside, error_map
from bdl.reports.records import (
    REPORT,
    Record,
    Row,
    fitting,
    records_of,
    rows_of,
)
from bdl.reports.report import (
    Live,
    Network,
    Report,
    Worst,
    best_of,
    direction,
    percent,
    score,
    signed,
    with_gains,
    write_report,
)
from bdl.runtime.config import Config, to_yaml
from bdl.runtime.console import Console, counted, duration
from bdl.runtime.files import write_json, write_text
from bdl.runtime.live import LivePage, Progress
from bdl.runtime.metrics import Metrics
from bdl.runtime.ownership import CONFIGURATION, RESULTS
from bdl.runtime.stage import Stage
from bdl.runtime.store import Store
from bdl.segmentation.metrics import EvaluationMetrics
from bdl.segmentation.stages import (
    Evaluation,
    PseudoLabels,
    TrainedSegmenter,
    batch_path,
    confidence_path,
    prediction_path,
    pseudo_label_path,
    worst_path,
)
from bdl.translation.metrics import MeasureMetrics
from bdl.translation.stages import (
    GivenTranslations,
    Translated,
    TranslationMeasures,
    image_path,
    reconstruction_path,
)

if TYPE_CHECKING:
    from bdl.runtime.tracking import Tracker

WARNINGS = "warnings.txt"  # in the run's folder: of the check before the first stage
# The stages that make pictures of followed frames, and whose frames these are.
_ROLE_OF = {Translated.kind: "source", PseudoLabels.kind: "target", Evaluation.kind: "validation"}
_STYLES = {"good": "green", "bad": "red", "": ""}


class Results:
    """What the stages of a configured run have left in its folder.

    Args:
        config: The configuration.
        data: Its data sets.
        stages: Its stages, in order.
    """

    def __init__(self, config: Config, data: Problem, stages: Sequence[Stage]) -> None:
        self.config, self.data, self.stages = config, data, stages
        self.store = Store(Path(config.out))
        self._panels: dict[tuple[object, ...], Panel] = {}
        self._followed: tuple[Stage, Report] | None = None

    def records(self) -> list[Record]:
        """A record for each stage."""
        return fitting(records_of(self.store, self.stages), self.data.space.num_classes)

    def rows(self) -> list[Row]:
        """A row for each segmentation network that is there and, if the run evaluates, scored."""
        return rows_of(self.records(), self.data.space)

    def write(self, working_on: Stage | None = None) -> None:
        """Write results.json and the report, from what is there; `working_on` is being made."""
        self._write(self._report(working_on))

    def follow(self, stage: Stage, seconds_left: float | None = None) -> LivePage:
        """Write both as `stage` begins; what this returns writes the report again as it goes on.

        What the other stages have left is not read again: it does not change meanwhile.

        Args:
            stage: What is being made.
            seconds_left: What it and the stages after it will take; None while unknown.
        """
        report, live = self._report(stage), Live(stage.symbol)
        report.seconds_left, self._followed = seconds_left, (stage, report)
        for panel in report.panels():
            _ = panel.url  # made once, here, so that what is timed is what later writings take
        begun = time.monotonic()
        self._write(report)

        def show(progress: Progress) -> None:
            live.go_on(progress)
            live.batch = live.batch or self._batch(stage.symbol, self.store.staging_folder(stage))
            report.live = live
            self._write_page(report)

        return LivePage(show, time.monotonic() - begun)

    def stop(self, reason: str) -> None:
        """Write the report once more as the run stops, which it then says."""
        stage, report = self._followed or (None, None)
        if stage is None or report is None or self.store.is_finished(stage):
            report = self._report(None)
        report.stopped = reason
        self._write_page(report)

    def write_warnings(self, lines: Sequence[str]) -> None:
        """Keep what was warned of before the first stage, a line each."""
        file = self.store.folder / WARNINGS
        if lines or file.is_file():
            write_text(file, "".join(f"{line}\n" for line in lines))

    def warnings(self) -> list[str]:
        """What was warned of before the first stage that the last command made."""
        file = self.store.folder / WARNINGS
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def _write(self, report: Report) -> None:
        write_json(self.store.folder / RESULTS, [row.as_json() for row in report.rows])
        self._write_page(report)

    def _write_page(self, report: Report) -> None:
        write_report(self.store.folder / REPORT, report)

    def _report(self, working_on: Stage | None) -> Report:
        records, space = self.records(), self.data.space
        return Report(
            title=self.store.folder.resolve().name,
            rows=rows_of(records, space),
            records=records,
            strips=self.strips(records),
            facts=self.facts(),
            classes=list(zip(space.names, space.colors, strict=True)),
            subsets=list(space.subsets),
            command=self.command(),
            configuration=to_yaml(self.config),
            working_on=working_on.name if working_on else None,
            worst=self._worst(records),
            batches=self._batches(records),
            warnings=self.warnings(),
        )

    def facts(self) -> dict[str, str]:
        """What is run, in a few lines for the report."""
        config, space = self.config, self.data.space
        return {
            "rounds, K": str(config.iterations),
            "self-training steps, N": str(config.self_training_steps),
            "seed": str(config.seed),
            "segmentation": f"{config.segmentation.network}, {config.segmentation.steps} steps",
            **{
                role.replace("_", " "): self._describe(role)
                for role in ROLES
                if role != "target_labelled" or role in self.data.roles
            },
            "label space": f"{space.name}, {space.num_classes} classes",
        }

    def _describe(self, role: str) -> str:
        if role not in self.data.roles:
            return "none"
        domain, images = self.data.domain(role), self._images(role)
        origin = domain.appearance if images.rendered else domain.root
        at = f"at {images.size[0]}x{images.size[1]}" if images.size else "at their own size"
        if images.width is not None:
            at = f"{images.width} pixels wide"
        return f"{domain.layout} ({origin}), {counted(images.count, 'image')} {at}"

    def _images(self, role: str) -> ImageSet:
        images = {
            "source": lambda: self.data.source,
            "target": lambda: self.data.target,
            "target_labelled": lambda: self.data.target_labelled,
            "validation": lambda: self.data.validation,
        }[role]()
        assert images is not None
        return images

    def strips(self, records: Sequence[Record], roles: Collection[str] = ROLES) -> list[Strip]:
        """The followed frames: source images through the translators, target images through their
        pseudo labels, validation images through their networks.

        Args:
            records: The stages whose pictures are shown; only those that are finished have any.
            roles: Whose frames.
        """
        strips: list[Strip] = []
        for role in roles:
            if role not in self.data.roles:
                continue
            images = self._images(role)
            if images.rendered is not None and not self.store.is_finished(images.rendered):
                continue
            samples = images.samples()
            frames = [(index, samples[index]) for index in images.followed()]
            columns = [self._photos(role, [sample.image for _, sample in frames], role)]
            given = self._given_translations() if role == "source" else None
            if given is not None:
                files = [given.images[sample.name] for _, sample in frames]
                columns.append(self._photos("translated before the run", files, role))
            for record in records:
                if record.manifest is not None and _ROLE_OF.get(record.kind) == role:
                    columns += self._columns(record, frames)
            if role in ("target_labelled", "validation"):
                columns.append([self._label(role, sample) for _, sample in frames])
            strips += [
                Strip(role, sample.name, [column[row] for column in columns])
                for row, (_, sample) in enumerate(frames)
            ]
        return strips

    def _columns(self, record: Record, frames: Sequence[tuple[int, Sample]]) -> list[list[Panel]]:
        """A stage's pictures of the frames; without those of which it has not made all, as it was
        made for others."""
        folder, caption = record.folder, record.symbol
        note = f" ({record.note})" if record.note is not None else ""
        if record.kind == Evaluation.kind:
            files = {caption: [prediction_path(folder, index) for index, _ in frames]}
        elif record.kind == PseudoLabels.kind:
            files = {caption: [pseudo_label_path(folder, sample.name) for _, sample in frames]}
        else:
            files = {
                caption: [image_path(folder, sample.name) for _, sample in frames],
                f"{caption} and back": [reconstruction_path(folder, index) for index, _ in frames],
            }
        opened = open_photo if record.kind == Translated.kind else self._open_labels
        return [
            [self._panel(caption + note, file, opened) for file in made]
            for caption, made in files.items()
            if all(file.is_file() for file in made)
        ]

    def _worst(self, records: Sequence[Record]) -> Worst | None:
        """The worst images of the last network that was evaluated on the validation images as they
        are; None without any."""
        scored = [
            (record, record.metrics.worst)
            for record in records
            if isinstance(record.metrics, EvaluationMetrics) and record.note is None
        ]
        images = self.data.validation
        if not scored or images is None:
            return None
        (record, worst), samples, strips = scored[-1], images.samples(), []
        for rank, image in enumerate(worst):
            sample = samples[image.index]
            predicted = self._panel(
                "prediction", worst_path(record.folder, rank), self._open_labels
            )
            label = self._label("validation", sample)
            panels = [
                *self._photos("validation", [sample.image], "validation"),
                label,
                predicted,
                Panel("errors", error_map(predicted.image, label.image)),
                *self._photos("confidence", [confidence_path(record.folder, rank)]),
            ]
            frame = f"{sample.name}: {percent(image.right)} % right"
            strips.append(Strip("worst", frame, panels))
        return Worst(record.symbol, strips) if strips else None

    def _batches(self, records: Sequence[Record]) -> dict[str, list[Strip]]:
        """What networks learned from: the first one, and those of the last round that has any."""
        trained = [
            (record, strips)
            for record in records
            if record.kind == TrainedSegmenter.kind and record.manifest is not None
            for strips in [self._batch(record.symbol, record.folder)]
            if strips
        ]
        last = max((record.k for record, _ in trained), default=0)
        return {record.symbol: strips for record, strips in trained if record.k in (0, last)}

    def _batch(self, symbol: str, folder: Path) -> list[Strip]:
        """The kept images of the first batch, with their labels, that lie in a stage's folder."""
        columns: list[list[Panel]] = []
        captions = {
            "source": ("source image", "source labels"),
            "target": ("target image", "its pseudo labels"),
            "target_labelled": ("labelled target image", "its labels"),
        }
        for role in captions:
            for labels in (False, True):
                opened = self._open_labels if labels else open_photo
                caption = captions[role][labels]
                files = iter(batch_path(folder, role, number, labels) for number in count())
                there = list(takewhile(Path.is_file, files))
                columns.append([self._panel(caption, file, opened, NARROW) for file in there])
        shown = [column for column in columns if column]
        rows = min(map(len, shown), default=0)
        return [
            Strip(f"{symbol} batch", f"image {row + 1}", [column[row] for column in shown])
            for row in range(rows)
        ]

    def _panel(
        self,
        caption: str,
        file: Path,
        opened: Callable[[Path], Image.Image],
        widest: int = WIDEST,
    ) -> Panel:
        """The picture in a file, opened and embedded once for all writings of the page."""
        known = file.stat()
        key = caption, file, known.st_mtime_ns, known.st_size, known.st_ino
        if key not in self._panels:
            self._panels[key] = Panel(caption, opened(file), widest)
        return self._panels[key]

    def _photos(self, caption: str, files: Sequence[Path], role: str | None = None) -> list[Panel]:
        """Photos, turned as those of the role are."""
        orientation = self._images(role).orientation if role is not None else UPRIGHT
        opened = partial(open_photo, orientation=orientation)
        return [self._panel(caption, file, opened) for file in files]

    def _open_labels(self, file: Path) -> Image.Image:
        return label_image(np.asarray(open_label(file)), self.data.space)

    def _label(self, role: str, sample: Sample) -> Panel:
        assert sample.label is not None
        table, space = self.data.table(role), self.data.space
        return self._panel(
            "label", sample.label, lambda file: label_image(train_ids(file, table), space)
        )

    def _given_translations(self) -> GivenTranslations | None:
        """The images of `translation.images`, if a stage uses any."""
        for stage in self.stages:
            if isinstance(stage, TrainedSegmenter | TranslationMeasures) and isinstance(
                stage.translated, GivenTranslations
            ):
                return stage.translated
        return None

    @contextmanager
    def tracked(self, writing: bool) -> Iterator[Callable[[Stage], None]]:
        """Gives a function that logs a finished stage's scores and frames to TensorBoard, over the
        loop's order. What is finished already is logged before.

        Args:
            writing: Whether anything is logged, which one process does.
        """
        if not writing:
            yield lambda stage: None
            return
        from bdl.runtime.tracking import WHOLE_LOOP, Tracker

        with Tracker(self.store.folder / "tensorboard" / WHOLE_LOOP) as tracker:
            tracker.text("configuration", f"```yaml\n{to_yaml(self.config)}\n```")
            for stage in self.stages:
                self._track(tracker, stage)
            yield lambda stage: self._track(tracker, stage)

    def _track(self, tracker: Tracker, stage: Stage) -> None:
        if stage.kind not in (*_ROLE_OF, TranslationMeasures.kind):
            return
        if not self.store.is_finished(stage):
            return
        (record,) = records_of(self.store, [stage])
        step = [s.name for s in self.stages if s.kind == stage.kind].index(stage.name)
        values = tracked_values(record.metrics, self.data.space.names)
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            tracker.scalars({"step": step, **known})
        if stage.kind in _ROLE_OF:
            role = _ROLE_OF[stage.kind]
            for strip in self.strips([record], (role,)):
                tracker.image(f"{role}/{strip.frame}", np.asarray(beside(strip.panels)), step)

    def command(self) -> str:
        """What makes the run anew, in another folder."""
        folder = self.store.folder
        again = folder.with_name(f"{folder.name}-again")
        arguments = ["run", "--config", str(folder / CONFIGURATION), f"out={again}"]
        return shlex.join(["bdl", *arguments])


def open_photo(file: Path, orientation: str = UPRIGHT) -> Image.Image:
    """The image in a file, RGB."""
    return open_image(file, orientation).image


def tracked_values(metrics: Metrics | None, names: Sequence[str]) -> dict[str, float | None]:
    """The single numbers that a stage measured, by their names in TensorBoard.

    Args:
        metrics: What it measured.
        names: The classes' names, by train id.
    """
    if isinstance(metrics, EvaluationMetrics):
        means = {"miou": metrics.miou, **metrics.subsets}
        values = {f"mIoU/{key}": value for key, value in means.items()}
        return values | {f"IoU/{name}": iou for name, iou in zip(names, metrics.iou, strict=True)}
    if isinstance(metrics, MeasureMetrics):
        drift, kid = metrics.drift, metrics.kid
        values = {"ssim": metrics.ssim, "reconstruction_l1": metrics.reconstruction_l1}
        if drift is not None:
            values["right_on_source"] = drift.right_on_source
            values["right_on_translation"] = drift.right_on_translation
            values["lost"], values["recovered"] = drift.lost, drift.recovered
        if kid is not None:
            values["kid_translated"] = kid.translated.mean if kid.translated else None
            values["kid_source"] = kid.source.mean if kid.source else None
        return {f"translation/{key}": value for key, value in values.items()}
    return {}


def show_results(console: Console, rows: Sequence[Row]) -> None:
    """The closing table, if there is something to show."""
    if rows:
        networks = with_gains(rows)
        console.show(results_table(networks), describe_results(networks))


def describe_results(networks: Sequence[Network]) -> str:
    """The closing table as plain text: each network's mIoU, and its gain over source only."""
    width = max(len(score(network.row.miou)) for network in networks) + 3
    lines = ["", f"{'network':<24}{'mIoU':>{width}}{'gain':>8}{'trained in':>16}"]
    for network in networks:
        row = network.row
        gain = "" if network.gain is None else signed(network.gain)
        took, note = duration(row.seconds), f"  {said}" if (said := _said_of(row)) else ""
        lines.append(f"{row.stage:<24}{score(row.miou):>{width}}{gain:>8}{took:>16}{note}")
    return "\n".join(lines)


def _said_of(row: Row) -> str:
    """What is to be known of a network beside its score."""
    return "; ".join(filter(None, (row.labels, row.note)))


def results_table(networks: Sequence[Network]) -> Table:
    """The same for a terminal; the best network stands out."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("network")
    for name in ("mIoU", "gain", "trained in"):
        table.add_column(name, justify="right")
    noted = any(_said_of(network.row) for network in networks)
    if noted:
        table.add_column("note")
    best = best_of([network.row for network in networks])
    for network in networks:
        row, gain = network.row, network.gain
        table.add_row(
            f"{row.symbol}  [dim]{row.stage}[/dim]",
            score(row.miou),
            "" if gain is None else Text(signed(gain), _STYLES[direction(gain)]),
            duration(row.seconds),
            *([_said_of(row)] if noted else []),
            style="bold" if row is best else "",
        )
    return table
