"""A dress rehearsal: every stage of a recipe at its true size, and what the whole recipe takes.

    python -m benchmarks.rehearsal --config gta5_cityscapes_deeplab [--device cuda] [--light]
        [--steps 40] [--images 40] [--out FOLDER] [--json FILE]
        [key=value ...]

Makes a data set in the layouts and sizes of the recipe's (GTA5, SYNTHIA, Cityscapes), as few images
as serve, and runs `bdl run` on it in a process of its own: K and N of the recipe, a few steps of
each training, random initial weights. Then it prints, for each stage of the recipe on all images,
seconds a step or an image, hours and peak memory, and what each part may take so that all of it
takes `--aim` hours.

Seconds a step are those of the second half of a training's steps, by the times in its TensorBoard
log, loading included; with a single step, those of the training. Seconds an image are those of the
stage divided by its images, what it takes to begin included.

`--light` is for a CPU: two images, one step of one image of each domain, and gradient
checkpointing. Its hours are then not those of the recipe's own batch. Settings (`key=value`) go to
`bdl run`; those that change how much work there is count for the extrapolation, too. Data and run
that are there already are used: the same command goes on where it was stopped.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bdl.domains.problem import ImageSet, Problem
from bdl.pipeline import algorithm
from bdl.runtime.config import Config, load_config
from bdl.runtime.errors import UserError
from bdl.runtime.stage import Stage
from bdl.runtime.store import read_manifest
from benchmarks.common import describe, exit_status, table, tell
from benchmarks.made_data import count_of, make_data
from benchmarks.steps import ROLES

ROOT = Path(__file__).resolve().parent.parent
_SCENES = 1000  # from the first scene of a role's data to that of the next
LIGHT = ("translation.batch_size=1", "segmentation.batch_size=1",
         "translation.gradient_checkpointing=true", "data.workers=0")  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a stage was measured to take: seconds a unit of its work, and bytes of main memory and
    of a GPU's at the most, None where that is unknown."""

    seconds: float
    memory: int | None
    gpu_memory: int | None


@dataclass(frozen=True)
class Part:
    """A stage of the whole recipe: its work, what a unit of it takes, hours, and peak memory; and
    the seconds that a unit may take so that the recipe takes the hours aimed at."""

    stage: str
    work: int
    unit: str
    seconds: float
    hours: float
    memory: int | None
    gpu_memory: int | None
    allowed_seconds: float


def steady_seconds(times: Sequence[float], whole: float) -> float:
    """Seconds a step once a training goes evenly.

    Args:
        times: When each step was done, in seconds, rising.
        whole: Seconds of the training, for want of better with a single step.
    """
    if len(times) < 2:
        return whole / max(1, len(times))
    half = (len(times) - 1) // 2
    return (times[-1] - times[half]) / (len(times) - 1 - half)


def extrapolate(
    costs: Mapping[str, Cost], work: Mapping[str, tuple[int, str]], aim: float
) -> list[Part]:
    """The parts of the whole recipe.

    Args:
        costs: What was measured, by the stage's name.
        work: Work of the same stages in the recipe, and its unit.
        aim: Hours that the recipe may take.
    """
    total = sum(costs[name].seconds * count for name, (count, _) in work.items()) / 3600
    parts = []
    for name, (count, unit) in work.items():
        cost = costs[name]
        hours = cost.seconds * count / 3600
        allowed = cost.seconds * aim / total if total else cost.seconds
        parts.append(
            Part(name, count, unit, cost.seconds, hours, cost.memory, cost.gpu_memory, allowed)
        )
    return parts


class WholeProblem(Problem):
    """The made data sets, with the numbers of images that the true ones have."""

    def _image_set(self, role: str) -> ImageSet:
        return replace(super()._image_set(role), count=count_of(self.domain(role)))


def data_words(config: Config, data: Path) -> list[str]:
    """Settings of made data in the folder `data`; images of one layout share one in it."""
    domains = {role: getattr(config.data, role) for role in ROLES}
    return [f"data.{role}.root={data / domain.layout}" for role, domain in domains.items()]


def run_words(folder: Path, steps: int) -> list[str]:
    """Settings by which a recipe becomes a rehearsal of few steps, in `folder`."""
    return [
        f"out={folder}",
        "log_every=1",
        f"checkpoint_every={steps}",
        "translation.constant_epochs=1",
        "translation.decay_epochs=0",
        f"translation.steps_per_epoch={steps}",
        "segmentation.weights=null",
        f"segmentation.steps={steps}",
        f"segmentation.pseudo_label_steps={steps}",
    ]


def whole_work(recipe: str, settings: Sequence[str], data: Path) -> dict[str, tuple[int, str]]:
    """Work and its unit of each stage of the recipe on all images, by name."""
    words = [*settings, *data_words(load_config(recipe, list(settings)), data)]
    # Weights are a file that need not be there; how much work there is does not depend on them.
    whole = load_config(recipe, [*words, "segmentation.weights=null"])
    stages = algorithm(whole, WholeProblem(whole.data, Path(whole.out)))
    return {stage.name: (stage.work, stage.unit) for stage in stages}


def measured(config: Config) -> dict[str, Cost]:
    """What the stages of a rehearsal took, by name, read from its folder."""
    folder, costs = Path(config.out), {}
    for stage in algorithm(config, Problem(config.data, folder)):
        manifest = read_manifest(folder / stage.name)
        if manifest is None:
            raise UserError(f"{folder / stage.name}: is not finished")
        seconds = manifest.seconds / max(1, stage.work)
        if stage.unit == "steps":
            seconds = steady_seconds(_step_times(folder, stage), manifest.seconds)
        costs[stage.name] = Cost(seconds, manifest.peak_memory, manifest.peak_gpu_memory)
    return costs


def _step_times(folder: Path, stage: Stage) -> list[float]:
    log = EventAccumulator(str(folder / "tensorboard" / stage.log)).Reload()
    return [event.wall_time for event in log.Scalars("learning rate")]


def rehearse(
    recipe: str, settings: Sequence[str], folder: Path, steps: int, images: int
) -> tuple[dict[str, Cost], dict[str, tuple[int, str]]]:
    """Make the data, run the rehearsal and read what it took.

    Args:
        recipe: Name or file of a configuration.
        settings: Further settings, `key=value`.
        folder: Of made data and of the run; what is there of an earlier call is used.
        steps: Of each training.
        images: Of each data set.

    Returns:
        What each stage took, and the work of each in the whole recipe.
    """
    config = load_config(recipe, list(settings))
    data = folder / f"data-{images}"
    if not (data / "made").is_file():
        for number, role in enumerate(ROLES):
            domain = getattr(config.data, role)
            make_data(domain, data / domain.layout, images, number * _SCENES)
        (data / "made").touch()
    words = [*settings, *data_words(config, data), *run_words(folder / "run", steps)]
    command = [sys.executable, str(ROOT / "pipeline.py"), "run", "--config", recipe, *words]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise UserError(f"bdl run: ended with exit status {done.returncode}")
    return measured(load_config(recipe, words)), whole_work(recipe, settings, data)


def described(parts: Sequence[Part], aim: float) -> str:
    """A table of the parts and their sum."""

    def size(parts: Sequence[Part], key: str) -> str:
        sizes = [getattr(part, key) for part in parts if getattr(part, key) is not None]
        return f"{max(sizes) / 1e9:.1f}" if sizes else ""

    rows = [
        [
            part.stage,
            f"{part.work} {part.unit}",
            f"{part.seconds:.3g}",
            f"{part.hours:.2f}",
            size([part], "memory"),
            size([part], "gpu_memory"),
            f"{part.allowed_seconds:.3g}",
        ]
        for part in parts
    ]
    total = sum(part.hours for part in parts)
    rows.append(
        ["all", "", "", f"{total:.2f}", size(parts, "memory"), size(parts, "gpu_memory"), ""]
    )
    head = ["stage", "work", "s each", "hours", "GB", "GB of the GPU", f"s each for {aim:g} h"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, metavar="RECIPE")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--light", action="store_true", help="one step, two images, batches of one")
    parser.add_argument("--steps", type=int, help="of each training (default 40, light: 1)")
    parser.add_argument("--images", type=int, help="of each data set (default 40, light: 2)")
    parser.add_argument("--aim", type=float, default=24.0, help="hours in all (default 24)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep data and run there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="for bdl run")
    options = parser.parse_intermixed_args()
    light = options.light
    options.steps = options.steps or (1 if light else 40)
    options.images = options.images or (2 if light else 40)
    settings = [f"device={options.device}", *(LIGHT if light else ()), *options.settings]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        costs, work = rehearse(options.config, settings, folder, options.steps, options.images)
    parts = extrapolate(costs, work, options.aim)
    print(described(parts, options.aim), flush=True)
    result: dict[str, Any] = describe("rehearsal", options)
    result["parts"] = [asdict(part) for part in parts]
    result["hours"] = sum(part.hours for part in parts)
    result["ratio"] = options.aim / result["hours"]
    tell(result, options.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
