"""What several processes train is what one trains with the same batch: losses, step by step.

Batch norm is frozen here: its statistics are those of a process's own images (docs/multi_gpu.md).
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pipeline
from runtime.config import load_config
from runtime.device import make_fabric
from runtime.errors import UserError
from tests.conftest import Run

ROOT = Path(__file__).parents[1]
STAGES = ["source-only", "k1/translator", "k1/segmentation-0", "k1/segmentation-1"]
# Steps whose losses are compared. Of the translator only those of the first, made before an update,
# agree: the updates have not been shown to.
EXACT_STEPS = {"k1/translator": 1}

# Trains the stages anew, each in the copy of a finished run that is named after it.
STAGE_BY_STAGE = """\
import sys
import torch
from pipeline import Loop, processes
from runtime.config import load_config

torch.set_num_threads(1)
torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)

if __name__ == "__main__":
    _, file, folder, stages, *overrides = sys.argv
    config = load_config(file, overrides)
    with processes(config, -1) as (fabric, console):
        for number, stage in enumerate(stages.split(",")):
            config.out = f"{folder}/{number}"
            Loop(config, fabric, console).run_single(stage, again=True)
"""


def frozen(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    return torch.nn.Module.train(self, False)


@pytest.fixture(scope="module")
def overrides() -> list[str]:
    # Colours are changed, too; a row of the curves for each step; the pool of fakes never fills,
    # as what is taken from a full one is drawn by each process.
    colors, pool = "segmentation.augmentation.hue=0.1", "translation.pool_size=40"
    return ["iterations=1", "log_every=1", colors, pool]


@pytest.fixture(scope="module")
def alone(tiny_config, overrides, tmp_path_factory) -> Run:
    """A run by one process with frozen batch norm."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.BatchNorm2d, "train", frozen)
        arguments = ["run", "--quiet", "--config", str(tiny_config), f"out={folder}", *overrides]
        assert pipeline.main(arguments) == 0
    return Run(folder)


def started(place: Path, config: Path, arguments: list[str]) -> tuple[list[str | Path], dict]:
    script = place / "stage_by_stage.py"
    script.write_text(STAGE_BY_STAGE, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return [script, config, place, *arguments], environment


def require_same_curves(made: Run, alone: Run, stage: str) -> None:
    found = made.read(f"{stage}/metrics.json")["curves"]
    expected = alone.read(f"{stage}/metrics.json")["curves"]
    steps = EXACT_STEPS.get(stage, 5)
    assert len(found) == len(expected) > steps
    for row, other in zip(found[:steps], expected, strict=False):
        assert row.keys() == other.keys()
        for name in row:
            assert row[name] == pytest.approx(other[name], rel=1e-5, abs=1e-7), (stage, row)


def test_two_processes_have_the_losses_of_one(tiny_config, alone, overrides, tmp_path):
    for number in range(len(STAGES)):
        alone.copy(tmp_path / str(number))
    command, environment = started(
        tmp_path, tiny_config, [",".join(STAGES), *overrides, "devices=2"]
    )
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for number, stage in enumerate(STAGES):
        made = Run(tmp_path / str(number))
        assert made.read(f"{stage}/manifest.json")["processes"] == 2
        require_same_curves(made, alone, stage)


def test_shares_have_different_numbers_of_labelled_pixels(alone):
    """Else the test above could not tell a mean of means from the mean."""
    shares = alone.read("k1/pseudo-labels-1/metrics.json")
    assert 0 < shares["kept"] < 1


def test_two_machines_started_by_torchrun_train_as_one(tiny_config, alone, overrides, tmp_path):
    """Two agents of torchrun on this machine, one process each, stand for two machines."""
    stage = STAGES[2]
    alone.copy(tmp_path / "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = started(tmp_path, tiny_config, [stage, *overrides, "nodes=2"])
    agents = []
    for node in (0, 1):
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
        ]
        torchrun += [f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        agents.append(
            subprocess.Popen(
                [*torchrun, *command], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    said = [agent.communicate()[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    made = Run(tmp_path / "0")
    assert made.read(f"{stage}/manifest.json")["processes"] == 2
    require_same_curves(made, alone, stage)


def test_torchrun_runs_the_command_line(tiny_run, tiny_config, tmp_path):
    run = tiny_run.copy(tmp_path / "run")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command = ["pipeline.py", "evaluate", "--k", "0", "--again", "--config", tiny_config]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *command, f"out={run.folder}", "devices=2"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file = "source-only/evaluation/metrics.json"
    assert run.read("source-only/evaluation/manifest.json")["processes"] == 2
    assert run.read(file) == tiny_run.read(file)


@pytest.mark.parametrize(
    ("environment", "settings", "message"),
    [
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}, [], "set devices=2 nodes=1"),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, ["devices=4"], "set devices=4 nodes=2"),
        ({}, ["nodes=2"], "nodes: is 2, but nobody has started"),
    ],
)
def test_other_numbers_of_processes_are_refused(
    environment, settings, message, tiny_config, monkeypatch
):
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    batch = ["translation.batch_size=8", "segmentation.batch_size=8"]
    with pytest.raises(UserError, match=message):
        make_fabric(load_config(tiny_config, [*settings, *batch]))
