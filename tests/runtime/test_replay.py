"""runtime/replay.py: replayed steps do what computed ones do, or are not replayed."""

import logging
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bdl.runtime.replay import WARM_UP, Outputs, Replay, difference, make_replay, replay_needs
from tests.helpers.recorder import Recorder

CPU = torch.device("cpu")


class Regression:
    """A step of one part: a line learns from points, at rates that may change."""

    def __init__(self, recorder: Recorder | None) -> None:
        torch.manual_seed(0)
        self.line = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.line.parameters(), 0.1, momentum=0.9, fused=True)
        self.replay = Replay([self.line, self.optimizer], CPU, recorder)
        self.spoil: Callable[[Tensor], Tensor] = lambda loss: loss

    def __call__(self, points: Tensor, values: Tensor, rate: float) -> Outputs:
        for group in self.optimizer.param_groups:
            self.replay.set_rate(group, rate)
        return self.replay(self.learn, points, values)

    def learn(self, points: Tensor, values: Tensor) -> Outputs:
        self.optimizer.zero_grad()
        loss = self.spoil((self.line(points)[:, 0] - values).square().mean())
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}

    def state(self) -> list[Tensor]:
        momenta = [state["momentum_buffer"] for state in self.optimizer.state.values()]
        return [*self.line.state_dict().values(), *momenta]


def batches(count: int) -> list[tuple[Tensor, Tensor, float]]:
    random = torch.Generator().manual_seed(1)
    return [
        (torch.rand(4, 2, generator=random), torch.rand(4, generator=random), 0.1 / (1 + step))
        for step in range(count)
    ]


def test_replayed_steps_learn_as_computed_ones():
    """With momentum, batch statistics and a rate that changes; losses stay what they were."""
    computed, replayed = Regression(None), Regression(Recorder())
    losses = [[step(*batch)["loss"] for batch in batches(12)] for step in (computed, replayed)]
    assert replayed.replay.replayed == 12 - WARM_UP and not replayed.replay.warning
    assert torch.stack(losses[1]).tolist() == pytest.approx(torch.stack(losses[0]).tolist())
    for one, other in zip(computed.state(), replayed.state(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_computed_step_is_left_as_it_is():
    """Rates are numbers, and nothing is copied."""
    step = Regression(None)
    points, values, _ = batches(1)[0]
    outputs = step(points, values, 0.25)
    assert step.optimizer.param_groups[0]["lr"] == 0.25
    assert outputs["loss"].grad_fn is not None


@pytest.mark.parametrize("moment", ["record", "replay"])
def test_what_cannot_be_recorded_is_computed_with_one_warning(caplog, monkeypatch, moment):
    recorder = Recorder()
    computed, step = Regression(None), Regression(recorder)
    if moment == "record":  # a step that waits for a result
        step.spoil = lambda loss: loss * (1 if loss.item() > -1 else 2)
    else:  # a graph that fails

        def fail() -> None:
            raise RuntimeError("CUDA error: no such thing\nand more")

        monkeypatch.setattr(recorder, "record", lambda work: (fail, work()))
    logging.getLogger("bdl").propagate = True
    with caplog.at_level(logging.WARNING, "bdl"):
        for batch in batches(12):
            computed(*batch)
            step(*batch)
    assert step.replay.replayed == 0
    assert len(caplog.records) == 1 and step.replay.warning in caplog.text
    assert "steps are not replayed (" in caplog.text
    for one, other in zip(computed.state(), step.state(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)  # a rate was a float32


@pytest.mark.parametrize("fault", ["loss", "networks"])
def test_a_replay_that_does_otherwise_does_not_count(fault):
    """Found before the first one counts; what it did to the networks is taken back."""

    class Wrong(Recorder):
        def record(self, work):
            again, outputs = super().record(work)

            def wrong() -> None:
                again()
                if fault == "loss":
                    outputs["loss"].mul_(1.01)
                else:
                    with torch.no_grad():
                        step.line[0].weight.mul_(1.01)

            return wrong, outputs

    computed, step = Regression(None), Regression(Wrong())
    for batch in batches(9):
        computed(*batch)
        step(*batch)
    assert step.replay.replayed == 0
    said = {"loss": "loss is .* in place of", "networks": "the networks differ by"}[fault]
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(step.replay.warning)
    for one, other in zip(computed.state(), step.state(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_images_of_other_sizes_are_computed(caplog):
    computed, step = Regression(None), Regression(Recorder())
    given = batches(9)
    given[7] = (given[7][0][:3], given[7][1][:3], given[7][2])
    for batch in given:
        computed(*batch)
        step(*batch)
    assert step.replay.replayed == 7 - WARM_UP
    assert "the sizes of images change" in step.replay.warning
    for one, other in zip(computed.state(), step.state(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_saved_state_goes_on_replayed_or_computed():
    """Rates that were tensors are read by a step that has numbers, and the other way round."""
    for before, after in ((Recorder(), None), (None, Recorder())):
        whole, first = Regression(None), Regression(before)
        for batch in batches(18):
            whole(*batch)
        for batch in batches(18)[:9]:
            first(*batch)
        second = Regression(after)
        second.line.load_state_dict(first.line.state_dict())
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        for batch in batches(18)[9:]:
            second(*batch)
        assert (second.replay.replayed > 0) == (after is not None)
        for one, other in zip(whole.state(), second.state(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_cpu_computes_whatever_is_asked(fabric):
    assert replay_needs(fabric) == "a CUDA device"
    for wanted in (False, True):
        replay = make_replay(fabric, wanted, [])
        assert not replay.records
        assert replay(lambda: {"loss": torch.tensor(1.0)})["loss"] == 1


@given(
    spread=st.floats(0, 0.1),
    apart=st.floats(0, 0.5),
    moved=st.floats(0.01, 10),
)
def test_what_may_differ_is_what_computed_steps_differ_by(spread, apart, moved):
    """In networks: three times the spread and a thousandth of the step."""
    state = [torch.tensor(x, dtype=torch.float64) for x in (0.0, moved, moved + spread)]
    before, first, other = ([value] for value in state)
    replayed = [first[0] + apart]
    loss = {"loss": 1.0}
    found = difference(before, (loss, first), (loss, other), (loss, replayed))
    allowed = 3 * spread + moved / 1000
    if abs(apart - allowed) > 1e-9:
        assert bool(found) == (apart > allowed)


def test_a_loss_that_is_no_number_is_no_agreement():
    state = [torch.zeros(1)]
    loss, nan = {"loss": 1.0}, {"loss": float("nan")}
    assert not difference(state, (loss, state), (loss, state), (loss, state))
    assert "loss is nan" in difference(state, (loss, state), (loss, state), (nan, state))
