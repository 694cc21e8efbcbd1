"""States within a training: whole, found again, and the old one kept until the new one is there."""

import json

import pytest
import torch

from bdl.runtime.checkpoint import Checkpoint, Curves
from bdl.runtime.errors import UserError
from bdl.translation.pool import FakePool


class Training:
    """A network with momentum, curves, and a pool of its own."""

    def __init__(self, fabric, folder, seed: int) -> None:
        torch.manual_seed(seed)
        self.network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        self.optimizer = torch.optim.Adam(self.network.parameters(), 0.1)
        self.curves, self.pool = Curves(), FakePool(2, seed)
        shared = {"network": self.network, "optimizer": self.optimizer, "curves": self.curves}
        self.checkpoint = Checkpoint(fabric, folder, shared, {"pool": self.pool})

    def steps(self, count: int) -> list[float]:
        values = []
        for _ in range(count):
            loss = self.network(torch.rand(4, 3)).square().mean()  # draws from torch's state
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.curves.add({"loss": loss})
            fake = self.pool.exchange(torch.rand(1, 3, 2, 2))
            values += [loss.item(), fake.sum().item()]
        return values


def test_a_restored_training_goes_on_bit_for_bit(fabric, tmp_path):
    first = Training(fabric, tmp_path, seed=0)
    first.steps(5)
    first.checkpoint.save(5)
    expected = first.steps(4)
    second = Training(fabric, tmp_path, seed=1)
    assert second.checkpoint.restore() == 5
    assert second.steps(4) == expected
    assert second.curves.close_row(9) == first.curves.close_row(9)


def test_without_a_state_training_begins_at_0(fabric, tmp_path):
    training = Training(fabric, tmp_path, seed=0)
    before = training.network[0].weight.clone()
    assert training.checkpoint.restore() == 0
    assert torch.equal(training.network[0].weight, before)


def test_one_state_is_kept(fabric, tmp_path):
    training = Training(fabric, tmp_path, seed=0)
    for step in (3, 6):
        training.checkpoint.save(step)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint-00000006-process-0.pt",
        "checkpoint-00000006.pt",
        "checkpoint.json",
    ]


@pytest.mark.parametrize(
    "name",
    ["checkpoint-notes.pt", "checkpoint-00000003.pt.bak", "checkpoint-3.pt", "checkpoint-best.pth"],
)
def test_files_of_others_are_no_states_and_stay(fabric, tmp_path, name):
    """Whatever their names begin with; what a kill left of one of ours goes."""
    (tmp_path / name).write_text("mine")
    (tmp_path / "checkpoint-00000002.pt.bdl-partial").write_text("half")
    training = Training(fabric, tmp_path, seed=0)
    for step in (3, 6):
        training.checkpoint.save(step)
    assert (tmp_path / name).read_text() == "mine"
    assert not list(tmp_path.glob("*.bdl-partial"))
    assert Training(fabric, tmp_path, seed=1).checkpoint.restore() == 6


def test_a_kill_while_saving_leaves_the_state_before(fabric, tmp_path, monkeypatch):
    """Killed right before the pointer is moved, with the files of the new state there already."""
    training = Training(fabric, tmp_path, seed=0)
    training.steps(2)
    training.checkpoint.save(2)
    expected = training.network[0].weight.detach().clone()
    training.steps(2)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bdl.runtime.checkpoint.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            training.checkpoint.save(4)
    resumed = Training(fabric, tmp_path, seed=1)
    assert resumed.checkpoint.restore() == 2
    assert torch.equal(resumed.network[0].weight, expected)
    resumed.steps(2)
    resumed.checkpoint.save(4)
    assert Training(fabric, tmp_path, seed=2).checkpoint.restore() == 4


def test_another_number_of_processes_is_refused(fabric, tmp_path):
    training = Training(fabric, tmp_path, seed=0)
    training.checkpoint.save(2)
    pointer = json.loads((tmp_path / "checkpoint.json").read_text())
    (tmp_path / "checkpoint.json").write_text(json.dumps({**pointer, "processes": 4}))
    with pytest.raises(UserError, match=r"was begun with devices=4; go on with as many"):
        training.checkpoint.restore()


def test_curves_are_means_between_rows():
    curves = Curves()
    for value in (1.0, 2.0, 6.0):
        curves.add({"loss": torch.tensor(value), "other": torch.tensor(1.0)})
    assert curves.close_row(3, lr=0.5) == {"step": 3, "loss": 3.0, "other": 1.0, "lr": 0.5}
    curves.add({"loss": torch.tensor(7.0, requires_grad=True)})
    assert curves.close_row(4) == {"step": 4, "loss": 7.0}
    assert [row["step"] for row in curves.rows] == [3, 4]


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
            ],
        ),
    ],
)
def test_curves_restored_from_the_cpu_go_on_with_values_of_the_device(device):
    before, curves = Curves(), Curves()
    before.add({"loss": torch.tensor(1.0)})
    curves.load_state_dict(before.state_dict())
    curves.add({"loss": torch.tensor(3.0, device=device)})
    assert curves.first_not_finite() is None
    assert curves.close_row(2)["loss"] == 2
