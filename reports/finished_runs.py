"""Finished runs as their folders hold them, to be compared without their weights."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from bdl.domains.images import label_image, open_image, train_ids
from bdl.domains.label_space import load_label_space
from bdl.domains.problem import ImageSet, Problem
from bdl.reports.comparison import ComparedRun, Validation
from bdl.reports.old_runs import image_settings
from bdl.reports.pictures import Panel, Strip
from bdl.reports.records import (
    Record,
    read_rows,
    records_in,
)
from bdl.reports.report import Color, byte_size, listed
from bdl.runtime.config import RENAMED, load_config
from bdl.runtime.console import duration
from bdl.runtime.errors import UserError, first_line
from bdl.runtime.ownership import CONFIGURATION, RESULTS
from bdl.runtime.stage import as_setting, flatten
from bdl.runtime.store import VERSION
from bdl.segmentation.metrics import EvaluationMetrics
from bdl.segmentation.stages import Evaluation, prediction_path

_SCORED_BY = ("data.validation", "segmentation.evaluation", "evaluation", "labels")  # settings


@dataclass
class FinishedRun:
    """A run's folder, and its last network's evaluation, if that was evaluated."""

    folder: Path
    compared: ComparedRun
    evaluation: Record | None

    def frames(self) -> list[int]:
        """Indices of the validation images whose predictions were kept."""
        if self.evaluation is None:
            return []
        folder = prediction_path(self.evaluation.folder, 0).parent
        return sorted(int(file.stem) for file in folder.glob("*.png"))

    def prediction(self, index: int) -> Image.Image:
        """The kept prediction, with the palette of the classes' colours."""
        assert self.evaluation is not None
        image = Image.open(prediction_path(self.evaluation.folder, index))
        image.load()
        return image


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """The runs in `folders`, named by what tells their folders apart.

    Raises:
        UserError: A folder holds no run with a finished network, or is given twice.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise UserError("RUN: the same folder is given twice; give different ones")
    shared = Path(os.path.commonpath([one.parent for one in resolved]))
    parts = [list(one.relative_to(shared).parts) for one in resolved]
    while all(len(one) > 1 and one[-1] == parts[0][-1] for one in parts):
        for one in parts:
            one.pop()
    return [read_run(folder, "/".join(one)) for folder, one in zip(folders, parts, strict=True)]


def read_run(folder: Path, name: str) -> FinishedRun:
    """The run in `folder`. Raises UserError if there is none, or no finished network in it."""
    if not (folder / RESULTS).is_file() or not (folder / CONFIGURATION).is_file():
        raise UserError(f"{folder}: is not the folder of a run (no {RESULTS} and {CONFIGURATION})")
    rows = read_rows(folder)
    if not rows:
        raise UserError(f"{folder}: has no evaluated network yet; run it first")
    records = records_in(folder)
    run = ComparedRun(name, rows, _settings(folder / CONFIGURATION), records=records)
    last = run.last
    evaluation = next(
        (r for r in records if r.kind == Evaluation.kind and (r.k, r.i) == (last.k, last.i)), None
    )
    if evaluation is not None:
        run.validation = _scored_on(evaluation, last.stage)
    elif last.miou is not None:
        raise UserError(
            f"{folder}: holds no evaluation of {last.stage}, which {RESULTS} names; run again "
            f"what made {folder}"
        )
    run.facts = _facts(folder, run)
    run.classes = list(last.iou) or _class_names(run)
    return FinishedRun(folder, run, evaluation)


def compared_frames(runs: Sequence[FinishedRun]) -> list[Strip]:
    """The kept validation images: photo and label where the first run's data is still there,
    then the prediction of each run that is scored on the same images as the first."""
    first = runs[0]
    scored = first.compared.validation
    if scored is None:
        return []
    alike = [
        run
        for run in runs
        if run.compared.validation is not None and run.compared.validation.same_as(scored)
    ]
    kept = sorted(set(first.frames()).intersection(*(run.frames() for run in alike)))
    truth = _truth(first, kept)
    return [
        Strip(
            "validation",
            truth[index][0] if index in truth else f"image {index}",
            [
                *(truth[index][1] if index in truth else ()),
                *(Panel(run.compared.name, run.prediction(index)) for run in alike),
            ],
        )
        for index in kept
    ]


def class_colors(run: FinishedRun) -> list[tuple[str, Color]]:
    """The classes and their colours, from the palette of a kept prediction; empty without one."""
    frames = run.frames()
    if not frames:
        return []
    palette = run.prediction(frames[0]).getpalette() or []
    return [
        (name, (palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]))
        for i, name in enumerate(run.compared.classes)
        if 3 * i + 2 < len(palette)
    ]


def _scored_on(evaluation: Record, network: str) -> Validation:
    """What an evaluation of a network measures on, by its record."""
    manifest, metrics = evaluation.manifest, evaluation.metrics
    assert manifest is not None and isinstance(metrics, EvaluationMetrics)
    # What it was made from besides the network is what rendered its images.
    rendered = [given for name, given in manifest.inputs.items() if name != network]
    settings = [manifest.settings.get(key) for key in _SCORED_BY]
    pixels = tuple(sum(row) for row in metrics.confusion)
    return Validation(manifest.version, [*rendered, *settings], pixels)


def _truth(run: FinishedRun, indices: Sequence[int]) -> dict[int, tuple[str, list[Panel]]]:
    """Name, photo and label of validation images; empty if the data has changed or is gone."""
    try:
        config = load_config(run.folder / CONFIGURATION, [f"out={run.folder}"])
        problem = Problem(config.data, run.folder)
        images = problem.validation
        if images is None or not _are_the_same(images, run.evaluation):
            return {}
        samples, table = images.samples(), problem.table("validation")
        truth = {}
        for index in indices:
            sample = samples[index]
            assert sample.label is not None
            ids = train_ids(sample.label, table)
            panels = [
                Panel("validation", open_image(sample.image).image),
                Panel("label", label_image(ids, problem.space)),
            ]
            truth[index] = (sample.name, panels)
        return truth
    except UserError:
        return {}


def _are_the_same(images: ImageSet, evaluation: Record | None) -> bool:
    """Whether the images are those that the evaluation measured on."""
    if evaluation is None or evaluation.manifest is None:
        return False
    old = evaluation.manifest.version < VERSION
    present = image_settings(images) if old else as_setting(images)
    return bool(present == evaluation.manifest.settings.get("data.validation"))


def _class_names(run: ComparedRun) -> list[str]:
    """The classes' names, as the label space of the configuration has them now; none without."""
    try:
        return list(load_label_space(str(run.settings.get("data.label_space"))).names)
    except UserError:
        return []


def _settings(file: Path) -> dict[str, Any]:
    """A configuration by dotted key, whatever the keys were called when it was written."""
    try:
        settings = flatten(yaml.safe_load(file.read_text(encoding="utf-8")))
        return {RENAMED.get(key, key): value for key, value in settings.items()}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {first_line(error)}") from None


def _facts(folder: Path, run: ComparedRun) -> dict[str, str]:
    """Folder, time, memory, device and versions, from the records of all stages in the folder."""
    manifests = [record.manifest for record in run.records if record.manifest is not None]
    facts = {
        "folder": str(folder),
        "networks": str(len(run.rows)),
        "time of its stages": duration(sum(record.seconds for record in run.records)),
    }
    for title, sizes in (
        ("peak memory", [m.peak_memory for m in manifests]),
        ("of the GPU", [m.peak_gpu_memory for m in manifests]),
    ):
        known = [size for size in sizes if size is not None]
        if known:
            facts[title] = byte_size(max(known))
    facts["device"] = listed(m.device for m in manifests)
    facts["precision"] = listed(m.precision for m in manifests)
    facts["processes"] = listed(m.processes for m in manifests)
    facts["torch"] = listed(m.versions.get("torch") for m in manifests)
    return facts
