"""TensorBoard: one log directory for the loop, names that sort into its order."""

from pathlib import Path
from typing import Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter


class Tracker:
    """Scalars and images of one stage, below `folder`/NAME; silent on all processes but one."""

    def __init__(self, folder: Path, name: str, writing: bool) -> None:
        self.name = name
        self._writer = SummaryWriter(str(folder / name)) if writing else None

    def scalars(self, row: dict[str, float]) -> None:
        """A row of curves: "step" and named values."""
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(row["step"]))

    def image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """H x W x 3 uint8."""
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        if self._writer is not None:
            self._writer.add_text(name, text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
