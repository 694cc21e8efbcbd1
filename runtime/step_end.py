"""What follows every step of a training: curves, states to resume from, and reasons to stop."""

from collections.abc import Sequence

from lightning.fabric import Fabric
from torch import Tensor

from runtime.checkpoint import Checkpoint, Curves
from runtime.console import Task, log
from runtime.errors import UserError
from runtime.processes import largest
from runtime.stopping import Stopped, stop_request
from runtime.tracking import Tracker

# Of a discriminator's loss; one that cannot tell its inputs apart has 0.25 (least squares) or 0.69
# (cross entropy).
_COLLAPSED = 1e-3
_ROWS = 10  # rows in succession below that which make a warning


class StepEnd:
    """Called at the end of each step, the same on all processes.

    Every `log_every` steps, and at the last, a row of `curves` is closed, written to TensorBoard
    and shown (its values named `shown`). Every `checkpoint_every` steps, and when a signal asks
    to stop, the `state` is saved. Losses are read only then, so that steps do not wait for the
    device.
    """

    def __init__(
        self,
        fabric: Fabric,
        tracker: Tracker,
        task: Task,
        state: Checkpoint,
        curves: Curves,
        *,
        steps: int,
        log_every: int,
        checkpoint_every: int,
        discriminators: Sequence[str],
        shown: Sequence[str],
        rate_key: str,
    ) -> None:
        self.fabric, self.tracker, self.task, self.state = fabric, tracker, task, state
        self.curves, self.steps = curves, steps
        self.log_every, self.checkpoint_every = log_every, checkpoint_every
        self.discriminators, self.shown, self.rate_key = discriminators, shown, rate_key
        self._warned = set(self.warnings())
        tracker.begin(curves.rows)

    def __call__(self, done: int, terms: dict[str, Tensor], lr: float) -> None:
        """`done` steps are done, this one with the losses `terms` at the learning rate `lr`.

        Raises UserError if training has diverged, and Stopped, with the state saved, after a signal
        to any of the processes.
        """
        self.curves.add(terms)
        last = done == self.steps
        row_is_due = last or done % self.log_every == 0
        state_is_due = not last and done % self.checkpoint_every == 0
        signum = largest(self.fabric, stop_request.signum)
        if row_is_due or state_is_due or signum:
            self._require_finite(done, weights=last or state_is_due or bool(signum))
            self.curves.average(self.fabric)
        shown = None
        if row_is_due:
            row = self.curves.close_row(done, lr=lr)
            self.tracker.scalars(row)
            shown = {name: row[name] for name in self.shown if name in row}
            for warning in self.warnings():
                if warning not in self._warned:
                    log.warning("  %s: warning: %s", self.tracker.name, warning)
                    self._warned.add(warning)
        if state_is_due or signum:
            self.state.save(done)
        self.task.advance(values=shown, stoppable=False)
        if signum:
            log.info("  %s: the state after step %d is saved", self.tracker.name, done)
            raise Stopped(signum)

    def warnings(self) -> list[str]:
        """What is wrong with the curves though training goes on."""
        return collapsed(self.curves.rows, self.discriminators)

    def _require_finite(self, done: int, weights: bool) -> None:
        found = self.curves.first_not_finite()
        broken = self.state.not_finite() if weights and found is None else []
        if not largest(self.fabric, int(found is not None or bool(broken))):
            return
        if not self.fabric.is_global_zero:
            raise SystemExit(0)  # the main process speaks for all, and ends with the error
        step, what = done, f"weights are not finite ({', '.join(broken[:3])})"
        if found is not None:
            step = done - self.curves.count + found[0] + 1
            what = f"the loss is not finite ({', '.join(found[1])})"
        elif not broken:
            what = "the loss is not finite in another process"
        latest = self.state.latest()
        kept = f"the state after step {latest} is kept" if latest else "no state was saved before"
        raise UserError(
            f"{self.tracker.name}: training diverged: {what} in step {step} of {self.steps}; "
            f"{kept}. Lower {self.rate_key}, or use precision=32-true, and run again"
        )


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
