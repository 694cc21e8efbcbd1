"""What a configured run costs on this machine: a few real steps of every kind of stage."""

import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from bdl.execution import Loop
from bdl.runtime.config import Config
from bdl.runtime.console import Console, Task, duration, log, logging_restored
from bdl.runtime.device import make_fabric
from bdl.runtime.errors import UserError
from bdl.runtime.memory import PeakMemory
from bdl.runtime.run import Run
from bdl.runtime.shortage import is_out_of_memory
from bdl.runtime.stage import Stage

SIZE = 5  # steps or images of each stage
_WARM_UP = 2  # of these, in which buffers are made and algorithms chosen
_REMEDIES = {
    "translate": "lower translation.crop or translation.batch_size, or set precision=bf16-mixed",
    "segment": "set segmentation.augmentation.crop, lower segmentation.batch_size or data.*.size, "
    "or set precision=bf16-mixed",
}
_OTHER_REMEDY = "lower data.*.size, or set precision=bf16-mixed"


@dataclass(frozen=True)
class Cost:
    """Seconds per step or image, and the peak memory in bytes, None if the system does not tell."""

    seconds: float
    memory: int | None


class StepTimes(Console):
    """A console that notes when each step of its tasks was done, the device's work included."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[list[float]] = []  # times, the beginning first

    @contextmanager
    def track(
        self, title: str, total: int, done: int = 0, unit: str = "steps", brief: bool = True
    ) -> Iterator[Task]:
        times = [time.monotonic()]
        self.tasks.append(times)
        with super().track(title, total, done, unit, brief=True) as task:
            advance = task.advance

            def noted(
                count: int = 1, values: dict[str, float] | None = None, stoppable: bool = True
            ) -> None:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times.append(time.monotonic())
                advance(count, values, stoppable)

            task.advance = noted  # type: ignore[method-assign]
            yield task


def measure_stages(config: Config, to_run: Sequence[Stage]) -> None:
    """Print what the stages `to_run` cost, from a few steps of each kind in a temporary folder."""
    costs, device = costs_of(config, {stage.cost for stage in to_run})
    log.info("%s", describe_costs(costs, to_run, config.devices * config.nodes, device))


def costs_of(config: Config, wanted: set[str]) -> tuple[dict[str, Cost], str]:
    """Measure a few steps of each kind of stage in a temporary folder.

    Args:
        config: The run, of which a small one is made.
        wanted: The costs' names; what their stages need is measured, too.

    Returns:
        What each kind costs, and the name of the device.

    Raises:
        UserError: One does not fit into memory.
    """
    with tempfile.TemporaryDirectory() as temporary, logging_restored():
        console = StepTimes()
        # How far a long task has come is said; what networks of a few steps are warned of is not.
        log.addFilter(lambda record: record.levelno == logging.INFO)
        small = trial_of(config, Path(temporary))
        loop = Loop.of(small, console, limit=SIZE)
        fabric = make_fabric(small)
        fabric.launch()
        run = Run.of(small, loop.store.folder, fabric, console)
        costs = measure(run, console, loop.stages, wanted)
    device = str(fabric.device)
    if fabric.device.type == "cuda":
        device = f"{device}, {torch.cuda.get_device_name(fabric.device)}"
    return costs, device


def trial_of(config: Config, folder: Path) -> Config:
    """The run in small: a round of `SIZE` steps, on one device with its share of a batch, without
    networks given or a cache, in `folder`."""
    trial = deepcopy(config)
    processes = config.devices * config.nodes
    trial.out, trial.devices, trial.nodes = str(folder), 1, 1
    trial.iterations = min(1, config.iterations)
    trial.self_training_steps = min(1, config.self_training_steps)
    trial.log_every = trial.checkpoint_every = SIZE
    trial.data.cache = None
    data = trial.data
    for domain in (data.source, data.target, data.target_labelled, data.validation):
        if domain is not None:
            domain.scenes = min(domain.scenes, SIZE)
    trial.translation.checkpoints = {}
    trial.translation.trust = "full"  # a network of few steps is not trusted
    trial.translation.batch_size //= processes
    trial.translation.constant_epochs, trial.translation.decay_epochs = 1, 0
    trial.translation.steps_per_epoch = SIZE
    trial.translation.measure_images = min(SIZE, config.translation.measure_images)
    trial.segmentation.checkpoints = {}
    trial.segmentation.validate_every = None
    trial.segmentation.batch_size //= processes
    trial.segmentation.steps = trial.segmentation.pseudo_label_steps = SIZE
    return trial


def measure(
    run: Run, console: StepTimes, stages: Sequence[Stage], wanted: set[str]
) -> dict[str, Cost]:
    """Make the `stages` of a trial, as far as those of the costs `wanted` need them.

    Returns:
        What each costs.

    Raises:
        UserError: One does not fit into memory.
    """
    needed: set[str] = set()
    for stage in reversed(stages):
        if stage.name in needed or stage.cost in wanted:
            needed |= {stage.name, *(given.name for given in stage.inputs)}
    costs: dict[str, Cost] = {}
    for stage in stages:
        if stage.name not in needed:
            continue
        console.tasks.clear()
        folder = run.folder / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        peak = PeakMemory()
        try:
            stage.make(run.named(stage.name), folder)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            remedy = _REMEDIES.get(stage.kind, _OTHER_REMEDY)
            raise UserError(f"{stage.name}: does not fit into memory; {remedy}") from None
        memory = peak.read()
        seconds = sum(map(_seconds, console.tasks)) / max(1, stage.work)
        most = memory.get("peak_gpu_memory") or memory.get("peak_memory")
        costs.setdefault(stage.cost, Cost(seconds, most))
    return costs


def _seconds(times: Sequence[float]) -> float:
    """Of a whole task, as if it had been warm from the beginning."""
    each = [later - earlier for earlier, later in itertools.pairwise(times)]
    return statistics.median(each[_WARM_UP:] or each) * len(each) if each else 0.0


def describe_costs(
    costs: dict[str, Cost], to_run: Sequence[Stage], processes: int, device: str
) -> str:
    """A line for each kind of stage that is to run, and the sum.

    `processes` share the images of a stage; the steps of a training are the same for all.
    """
    lines = [f"measured on {device}, medians of {SIZE - _WARM_UP} steps or images of each kind:"]
    total = 0.0
    for name, cost in costs.items():
        stages = [stage for stage in to_run if stage.cost == name]
        if not stages:
            continue
        unit, work = stages[0].unit, sum(stage.work for stage in stages)
        shared = 1 if unit == "steps" else processes
        seconds = cost.seconds * work / shared
        total += seconds
        memory = f"{cost.memory / 1e9:.1f} GB" if cost.memory else ""
        each = f"{cost.seconds:.3g} s each"
        lines.append(
            f"  {name:<22} {work:>9} {unit:<7} {each:>14} {duration(seconds):>14} {memory:>9}"
        )
    lines.append(f"  all that is to run: {total / 3600:.2f} hours ({duration(total)})")
    return "\n".join(lines)
