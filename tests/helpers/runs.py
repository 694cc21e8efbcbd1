"""Runs of a tiny configuration, and where a run keeps what is not finished."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
  trust: full  # a network of ten steps knows nothing
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
class RunFolder:
    """The folder of a run of the tiny configuration, and what it printed."""

    folder: Path
    output: str = ""

    def read(self, name: str) -> Any:
        """A JSON file below the folder."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of results.json without what no two runs share: the seconds."""
        return [
            {k: v for k, v in row.items() if k != "seconds"} for row in self.read("results.json")
        ]

    def weights(self) -> dict[str, torch.Tensor]:
        """Every tensor of every network, by stage and name."""
        found = {}
        for kind in ("segmenter", "translator"):
            for file in self.folder.rglob(f"{kind}.pt"):
                stage = file.parent.relative_to(self.folder).as_posix()
                state = torch.load(file, weights_only=True)["state"]
                found |= {f"{stage}: {name}": value for name, value in state.items()}
        return found

    def copy(self, folder: Path) -> "RunFolder":
        shutil.copytree(self.folder, folder)
        return RunFolder(folder)


def unfinished(run: Path, stage: str) -> Path:
    """The folder in which the stage of that name is being made."""
    folder = run / stage
    (workshop,) = folder.parent.glob(f"{folder.name}.unfinished-*")
    return workshop
