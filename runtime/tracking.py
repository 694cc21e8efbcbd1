"""TensorBoard: one log directory for the loop, names that sort into its order."""

import re
import shutil
from pathlib import Path
from typing import Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter

WHOLE_LOOP = "all-networks"  # the log of the whole loop: a point for each network


def log_name(stage: str) -> str:
    """The log folder of a stage, so that they sort as the loop runs: "k1-00-translator",
    "k1-02-segmentation-0", "k1-03-pseudo-labels-1"; other names stay as they are."""
    if stage == "source-only":
        return "k0-00-source-only"
    parts = re.fullmatch(r"k(\d+)/(\D+?)-?(\d*)", stage)
    if parts is None:
        return stage
    k, kind, i = parts[1], parts[2], int(parts[3] or 0)
    places = {
        "translator": 0,
        "translated": 1,
        "segmentation": 2 * i + 2,
        "pseudo-labels": 2 * i + 1,
    }
    return f"k{k}-{places[kind]:02d}-{stage.partition('/')[2]}"


class Tracker:
    """Scalars and images of one stage, below `folder`; silent on all processes but one.

    What an earlier process logged of the stage goes: it may reach beyond the state that this one
    goes on from. `begin` writes again what still counts.
    """

    def __init__(self, folder: Path, name: str, writing: bool) -> None:
        self.name = name
        self._writer: SummaryWriter | None = None
        if writing:
            place = folder / log_name(name)
            shutil.rmtree(place, ignore_errors=True)  # stays where a viewer has it open on Windows
            # A viewer that is open, or that finds the old files, is told that they are void.
            self._writer = SummaryWriter(str(place), purge_step=0)

    def begin(self, rows: list[dict[str, float]]) -> None:
        """Write again the rows that were closed before this process began."""
        for row in rows:
            self.scalars(row)

    def scalars(self, row: dict[str, float]) -> None:
        """A row of curves: "step", "lr", and loss terms, or values whose names give their group
        ("IoU/road")."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "step":
                grouped = {"lr": "learning rate"}.get(name, name if "/" in name else f"loss/{name}")
                self._writer.add_scalar(grouped, value, int(row["step"]))

    def image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """H x W x 3 uint8."""
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Markdown."""
        if self._writer is not None:
            self._writer.add_text(name, text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
