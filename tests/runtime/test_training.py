"""The loop of both trainings, with a network of one layer: restored, stopped, and given up."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.live import LivePage, Progress
from bdl.runtime.metrics import TrainingMetrics
from bdl.runtime.run import Run
from bdl.runtime.stopping import Stopped, stop_request
from bdl.runtime.tracking import Tracker
from bdl.runtime.training import TrainingStep, collapsed, fit
from bdl.translation.pool import FakePool

STEPS = 12


class Toy(TrainingStep[Tensor, int]):
    """Fits a line with dropout, and keeps a pool of what it said; notes the steps it is given."""

    lr, lr_key, noise = 0.1, "toy.lr", "dropout"
    shown, discriminators = ("loss",), ("judge",)

    def __init__(self, fabric: Fabric) -> None:
        torch.manual_seed(7)
        network = nn.Linear(3, 1)
        optimizer = torch.optim.Adam(network.parameters(), self.lr)
        self.network, self.pool = network, FakePool(2, 0)
        self.learner, self.optimizer = fabric.setup(network, optimizer)
        self.shared = {"network": network, "optimizer": self.optimizer}
        self.own = {"pool": self.pool}
        self.given: list[int] = []

    def __call__(self, source: Tensor, target: int, factor: float) -> dict[str, Tensor]:
        self.given.append(target)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        said = self.learner(nn.functional.dropout(source, 0.5))
        loss = (said - self.pool.exchange(said.detach()[..., None, None]).mean()).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "judge": loss.detach() + 1}


class StopsAt(Toy):
    """A signal comes in the step of that number."""

    step = 7

    def __call__(self, source: Tensor, target: int, factor: float) -> dict[str, Tensor]:
        if target == self.step:
            stop_request.signum = signal.SIGTERM
        return super().__call__(source, target, factor)


def batches(first: int) -> Iterator[tuple[Tensor, int]]:
    """A function of the step alone, as the data of every training is."""
    for step in range(first, STEPS):
        random = torch.Generator().manual_seed(step)
        yield torch.rand(4, 3, generator=random), step


def factor(step: int) -> float:
    return 1 - step / STEPS


@pytest.fixture
def run(tmp_path: Path, fabric: Fabric, console: Console) -> Run:
    return Run(
        tmp_path,
        fabric,
        console,
        title="k1/toy",
        tracker=lambda: Tracker(tmp_path / "log"),
        log_every=5,
        checkpoint_every=4,
    )


@pytest.fixture
def no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_request, "signum", 0)


def train(run: Run, folder: Path, learn: Toy) -> TrainingMetrics:
    return fit(run, folder, learn, batches, factor, STEPS, seed=3)


def test_every_step_is_made_once_at_its_rate(run, tmp_path):
    learn = Toy(run.fabric)
    metrics = train(run, tmp_path / "stage", learn)
    assert learn.given == list(range(STEPS))
    assert (metrics.steps, metrics.warnings) == (STEPS, [])
    assert [row["step"] for row in metrics.curves] == [5, 10, 12]  # the last step makes a row
    assert [row["lr"] for row in metrics.curves] == pytest.approx(
        [0.1 * factor(step) for step in (4, 9, 11)]
    )
    for row in metrics.curves:
        assert row["judge"] == pytest.approx(row["loss"] + 1, rel=1e-5)
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in log.Scalars("loss/loss")] == [5, 10, 12]


def test_noise_depends_on_the_seed_alone(run, tmp_path):
    ends = []
    for number, seed in enumerate((3, 3, 4)):
        learn = Toy(run.fabric)
        torch.rand(number)  # what was drawn before does not count
        fit(run, tmp_path / str(number), learn, batches, factor, STEPS, seed)
        ends.append(learn.network.weight.detach().clone())
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is due at every row."""
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BEFORE", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SHARE", float("inf"))


def test_a_page_hears_of_each_row_and_changes_nothing(run, tmp_path, monkeypatch):
    """But of the last: then the stage is finished, and all of it is written."""
    alone = Toy(run.fabric)
    expected = train(run, tmp_path / "alone", alone)
    often(monkeypatch)
    heard: list[Progress] = []
    watched = Toy(run.fabric)
    page = LivePage(heard.append, 0.0)
    metrics = train(replace(run, page=page), tmp_path / "watched", watched)
    assert [(progress.done, progress.steps) for progress in heard] == [(5, STEPS), (10, STEPS)]
    assert all(p.seconds_left is not None and p.seconds_after is None for p in heard)
    assert metrics.curves == expected.curves
    assert torch.equal(watched.network.weight, alone.network.weight)


def test_a_page_that_cannot_be_written_ends_no_training(run, tmp_path, monkeypatch):
    often(monkeypatch)
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *values: said.append(text % values))
    shown: list[int] = []

    def show(progress: Progress) -> None:
        shown.append(progress.done)
        raise UserError("report.html: the disk is full")

    metrics = train(replace(run, page=LivePage(show, 0.0)), tmp_path, Toy(run.fabric))
    assert metrics.steps == STEPS and shown == [5]
    assert "report.html: the disk is full" in "".join(said)


def test_a_stop_saves_the_step_and_going_on_ends_bit_for_bit_the_same(
    run, tmp_path, no_signal, monkeypatch
):
    """In a step that no state was due at, in the midst of a row of the curves."""
    whole = Toy(run.fabric)
    expected = train(run, tmp_path / "whole", whole)
    folder = tmp_path / "stopped"
    with pytest.raises(Stopped) as stopped:
        train(run, folder, StopsAt(run.fabric))
    assert stopped.value.status == 143
    assert json.loads((folder / "checkpoint.json").read_text())["step"] == StopsAt.step + 1

    stop_request.signum = 0
    torch.rand(5)
    resumed = Toy(run.fabric)
    metrics = train(run, folder, resumed)
    assert resumed.given == list(range(StopsAt.step + 1, STEPS))
    assert metrics.curves == expected.curves
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in log.Scalars("loss/loss")] == [5, 10, 12]


@pytest.mark.parametrize("step", [2, 6])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_the_step_and_keeps_the_state_before(run, tmp_path, step, value):
    class Diverges(Toy):
        def __call__(self, source: Tensor, target: int, factor: float) -> dict[str, Tensor]:
            losses = super().__call__(source, target, factor)
            return {**losses, "loss": losses["loss"] + value} if target == step else losses

    kept = r"the state after step 4 is kept" if step > 4 else r"no state was saved before"
    with pytest.raises(
        UserError,
        match=rf"^k1/toy: training diverged: the loss is not finite \(loss\) in step {step + 1} of "
        rf"{STEPS}; {kept}\. Lower toy\.lr, or use precision=32-true, and run again with --replace",
    ):
        train(run, tmp_path / "stage", Diverges(run.fabric))
    for file in (tmp_path / "stage").glob("checkpoint-*[0-9].pt"):
        state = torch.load(file, weights_only=True)
        if "network" in state:
            assert all(weight.isfinite().all() for weight in state["network"].values())


def test_weights_that_are_not_finite_are_named(run, tmp_path):
    class Breaks(Toy):
        def __call__(self, source: Tensor, target: int, factor: float) -> dict[str, Tensor]:
            losses = super().__call__(source, target, factor)
            with torch.no_grad():
                self.network.bias.fill_(float("inf"))
            return losses | {"loss": torch.zeros(())}

    run = Run(tmp_path, run.fabric, run.console, title="k1/toy", checkpoint_every=1)
    with pytest.raises(UserError, match=r"weights are not finite \(network\.bias\) in step 1 of"):
        train(run, tmp_path / "stage", Breaks(run.fabric))
    assert not (tmp_path / "stage/checkpoint.json").exists()


def test_a_discriminator_that_has_won_is_warned_of():
    low = [{"step": 10 * n, "judge": 1e-4, "other": 0.2} for n in range(1, 11)]
    (warning,) = collapsed(low, ["judge", "other", "missing"])
    assert warning.startswith("judge: its loss has been below 0.001 up to step 100")
    assert collapsed(low[:9], ["judge"]) == []
    assert collapsed([*low[:9], {"step": 95, "judge": 0.1}, low[9]], ["judge"]) == []
