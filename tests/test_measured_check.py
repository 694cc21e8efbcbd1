"""`check --measure`: real steps of every kind of stage, and nothing left behind."""

import pytest
import torch

from runtime import trial
from runtime.config import load_config
from runtime.stages import Stage
from runtime.trial import Cost, describe_costs, kind_of, measure, trial_of


def stage(name: str, kind: str, work: int = 10, unit: str = "steps") -> Stage:
    return Stage(name, kind, {}, (), lambda folder: {}, work, unit)


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
    assert not folder.exists()


def test_kinds():
    assert kind_of(stage("k2/segmentation-0", "segment")) == "segmentation-0"
    assert kind_of(stage("k2/segmentation-3", "segment")) == "segmentation-i"
    assert kind_of(stage("k1/pseudo-labels-12", "pseudo-label")) == "pseudo-labels-i"
    assert kind_of(stage("k1/translator", "translate")) == "translator"
    assert kind_of(stage("source-only", "segment")) == "source-only"
    assert kind_of(stage("k1/segmentation-1/evaluation", "evaluate")) == "evaluation"


def test_costs_add_up():
    """Steps are the same for all processes, images are shared out."""
    to_run = [stage("k1/translator", "translate", 600), stage("k2/translator", "translate", 600)]
    to_run.append(stage("k1/translated", "export", 1200, "images"))
    costs = {"translator": Cost(3.0, 2_000_000_000), "translated": Cost(6.0, None)}
    lines = describe_costs(costs, to_run, 2, "cpu").splitlines()
    assert " ".join(lines[1].split()) == "translator 1200 steps 3 s each 1 h 00 min 2.0 GB"
    assert " ".join(lines[2].split()) == "translated 1200 images 6 s each 1 h 00 min"
    assert lines[3] == "  all that is to run: 2.00 hours (2 h 00 min)"


def test_a_trial_has_one_devices_share_of_a_batch(tiny_config, tmp_path):
    config = load_config(tiny_config, ["devices=2", "translation.batch_size=4"])
    small = trial_of(config, tmp_path)
    assert (small.devices, small.translation.batch_size, small.segmentation.batch_size) == (1, 2, 1)
    assert config.devices == 2 and config.translation.batch_size == 4


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

    monkeypatch.setattr("pipeline.train_translator", too_large)
    assert command("check", "--measure", f"out={tmp_path / 'run'}") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: k1/translator: does not fit into memory; lower translation.crop")


def test_other_errors_are_not_hidden(tmp_path):
    def broken(folder):
        raise RuntimeError("broken")

    stages = [Stage("source-only", "segment", {}, (), broken, 1, "steps")]
    with pytest.raises(RuntimeError, match="broken"):
        measure(stages, {"source-only"}, tmp_path, trial.StepTimes())
