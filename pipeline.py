"""Bidirectional learning, end to end: the loop of translation and segmentation.

`Loop.algorithm` reads like Algorithm 1 of the paper; the command line is at the end of the file.
"""

import argparse
import hashlib
import itertools
import os
import re
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

from domains.check import check_data, check_samples
from domains.datasets import Sample, images_of, pair_with
from domains.images import label_image, open_image, open_label
from domains.inspection import usable
from domains.label_space import load_label_space
from domains.loading import TrainingSamples, View, WholeImages
from domains.problem import ROLES, Problem, digest
from domains.render import render_streets
from runtime import __version__
from runtime.ablation import Cell, as_markdown, run_ablation
from runtime.checkpoint import remove_checkpoints
from runtime.config import Config, load_config, to_yaml
from runtime.console import Console, duration, log
from runtime.device import make_fabric, resolve_precision
from runtime.errors import UserError
from runtime.estimate import TimeLeft
from runtime.files import (
    is_users,
    load_tensors,
    save_tensors,
    write_error,
    write_json,
    write_text,
)
from runtime.lock import claimed, require_writable
from runtime.processes import failed_child, launched
from runtime.report import Panel, Record, Report, Strip, beside, symbol, with_gains, write_report
from runtime.stages import (
    Entry,
    Metrics,
    Stage,
    begin,
    finish,
    forget,
    is_finished,
    is_foreign,
    make_plan,
    read_manifest,
    read_metrics,
    take_over,
    tidy,
    versions,
)
from runtime.stopping import Stopped, stop_request
from runtime.tracking import WHOLE_LOOP, Tracker
from segmentation.evaluate import evaluate, prediction_path
from segmentation.export_network import export_network
from segmentation.predictor import Predictor, find_photos, predict_files
from segmentation.pseudo_labels import make_pseudo_labels, pseudo_label_path
from segmentation.reference_weights import REFERENCES as SEGMENTATION
from segmentation.reference_weights import TORCHVISION, import_weights
from segmentation.score import AUTO, OWN, detect_encoding, find_pairs, own_table, score
from segmentation.train import RESULT as SEGMENTER
from segmentation.train import initial_segmenter, load_segmenter, train_segmenter
from translation.export import (
    export_translations,
    image_path,
    load_translator,
    read_translator,
    reconstruction_path,
)
from translation.reference_weights import NETWORKS as TRANSLATION
from translation.reference_weights import import_translator
from translation.reference_weights import import_weights as import_translation_weights
from translation.train import RESULT as TRANSLATOR
from translation.train import Schedule as TranslationSchedule
from translation.train import ScoreMaps, train_translator

CONFIGURATION = "config.yaml"  # in the run's folder
FRAMES = 4  # images of each data set that the report follows through the loop


class Loop:
    """A configured run: its stages, what each depends on, and how each is made."""

    def __init__(self, config: Config, fabric: Fabric, console: Console) -> None:
        self.config, self.fabric, self.console = config, fabric, console
        self.folder = Path(config.out)
        self.problem = Problem(config.data, self.folder, console)

    # Algorithm 1

    def algorithm(self) -> list[Stage]:
        """All stages, in the order in which they run."""
        stages: list[Stage] = []

        def add(stage: Stage) -> Stage:
            stages.append(stage)
            return stage

        self.rendered = {
            role: add(self.render(role)) for role in ROLES if self.problem.is_rendered(role)
        }
        segmenter = add(self.segment("source-only", None, None, None))
        add(self.evaluate(segmenter))
        translator: Stage | None = None
        for k in range(1, self.config.iterations + 1):
            translated = None
            if self.config.translation.images is None:
                translator = add(self.translate(k, segmenter, translator))
                translated = add(self.export(k, translator))
            segmenter = add(self.segment(f"k{k}/segmentation-0", translated, None, segmenter))
            add(self.evaluate(segmenter))
            for i in range(1, self.config.self_training_steps + 1):
                labels = add(self.pseudo_label(k, i, segmenter))
                segmenter = add(
                    self.segment(f"k{k}/segmentation-{i}", translated, labels, segmenter)
                )
                add(self.evaluate(segmenter))
        places = [stage.name for stage in stages if stage.kind in ("segment", "translate", "given")]
        translators = [name for name in places if name.endswith("/translator")]
        for key, given, names in (
            ("segmentation", self.config.segmentation.checkpoints, set(places) - set(translators)),
            ("translation", self.config.translation.checkpoints, set(translators)),
        ):
            for name in given:
                if name not in names:
                    raise UserError(
                        f"{key}.checkpoints: '{name}' is no stage that trains one in this run; "
                        f"there are {', '.join(sorted(names)) or 'none'}"
                    )
        return stages

    # The stages

    def render(self, role: str) -> Stage:
        """The demo's images of one role."""
        domain = self.problem.domain(role)
        size = self.problem.size(role) or (192, 96)

        def action(folder: Path) -> Metrics:
            if not self.fabric.is_global_zero:
                return {}
            return render_streets(
                self.console, name, folder, role, domain.scenes, size, domain.appearance
            )

        name = f"data/{role}"
        settings = {"scenes": domain.scenes, "size": size, "appearance": domain.appearance}
        return Stage(name, "render", settings, (), action, domain.scenes, "scenes")

    def translate(self, k: int, segmenter: Stage, previous: Stage | None) -> Stage:
        """F(k): a translator whose perceptual loss comes from the latest segmentation network."""
        config = self.config.translation
        name = f"k{k}/translator"
        if name in config.checkpoints:
            return self.given_translator(name, Path(config.checkpoints[name]).expanduser())
        schedule = TranslationSchedule.of(config, self.problem.count("source"))
        start = previous if (config.init or self.config.init) == "previous" else None
        view = self.translation_view()

        def action(folder: Path) -> Metrics:
            with Tracker(self.folder / "tensorboard", name, self.fabric.is_global_zero) as tracker:
                return train_translator(
                    self.fabric,
                    self.console,
                    tracker,
                    folder,
                    config,
                    self.training_samples("source", self.unlabelled("source"), view),
                    self.training_samples("target", self.unlabelled("target"), view),
                    self.score_maps(segmenter),
                    start=self.folder / start.name if start else None,
                    seed=self.config.seed,
                    workers=self.config.data.workers,
                    log_every=self.config.log_every,
                    checkpoint_every=self.config.checkpoint_every,
                    keep_checkpoints=self.config.keep_checkpoints,
                )

        used = asdict(config)
        del used["images"], used["checkpoints"], used["init"]
        settings = {
            **self.common_settings(),
            "translation": used,
            "steps": schedule.steps,
            "source": self.problem.settings("source"),
            "target": self.problem.settings("target"),
        }
        inputs = (*self.needs("source", "target"), segmenter, *filter(None, (start,)))
        return Stage(name, "translate", settings, inputs, action, schedule.steps, "steps")

    def given_translator(self, name: str, file: Path) -> Stage:
        """A translator trained elsewhere (`translation.checkpoints`) in the place of F(k)."""
        key = f"translation.checkpoints.{name}"

        def action(folder: Path) -> Metrics:
            read_translator(file)
            if self.fabric.is_global_zero:
                save_tensors(folder / TRANSLATOR, load_tensors(file))
            return {}

        return Stage(name, "given", {key: _file_digest(file, key)}, (), action, 1, "network")

    def export(self, k: int, translator: Stage) -> Stage:
        """S' = F(k) applied to every source image, whole."""

        def action(folder: Path) -> Metrics:
            images = WholeImages(self.unlabelled("source"), self.problem.size("source"))
            generators = load_translator(self.folder / translator.name)
            return export_translations(
                self.fabric,
                self.console,
                name,
                folder,
                generators,
                images,
                workers=self.config.data.workers,
                frames=frames(len(images)),
            )

        name = f"k{k}/translated"
        settings = {
            "precision": self.config.precision,
            "source": self.problem.settings("source"),
        }
        inputs = (*self.needs("source"), translator)
        return Stage(
            name, "export", settings, inputs, action, self.problem.count("source"), "images"
        )

    def segment(
        self, name: str, translated: Stage | None, labels: Stage | None, previous: Stage | None
    ) -> Stage:
        """M(k,i) on translated images, with pseudo `labels` from the first self-training step on;
        without a `previous` network, M(0), which never sees the target."""
        config = self.config.segmentation
        if name in config.checkpoints:
            return self.given_network(name, Path(config.checkpoints[name]).expanduser())
        steps = (config.pseudo_label_steps if labels else None) or config.steps
        start = previous if self.config.init == "previous" else None
        # Without a term of its own the target stays out: batch norm would learn from it.
        sees_target = labels is not None or (previous is not None and config.adversarial.weight > 0)

        def action(folder: Path) -> Metrics:
            source = self.problem.samples("source")
            if previous is not None:
                source = self.translated_samples(source, translated)
            target = self.unlabelled("target") if sees_target else None
            if target is not None and labels is not None:
                made = self.folder / labels.name
                target = [Sample(s.name, s.image, pseudo_label_path(made, s.name)) for s in target]
            with Tracker(self.folder / "tensorboard", name, self.fabric.is_global_zero) as tracker:
                return train_segmenter(
                    self.fabric,
                    self.console,
                    tracker,
                    folder,
                    config,
                    self.problem.space,
                    self.starting_network(start),
                    self.training_samples("source", source, self.segmentation_view("source")),
                    self.training_samples("target", target, self.segmentation_view("target"))
                    if target is not None
                    else None,
                    steps=steps,
                    seed=self.config.seed,
                    workers=self.config.data.workers,
                    log_every=self.config.log_every,
                    checkpoint_every=self.config.checkpoint_every,
                    keep_checkpoints=self.config.keep_checkpoints,
                )

        used = asdict(config)
        for key in ("steps", "pseudo_label_steps", "pseudo_labels", "evaluation", "checkpoints"):
            del used[key]
        if not sees_target:
            del used["adversarial"]
        settings = {
            **self.common_settings(),
            "segmentation": used,
            "steps": steps,
            "source": self.problem.settings("source"),
            "labels": self.problem.label_settings("source"),
        }
        if config.weights is not None:
            settings["weights"] = _file_digest(Path(config.weights), "segmentation.weights")
        inputs = list(self.needs("source"))
        if previous is not None and translated is None:
            settings["translated"] = self.given_translations()
        if sees_target:
            settings["target"] = self.problem.settings("target")
            inputs += self.needs("target")
        inputs += filter(None, (translated, labels, start))
        return Stage(name, "segment", settings, tuple(inputs), action, steps, "steps")

    def given_network(self, name: str, file: Path) -> Stage:
        """A network trained elsewhere (`segmentation.checkpoints`) in the place of M(k,i)."""
        key = f"segmentation.checkpoints.{name}"

        def action(folder: Path) -> Metrics:
            _, label_space = load_segmenter(file)
            if label_space["names"] != list(self.problem.space.names):
                raise UserError(
                    f"{key}: {file} is for the classes of {label_space['name']}, "
                    f"not of {self.problem.space.name}"
                )
            if self.fabric.is_global_zero:
                save_tensors(folder / SEGMENTER, load_tensors(file))
            return {}

        return Stage(name, "given", {key: _file_digest(file, key)}, (), action, 1, "network")

    def pseudo_label(self, k: int, i: int, segmenter: Stage) -> Stage:
        """Y' = the confident predictions of M(k,i-1) on the target's training images."""
        config = self.config.segmentation.pseudo_labels

        def action(folder: Path) -> Metrics:
            return make_pseudo_labels(
                self.fabric,
                self.console,
                name,
                folder,
                self.trained_network(segmenter),
                WholeImages(self.unlabelled("target"), self.problem.size("target")),
                self.problem.space,
                config,
                self.config.data.workers,
            )

        name = f"k{k}/pseudo-labels-{i}"
        settings = {
            "precision": self.config.precision,
            "pseudo_labels": asdict(config),
            "target": self.problem.settings("target"),
        }
        inputs = (*self.needs("target"), segmenter)
        return Stage(
            name, "pseudo-label", settings, inputs, action, self.problem.count("target"), "images"
        )

    def evaluate(self, segmenter: Stage) -> Stage:
        """mIoU on the validation images, which nothing but this stage reads."""
        config = self.config.segmentation.evaluation

        def action(folder: Path) -> Metrics:
            samples = self.problem.samples("validation")
            return evaluate(
                self.fabric,
                self.console,
                name,
                folder,
                self.trained_network(segmenter),
                WholeImages(
                    samples, self.problem.size("validation"), self.problem.table("validation")
                ),
                self.problem.space,
                size=(config.size[0], config.size[1]) if config.size else None,
                workers=self.config.data.workers,
                frames=frames(len(samples)),
            )

        name = f"{segmenter.name}/evaluation"
        settings = {
            "precision": self.config.precision,
            "evaluation": asdict(config),
            "validation": self.problem.settings("validation"),
            "labels": self.problem.label_settings("validation"),
            "subsets": digest(self.problem.space.subsets),
        }
        inputs = (*self.needs("validation"), segmenter)
        count = self.problem.count("validation")
        return Stage(name, "evaluate", settings, inputs, action, count, "images")

    # What stages are made of

    def common_settings(self) -> dict[str, Any]:
        return {"seed": self.config.seed, "precision": self.config.precision}

    def needs(self, *roles: str) -> tuple[Stage, ...]:
        """The stages that render the images of those roles, if the run renders them."""
        return tuple(self.rendered[role] for role in roles if role in self.rendered)

    def unlabelled(self, role: str) -> list[Sample]:
        return [Sample(s.name, s.image, None) for s in self.problem.samples(role)]

    def training_samples(self, role: str, samples: list[Sample], view: View) -> TrainingSamples:
        # Pseudo labels are train ids already; the table is for the source's stored ids.
        table = self.problem.table(role) if role == "source" else None
        return TrainingSamples(samples, view, self.config.seed, role, table)

    def translation_view(self) -> View:
        config = self.config.translation
        return View(
            width=config.load_width, crop=(config.crop[0], config.crop[1]), flip=config.flip
        )

    def segmentation_view(self, role: str) -> View:
        augmentation = self.config.segmentation.augmentation
        crop = augmentation.crop
        return View(
            size=self.problem.size(role),
            crop=(crop[0], crop[1]) if crop else None,
            scale=(augmentation.scale[0], augmentation.scale[1]),
            flip=augmentation.flip,
        )

    def translated_samples(self, source: list[Sample], translated: Stage | None) -> list[Sample]:
        """The source's labels with the images that a stage, or the user, translated."""
        if translated is not None:
            folder = self.folder / translated.name
            return pair_with(source, lambda name: image_path(folder, name))
        return self.given_samples(source)

    def given_samples(self, source: list[Sample]) -> list[Sample]:
        """The same with the user's folder of translated images (`translation.images`)."""
        return pair_with(source, lambda name: self.given_images[name])

    @cached_property
    def given_images(self) -> dict[str, Path]:
        folder = Path(str(self.config.translation.images)).expanduser()
        source = self.unlabelled("source")
        found = images_of(source, folder, "translation.images")
        with self.console.track("looking at translation.images", len(found), unit="images") as task:
            usable(
                pair_with(source, lambda name: found[name]),
                "stop",
                "translation.images",
                task.advance,
            )
        return found

    def check(self, pixels: bool, cuts: bool) -> list[str]:
        """Everything wrong with the data, a line each; with `cuts` also crops that do not fit."""
        views: dict[str, list[View]] = {}
        given = self.config.translation.images
        for role in ("source", "target") if cuts else ():
            views[role] = [self.segmentation_view(role)]
            if given is None and self.config.iterations:
                views[role].append(self.translation_view())
        found = check_data(self.problem, views, pixels, self.console)
        if given is not None and not self.problem.is_rendered("source") and not found:
            key = "translation.images"
            try:
                images = images_of(self.unlabelled("source"), Path(given).expanduser(), key)
            except UserError as error:
                return [*found, str(error)]
            samples = [Sample(name, file, None) for name, file in sorted(images.items())]
            found += check_samples(samples, key, self.console)
        return found

    def given_translations(self) -> str:
        """What a result depends on of the images that were given."""
        if self.problem.is_rendered("source"):  # into images that may not be there yet
            folder = Path(str(self.config.translation.images)).expanduser()
            if not folder.is_dir():
                raise UserError(f"translation.images: {folder} is not a folder")
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            return digest(
                [[file.relative_to(folder).as_posix(), file.stat().st_size] for file in files]
            )
        given = self.given_samples(self.unlabelled("source"))
        return digest([[sample.name, sample.image.stat().st_size] for sample in given])

    def starting_network(self, start: Stage | None) -> Any:
        """The initial network, or that of the stage before with `init: previous`."""
        network = initial_segmenter(
            self.config.segmentation, self.problem.space.num_classes, self.config.seed
        )
        if start is not None:
            content = load_tensors(self.folder / start.name / SEGMENTER)
            network.load_state_dict(content["state"])
        return network

    def trained_network(self, segmenter: Stage) -> Any:
        network, _ = load_segmenter(self.folder / segmenter.name / SEGMENTER)
        return network

    def score_maps(self, segmenter: Stage) -> ScoreMaps:
        """The frozen network as the callable that the perceptual loss compares images with."""
        network = self.fabric.to_device(self.trained_network(segmenter)).requires_grad_(False)

        def scores(images: Tensor) -> Tensor:
            return network.scores(images)

        return scores

    # Running

    def run(
        self, from_stage: str | None = None, others: Sequence[Path] = (), dry: bool = False
    ) -> list[dict[str, Any]]:
        """The whole loop; returns the rows of results.json.

        What is finished for the same settings is reused, and taken over from the run folders
        `others`; `from_stage` names a stage to run again, with all that depends on it. `dry`
        prints the plan only.
        """
        stages = self.algorithm()
        with self.claimed(dry):
            if not dry and self.fabric.is_global_zero:
                take_over(self.folder, stages, others)
            self.fabric.barrier()
            return self.follow(stages, make_plan(self.folder, stages, from_stage), dry)

    def run_single(self, name: str, again: bool = False, dry: bool = False) -> list[dict[str, Any]]:
        """One stage by itself, `again` even if it is finished; otherwise as `run`.

        Raises UserError if there is no such stage, or if one of its inputs is not there.
        """
        stages = self.algorithm()
        with self.claimed(dry):
            return self.follow(stages, self.plan_single(stages, name, again), dry)

    def follow(
        self, stages: Sequence[Stage], plan: Sequence[Entry], dry: bool
    ) -> list[dict[str, Any]]:
        log.info("%s", describe_plan(self.config, plan))
        if not dry:
            self.console.log_to(self.folder / "log.txt")
            self.make(stages, plan)
        return self.results(stages)

    @contextmanager
    def claimed(self, dry: bool) -> Iterator[None]:
        """Inside, the run's folder is this run's alone; a `dry` one only reads."""
        with claimed(self.folder) if self.fabric.is_global_zero and not dry else nullcontext():
            if self.fabric.is_global_zero and not dry:
                write_text(self.folder / CONFIGURATION, to_yaml(self.config))
            self.fabric.barrier()  # the records are read once they are nobody else's
            yield

    def command(self) -> str:
        """What makes the run anew, in another folder."""
        again = self.folder.with_name(f"{self.folder.name}-again")
        arguments = ["run", "--config", str(self.folder / CONFIGURATION), f"out={again}"]
        return shlex.join(["bdl", *arguments])

    def plan_single(self, stages: Sequence[Stage], name: str, again: bool) -> list[Entry]:
        """The plan for one stage: its inputs must be there, but for rendered data and networks
        trained elsewhere."""
        by_name = {stage.name: stage for stage in stages}
        if name not in by_name:
            raise UserError(
                f"no stage '{name}' with iterations={self.config.iterations} and "
                f"self_training_steps={self.config.self_training_steps}; "
                f"the stages are {', '.join(by_name)}"
            )
        stage = by_name[name]
        plan = make_plan(self.folder, [*stage.inputs, stage], name if again else None)
        for entry in plan[:-1]:
            if entry.run and entry.stage.kind not in ("render", "given"):
                raise UserError(
                    f"{name} needs {entry.stage.name} ({entry.reason}); make that first, "
                    "or use `run`"
                )
        return plan

    def make(self, stages: Sequence[Stage], plan: Sequence[Entry]) -> None:
        """Make what the plan says is to be made, recording each stage as it is done."""
        main = self.fabric.is_global_zero
        self.fabric.barrier()  # all processes have read the records before any is removed
        if main:
            tidy(self.folder, plan)
            forget(self.folder, plan)
        self.fabric.barrier()
        with Tracker(self.folder / "tensorboard", WHOLE_LOOP, main) as tracker:
            tracker.text("configuration", f"```yaml\n{to_yaml(self.config)}\n```")
            for stage in stages if main else ():
                self.track(tracker, stages, stage)
            self.run_stages(stages, plan, tracker)
        if main:
            self.write_results(stages)

    def run_stages(self, stages: Sequence[Stage], plan: Sequence[Entry], tracker: Tracker) -> None:
        """The plan's stages one after the other; `tracker` logs what each adds to the loop."""
        main = self.fabric.is_global_zero
        time_left = TimeLeft()
        for entry in plan:
            if not entry.run:
                manifest = read_manifest(self.folder / entry.stage.name)
                time_left.learn(entry.stage, manifest["seconds"] if manifest else 0)
        to_run = [entry.stage for entry in plan if entry.run]
        for number, stage in enumerate(to_run):
            stop_request.raise_if_noted()
            log.info("[%d/%d] %s", number + 1, len(to_run), stage.name)
            self.console.loop_left = time_left.of(to_run[number + 1 :])
            self.console.loop_place = (number, len(to_run))
            folder = self.folder / stage.name
            if main:
                begin(self.folder, stage)
                self.write_results(stages, working_on=stage)
            self.fabric.barrier()
            started = time.monotonic()
            metrics = stage.action(folder)
            seconds = metrics.pop("seconds", time.monotonic() - started)
            time_left.learn(stage, seconds)
            if main:
                finish(self.folder, stage, metrics, seconds, self.about())
                remove_checkpoints(folder)
                self.track(tracker, stages, stage)
            self.fabric.barrier()

    def track(self, tracker: Tracker, stages: Sequence[Stage], stage: Stage) -> None:
        """Log a finished stage's scores and frames to TensorBoard, over the loop's order."""
        roles = {"export": "source", "pseudo-label": "target", "evaluate": "validation"}
        if stage.kind not in roles or not is_finished(self.folder, stage):
            return
        scores = read_metrics(self.folder / stage.name)
        assert scores is not None
        place = [other for other in stages if other.kind == stage.kind].index(stage)
        if stage.kind == "evaluate":
            values = {f"mIoU/{key}": scores[key] for key in ("miou", *self.problem.space.subsets)}
            values |= {f"IoU/{name}": value for name, value in scores["iou"].items()}
            tracker.scalars({"step": place} | {k: v for k, v in values.items() if v is not None})
        role = roles[stage.kind]
        for strip in self.strips([*self.rendered.values(), stage], (role,)):
            image = np.asarray(beside(strip.panels))
            tracker.image(f"{role}/{strip.frame}", image, place)

    def about(self) -> dict[str, Any]:
        """On what a stage was made, for its manifest."""
        return {
            "seed": self.config.seed,
            "device": str(self.fabric.device),
            "precision": resolve_precision(self.config),
            "processes": self.fabric.world_size,
        }

    def results(self, stages: Sequence[Stage]) -> list[dict[str, Any]]:
        """One row for each segmentation network of this configuration that is evaluated."""
        rows = []
        finished = {stage.name for stage in stages if is_finished(self.folder, stage)}
        for stage in stages:
            folder = self.folder / stage.name
            scores = read_metrics(folder / "evaluation")
            manifest = read_manifest(folder)
            if not finished.issuperset({stage.name, f"{stage.name}/evaluation"}):
                continue
            assert scores is not None and manifest is not None
            k, i = position(stage.name)
            means = {key: scores[key] for key in ("miou", *self.problem.space.subsets)}
            rows.append(
                {
                    "stage": stage.name,
                    "k": k,
                    "i": i,
                    **means,
                    "iou": scores["iou"],
                    "seconds": manifest["seconds"],
                }
            )
        return rows

    def write_results(self, stages: Sequence[Stage], working_on: Stage | None = None) -> None:
        """results.json and the report, from what is finished; `working_on` is being made."""
        rows = self.results(stages)
        write_json(self.folder / "results.json", rows)
        finished = [stage for stage in stages if is_finished(self.folder, stage)]
        space = self.problem.space
        report = Report(
            title=self.folder.resolve().name,
            rows=rows,
            records=[self.record(stage) for stage in stages],
            strips=self.strips(finished),
            facts=self.facts(),
            classes=list(zip(space.names, space.colors, strict=True)),
            subsets=list(space.subsets),
            command=self.command(),
            configuration=to_yaml(self.config),
            working_on=working_on.name if working_on else None,
        )
        write_report(self.folder / "report.html", report)

    def record(self, stage: Stage) -> Record:
        if not is_finished(self.folder, stage):
            return Record(stage.name, stage.kind, None, None)
        folder = self.folder / stage.name
        return Record(stage.name, stage.kind, read_manifest(folder), read_metrics(folder))

    def facts(self) -> dict[str, str]:
        """What is run, in a few lines for the report."""
        config = self.config

        def data(role: str) -> str:
            domain, size = self.problem.domain(role), self.problem.size(role)
            place = domain.appearance if self.problem.is_rendered(role) else domain.root
            at = f"at {size[0]}x{size[1]}" if size else "at their own size"
            return f"{domain.layout} ({place}), {self.problem.count(role)} images {at}"

        space = self.problem.space
        return {
            "rounds, K": str(config.iterations),
            "self-training steps, N": str(config.self_training_steps),
            "seed": str(config.seed),
            "segmentation": f"{config.segmentation.network}, {config.segmentation.steps} steps",
            **{role: data(role) for role in ROLES},
            "label space": f"{space.name}, {space.num_classes} classes",
        }

    def strips(self, finished: Sequence[Stage], roles: Collection[str] = ROLES) -> list[Strip]:
        """The followed frames: source images through the translators, target images through the
        pseudo labels, validation images through the networks."""
        space = self.problem.space

        def labels(caption: str, ids: np.ndarray) -> Panel:
            return Panel(caption, label_image(ids, space))

        def predicted(caption: str, file: Path) -> Panel:
            return labels(caption, np.asarray(open_label(file)))

        def made_by(kind: str) -> list[tuple[str, Path]]:
            return [(s.name, self.folder / s.name) for s in finished if s.kind == kind]

        def followed(role: str) -> list[tuple[int, Sample]]:
            rendering = self.rendered.get(role)
            if role not in roles or (rendering is not None and rendering not in finished):
                return []
            samples = self.problem.samples(role)
            return [(index, samples[index]) for index in frames(len(samples))]

        strips = []
        for index, sample in followed("source"):
            panels = [Panel("source", open_image(sample.image))]
            if self.config.translation.images is not None:
                given = open_image(self.given_images[sample.name])
                panels.append(Panel("translated before the run", given))
            for name, folder in made_by("export"):
                translated = open_image(image_path(folder, sample.name))
                back = open_image(reconstruction_path(folder, index))
                panels.append(Panel(symbol(name), translated))
                panels.append(Panel(f"{symbol(name)} and back", back))
            strips.append(Strip("source", sample.name, panels))
        for _, sample in followed("target"):
            panels = [Panel("target", open_image(sample.image))]
            for name, folder in made_by("pseudo-label"):
                panels.append(predicted(symbol(name), pseudo_label_path(folder, sample.name)))
            strips.append(Strip("target", sample.name, panels))
        table = self.problem.table("validation")
        for index, sample in followed("validation"):
            panels = [Panel("validation", open_image(sample.image))]
            for name, folder in made_by("evaluate"):
                caption = symbol(name.rpartition("/")[0])
                panels.append(predicted(caption, prediction_path(folder, index)))
            assert sample.label is not None
            panels.append(labels("label", table[np.asarray(open_label(sample.label))]))
            strips.append(Strip("validation", sample.name, panels))
        return strips


def position(name: str) -> tuple[int, int]:
    """k and i of a segmentation stage: "k2/segmentation-1" is (2, 1), "source-only" (0, 0)."""
    if not name.startswith("k"):
        return 0, 0
    round_name, stage_name = name.split("/")
    return int(round_name[1:]), int(stage_name.rpartition("-")[2])


def frames(count: int) -> list[int]:
    """Indices of the images that the report follows, spread over the data set."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(FRAMES, count))})


# The command line

_SINGLE = {
    "translate": "train the translator of round K",
    "export": "translate every source image with the translator of round K",
    "segment": "train the segmentation network M(k,i); k 0 is source only",
    "pseudo-label": "label the target confidently with M(k,i-1)",
    "evaluate": "score M(k,i) on the validation images",
}


class ShowVersions(argparse.Action):
    """Prints the versions that results may depend on, and stops."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for name, version in {"bdl": __version__, **versions()}.items():
            print(f"{name:<12} {version}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bdl",
        description="Bidirectional learning for domain adaptation of semantic segmentation: a "
        "translator and a segmentation network, trained in turns.",
        epilog="Every stage that is finished for the same settings is reused. A run that was "
        "stopped goes on with the same command.",
    )
    parser.add_argument(
        "--version", action=ShowVersions, nargs=0, help="print versions of bdl and its libraries"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--config",
            default="demo",
            metavar="YAML",
            help="configuration: a file, or the name of one of the project's own (default: demo)",
        )
        if name != "check":
            command.add_argument(
                "--dry-run",
                action="store_true",
                help="print what would run and what is reused; stop",
            )
        add_loudness(command)
        command.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="settings that replace those of the file, e.g. seed=1 segmentation.steps=500",
        )
        return command

    run = add("run", "the whole loop: translate, train, pseudo-label, retranslate")
    run.add_argument(
        "--from-stage",
        metavar="STAGE",
        help="run this stage again and all that depends on it, e.g. k1/translator",
    )
    ablation = add("ablate", "the loop for several K, N, seeds and settings, in one table")
    for option, meaning in (
        ("--iterations", "values of K"),
        ("--self-training-steps", "values of N"),
        ("--seeds", "seeds"),
    ):
        ablation.add_argument(
            option,
            type=int,
            nargs="+",
            metavar="NUMBER",
            help=f"{meaning} (default: as configured)",
        )
    ablation.add_argument(
        "--row",
        action="append",
        default=[],
        metavar='"NAME: key=value ..."',
        help="a further variant of the settings; can be given several times",
    )
    for name, text in _SINGLE.items():
        command = add(name, text)
        command.add_argument("--k", type=int, metavar="K", help="round (default: the last)")
        if name not in ("translate", "export"):
            command.add_argument(
                "--i", type=int, metavar="I", help="self-training step (default: the last)"
            )
        command.add_argument(
            "--again", action="store_true", help="run it again even if it is finished"
        )
    check = add("check", "find what is wrong with configuration and data, all of it; plan")
    check.add_argument("--pixels", action="store_true", help="decode every image and label file")
    add_score(commands)
    add_import_weights(commands)
    add_predict(commands)
    add_export_network(commands)
    return parser


def add_score(commands: Any) -> None:
    text = "IoU of any predictions stored as PNG files of train ids; needs no model"
    command = commands.add_parser("score", help=text, description=f"{text}.")
    command.add_argument("--predictions", required=True, metavar="DIR", help="PNG files, any depth")
    command.add_argument("--labels", required=True, metavar="DIR", help="the same, of equal names")
    command.add_argument(
        "--label-space",
        default="cityscapes19",
        metavar="NAME",
        help="one of the project's own, or a YAML file (default: cityscapes19)",
    )
    command.add_argument(
        "--encoding",
        default="auto",
        metavar="NAME",
        help="how the labels count classes: own (train ids), an encoding of the label space, e.g. "
        "label_id, or auto: told by their names or ids (default)",
    )
    command.add_argument("--json", metavar="FILE", help="write the scores there")


def add_import_weights(commands: Any) -> None:
    text = "make published or torchvision weights a file of this project"
    command = commands.add_parser(
        "import-weights",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: initial weights for segmentation.weights, or a "
        "trained network that every command can use.",
    )
    command.add_argument("origin", metavar="IN", help=f"published file, or '{TORCHVISION}'")
    command.add_argument("out", metavar="OUT", help="file to write")
    command.add_argument("--network", required=True, choices=[*SEGMENTATION, *TRANSLATION])
    command.add_argument(
        "--branches",
        type=int,
        choices=(2, 4),
        help="deeplab_v2: branches of the head to sum (default: told by the weights)",
    )
    command.add_argument(
        "--back",
        metavar="FILE",
        help="generator: that of target to source; OUT is then a whole translator, for "
        "translation.checkpoints",
    )
    command.add_argument(
        "--label-space",
        default="cityscapes19",
        metavar="NAME",
        help="classes of a trained network (default: cityscapes19)",
    )


def add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "label your own photos with a trained network"
    command = commands.add_parser(
        "predict",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: label maps with the classes' colours, and "
        "overlays.",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="a run's folder (its last network), or a segmenter.pt",
    )
    command.add_argument(
        "--images", type=Path, required=True, metavar="PATH", help="a photo, or a folder of photos"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the results"
    )
    command.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        help="size that photos are resized to for the network (default: the width it was trained "
        "at, in a run's folder; else the photo's own)",
    )
    command.add_argument(
        "--window", type=int, nargs=2, metavar=("W", "H"), help="slide a window of this size"
    )
    command.add_argument("--flip", action="store_true", help="mean with the mirrored photo's")
    command.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="mean over the photo resized by each factor",
    )
    command.add_argument(
        "--probabilities", action="store_true", help="also write class probabilities (npz, 16 bit)"
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    command.add_argument(
        "--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed", "auto")
    )
    add_loudness(command)


def add_export_network(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    text = "a trained network for other programs, as ONNX or a torch.export archive"
    command = commands.add_parser("export-network", help=text, description=f"Writes {text}.")
    command.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="a run's folder (its last network), or a segmenter.pt",
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="NAME.onnx or NAME.pt2"
    )
    command.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        help="size of the images it will take (default: that of its training)",
    )
    add_loudness(command)


def add_loudness(command: argparse.ArgumentParser) -> None:
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument(
        "--quiet",
        dest="verbosity",
        action="store_const",
        const=-1,
        default=0,
        help="print only warnings and results",
    )
    loudness.add_argument(
        "--verbose",
        dest="verbosity",
        action="store_const",
        const=1,
        help="print each entry of the curves",
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options and settings in any order; argparse alone wants all settings in one place, and not
    after an option that takes several values."""
    parser = make_parser()
    settings = [item for item in arguments if re.match(r"[a-z_][\w.]*=", item)]
    options = parser.parse_args([item for item in arguments if item not in settings])
    if settings and not hasattr(options, "overrides"):
        parser.error(f"{options.command} takes no settings, such as {settings[0]}")
    if settings:
        options.overrides += settings
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 2 for an error of the user's, 130 and 143
    after SIGINT and SIGTERM."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(given)
    # What a writing thread fails with, the next write raises again where it is reported.
    threading.excepthook = lambda failed: None
    with stop_request.listening():
        try:
            _TOOLS.get(options.command, run_command)(options)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Stopped as stopped:
            return report_stop(stopped, given)
        except Exception as error:
            # A process that waits for another one which stops or has failed gets errors of its own.
            if stop_request.signum:
                return report_stop(Stopped(stop_request.signum), given)
            if status := failed_child(stop_request.children):
                return 2 if status == 2 else 1
            if isinstance(error, OSError) and is_users(error):
                print(f"error: {write_error(error.filename or '', error)}", file=sys.stderr)
                return 2
            raise
    return 0


def report_stop(stopped: Stopped, arguments: Sequence[str]) -> int:
    """Say how to go on; returns the exit status."""
    if int(os.environ.get("LOCAL_RANK", 0)):
        return 0  # the main process speaks, and its status is the run's
    program = Path(sys.argv[0])
    called = ["python", str(program)] if program.suffix == ".py" else [program.name]
    command = shlex.join([*called, *arguments])
    print(f"stopped by {stopped}; to go on: {command}", file=sys.stderr)
    return stopped.status


def run_command(options: argparse.Namespace) -> None:
    config = load_config(options.config, options.overrides)
    fabric = make_fabric(config)
    with launched(fabric):
        console = Console(speaking=fabric.is_global_zero, verbosity=options.verbosity)
        started = time.monotonic()
        if options.command == "ablate":
            ablate(options, config, fabric, console)
            return
        loop = Loop(config, fabric, console)
        if options.command == "run":
            rows = loop.run(from_stage=options.from_stage, dry=options.dry_run)
        else:
            rows = loop.run_single(stage_name(options, config), options.again, options.dry_run)
        if options.dry_run:
            return
        show_results(console, rows)
        log.info(
            "done in %s; see %s", duration(time.monotonic() - started), loop.folder / "report.html"
        )


def ablate(options: argparse.Namespace, config: Config, fabric: Fabric, console: Console) -> None:
    """The loop for every variant, K, N and seed, in folders below `out`, and their table."""
    folder = Path(config.out)
    variants: dict[str, list[str]] = {"as configured": []} | dict(
        parse_row(row) for row in options.row
    )
    cells = []
    for variant, k, n, seed in itertools.product(
        variants,
        options.iterations or [config.iterations],
        options.self_training_steps or [config.self_training_steps],
        options.seeds or [config.seed],
    ):
        if k == 0 and n != (options.self_training_steps or [n])[0]:
            continue  # source only, whatever N
        out = folder / variant.replace(" ", "-") / f"K{k}-N{n}" / f"seed-{seed}"
        own = [f"iterations={k}", f"self_training_steps={n}", f"seed={seed}", f"out={out}"]
        overrides = [*options.overrides, *variants[variant], *own]
        cells.append(Cell(variant, k, n, seed, load_config(options.config, overrides)))

    def run(cell: Cell, others: list[Path]) -> list[dict[str, Any]]:
        name = f"K = {cell.iterations}, N = {cell.self_training_steps}, seed {cell.seed}"
        log.info("\n%s, %s", cell.variant, name)
        return Loop(cell.config, fabric, console).run(others=others, dry=options.dry_run)

    if options.dry_run:
        for cell in cells:
            run(cell, [])
        return
    lines = run_ablation(folder, cells, run)
    log.info("\n%s\nsee %s", as_markdown(lines), folder / "ablation.md")


def parse_row(text: str) -> tuple[str, list[str]]:
    """A row of an ablation, "NAME: key=value key=value", as its name and overrides."""
    name, colon, overrides = text.partition(":")
    if not colon or not re.fullmatch(r"[\w. -]+", name):
        raise UserError(f"--row: '{text}' is not of the form \"NAME: key=value key=value\"")
    return name.strip(), overrides.split()


def score_command(options: argparse.Namespace) -> None:
    """`score`: any predictions against labels."""
    console = Console()
    space = load_label_space(options.label_space)
    pairs = find_pairs(Path(options.predictions), Path(options.labels))
    encoding = options.encoding
    if encoding == AUTO:
        encoding = pairs.encoding or detect_encoding([label for _, label in pairs.files], space)
        log.info("labels: taken as %s", "train ids" if encoding == OWN else encoding)
    table = own_table(space) if encoding == OWN else space.table(encoding)
    with console.track("score", len(pairs.files), unit="images") as task:
        scores = score(pairs.files, space, table, task.advance)
    if pairs.left_out:
        log.info("%d predictions have no label and were left out", pairs.left_out)
    log.info("%s", describe_scores(scores))
    if options.json:
        write_json(Path(options.json), scores)


def describe_scores(scores: dict[str, Any]) -> str:
    """IoU by class and the means, in percent; - for what is in neither file."""
    rows = {**scores["iou"], **{key: value for key, value in scores.items() if key != "iou"}}
    return "\n".join(
        f"{name:<16}" + (f"{100 * value:>7.2f}" if value is not None else f"{'-':>7}")
        for name, value in rows.items()
    )


def import_command(options: argparse.Namespace) -> None:
    """`import-weights`: a file of other code becomes one of this project."""
    Console()
    if Path(options.origin).resolve() == Path(options.out).resolve():
        raise UserError(f"{options.out}: is the file to import; give another name for OUT")
    if options.back is not None and options.network != "generator":
        raise UserError("--back: goes with --network generator; leave it out")
    if options.network in TRANSLATION:
        if options.branches is not None:
            raise UserError(f"--branches: {options.network} has no branches; leave it out")
        if options.back is not None:
            content, note = import_translator(options.origin, options.back)
        else:
            content, note = import_translation_weights(options.origin, options.network)
    else:
        space = load_label_space(options.label_space)
        content, note = import_weights(options.origin, options.network, space, options.branches)
    save_tensors(Path(options.out), content)
    log.info("%s: %s", options.out, note)


def predict_command(options: argparse.Namespace) -> None:
    console = Console(verbosity=options.verbosity)
    photos = find_photos(options.images, options.out)
    predictor = Predictor(
        options.checkpoint,
        size=options.size and tuple(options.size),
        window=options.window and tuple(options.window),
        flip=options.flip,
        scales=options.scales,
        device=options.device,
        precision=options.precision,
    )
    claim_folder(options.out, "--out")
    log.info("%d photos with %s", len(photos), predictor.file)
    predict_files(predictor, console, photos, options.out, options.probabilities)
    log.info("labels and overlays are in %s", options.out)


def export_network_command(options: argparse.Namespace) -> None:
    Console(verbosity=options.verbosity)
    size = options.size and tuple(options.size)
    predictor = Predictor(options.checkpoint, size=size, device="cpu")
    claim_folder(options.out.parent, "--out")
    export_network(predictor, options.out, size)
    log.info("%s gives the same labels as %s", options.out, predictor.file)


def check_command(options: argparse.Namespace) -> None:
    """`check`: everything that can be found without training; then the plan.

    Raises UserError, once all problems are printed, if there are any.
    """
    problems: list[str] = []
    config = load_config(options.config, options.overrides, problems)
    sound = not problems
    console = Console()

    def attempt(action: Callable[[], Any]) -> Any:
        """What `action` returns; None if it cannot, for a reason that is a problem."""
        try:
            return action()
        except UserError as error:
            if str(error) not in problems:
                problems.append(str(error))

    fabric = attempt(lambda: make_fabric(config))
    attempt(lambda: require_writable(Path(config.out)))
    loop = attempt(lambda: Loop(config, fabric or Fabric(accelerator="cpu"), console))
    if loop is not None:
        problems += loop.check(options.pixels, cuts=sound)
        space = loop.problem.space
        attempt(lambda: initial_segmenter(config.segmentation, space.num_classes, seed=0))
    stages = [] if problems else attempt(loop.algorithm) or []
    problems += [
        f"{loop.folder / stage.name}: is in the way of that stage and was not made by a run; "
        "move it, or set another folder with out=..."
        for stage in stages
        if is_foreign(loop.folder / stage.name)
    ]
    plan: list[Entry] = attempt(lambda: make_plan(loop.folder, stages)) or [] if stages else []
    for line in problems:
        log.info("problem: %s", line)
    if problems:
        raise UserError(f"{len(problems)} problem(s), listed above; nothing was run")
    log.info("%s", describe_plan(config, plan))
    work = Counter({entry.stage.unit: 0 for entry in plan})
    for entry in plan:
        work[entry.stage.unit] += entry.stage.work * entry.run
    amounts = ", ".join(f"{amount} {unit}" for unit, amount in work.items())
    log.info("no problem found; to do: %s", amounts)


# The commands that run no stage.
_TOOLS = {
    "check": check_command,
    "score": score_command,
    "import-weights": import_command,
    "predict": predict_command,
    "export-network": export_network_command,
}


def stage_name(options: argparse.Namespace, config: Config) -> str:
    """The stage that a single-stage command means."""
    k = config.iterations if options.k is None else options.k
    if options.command in ("translate", "export"):
        return f"k{k}/" + {"translate": "translator", "export": "translated"}[options.command]
    i = config.self_training_steps if options.i is None else options.i
    if options.command == "pseudo-label":
        return f"k{k}/pseudo-labels-{i}"
    segmenter = "source-only" if k == 0 else f"k{k}/segmentation-{i}"
    return segmenter if options.command == "segment" else f"{segmenter}/evaluation"


def claim_folder(folder: Path, key: str = "out") -> None:
    """Make the folder of results that `key` sets. Raises UserError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{key}: {folder} cannot be written to ({error.strerror})") from None


def describe_plan(config: Config, plan: Sequence[Entry]) -> str:
    """What will run and what is reused, a line a stage."""
    lines = [
        f"{config.out}: K = {config.iterations}, N = {config.self_training_steps}, "
        f"seed {config.seed}; {sum(entry.run for entry in plan)} of {len(plan)} stages to run"
    ]
    for entry in plan:
        work = f"{entry.stage.work} {entry.stage.unit}"
        mark, reason = ("run  ", entry.reason) if entry.run else ("reuse", "")
        lines.append(f"  {mark}  {entry.stage.name:<32} {work:<16} {reason}".rstrip())
    return "\n".join(lines)


def show_results(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """The closing table, if there is something to show."""
    if rows:
        console.show(results_table(with_gains(rows)), describe_results(with_gains(rows)))


def describe_results(rows: Sequence[dict[str, Any]]) -> str:
    """The closing table as plain text: each network's mIoU, and its gain over source only.

    The rows are those of `runtime.report.with_gains`.
    """
    lines = ["", f"{'network':<24}{'mIoU':>7}{'gain':>8}{'trained in':>16}"]
    for row in rows:
        gain = "" if row["gain"] is None else f"{100 * row['gain']:+.1f}"
        miou, seconds = 100 * row["miou"], duration(row["seconds"])
        lines.append(f"{row['stage']:<24}{miou:>7.1f}{gain:>8}{seconds:>16}")
    return "\n".join(lines)


def results_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The same for a terminal; the best network stands out."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("network")
    for name in ("mIoU", "gain", "trained in"):
        table.add_column(name, justify="right")
    best = max(row["miou"] for row in rows)
    for row in rows:
        gain = row["gain"]
        color = "" if not gain else "green" if gain > 0 else "red"
        table.add_row(
            f"{symbol(row['stage'])}  [dim]{row['stage']}[/dim]",
            f"{100 * row['miou']:.1f}",
            "" if gain is None else Text(f"{100 * gain:+.1f}", color),
            duration(row["seconds"]),
            style="bold" if row["miou"] == best else "",
        )
    return table


def _file_digest(file: Path, key: str) -> str:
    try:
        with open(file.expanduser(), "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{key}: {file} cannot be read ({error.strerror}); make it with import-weights, "
            "or leave the key out"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
