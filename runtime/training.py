"""The loop that both trainings share: restored where it stopped, watched as it goes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from bdl.runtime.checkpoint import Checkpoint, Curves, Stateful
from bdl.runtime.compiling import uncompiled
from bdl.runtime.console import Task, log
from bdl.runtime.device import seed_torch
from bdl.runtime.errors import UserError
from bdl.runtime.live import Pace, Progress, Sample
from bdl.runtime.metrics import TrainingMetrics
from bdl.runtime.processes import largest
from bdl.runtime.replay import Replay
from bdl.runtime.run import Run
from bdl.runtime.stopping import Stopped, stop_request
from bdl.runtime.tracking import Tracker

# Of a discriminator's loss; one that cannot tell its inputs apart has 0.25 (least squares) or 0.69
# (cross entropy).
_COLLAPSED = 1e-3
_SAMPLED = 50  # times in a training, at most, that samples are made
_ROWS = 10  # rows in succession below that which make a warning


@dataclass(frozen=True)
class Validation:
    """Looks at what a training has learned so far.

    Args:
        every: Steps from one look to the next; there is one after the last step, too.
        look: Given the number of steps that are done, measures the networks as they are, on all
            processes together, and gives the values by name. It learns nothing, and leaves torch's
            random state and the networks as they are. Raises Stopped, on all processes alike, if a
            signal asks for it meanwhile.
        on: Tells apart what it looks at: values that were measured on something else are dropped
            when a training goes on.
    """

    every: int
    look: Callable[[int], dict[str, float]]
    on: str


Source = TypeVar("Source")
Target = TypeVar("Target")


class TrainingStep(ABC, Generic[Source, Target]):
    """What one step of a training does, and all that learns in it.

    Attributes:
        shared: Networks and optimizers, equal on all processes, to be saved.
        own: What differs between processes, to be saved by each.
        lr: The full learning rate, which curves show times the step's factor.
        lr_key: The configuration's key of it, for messages.
        noise: What the step draws from torch's random state: the purpose that seeds it.
        replay: What its parts are done by.
        validation: What looks at the networks as they learn; None: nothing does.
        shown: Losses that the user sees as training goes on.
        discriminators: Losses of discriminators; near zero for long, they make a warning.
    """

    shared: dict[str, Stateful]
    own: dict[str, Stateful]
    lr: float
    lr_key: str
    noise: str
    replay: Replay = Replay.none()
    validation: Validation | None = None
    shown: Sequence[str]
    discriminators: Sequence[str]

    @abstractmethod
    def __call__(self, source: Source, target: Target, factor: float) -> dict[str, Tensor]:
        """Learn from a batch of both domains.

        Args:
            source: A batch of the source, on the device.
            target: A batch of the target, on the device.
            factor: Factor of all learning rates.

        Returns:
            Losses by name, scalars on the device: nothing here waits for it.
        """

    def samples(self) -> Sequence[Sample]:
        """What the networks make, as they are now, of images that stay the same. Learns nothing,
        and leaves torch's random state as it is."""
        return ()


def fit(
    run: Run,
    folder: Path,
    learn: TrainingStep[Source, Target],
    batches: Callable[[int], Iterable[tuple[Source, Target]]],
    rate_factor: Callable[[int], float],
    steps: int,
    seed: int,
) -> TrainingMetrics:
    """Train, from the state saved in `folder` if there is one.

    Args:
        run: Devices, messages, how often to log and to save.
        folder: The stage's folder, where states to resume from lie.
        learn: One step.
        batches: Gives the batches of source and target from a step on, counted from 0.
        rate_factor: Gives the factor of the learning rates in a step, counted from 0.
        steps: Steps in all.
        seed: Of what the steps draw from torch's random state.

    Returns:
        Steps, curves and warnings.

    Raises:
        UserError: Training has diverged, or no saved state can be used.
        Stopped: A signal asked for it; the state is saved.
    """
    curves = Curves(learn.validation.on if learn.validation is not None else "")
    shared: dict[str, Stateful] = {
        **learn.shared,
        "precision": run.fabric.strategy.precision,
        "curves": curves,
    }
    state = Checkpoint(run.fabric, folder, shared, learn.own, run.keep_checkpoints)
    # A state that is restored brings its own random state.
    seed_torch(seed, f"{learn.noise} {run.fabric.global_rank}")
    first = state.restore()
    with run.tracker() as tracker, run.console.track(run.title, steps, first) as task:
        monitor = TrainingMonitor(run, tracker, task, state, curves, learn, steps)
        with uncompiled(run.compile):
            monitor.resume(first)
        for step, (source, target) in enumerate(batches(first), start=first):
            factor = rate_factor(step)
            losses = learn(source, target, factor)
            with uncompiled(run.compile):
                monitor(step + 1, losses, lr=learn.lr * factor)
    return TrainingMetrics(
        warnings=[*monitor.warnings(), *filter(None, [learn.replay.warning])],
        steps=steps,
        replayed=learn.replay.replayed,
        curves=curves.rows,
        validation=curves.validation,
    )


class TrainingMonitor:
    """Called after each step, the same on all processes: curves, states, and reasons to stop.

    Every `log_every` steps, and after the last, a row of curves is closed, written to TensorBoard
    and shown, now and then on the run's page, too. Every `checkpoint_every` steps, and when a
    signal asks to stop, the state is saved. Losses are read only then, so that steps do not wait
    for the device.

    Args:
        run: Devices and messages, how often to log and to save.
        tracker: The stage's TensorBoard log.
        task: The stage's progress.
        state: What is saved.
        curves: Rows closed so far, to which others are added.
        learn: The step, for what is its own.
        steps: Steps in all.
    """

    def __init__(
        self,
        run: Run,
        tracker: Tracker,
        task: Task,
        state: Checkpoint,
        curves: Curves,
        learn: TrainingStep[Any, Any],
        steps: int,
    ) -> None:
        self.run, self.tracker, self.task = run, tracker, task
        self.state, self.curves, self.learn, self.steps = state, curves, learn, steps
        self._warned = set(self.warnings())
        self._page = run.page
        self._pace = Pace(run.page.seconds if run.page is not None else 0.0)
        self._sampled_at: int | None = None
        tracker.begin([*curves.rows, *map(_grouped, curves.validation)])

    def __call__(self, done: int, losses: dict[str, Tensor], lr: float) -> None:
        """Take note of a step.

        Args:
            done: Steps that are done, this one included.
            losses: This step's losses, scalars.
            lr: This step's learning rate.

        Raises:
            UserError: Training has diverged.
            Stopped: A signal came to any of the processes; the state is saved.
        """
        self.curves.add(losses)
        last = done == self.steps
        row_is_due = last or done % self.run.log_every == 0
        state_is_due = not last and done % self.run.checkpoint_every == 0
        signum = largest(self.run.fabric, stop_request.signum)
        if row_is_due or state_is_due or signum:
            self._settle(done, weights=last or state_is_due or bool(signum))
        shown = self._close_row(done, lr) if row_is_due else None
        if not signum and (signum := self._look(done)):
            self._settle(done, weights=True)
        if state_is_due or signum:
            self.state.save(done)
        self.task.advance(values=shown, stoppable=False)
        if row_is_due and not last and not signum:
            self._show(done)
        if signum:
            log.info("  %s: the state after step %d is saved", self.run.title, done)
            raise Stopped(signum)

    def resume(self, done: int) -> None:
        """Take the look at a restored state that a stop has left out.

        Raises Stopped if a signal comes meanwhile; the state is there as it was.
        """
        looked = [row["step"] for row in self.curves.validation]
        if done and done not in looked and (signum := self._look(done)):
            raise Stopped(signum)

    def warnings(self) -> list[str]:
        """What is wrong with the curves though training goes on, a line each."""
        return collapsed(self.curves.rows, self.learn.discriminators)

    def _settle(self, done: int, weights: bool) -> None:
        """Make the losses since the last row fit to be kept: finite, and of all processes."""
        self._require_finite(done, weights)
        self.curves.average(self.run.fabric)

    def _look(self, done: int) -> int:
        """Look at what is learned, if that is due; gives the signal that has cut it short, or 0.

        A stop does not wait for it: the state is saved without it, and it comes on going on."""
        validation = self.learn.validation
        if validation is None or (done != self.steps and done % validation.every):
            return 0
        try:
            row = {"step": done, **validation.look(done)}
        except Stopped as stopped:
            return stopped.signum
        self.curves.validation.append(row)
        self.tracker.scalars(_grouped(row))
        return 0

    def _close_row(self, done: int, lr: float) -> dict[str, float]:
        """End a row of curves; returns what of it is shown."""
        row = self.curves.close_row(done, lr=lr)
        self.tracker.scalars(row)
        for warning in self.warnings():
            if warning not in self._warned:
                log.warning("  %s: warning: %s", self.run.title, warning)
                self._warned.add(warning)
        return {name: row[name] for name in self.learn.shown if name in row}

    def _show(self, done: int) -> None:
        """Show on the run's page how far the training has come, if that is due."""
        # The first samples are taken for as expensive as a step, which has more to do.
        unknown = 1 / self.task.rate if self._sampled_at is None else 0.0
        if self._page is None or not self._pace.is_due(more=unknown):
            return
        with self._pace.spending():
            progress = Progress(
                done=done,
                steps=self.steps,
                curves=self.curves.rows,
                validation=self.curves.validation,
                warnings=self.warnings(),
                seconds_left=self.task.left,
                seconds_after=self.run.console.loop_left,
            )
            try:
                self._page.show(replace(progress, samples=self._samples(done)))
            except UserError as error:  # a training is worth more than its page
                log.warning("  %s: not shown as it goes on: %s", self.run.title, error)
                self._page = None

    def _samples(self, done: int) -> Sequence[Sample]:
        """New samples, which go to TensorBoard, too; none soon after the last."""
        if self._sampled_at is not None and done - self._sampled_at < self.steps // _SAMPLED:
            return ()
        self._sampled_at = done
        samples = self.learn.samples()
        for sample in samples:
            self.tracker.image(
                f"samples/{sample.name}", np.hstack([sample.before, sample.after]), done
            )
        return samples

    def _require_finite(self, done: int, weights: bool) -> None:
        losses = self.curves.first_not_finite()
        names = self.state.not_finite() if weights and losses is None else []
        if not largest(self.run.fabric, int(losses is not None or bool(names))):
            return
        if not self.run.is_main:
            raise SystemExit(0)  # the main process speaks for all, and ends with the error
        step, what = done, f"weights are not finite ({', '.join(names[:3])})"
        if losses is not None:
            step = done - self.curves.count + losses[0] + 1
            what = f"the loss is not finite ({', '.join(losses[1])})"
        elif not names:
            what = "the loss is not finite in another process"
        latest = self.state.latest()
        kept = f"the state after step {latest} is kept" if latest else "no state was saved before"
        raise UserError(
            f"{self.run.title}: training diverged: {what} in step {step} of {self.steps}; "
            f"{kept}. Lower {self.learn.lr_key}, or use precision=32-true, and run again with "
            "--replace, as what is there was made with the present settings"
        )


def _grouped(row: dict[str, float]) -> dict[str, float]:
    """A row of validation under the names that TensorBoard groups."""
    return {name if name == "step" else f"validation/{name}": value for name, value in row.items()}


def collapsed(rows: Sequence[dict[str, float]], names: Sequence[str]) -> list[str]:
    """Warnings for those of `names` whose curve stayed near zero for ten rows in succession."""
    warnings = []
    for name in names:
        low = 0
        for row in rows:
            low = low + 1 if row.get(name, 1.0) < _COLLAPSED else 0
            if low == _ROWS:
                warnings.append(
                    f"{name}: its loss has been below {_COLLAPSED:g} up to step {row['step']}: it "
                    "tells its inputs apart without fail, and the adversarial term teaches nothing"
                )
                break
    return warnings
