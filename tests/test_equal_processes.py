"""What several processes train is what one trains with the same batch: losses, step by step.

Batch norm is frozen here: its statistics are those of a process's own images (docs/multi_gpu.md).
All is computed in double precision: in single, rounding, which depends on the size of a process's
batch, now and then turns the sign of a value before a ReLU, and one such sign changes the
translator's gradients by one per cent.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bdl.runtime.config import load_config
from bdl.runtime.device import make_fabric
from bdl.runtime.errors import UserError
from tests.helpers.runs import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STAGES = ["source-only", "k1/translator", "k1/segmentation-0", "k1/segmentation-1"]

# Without stages: the whole run by one process. Else these, anew, each in the copy of a finished run
# that is named after its number.
TRAIN = """\
import sys
import torch
from bdl.domains import class_shares, tensors


def to_unit(images):
    return images.to(torch.float64, memory_format=torch.channels_last).div_(255)


torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # what leaves bf16 elsewhere stays double here
tensors.to_unit = to_unit  # before the modules that import it
# After so few steps all is one class to a network, and would get no pseudo labels.
class_shares.collapsed_into = lambda predicted, labels: None
torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)

from bdl import pipeline
from bdl.commands.ablate import processes
from bdl.execution import Loop
from bdl.runtime.config import load_config
from bdl.runtime.console import spoken

if __name__ == "__main__":
    _, file, folder, stages, *overrides = sys.argv
    if not stages:
        arguments = ["run", "--quiet", "--config", file, f"out={folder}", *overrides]
        sys.exit(pipeline.main(arguments))
    stages = stages.split(",")
    with spoken(-1) as console:
        configs = [load_config(file, [*overrides, f"out={folder}/{n}"]) for n in range(len(stages))]
        loops = [Loop.of(config, console) for config in configs]
        with processes(loops):
            for stage, loop in zip(stages, loops, strict=True):
                loop.run_single(stage, again=True)
"""


@pytest.fixture(scope="module")
def overrides() -> list[str]:
    # Colours are changed and classes mixed, too; a row of the curves for each step; the pool of
    # fakes never fills, as what is taken from a full one is drawn by each process.
    colors = "segmentation.augmentation={hue: 0.1, crop: [48, 32]}"
    mixing, pool = "segmentation.class_mixing=true", "translation.pool_size=40"
    few = {"layout": "streets", "scenes": 3, "appearance": "real"}
    labelled = [f"data.target_labelled.{key}={value}" for key, value in few.items()]
    return ["iterations=1", "log_every=1", colors, mixing, pool, *labelled]


@pytest.fixture(scope="module")
def alone(tiny_config, overrides, tmp_path_factory) -> RunFolder:
    """The run by one process."""
    place = tmp_path_factory.mktemp("alone")
    folder = place / "run"
    train(place, tiny_config, folder, "", overrides)
    return RunFolder(folder)


def train(place: Path, config: Path, folder: Path, stages: str, overrides: list[str]) -> None:
    command, environment = started(place, config, folder, [stages, *overrides])
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def started(
    place: Path, config: Path, folder: Path, arguments: list[str]
) -> tuple[list[str | Path], dict]:
    """Command and environment of the script above, which is written to `place`."""
    script = place / "train.py"
    script.write_text(TRAIN, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [script, config, folder, *arguments], environment


def require_same_curves(made: RunFolder, alone: RunFolder, stage: str) -> None:
    found = made.read(f"{stage}/metrics.json")["curves"]
    expected = alone.read(f"{stage}/metrics.json")["curves"]
    assert len(expected) > 5
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-9), (stage, row)


def test_two_processes_have_the_losses_of_one(tiny_config, alone, overrides, tmp_path):
    for number in range(len(STAGES)):
        alone.copy(tmp_path / str(number))
    train(tmp_path, tiny_config, tmp_path, ",".join(STAGES), [*overrides, "devices=2"])
    for number, stage in enumerate(STAGES):
        made = RunFolder(tmp_path / str(number))
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
    command, environment = started(tmp_path, tiny_config, tmp_path, [stage, *overrides, "nodes=2"])
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
    made = RunFolder(tmp_path / "0")
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


def test_an_error_that_all_processes_of_torchrun_meet_is_one_line(tiny_config, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command = ["pipeline.py", "run", "--config", tiny_config, f"out={tmp_path}", "devices=2"]
    done = subprocess.run(
        [*torchrun, *command, "translation.crops=[8,8]"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.count("error: command line: unknown key 'translation.crops'") == 1


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
