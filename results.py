"""What a run's folder holds, for results.json, the report, TensorBoard and the terminal."""

import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from domains.datasets import Sample, spread
from domains.images import label_image, open_image, open_label
from domains.problem import ROLES, Problem
from runtime.config import Config, to_yaml
from runtime.console import Console, duration
from runtime.files import write_json
from runtime.report import Panel, Record, Report, Strip, beside, symbol, with_gains, write_report
from runtime.stages import Metrics, Stage, is_finished, read_manifest, read_metrics
from runtime.tracking import Tracker
from segmentation.evaluate import prediction_path
from segmentation.pseudo_labels import pseudo_label_path
from translation.export import image_path, reconstruction_path

CONFIGURATION = "config.yaml"  # in the run's folder
FRAMES = 4  # images of each data set that the report follows through the loop, spread over it


class Results:
    """What the stages of a configured run have left in its folder; only finished ones count.

    `given` takes a source image's name to its translation made before the run, where the
    configuration names a folder of these.
    """

    def __init__(
        self,
        config: Config,
        problem: Problem,
        stages: Sequence[Stage],
        given: Callable[[str], Path],
    ) -> None:
        self.config, self.problem, self.stages, self.given = config, problem, stages, given
        self.folder = Path(config.out)

    def finished(self) -> list[Stage]:
        return [stage for stage in self.stages if is_finished(self.folder, stage)]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each segmentation network of this configuration that is evaluated."""
        return self.rows_of(self.finished())

    def rows_of(self, stages: Sequence[Stage]) -> list[dict[str, Any]]:
        """The same, of the finished `stages`."""
        rows = []
        finished = {stage.name for stage in stages}
        for stage in self.stages:
            if not finished.issuperset({stage.name, f"{stage.name}/evaluation"}):
                continue
            folder = self.folder / stage.name
            scores, manifest = read_metrics(folder / "evaluation"), read_manifest(folder)
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

    def write(self, working_on: Stage | None = None) -> None:
        """results.json and the report, from what is finished; `working_on` is being made."""
        finished = self.finished()  # asked once: each answer counts the files of every stage
        rows = self.rows_of(finished)
        write_json(self.folder / "results.json", rows)
        space = self.problem.space
        report = Report(
            title=self.folder.resolve().name,
            rows=rows,
            records=[self.record(stage, stage in finished) for stage in self.stages],
            strips=self.strips(finished),
            facts=self.facts(),
            classes=list(zip(space.names, space.colors, strict=True)),
            subsets=list(space.subsets),
            command=self.command(),
            configuration=to_yaml(self.config),
            working_on=working_on.name if working_on else None,
        )
        write_report(self.folder / "report.html", report)

    def record(self, stage: Stage, finished: bool) -> Record:
        if not finished:
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

    def strips(self, stages: Sequence[Stage], roles: Collection[str] = ROLES) -> list[Strip]:
        """The followed frames: source images through the translators among the finished `stages`,
        target images through their pseudo labels, validation images through their networks."""
        space = self.problem.space

        def labels(caption: str, ids: np.ndarray) -> Panel:
            return Panel(caption, label_image(ids, space))

        def predicted(caption: str, file: Path) -> Panel:
            return labels(caption, np.asarray(open_label(file)))

        def made_by(kind: str) -> list[tuple[str, Path]]:
            return [(s.name, self.folder / s.name) for s in stages if s.kind == kind]

        def followed(role: str) -> list[tuple[int, Sample]]:
            rendering = [stage for stage in self.stages if stage.name == f"data/{role}"]
            if role not in roles or not all(is_finished(self.folder, s) for s in rendering):
                return []
            samples = self.problem.samples(role)
            return [(index, samples[index]) for index in spread(len(samples), FRAMES)]

        strips = []
        for index, sample in followed("source"):
            panels = [Panel("source", open_image(sample.image))]
            if self.config.translation.images is not None:
                given = open_image(self.given(sample.name))
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

    def track(self, tracker: Tracker, stage: Stage) -> None:
        """Log a finished stage's scores and frames to TensorBoard, over the loop's order."""
        roles = {"export": "source", "pseudo-label": "target", "evaluate": "validation"}
        if stage.kind not in (*roles, "measure") or not is_finished(self.folder, stage):
            return
        scores = read_metrics(self.folder / stage.name)
        assert scores is not None
        place = [other for other in self.stages if other.kind == stage.kind].index(stage)
        values: dict[str, float | None] = {}
        if stage.kind == "evaluate":
            values = {f"mIoU/{key}": scores[key] for key in ("miou", *self.problem.space.subsets)}
            values |= {f"IoU/{name}": value for name, value in scores["iou"].items()}
        elif stage.kind == "measure":
            values = translation_values(scores)
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            tracker.scalars({"step": place, **known})
        if stage.kind in roles:
            role = roles[stage.kind]
            for strip in self.strips([stage], (role,)):
                image = np.asarray(beside(strip.panels))
                tracker.image(f"{role}/{strip.frame}", image, place)

    def command(self) -> str:
        """What makes the run anew, in another folder."""
        again = self.folder.with_name(f"{self.folder.name}-again")
        arguments = ["run", "--config", str(self.folder / CONFIGURATION), f"out={again}"]
        return shlex.join(["bdl", *arguments])


def position(name: str) -> tuple[int, int]:
    """k and i of a segmentation stage: "k2/segmentation-1" is (2, 1), "source-only" (0, 0)."""
    if not name.startswith("k"):
        return 0, 0
    round_name, stage_name = name.split("/")
    return int(round_name[1:]), int(stage_name.rpartition("-")[2])


def translation_values(metrics: Metrics) -> dict[str, float | None]:
    """The single numbers among the measures of a translator, by their names in TensorBoard."""
    drift, kid = metrics["drift"], metrics["kid"]
    values = {f"translation/{key}": metrics[key] for key in ("ssim", "reconstruction_l1")}
    shares = ("right_on_source", "right_on_translation", "broken", "mended")
    values |= {f"translation/{key}": drift[key] for key in shares}
    for name in ("translated", "source"):
        values[f"translation/kid_{name}"] = kid[name] and kid[name]["mean"]
    return values


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
