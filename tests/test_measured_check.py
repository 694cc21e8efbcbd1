"""`check --measure`: real steps of every kind of stage, and nothing left behind."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bdl.commands.trial import Cost, StepTimes, describe_costs, measure, trial_of
from bdl.domains.problem import Problem
from bdl.pipeline import algorithm
from bdl.runtime.config import load_config
from bdl.runtime.run import Run
from bdl.runtime.stage import Stage


@dataclass(frozen=True, eq=False, kw_only=True)
class Toy(Stage):
    called: str
    unit: str = "steps"
    work: int = 10

    @property
    def name(self) -> str:
        return self.called

    @property
    def cost(self) -> str:
        return self.called.rpartition("/")[2]

    def make(self, run: Run, folder: Path) -> None:
        raise RuntimeError("broken")


def test_every_kind_of_stage_is_measured_and_nothing_stays(command, tmp_path, capsys):
    folder = tmp_path / "run"
    assert command("check", "--measure", f"out={folder}") == 0
    said = capsys.readouterr().out
    table = said[said.index("measured on cpu") :]
    for kind in (
        "data/source",
        "source-only",
        "evaluation",
        "translator",
        "translated",
        "translated/measures",
        "segmentation-0",
        "pseudo-labels-i",
        "segmentation-i",
    ):
        assert f"\n  {kind} " in table
    # Both rounds: 2 x 10 steps of M(k,0), 2 x 7 of M(k,1), 2 x 6 of F(k).
    for kind, work in (("segmentation-0", 20), ("segmentation-i", 14), ("translator", 12)):
        line = next(line for line in table.splitlines() if line.startswith(f"  {kind} "))
        assert line.split()[1:3] == [str(work), "steps"]
    assert "all that is to run: 0.0" in table
    # Of trials that are done in seconds nothing is told but what they gave.
    assert said[: said.index("measured on cpu")].splitlines()[-1].startswith("no problem found")
    assert not folder.exists()


def test_stages_that_cost_the_same_share_a_name(tiny_config, tmp_path):
    config = load_config(tiny_config, ["self_training_steps=3", f"out={tmp_path}"])
    costs = {stage.name: stage.cost for stage in algorithm(config, Problem(config.data, tmp_path))}
    assert costs["source-only"] == "source-only"
    assert costs["k2/segmentation-0"] == "segmentation-0"
    assert costs["k2/segmentation-3"] == costs["k1/segmentation-1"] == "segmentation-i"
    assert costs["k1/pseudo-labels-3"] == "pseudo-labels-i"
    assert costs["k1/translator"] == costs["k2/translator"] == "translator"
    assert costs["k1/segmentation-1/evaluation"] == costs["source-only/evaluation"] == "evaluation"


def test_costs_add_up():
    """Steps are the same for all processes, images are shared out."""
    to_run = [Toy(called=f"k{k}/translator", work=600) for k in (1, 2)]
    to_run.append(Toy(called="k1/translated", work=1200, unit="images"))
    costs = {"translator": Cost(3.0, 2_000_000_000), "translated": Cost(6.0, None)}
    lines = describe_costs(costs, to_run, 2, "cpu").splitlines()
    assert " ".join(lines[1].split()) == "translator 1200 steps 3 s each 1 h 00 min 2.0 GB"
    assert " ".join(lines[2].split()) == "translated 1200 images 6 s each 1 h 00 min"
    assert lines[3] == "  all that is to run: 2.00 hours (2 h 00 min)"


def test_a_trial_has_one_devices_share_of_a_batch(tiny_config, tmp_path):
    overrides = ["devices=2", "translation.batch_size=4", "translation.trust=measured"]
    config = load_config(tiny_config, overrides)
    small = trial_of(config, tmp_path)
    assert (small.devices, small.translation.batch_size, small.segmentation.batch_size) == (1, 2, 1)
    assert config.devices == 2 and config.translation.batch_size == 4
    assert small.translation.trust == "full"  # its steps cost what a trusted network's do


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(error, command, tmp_path, monkeypatch, capsys):
    def too_large(*_, **__):
        raise error

    monkeypatch.setattr("bdl.translation.train.train_translator", too_large)
    assert command("check", "--measure", f"out={tmp_path / 'run'}") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: k1/translator: does not fit into memory; lower translation.crop")


def test_other_errors_are_not_hidden(tmp_path, fabric, console):
    run = Run(tmp_path, fabric, console)
    with pytest.raises(RuntimeError, match="broken"):
        measure(run, StepTimes(), [Toy(called="source-only")], {"source-only"})


def test_fit_prints_settings_that_run_as_planned(command, tmp_path, capsys):
    """What it says can be copied; what is given stays; no folder is made."""
    folder = tmp_path / "run"
    given = [f"out={folder}", "translation.batch_size=1"]
    assert command("check", "--fit", "--hours", "0.5", *given) == 0
    said = capsys.readouterr().out
    assert "the plan:" in said and "  translation.batch_size: as given" in said
    (line,) = (line for line in said.splitlines() if line.startswith("to use it, add to"))
    settings = line.partition(": ")[2].split()
    assert not any(setting.startswith("translation.batch_size=") for setting in settings)
    assert any(setting.startswith("segmentation.steps=") for setting in settings)
    (hours,) = (line.split()[3] for line in said.splitlines() if line.startswith("it takes about"))
    assert float(hours) <= 0.5
    assert not folder.exists()
    assert command("check", *given, *settings) == 0


def test_hours_without_fit_are_refused(command, capsys):
    assert command("check", "--hours", "2") == 2
    assert "--hours: goes with --fit" in capsys.readouterr().err
