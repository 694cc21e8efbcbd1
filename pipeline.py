"""Bidirectional learning, end to end: the loop of translation and segmentation.

`Loop.algorithm` reads like Algorithm 1 of the paper. `run_loop` runs it; `main` does what the
command line says.
"""

import argparse
import hashlib
import itertools
import re
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from commandline import TOOLS, parse
from domains.cache import make_cache
from domains.check import check_data, check_samples
from domains.datasets import Sample, images_of, pair_with, spread
from domains.inspection import usable
from domains.loading import TrainingSamples, View, WholeImages
from domains.problem import ROLES, Problem, digest
from domains.render import render_streets
from results import CONFIGURATION, FRAMES, Results, show_results
from runtime.ablation import Cell, as_markdown, run_ablation
from runtime.checkpoint import remove_checkpoints
from runtime.config import Config, load_config, to_yaml, value_at
from runtime.console import Console, duration, log
from runtime.device import make_fabric, require_compiler, resolve_precision
from runtime.errors import UserError
from runtime.estimate import TimeLeft
from runtime.files import (
    is_users,
    load_tensors,
    save_tensors,
    write_error,
    write_text,
)
from runtime.lock import claimed, require_writable
from runtime.memory import PeakMemory
from runtime.processes import (
    ChildFailed,
    largest,
    launched,
    rank_in_environment,
    report_error,
)
from runtime.report import byte_size
from runtime.stages import (
    Entry,
    Metrics,
    Stage,
    begin,
    finish,
    flatten,
    forget,
    is_foreign,
    make_plan,
    plan_sharing,
    read_manifest,
    take_over,
    tidy,
    versions,
)
from runtime.stopping import Stopped, stop_request
from runtime.tracking import WHOLE_LOOP, Tracker
from runtime.trial import SIZE as TRIAL
from runtime.trial import StepTimes, describe_costs, kind_of, measure, trial_of
from segmentation.evaluate import evaluate
from segmentation.networks.timm_backbone import ImageFeatures, packaged_backbone
from segmentation.predict import frozen_scores, predict_classes
from segmentation.pseudo_labels import make_pseudo_labels, pseudo_label_path
from segmentation.train import RESULT as SEGMENTER
from segmentation.train import as_segmenter, initial_segmenter, load_segmenter, train_segmenter
from translation.export import (
    as_translator,
    export_translations,
    image_path,
    load_translator,
)
from translation.measure import Eyes, measure_translations
from translation.train import RESULT as TRANSLATOR
from translation.train import Schedule as TranslationSchedule
from translation.train import ScoreMaps, train_translator


class Loop:
    """A configured run: its stages, what each depends on, and how each is made."""

    def __init__(
        self, config: Config, fabric: Fabric, console: Console, limit: int | None = None
    ) -> None:
        self.config, self.fabric, self.console = config, fabric, console
        self.folder = Path(config.out)
        self.problem = Problem(config.data, self.folder, console, limit)
        self.cache = make_cache(config.data)

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
        source_only = segmenter = add(self.segment("source-only", None, None, None))
        add(self.evaluate(segmenter))
        measured = self.config.translation.measure_images > 0
        if measured and self.config.translation.images is not None and self.config.iterations:
            add(self.measure(None, None, segmenter, source_only))
        translator: Stage | None = None
        for k in range(1, self.config.iterations + 1):
            translated = None
            if self.config.translation.images is None:
                translator = add(self.translate(k, segmenter, translator))
                translated = add(self.export(k, translator))
                if measured:
                    add(self.measure(translated, translator, segmenter, source_only))
            segmenter = add(self.segment(f"k{k}/segmentation-0", translated, None, segmenter))
            add(self.evaluate(segmenter))
            for i in range(1, self.config.self_training_steps + 1):
                labels = add(self.pseudo_label(k, i, segmenter))
                segmenter = add(
                    self.segment(f"k{k}/segmentation-{i}", translated, labels, segmenter)
                )
                add(self.evaluate(segmenter))
        self.require_places(stages)
        return stages

    def require_places(self, stages: Sequence[Stage]) -> None:
        """Raises UserError for a network trained elsewhere that takes no stage's place."""
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
        start = None if (config.init or self.config.init) == "initial" else previous
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
                    **self.training_options(),
                )

        used = asdict(config)
        del used["images"], used["checkpoints"], used["init"], used["measure_images"]
        del used["gradient_checkpointing"]  # the same gradients
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
            content = load_tensors(file)
            as_translator(content, file)
            if self.fabric.is_global_zero:
                save_tensors(folder / TRANSLATOR, content)
            return {}

        return Stage(name, "given", {key: _file_digest(file, key)}, (), action, 1, "network")

    def export(self, k: int, translator: Stage) -> Stage:
        """S' = F(k) applied to every source image, whole."""

        def action(folder: Path) -> Metrics:
            images = self.whole_images("source", self.unlabelled("source"))
            generators = load_translator(self.folder / translator.name)
            return export_translations(
                self.fabric,
                self.console,
                name,
                folder,
                generators,
                images,
                workers=self.config.data.workers,
                frames=spread(len(images), FRAMES),
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

    def measure(
        self,
        translated: Stage | None,
        translator: Stage | None,
        segmenter: Stage,
        source_only: Stage,
    ) -> Stage:
        """What the translation breaks for the network that its perceptual loss came from, how near
        it comes to the target; of `translation.images` without a `translated` stage."""
        backbone = packaged_backbone(self.config.segmentation.network.removeprefix("timm:"))

        def action(folder: Path) -> Metrics:
            source = self.problem.samples("source")
            pairs = self.translated_samples(self.unlabelled("source"), translated)
            back = load_translator(self.folder / translator.name).b_to_a if translator else None
            return measure_translations(
                self.fabric,
                self.console,
                name,
                self.whole_images("source", source, labelled=True),
                self.whole_images("source", pairs),
                self.whole_images("target", self.unlabelled("target")),
                self.eyes(segmenter, source_only, backbone),
                back,
                count=self.config.translation.measure_images,
                seed=self.config.seed,
                workers=self.config.data.workers,
            )

        name = "translated/measures" if translated is None else f"{translated.name}/measures"
        settings = {
            **self.common_settings(),
            "measure_images": self.config.translation.measure_images,
            "features": backbone,
            "source": self.problem.settings("source"),
            "labels": self.problem.label_settings("source"),
            "target": self.problem.settings("target"),
        }
        if translated is None:
            settings["translated"] = self.given_translations()
        inputs = [*self.needs("source", "target"), segmenter]
        inputs += filter(None, (translated, translator))
        if backbone is None and source_only not in inputs:
            inputs.append(source_only)
        work = sum(
            min(self.config.translation.measure_images, self.problem.count(role))
            for role in ("source", "target")
        )
        return Stage(name, "measure", settings, tuple(inputs), action, work, "images")

    def segment(
        self, name: str, translated: Stage | None, labels: Stage | None, previous: Stage | None
    ) -> Stage:
        """M(k,i) on translated images, with pseudo `labels` from the first self-training step on;
        without a `previous` network, M(0), which never sees the target."""
        config = self.config.segmentation
        if name in config.checkpoints:
            return self.given_network(name, Path(config.checkpoints[name]).expanduser())
        steps = (config.pseudo_label_steps if labels else None) or config.steps
        start = self.gone_on_from(previous)
        # Without a term of its own the target stays out: batch norm would learn from it.
        sees_target = labels is not None or (previous is not None and config.adversarial.weight > 0)

        def action(folder: Path) -> Metrics:
            source = self.problem.samples("source")
            if previous is not None:
                originals = source if config.originals else []
                source = [*originals, *self.translated_samples(source, translated)]
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
                    **self.training_options(),
                )

        used = asdict(config)
        for key in ("steps", "pseudo_label_steps", "pseudo_labels", "evaluation", "checkpoints"):
            del used[key]
        if previous is None:
            del used["originals"]
        if not sees_target:
            del used["adversarial"]
        if labels is None:
            del used["class_mixing"]
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
            content = load_tensors(file)
            _, label_space = as_segmenter(content, file)
            if label_space["names"] != list(self.problem.space.names):
                raise UserError(
                    f"{key}: {file} is for the classes of {label_space['name']}, "
                    f"not of {self.problem.space.name}"
                )
            if self.fabric.is_global_zero:
                save_tensors(folder / SEGMENTER, content)
            return {}

        return Stage(name, "given", {key: _file_digest(file, key)}, (), action, 1, "network")

    def pseudo_label(self, k: int, i: int, segmenter: Stage) -> Stage:
        """Y' = the confident predictions of M(k,i-1) on the target's training images."""
        config = self.config.segmentation.pseudo_labels

        def action(folder: Path) -> Metrics:
            images = self.unlabelled("target")
            return make_pseudo_labels(
                self.fabric,
                self.console,
                name,
                folder,
                self.trained_network(segmenter),
                [self.whole_images("target", images, scale=scale) for scale in config.scales],
                self.problem.size("target"),
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
                self.whole_images("validation", samples, labelled=True),
                self.problem.space,
                size=(config.size[0], config.size[1]) if config.size else None,
                workers=self.config.data.workers,
                frames=spread(len(samples), FRAMES),
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

    def training_options(self) -> dict[str, Any]:
        """What both trainings take, whatever they train."""
        return {
            "seed": self.config.seed,
            "workers": self.config.data.workers,
            "log_every": self.config.log_every,
            "checkpoint_every": self.config.checkpoint_every,
            "keep_checkpoints": self.config.keep_checkpoints,
            "compiled": self.config.compile,
        }

    def needs(self, *roles: str) -> tuple[Stage, ...]:
        """The stages that render the images of those roles, if the run renders them."""
        return tuple(self.rendered[role] for role in roles if role in self.rendered)

    def unlabelled(self, role: str) -> list[Sample]:
        return [Sample(s.name, s.image, None) for s in self.problem.samples(role)]

    def training_samples(self, role: str, samples: list[Sample], view: View) -> TrainingSamples:
        # Pseudo labels are train ids already; the table is for the source's stored ids.
        table = self.problem.table(role) if role == "source" else None
        return TrainingSamples(samples, view, self.config.seed, role, table, self.cache)

    def whole_images(
        self, role: str, samples: list[Sample], labelled: bool = False, scale: float = 1.0
    ) -> WholeImages:
        table = self.problem.table(role) if labelled else None
        size = self.problem.size(role)
        if size is not None:
            size = (round(scale * size[0]), round(scale * size[1]))
        return WholeImages(samples, size, table, self.cache)

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

    def gone_on_from(self, previous: Stage | None) -> Stage | None:
        """The network before as `init` lets a segmentation training go on from it, or None."""
        adapted = previous is not None and previous.name != "source-only"
        goes_on = {"initial": False, "adapted": adapted, "previous": True}[self.config.init]
        return previous if goes_on else None

    def starting_network(self, start: Stage | None) -> Any:
        """The initial network, or that of the stage gone on from."""
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
        return frozen_scores(self.fabric, self.trained_network(segmenter))

    def eyes(self, segmenter: Stage, source_only: Stage, backbone: str | None) -> Eyes:
        """The frozen network, and the features of an ImageNet backbone, which are the same for
        all rounds as, without one at hand, the scores of M(0) are."""
        network = self.fabric.to_device(self.trained_network(segmenter))

        def classes(images: Tensor, size: tuple[int, int]) -> Tensor:
            return predict_classes(self.fabric, network, images, size)

        names = self.problem.space.names
        if backbone is not None:
            features = self.fabric.to_device(ImageFeatures(backbone))
            return Eyes(classes, names, features, f"{backbone}, trained on ImageNet")
        # Not `score_maps`, whose weights may be of a precision that needs autocast around them.
        first = self.fabric.to_device(self.trained_network(source_only)).requires_grad_(False)
        pooled = f"scores of {source_only.name}, mean over the image"
        return Eyes(classes, names, lambda images: first.scores(images).mean((2, 3)), pooled)

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

    def preview(self, others: Sequence[Path], planned: dict[str, Path]) -> list[Entry]:
        """Prints and returns what `run` would do after the runs that come before it, whose stages
        `planned` holds: the run's folder by the stage's fingerprint. Its own are added."""
        plan = make_plan(self.folder, self.algorithm())
        plan = plan_sharing(self.folder, plan, others, planned)
        self.console.say(describe_plan(self.config, plan))
        return plan

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
        text = describe_plan(self.config, plan)
        if dry:
            self.console.say(text)
        else:
            log.info("%s", text)
        results = Results(
            self.config, self.problem, stages, given=lambda name: self.given_images[name]
        )
        if not dry:
            self.console.log_to(self.folder / "log.txt")
            log.debug("%s", describe_values({**self.about(), **versions()}))
            self.make(plan, results)
        return results.rows()

    @contextmanager
    def claimed(self, dry: bool) -> Iterator[None]:
        """Inside, the run's folder is this run's alone; a `dry` one only reads."""
        with claimed(self.folder) if self.fabric.is_global_zero and not dry else nullcontext():
            if self.fabric.is_global_zero and not dry:
                write_text(self.folder / CONFIGURATION, to_yaml(self.config))
            self.fabric.barrier()  # the records are read once they are nobody else's
            yield

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

    def make(self, plan: Sequence[Entry], results: Results) -> None:
        """Make what the plan says is to be made, recording each stage as it is done."""
        main = self.fabric.is_global_zero
        if self.config.compile and any(e.run and e.stage.unit == "steps" for e in plan):
            require_compiler(self.fabric.device)
        self.fabric.barrier()  # all processes have read the records before any is removed
        if main and self.cache is not None:
            self.cache.prepare()
        if main:
            tidy(self.folder, plan)
            forget(self.folder, plan)
        self.fabric.barrier()
        with Tracker(self.folder / "tensorboard", WHOLE_LOOP, main) as tracker:
            tracker.text("configuration", f"```yaml\n{to_yaml(self.config)}\n```")
            for stage in results.finished() if main else ():
                results.track(tracker, stage)
            self.make_stages(plan, results, tracker)
        if main:
            results.write()

    def make_stages(self, plan: Sequence[Entry], results: Results, tracker: Tracker) -> None:
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
            log.debug("%s", describe_values(flatten(stage.settings)))
            self.console.loop_left = time_left.of(to_run[number + 1 :])
            self.console.loop_place = (number, len(to_run))
            folder = self.folder / stage.name
            if main:
                begin(self.folder, stage)
                results.write(working_on=stage)
            self.fabric.barrier()
            started, peak = time.monotonic(), PeakMemory()
            metrics = stage.action(folder)
            seconds = metrics.pop("seconds", time.monotonic() - started)
            memory = {name: largest(self.fabric, size) for name, size in peak.read().items()}
            time_left.learn(stage, seconds)
            peaks = {key.replace("_", " "): byte_size(size) for key, size in memory.items()}
            log.debug("%s", describe_values({"made in": duration(seconds), **peaks}))
            if main:
                finish(self.folder, stage, metrics, seconds, {**self.about(), **memory})
                remove_checkpoints(folder)
                results.track(tracker, stage)
            self.fabric.barrier()

    def about(self) -> dict[str, Any]:
        """On what a stage was made, for its manifest."""
        return {
            "seed": self.config.seed,
            "device": str(self.fabric.device),
            "precision": resolve_precision(self.config),
            "processes": self.fabric.world_size,
        }


# Running it


def run_loop(
    config: Config, from_stage: str | None = None, verbosity: int = 0
) -> list[dict[str, Any]]:
    """The whole loop, as `run` on the command line; returns the rows of results.json.

    What is finished in `config.out` for the same settings is reused; `from_stage` names a stage to
    run again, with all that depends on it. `verbosity` is -1 (quiet) to 1. With several devices
    the calling script is run once for each. Raises UserError for whatever the user can repair.

        run_loop(load_config("demo", ["seed=1", "out=runs/seed-1"]))
    """
    with processes(config, verbosity) as (fabric, console):
        return Loop(config, fabric, console).run(from_stage)


@contextmanager
def processes(config: Config, verbosity: int) -> Iterator[tuple[Fabric, Console]]:
    """Inside, the run's processes are there; only the main one speaks."""
    fabric = make_fabric(config)
    with launched(fabric):
        yield fabric, Console(speaking=fabric.is_global_zero, verbosity=verbosity)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 2 for an error of the user's, 130 and 143
    after SIGINT and SIGTERM."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(given)
    # What a writing thread fails with, the next write raises again where it is reported.
    threading.excepthook = lambda failed: None
    with stop_request.listening():
        try:
            {**TOOLS, "check": check, "ablate": ablate}.get(options.command, run)(options)
        except UserError as error:
            report_error(str(error))
            return 2
        except ChildFailed as failed:
            if failed.text:
                report_error(failed.text)
            return failed.status
        except Stopped as stopped:
            return report_stop(stopped, given)
        except Exception as error:
            # A process that waits for another one which stops or has failed gets errors of its own.
            if stop_request.signum:
                return report_stop(Stopped(stop_request.signum), given)
            if isinstance(error, OSError) and is_users(error):
                report_error(str(write_error(error.filename or "", error)))
                return 2
            raise
    return 0


def report_stop(stopped: Stopped, arguments: Sequence[str]) -> int:
    """Say how to go on; returns the exit status."""
    if rank_in_environment():
        return 0  # the main process speaks, and its status is the run's
    program = Path(sys.argv[0])
    called = ["python", str(program)] if program.suffix == ".py" else [program.name]
    command = shlex.join([*called, *arguments])
    print(f"stopped by {stopped}; to go on: {command}", file=sys.stderr)
    return stopped.status


def run(options: argparse.Namespace) -> None:
    """`run`, and the commands of single stages."""
    config = load_config(options.config, options.overrides)
    started = time.monotonic()
    with processes(config, options.verbosity) as (fabric, console):
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


def ablate(options: argparse.Namespace) -> None:
    """`ablate`: the loop for every variant, K, N and seed, in folders below `out`, and a table."""
    config = load_config(options.config, options.overrides)
    folder = Path(config.out)
    cells = ablation_cells(options, folder)

    with processes(config, options.verbosity) as (fabric, console):

        def loop_of(cell: Cell) -> Loop:
            name = f"K = {cell.iterations}, N = {cell.self_training_steps}, seed {cell.seed}"
            log.info("\n%s, %s", cell.variant, name)
            return Loop(cell.config, fabric, console)

        if options.dry_run:
            planned: dict[str, Path] = {}
            folders = [cell.folder for cell in cells]
            plans = [loop_of(cell).preview(folders, planned) for cell in cells]
            entries = list(itertools.chain(*plans))
            to_run = sum(entry.run for entry in entries)
            console.say(f"\n{len(cells)} runs: {to_run} of {len(entries)} stages to run")
            return
        lines = run_ablation(folder, cells, lambda cell, others: loop_of(cell).run(others=others))
        console.say(f"\n{as_markdown(lines)}")
        log.info("see %s", folder / "ablation.html")


def ablation_cells(options: argparse.Namespace, folder: Path) -> list[Cell]:
    """Every variant with every K, N and seed; a row that sets one of these has that one alone."""
    variants: dict[str, list[str]] = {"as configured": []} | dict(
        parse_row(row) for row in options.row
    )
    cells = []
    for variant, settings in variants.items():
        config = load_config(options.config, [*options.overrides, *settings])
        own = {setting.partition("=")[0] for setting in settings}

        lists = {
            "iterations": options.iterations,
            "self_training_steps": options.self_training_steps,
            "seed": options.seeds,
        }
        values = [
            listed if listed and key not in own else [value_at(config, key)]
            for key, listed in lists.items()
        ]
        for k, n, seed in itertools.product(*values):
            if k == 0 and n != values[1][0]:
                continue  # source only, whatever N
            out = folder / variant.replace(" ", "-") / f"K{k}-N{n}" / f"seed-{seed}"
            place = [f"iterations={k}", f"self_training_steps={n}", f"seed={seed}", f"out={out}"]
            overrides = [*options.overrides, *settings, *place]
            cells.append(Cell(variant, k, n, seed, load_config(options.config, overrides)))
    return cells


def parse_row(text: str) -> tuple[str, list[str]]:
    """A row of an ablation, "NAME: key=value key=value", as its name and overrides."""
    name, colon, overrides = text.partition(":")
    if not colon or not re.fullmatch(r"[\w. -]+", name):
        raise UserError(f"--row: '{text}' is not of the form \"NAME: key=value key=value\"")
    return name.strip(), overrides.split()


def check(options: argparse.Namespace) -> None:
    """`check`: everything that can be found without training; then the plan.

    Raises UserError, once all problems are printed, if there are any.
    """
    problems: list[str] = []
    config = load_config(options.config, options.overrides, problems)
    sound = not problems
    console = Console(verbosity=options.verbosity)

    def attempt(action: Callable[[], Any]) -> Any:
        """What `action` returns; None if it cannot, for a reason that is a problem."""
        try:
            return action()
        except UserError as error:
            if str(error) not in problems:
                problems.append(str(error))

    fabric = attempt(lambda: make_fabric(config))
    if config.compile and fabric is not None:
        attempt(lambda: require_compiler(fabric.device))
    attempt(lambda: require_writable(Path(config.out)))
    if config.data.cache is not None:
        cache = Path(config.data.cache).expanduser()
        attempt(lambda: require_writable(cache, "data.cache"))
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
        log.warning("problem: %s", line)
    if problems:
        raise UserError(f"{len(problems)} problem(s), listed above; nothing was run")
    log.info("%s", describe_plan(config, plan))
    work = Counter({entry.stage.unit: 0 for entry in plan})
    for entry in plan:
        work[entry.stage.unit] += entry.stage.work * entry.run
    amounts = ", ".join(f"{amount} {unit}" for unit, amount in work.items())
    log.info("no problem found; to do: %s", amounts)
    if options.measure:
        measure_stages(config, [entry.stage for entry in plan if entry.run])


def measure_stages(config: Config, to_run: Sequence[Stage]) -> None:
    """Print what the stages `to_run` cost, from a few steps of each kind in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, console = Path(temporary), StepTimes()
        small = trial_of(config, folder)
        fabric = make_fabric(small)
        stages = Loop(small, fabric, console, limit=TRIAL).algorithm()
        wanted = {kind_of(stage) for stage in to_run if stage.kind != "given"}
        costs = measure(stages, wanted, folder, console)
    device = str(fabric.device)
    if fabric.device.type == "cuda":
        device = f"{device}, {torch.cuda.get_device_name(fabric.device)}"
    log.info("%s", describe_costs(costs, to_run, config.devices * config.nodes, device))


def stage_name(options: argparse.Namespace, config: Config) -> str:
    """The stage that a single-stage command means."""
    k = config.iterations if options.k is None else options.k
    of_translator = {
        "translate": "translator",
        "export": "translated",
        "measure": "translated/measures",
    }
    if options.command == "measure" and config.translation.images is not None:
        return of_translator[options.command]
    if options.command in of_translator:
        return f"k{k}/{of_translator[options.command]}"
    i = config.self_training_steps if options.i is None else options.i
    if options.command == "pseudo-label":
        return f"k{k}/pseudo-labels-{i}"
    segmenter = "source-only" if k == 0 else f"k{k}/segmentation-{i}"
    return segmenter if options.command == "segment" else f"{segmenter}/evaluation"


def describe_plan(config: Config, plan: Sequence[Entry]) -> str:
    """What will run and what is reused, a line a stage."""
    lines = [
        f"{config.out}: K = {config.iterations}, N = {config.self_training_steps}, "
        f"seed {config.seed}; {sum(entry.run for entry in plan)} of {len(plan)} stages to run"
    ]
    for entry in plan:
        work = f"{entry.stage.work} {entry.stage.unit}"
        mark = "run  " if entry.run else "reuse"
        lines.append(f"  {mark}  {entry.stage.name:<32} {work:<16} {entry.reason}".rstrip())
    return "\n".join(lines)


def describe_values(values: dict[str, Any]) -> str:
    """A line for each, indented, for those who want to know."""
    return "\n".join(f"    {key}: {value}" for key, value in values.items())


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
