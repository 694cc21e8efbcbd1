"""What tests share: one thread, a silent console, and one run of the whole loop, made tiny."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric

import pipeline
from runtime.console import Console

torch.set_num_threads(1)

RESULTS = "results.json"

# K = 2, N = 1 with every part of the method, in seconds. Checkpoints fall inside the trainings.
TINY = """\
iterations: 2
self_training_steps: 1
device: cpu
log_every: 3
checkpoint_every: 4
data:
  label_space: camvid11
  source: {layout: streets, scenes: 6, size: [64, 32], appearance: synthetic}
  target: {layout: streets, scenes: 5, size: [64, 32], appearance: real}
  validation: {layout: streets, scenes: 3, size: [64, 32], appearance: real}
  workers: 0
translation:
  load_width: null
  crop: [32, 32]
  batch_size: 2
  constant_epochs: 2
  decay_epochs: 2
  steps_per_epoch: 2
  generator: {width: 4, blocks: 1}
  discriminator_width: 4
  pool_size: 3
segmentation:
  network: compact
  options: {width: 4, dilations: [1, 2]}
  steps: 10
  pseudo_label_steps: 7
  batch_size: 2
  optimizer: {name: adamw, lr: 5.0e-3, head_multiplier: 1, weight_decay: 0.01}
  schedule: {name: poly, steps: 12}
  adversarial: {weight: 0.01, width: 4}
  augmentation: {flip: true, brightness: 0.1}
"""


@dataclass(frozen=True)
class Run:
    """The folder of a run of the tiny configuration, and what it printed."""

    folder: Path
    output: str = ""

    def read(self, name: str) -> Any:
        """A JSON file below the folder."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of results.json without what no two runs share: the seconds."""
        return [{k: v for k, v in row.items() if k != "seconds"} for row in self.read(RESULTS)]

    def weights(self) -> dict[str, torch.Tensor]:
        """Every tensor of every network, by stage and name."""
        found = {}
        for kind in ("segmenter", "translator"):
            for file in self.folder.rglob(f"{kind}.pt"):
                stage = file.parent.relative_to(self.folder).as_posix()
                state = torch.load(file, weights_only=True)["state"]
                found |= {f"{stage}: {name}": value for name, value in state.items()}
        return found

    def copy(self, folder: Path) -> "Run":
        shutil.copytree(self.folder, folder)
        return Run(folder)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("configuration") / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny configuration from nothing to its report. Tests look at it and leave it alone."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pipeline.main(["run", "--config", str(tiny_config), f"out={folder}"])
    assert status == 0
    return Run(folder, said.getvalue())


@pytest.fixture
def command(tiny_config: Path) -> Callable[..., int]:
    """The command line with the tiny configuration: command("run", "seed=1") -> exit status."""

    def call(name: str, *arguments: object) -> int:
        return pipeline.main([name, "--config", str(tiny_config), *map(str, arguments)])

    return call


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def console() -> Console:
    return Console(speaking=False)
