"""Finished runs as their folders hold them, to be compared without their data and weights."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from domains.images import label_image, open_image, open_label
from domains.problem import Problem
from runtime.comparison import ComparedRun
from runtime.config import load_config
from runtime.console import duration
from runtime.errors import UserError
from runtime.files import read_json
from runtime.report import Panel, Strip, byte_size
from runtime.stages import flatten, read_manifest
from segmentation.evaluate import prediction_path

Color = tuple[int, int, int]


@dataclass
class FinishedRun:
    """A run's folder, and its last network's evaluation: the folder, and the stage's record."""

    folder: Path
    compared: ComparedRun
    evaluation: Path
    manifest: dict[str, Any]

    def frames(self) -> list[int]:
        """Indices of the validation images whose predictions were kept."""
        return sorted(int(file.stem) for file in (self.evaluation / "predictions").glob("*.png"))

    def prediction(self, index: int) -> Image.Image:
        """The kept prediction, with the palette of the classes' colours."""
        image = Image.open(prediction_path(self.evaluation, index))
        image.load()
        return image


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """The runs in `folders`, named by what tells their folders apart.

    Raises UserError for a folder that holds no run with an evaluated network, and for a folder
    given twice.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise UserError("RUN: the same folder is given twice; give different ones")
    shared = Path(os.path.commonpath([place.parent for place in places]))
    return [
        read_run(folder, place.relative_to(shared).as_posix())
        for folder, place in zip(folders, places, strict=True)
    ]


def read_run(folder: Path, name: str) -> FinishedRun:
    """The run in `folder`. Raises UserError if there is none, or no evaluated network in it."""
    if not (folder / "results.json").is_file() or not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: is not the folder of a run (no results.json and config.yaml)")
    rows = read_json(folder / "results.json")
    if not rows:
        raise UserError(f"{folder}: has no evaluated network yet; run it first")
    run = ComparedRun(name, rows, _settings(folder / "config.yaml"))
    evaluation = folder / run.last["stage"] / "evaluation"
    manifest = read_manifest(evaluation)
    if manifest is None:
        raise UserError(f"{evaluation}: is not a finished stage; run again what made {folder}")
    run.facts = _facts(folder, run)
    rendering = manifest["inputs"].get("data/validation")
    settings = manifest["settings"]
    scored = ("validation", "evaluation", "labels")
    run.validation = [rendering, *(settings.get(key) for key in scored)]
    return FinishedRun(folder, run, evaluation, manifest)


def compared_frames(runs: Sequence[FinishedRun]) -> list[Strip]:
    """The kept validation images: photo and label where the first run's data is still there,
    then the prediction of each run that is scored on the same images as the first."""
    first = runs[0]
    alike = [run for run in runs if run.compared.validation == first.compared.validation]
    kept = set(first.frames()).intersection(*(run.frames() for run in alike))
    truth = _truth(first, sorted(kept))
    return [
        Strip(
            "validation",
            truth[index][0] if index in truth else f"image {index}",
            [
                *(truth[index][1] if index in truth else ()),
                *(Panel(run.compared.name, run.prediction(index)) for run in alike),
            ],
        )
        for index in sorted(kept)
    ]


def class_colors(run: FinishedRun) -> list[tuple[str, Color]]:
    """The classes and their colours, from the palette of a kept prediction; empty without one."""
    frames = run.frames()
    if not frames:
        return []
    palette = run.prediction(frames[0]).getpalette() or []
    names = run.compared.last["iou"]
    return [
        (name, (palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]))
        for i, name in enumerate(names)
        if 3 * i + 2 < len(palette)
    ]


def _truth(run: FinishedRun, indices: Sequence[int]) -> dict[int, tuple[str, list[Panel]]]:
    """Name, photo and label of validation images; empty if the data has changed or is gone."""
    try:
        config = load_config(run.folder / "config.yaml", [f"out={run.folder}"])
        problem = Problem(config.data, run.folder)
        present = json.loads(json.dumps(problem.settings("validation")))  # without tuples
        if present != run.manifest["settings"].get("validation"):
            return {}
        samples = problem.samples("validation")
        table = problem.table("validation")
        found = {}
        for index in indices:
            sample = samples[index]
            assert sample.label is not None
            ids = table[np.asarray(open_label(sample.label))]
            panels = [
                Panel("validation", open_image(sample.image)),
                Panel("label", label_image(ids, problem.space)),
            ]
            found[index] = (sample.name, panels)
        return found
    except UserError:
        return {}


def _settings(file: Path) -> dict[str, Any]:
    try:
        return flatten(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {str(error).splitlines()[0]}") from None


def _facts(folder: Path, run: ComparedRun) -> dict[str, str]:
    """Folder, time, memory, device and versions, from the records of all stages in the folder."""
    manifests = [
        manifest
        for file in sorted(folder.rglob("manifest.json"))
        if (manifest := read_manifest(file.parent)) is not None
    ]
    facts = {
        "folder": str(folder),
        "networks": str(len(run.rows)),
        "time of its stages": duration(sum(manifest["seconds"] for manifest in manifests)),
    }
    for title, key in (("peak memory", "peak_memory"), ("of the GPU", "peak_gpu_memory")):
        sizes = [manifest[key] for manifest in manifests if key in manifest]
        if sizes:
            facts[title] = byte_size(max(sizes))
    for key in ("device", "precision", "processes"):
        values = dict.fromkeys(str(m[key]) for m in manifests if key in m)
        facts[key] = ", ".join(values)
    torch = dict.fromkeys(m["versions"]["torch"] for m in manifests if "versions" in m)
    facts["torch"] = ", ".join(torch)
    return facts
